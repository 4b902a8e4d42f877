//! `[masking]`: whether results are masked, by which rule where policies name none, and columns that are tagged by hand.

use std::path::PathBuf;

use guard_policy::{Mask, vocabulary::DataKind};
use serde::{Deserialize, Serialize};

use crate::catalog::{ColumnTag, Pattern};

/// Most tags of one column.
const MAX_TAGS: usize = 32;

/// Masking of sensitive data in results.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskingConfig {
    /// Mask what no policy reveals. In monitor mode nothing is altered: the record says what would have been.
    pub enabled: bool,
    /// The rule where policies name none: `full`, `partial`, `hash`, `null` or `fixed:TEXT`.
    pub default: String,
    /// Tell clients with a NOTICE which columns of a result are masked.
    pub notice: bool,
    /// The key of the rule `hash`: made at the first start, where it does not exist. Deleted, values get other hashes.
    /// `masking.key` in the state folder where it is not named.
    pub hash_key_file: Option<PathBuf>,
    /// Longest row in MiB that is rewritten; a longer one that would have to be ends its session.
    pub max_row_mib: usize,
    /// Columns whose content is known, whatever they are called.
    pub columns: Vec<TaggedColumn>,
}

impl Default for MaskingConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            default: "full".to_owned(),
            notice: false,
            hash_key_file: None,
            max_row_mib: 64,
            columns: Vec::new(),
        }
    }
}

/// What is known of a column by hand.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TaggedColumn {
    /// The server; every one where it is not said.
    #[serde(default)]
    pub server: Option<String>,
    /// The database; every one where it is not said.
    #[serde(default)]
    pub database: Option<String>,
    /// `schema.table`, or `table` for every schema.
    pub table: String,
    /// The column.
    pub column: String,
    /// A kind of data (`email`), tags of your own for policies to read, or `none` for what is not sensitive.
    pub tags: Vec<String>,
}

impl TaggedColumn {
    /// As catalogs read it.
    pub fn to_tag(&self) -> ColumnTag {
        let is_kind = |tag: &&String| DataKind::ALL.iter().any(|kind| kind.as_str() == **tag);
        let schema = if self.table.contains('.') { "" } else { "*." };
        ColumnTag {
            column: format!("{schema}{}.{}", self.table, self.column),
            database: self.database.clone(),
            kind: self.tags.iter().find(is_kind).cloned(),
            tags: self.tags.iter().filter(|tag| !is_kind(tag)).cloned().collect(),
            sensitive: self.tags != ["none"],
        }
    }
}

impl MaskingConfig {
    /// The rule where policies name none. It was checked when the configuration was read.
    pub fn default_mask(&self) -> Mask {
        self.default.parse().unwrap_or(Mask::FULL)
    }
}

/// What cannot work in `masking`: the key below `masking`, and what to write.
pub(super) fn check(masking: &MaskingConfig) -> Result<(), (&'static str, String)> {
    if let Err(problem) = masking.default.parse::<Mask>() {
        return Err(("default", problem));
    }
    if !(1..=1024).contains(&masking.max_row_mib) {
        return Err(("max_row_mib", "choose between 1 and 1024 MiB".to_owned()));
    }
    for tagged in &masking.columns {
        let TaggedColumn { table, column, tags, .. } = tagged;
        if table.is_empty() || column.is_empty() || tags.is_empty() || tags.len() > MAX_TAGS {
            let problem = format!(
                "name `table` (as in `public.customers`), `column`, and 1 to {MAX_TAGS} `tags` of each"
            );
            return Err(("columns", problem));
        }
        let kinds = tags.iter().filter(|tag| DataKind::ALL.iter().any(|kind| kind.as_str() == *tag)).count();
        if kinds > 1 || (tags.len() > 1 && tags.iter().any(|tag| tag == "none")) {
            let problem =
                format!("`{table}.{column}`: give one kind of data beside tags of your own, or `none` alone");
            return Err(("columns", problem));
        }
        Pattern::try_from(&tagged.to_tag()).map_err(|error| ("columns", error.to_string()))?;
    }
    Ok(())
}
