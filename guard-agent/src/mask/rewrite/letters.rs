//! Client encodings in whose letters bytes of ASCII stand: which bytes are characters of their own, and which are parts of
//! letters.
//!
//! As the server's own writers tell them apart, by the first byte of a letter: `pg_encoding_mblen` in
//! <https://github.com/postgres/postgres/blob/REL_17_0/src/common/wchar.c>. Reads nothing else out of them.

/// How the letters of an encoding are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Letters {
    /// A byte below 128 is always the ASCII character.
    #[default]
    Plain,
    /// BIG5, GBK, UHC: a byte above 127 begins a pair.
    Pairs,
    /// SJIS, SHIFT_JIS_2004: the same, but for half-width letters.
    Japanese,
    /// JOHAB: the same, but for the three bytes behind SS3.
    Korean,
    /// GB18030: pairs, and fours whose second byte is a digit.
    Chinese,
    /// Nobody knows.
    Unknown,
}

/// Names of the others begin so.
const PLAIN: &[&str] = &["LATIN", "ISO8859", "WIN1", "WIN8", "WINDOWS1", "WINDOWS8", "KOI8", "EUC", "TCVN"];

/// What stands for a byte of a letter: no byte of any text in UTF-8, and nothing that has a meaning in data.
const PART: u8 = 0xFF;

impl Letters {
    /// Of an encoding, by any of the names that the server takes.
    pub(super) fn of(encoding: &str) -> Self {
        let name: String =
            encoding.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
        match name.as_str() {
            "SJIS" | "SHIFTJIS" | "MSKANJI" | "WIN932" | "WINDOWS932" | "SHIFTJIS2004" | "SJIS2004" => {
                Self::Japanese
            }
            "BIG5" | "WIN950" | "WINDOWS950" | "GBK" | "WIN936" | "WINDOWS936" | "UHC" | "WIN949"
            | "WINDOWS949" => Self::Pairs,
            "GB18030" => Self::Chinese,
            "JOHAB" => Self::Korean,
            // Before the server has said anything it is what the database has.
            "" | "UTF8" | "UNICODE" | "SQLASCII" | "MULEINTERNAL" | "WIN" | "ABC" | "ALT" | "VSCII" => {
                Self::Plain
            }
            name if PLAIN.iter().any(|plain| name.starts_with(plain)) => Self::Plain,
            _ => Self::Unknown,
        }
    }

    /// Bytes of the letter at the beginning of `text`, which is not empty.
    fn length(self, text: &[u8]) -> usize {
        match (self, text) {
            (Self::Plain, _) | (_, [..=0x7F, ..]) | (Self::Japanese, [0xA1..=0xDF, ..]) => 1,
            (Self::Korean, [0x8F, ..]) => 3,
            (Self::Chinese, [_, b'0'..=b'9', ..]) => 4,
            _ => 2,
        }
    }

    /// Writes `text` with something that has no meaning in place of each byte that is a part of a letter.
    pub(super) fn shape(self, text: &[u8], shape: &mut Vec<u8>) {
        shape.clear();
        shape.extend_from_slice(text);
        let mut at = 0;
        while let Some(found) = text.get(at..).and_then(|rest| rest.iter().position(|byte| !byte.is_ascii()))
        {
            at += found;
            let end = (at + self.length(&text[at..])).min(text.len());
            shape[at..end].fill(PART);
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_letters_mean_nothing() {
        for (encoding, text, expected) in [
            // The second byte of each is a backslash, a bar or the like.
            ("SJIS", &b"\x95\\\t\x83|\xb6|"[..], &b"\xff\xff\t\xff\xff\xff|"[..]),
            ("Shift_JIS_2004", b"\x95\\\\", b"\xff\xff\\"),
            ("BIG5", b"\xa5\\,\xb3\\", b"\xff\xff,\xff\xff"),
            ("gbk", b"\x81|\x81\\|", b"\xff\xff\xff\xff|"),
            ("UHC", b"\x81A\t", b"\xff\xff\t"),
            ("GB18030", b"\x810\x817\x81\\7", b"\xff\xff\xff\xff\xff\xff7"),
            ("JOHAB", b"\x8f\xa1\xa1|\x88\\", b"\xff\xff\xff|\xff\xff"),
            ("SJIS", b"cut off \x95", b"cut off \xff"),
        ] {
            let mut shape = Vec::new();
            Letters::of(encoding).shape(text, &mut shape);
            assert_eq!(shape, expected, "{encoding}");
        }
        assert_eq!(Letters::of("UTF8"), Letters::Plain);
        for plain in
            ["", "EUC_JIS_2004", "latin-1", "ISO_8859_5", "WIN1252", "windows-866", "KOI8R", "SQL_ASCII"]
        {
            assert_eq!(Letters::of(plain), Letters::Plain, "{plain}");
        }
        assert_eq!(Letters::of("ISO-2022-JP"), Letters::Unknown);
    }
}
