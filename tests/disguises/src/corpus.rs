//! The corpus: statements as data with what they truly do. Files under `corpus/` enter, checked cases leave.
//!
//! See `corpus/README.md` for the form of a case.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use guard_agent::sql::{Encoding, Modes};
use serde::Deserialize;

use crate::truth::Truth;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One dangerous statement, or several that only together are dangerous.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The statement.
    #[serde(default)]
    pub sql: String,
    /// In place of `sql`: messages, one after the other, in one session. One of them has to be refused.
    #[serde(default)]
    pub steps: Vec<String>,
    /// What it does to the scratch database, each of which the reading has to admit.
    pub truth: Vec<Truth>,
    /// How the real server is asked.
    #[serde(default)]
    pub oracle: Oracle,
    /// `\xNN` in the text stands for that byte.
    #[serde(default)]
    pub raw: bool,
    /// This many blanks are put where `{PAD}` stands.
    #[serde(default)]
    pub pad: usize,
    /// The client's encoding.
    #[serde(default)]
    pub encoding: Option<String>,
    /// The session has `standard_conforming_strings = off`.
    #[serde(default)]
    pub backslashes: bool,
    /// What it does lies in code that no text shows: to be admitted as opaque is enough.
    #[serde(default)]
    pub opaque: bool,
    /// The first major version of PostgreSQL that it applies to.
    #[serde(default)]
    pub since: Option<u32>,
    /// The last one.
    #[serde(default)]
    pub until: Option<u32>,
    /// Why it is misread, as long as it is.
    #[serde(default)]
    pub known_gap: Option<String>,
    /// What is worth knowing about it.
    #[serde(default)]
    pub note: String,
    /// File and number, for messages.
    #[serde(skip)]
    pub place: String,
}

/// How the real server is asked about a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oracle {
    /// It runs in a scratch database and must change something there.
    #[default]
    Run,
    /// It runs and must not fail; what it does cannot be seen in the database (files, other sessions, reading).
    Runs,
    /// It would harm the test's own server, or needs what that lacks: the server only has to accept the syntax.
    Parse,
    /// The server refuses it: guard must not trip over it, but it is no danger.
    Reject,
}

impl Case {
    /// The messages to send, as bytes of the client's encoding.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let texts = if self.steps.is_empty() { std::slice::from_ref(&self.sql) } else { &self.steps[..] };
        texts.iter().map(|text| self.bytes(text)).collect()
    }

    fn bytes(&self, text: &str) -> Vec<u8> {
        let text = text.replace("{PAD}", &" ".repeat(self.pad));
        if !self.raw {
            return text.into_bytes();
        }
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("\\x") {
            bytes.extend_from_slice(before.as_bytes());
            let digits = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            match digits {
                Some(byte) => {
                    bytes.push(byte);
                    rest = &after[2..];
                }
                None => {
                    bytes.extend_from_slice(b"\\x");
                    rest = after;
                }
            }
        }
        bytes.extend_from_slice(rest.as_bytes());
        bytes
    }

    /// What the session's settings say when the messages arrive.
    pub fn modes(&self) -> Modes {
        self.adjust(Modes::default())
    }

    fn adjust(&self, mut modes: Modes) -> Modes {
        modes.standard_conforming_strings = !self.backslashes;
        modes.client_encoding = self.encoding.as_deref().map_or(Encoding::Utf8, Encoding::named);
        modes
    }

    /// What a session sends first, so that [`Self::modes`] holds.
    pub fn preamble(&self) -> Vec<String> {
        let encoding = self.encoding.iter().map(|name| format!("SET client_encoding = '{name}'"));
        let backslashes = self.backslashes.then(|| "SET standard_conforming_strings = off".to_owned());
        encoding.chain(backslashes).collect()
    }

    /// Whether it applies to this major version of the server.
    pub fn is_for(&self, version: u32) -> bool {
        self.since.is_none_or(|since| version >= since) && self.until.is_none_or(|until| version <= until)
    }

    /// Whether shipped policies have to refuse it.
    pub fn is_destructive(&self) -> bool {
        !self.opaque && self.truth.iter().any(Truth::is_destructive)
    }

    /// A line that names it.
    pub fn shown(&self) -> String {
        let text = if self.steps.is_empty() { self.sql.clone() } else { self.steps.join(" ⏎ ") };
        let text: String = text.escape_debug().to_string().chars().take(160).collect();
        format!("{}  {text}", self.place)
    }
}

/// Reads every file of `folder`, in order.
///
/// # Errors
/// Names the file and what is wrong in it.
pub fn load(folder: &Path) -> Result<Vec<Case>> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("no corpus at {}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let file: File = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        for (number, mut case) in file.case.into_iter().enumerate() {
            case.place = format!("{name}#{}", number + 1);
            let one = case.sql.is_empty() != case.steps.is_empty();
            ensure!(one, "{}: either `sql` or `steps`", case.place);
            let silent = case.truth.is_empty() && case.oracle != Oracle::Reject;
            ensure!(!silent, "{}: says nothing about what it does", case.place);
            cases.push(case);
        }
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_text_are_written_as_hex() {
        let case: Case =
            toml::from_str("sql = 'a\\x83\\x5c\\xzz'\nraw = true\ntruth = ['drop table:t']").unwrap();
        assert_eq!(case.messages(), [b"a\x83\x5c\\xzz".to_vec()]);
    }

    #[test]
    fn the_corpus_of_this_checkout_is_well_formed() {
        let cases = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap();
        assert!(cases.len() > 100, "{}", cases.len());
        let mut texts: Vec<_> =
            cases.iter().map(|case| (case.messages(), case.preamble(), case.pad)).collect();
        texts.sort();
        let all = texts.len();
        texts.dedup();
        assert_eq!(texts.len(), all, "a case stands twice in the corpus");
    }
}
