//! What a `COPY .. TO STDOUT` says of its data: a statement enters; its relation, its columns and the options that decide
//! how values are written leave.
//!
//! An option that is not known makes the whole statement unknown: data that is taken apart in the wrong way could pass.

use super::{
    Statement,
    postgres::reference::{self, At},
};

/// A COPY to the client, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOut {
    /// Schema (empty where none is named) and name; `None` where it copies a query.
    pub relation: Option<(String, String)>,
    /// The columns that it names; empty for all.
    pub columns: Vec<String>,
    /// How values are written.
    pub form: TextForm,
}

/// How values are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextForm {
    /// FORMAT csv.
    pub csv: bool,
    /// FORMAT binary.
    pub binary: bool,
    /// DELIMITER.
    pub delimiter: u8,
    /// NULL.
    pub null: Vec<u8>,
    /// QUOTE.
    pub quote: u8,
    /// ESCAPE.
    pub escape: u8,
    /// HEADER.
    pub header: bool,
    /// ENCODING, where it is another than the session's.
    pub encoding: Option<String>,
}

/// The COPY at `part` of `statement`; `None` where there is none that can be followed.
pub fn read(statement: &Statement, part: usize) -> Option<CopyOut> {
    let (text, standard) = statement.origin.text()?;
    let tree = reference::tree(text, standard)?;
    let copy = tree.root().list("stmts").nth(part)?.get("stmt")?;
    if copy.name() != "CopyStmt" || copy.flag("is_from") || copy.flag("is_program") {
        return None;
    }
    let relation = copy
        .get("relation")
        .map(|relation| (relation.text("schemaname").to_owned(), relation.text("relname").to_owned()));
    Some(CopyOut {
        relation,
        columns: copy.names("attlist").into_iter().map(str::to_owned).collect(),
        form: form(copy)?,
    })
}

fn form(copy: At<'_>) -> Option<TextForm> {
    let options: Vec<(&str, At<'_>)> =
        copy.list("options").map(|option| (option.text("defname"), option)).collect();
    let of = |name: &str| options.iter().rev().find(|(known, _)| *known == name).map(|(_, at)| *at);
    let format = match of("format") {
        Some(option) => argument(option)?.to_ascii_lowercase(),
        None => "text".to_owned(),
    };
    let csv = format == "csv";
    if !["text", "csv", "binary"].contains(&format.as_str()) {
        return None;
    }
    let letter = |name: &str, otherwise: u8| match of(name) {
        Some(option) => match argument(option)?.as_bytes() {
            [letter] => Some(*letter),
            _ => None,
        },
        None => Some(otherwise),
    };
    let quote = letter("quote", b'"')?;
    let known = |(name, _): &(&str, At<'_>)| {
        ["format", "delimiter", "null", "quote", "escape", "header", "force_quote", "encoding"].contains(name)
    };
    if !options.iter().all(known) {
        return None;
    }
    let encoding = match of("encoding") {
        Some(option) => Some(argument(option)?),
        None => None,
    };
    let null = match of("null") {
        Some(option) => argument(option)?.into_bytes(),
        None if csv => Vec::new(),
        None => b"\\N".to_vec(),
    };
    Some(TextForm {
        csv,
        binary: format == "binary",
        delimiter: letter("delimiter", if csv { b',' } else { b'\t' })?,
        null,
        escape: letter("escape", quote)?,
        quote,
        header: of("header").is_some_and(is_on),
        encoding,
    })
}

fn argument(option: At<'_>) -> Option<String> {
    Some(option.get("arg")?.string()?.to_owned())
}

/// HEADER, HEADER true, HEADER on, HEADER 1.
fn is_on(option: At<'_>) -> bool {
    let Some(argument) = option.get("arg") else { return true };
    match argument.string() {
        Some(word) => !["false", "off", "0"].contains(&word.to_ascii_lowercase().as_str()),
        None => match argument.name() {
            "Boolean" => argument.flag("boolval"),
            "Integer" => argument.number("ival") != 0,
            _ => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Classifier, Limits, Modes};

    fn of(text: &str) -> Option<CopyOut> {
        read(&Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default()), 0)
    }

    #[test]
    fn options_decide_how_values_are_written() {
        let plain = of("COPY s.t (a, \"B\") TO STDOUT").unwrap();
        assert_eq!(plain.relation, Some(("s".to_owned(), "t".to_owned())));
        assert_eq!(plain.columns, ["a", "B"]);
        assert_eq!(
            (plain.form.delimiter, plain.form.null.as_slice(), plain.form.csv),
            (b'\t', &b"\\N"[..], false)
        );
        let csv =
            of("COPY (SELECT 1) TO STDOUT WITH (FORMAT csv, HEADER, DELIMITER ';', QUOTE '''', NULL 'x')")
                .unwrap();
        assert_eq!(csv.relation, None);
        let TextForm { csv, header, delimiter, quote, escape, null, .. } = csv.form;
        assert_eq!(
            (csv, header, delimiter, quote, escape, null.as_slice()),
            (true, true, b';', b'\'', b'\'', &b"x"[..])
        );
        assert!(of("COPY t TO STDOUT CSV HEADER").unwrap().form.header);
        assert!(!of("COPY t TO STDOUT (FORMAT csv, HEADER false)").unwrap().form.header);
        assert!(of("COPY t TO STDOUT (FORMAT binary)").unwrap().form.binary);
        assert!(of("COPY BINARY t TO STDOUT").unwrap().form.binary);
        assert_eq!(plain.form.encoding, None);
        let latin = of("COPY t TO STDOUT (ENCODING 'LATIN1')").unwrap();
        assert_eq!(latin.form.encoding.as_deref(), Some("LATIN1"));
    }

    #[test]
    fn what_is_no_copy_to_the_client_or_not_known_is_none() {
        for text in
            ["COPY t FROM STDIN", "SELECT 1", "COPY t TO PROGRAM 'x'", "COPY t TO STDOUT (LETTERS 'LATIN1')"]
        {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
