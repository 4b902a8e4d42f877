//! A statement's bytes enter, its characters leave: as the server would convert them, or not at all.
//!
//! A client encoding that is not known is never guessed: no byte of a quote can be part of a letter in any of the
//! server's encodings, and what could hide a backslash is refused.

use std::borrow::Cow;

/// The client's encoding, as far as reading needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// UTF8.
    Utf8,
    /// LATIN1: each byte is the character of that number.
    Latin1,
    /// One that is converted by a table.
    Table(&'static encoding_rs::Encoding),
    /// SQL_ASCII: the bytes are the server's own; what is beyond ASCII may be anything.
    AsciiSafe,
    /// Any other, or one that is being changed: an ASCII byte may be part of a letter.
    Other,
}

impl Encoding {
    /// The encoding that PostgreSQL calls `name`, aliases included.
    pub fn named(name: &str) -> Self {
        let name: String =
            name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        Self::Table(match name.as_str() {
            "UTF8" | "UNICODE" => return Self::Utf8,
            "LATIN1" | "ISO88591" => return Self::Latin1,
            "SQLASCII" => return Self::AsciiSafe,
            "LATIN2" | "ISO88592" => encoding_rs::ISO_8859_2,
            "LATIN3" | "ISO88593" => encoding_rs::ISO_8859_3,
            "LATIN4" | "ISO88594" => encoding_rs::ISO_8859_4,
            "LATIN5" | "ISO88599" | "WIN1254" | "WINDOWS1254" => encoding_rs::WINDOWS_1254,
            "LATIN6" | "ISO885910" => encoding_rs::ISO_8859_10,
            "LATIN7" | "ISO885913" => encoding_rs::ISO_8859_13,
            "LATIN8" | "ISO885914" => encoding_rs::ISO_8859_14,
            "LATIN9" | "ISO885915" => encoding_rs::ISO_8859_15,
            "LATIN10" | "ISO885916" => encoding_rs::ISO_8859_16,
            "ISO88595" => encoding_rs::ISO_8859_5,
            "ISO88596" => encoding_rs::ISO_8859_6,
            "ISO88597" => encoding_rs::ISO_8859_7,
            "ISO88598" => encoding_rs::ISO_8859_8,
            "KOI8" | "KOI8R" => encoding_rs::KOI8_R,
            "KOI8U" => encoding_rs::KOI8_U,
            "WIN866" | "ALT" | "WINDOWS866" => encoding_rs::IBM866,
            "WIN874" | "WINDOWS874" => encoding_rs::WINDOWS_874,
            "WIN1250" | "WINDOWS1250" => encoding_rs::WINDOWS_1250,
            "WIN1251" | "WIN" | "WINDOWS1251" => encoding_rs::WINDOWS_1251,
            "WIN1252" | "WINDOWS1252" => encoding_rs::WINDOWS_1252,
            "WIN1253" | "WINDOWS1253" => encoding_rs::WINDOWS_1253,
            "WIN1255" | "WINDOWS1255" => encoding_rs::WINDOWS_1255,
            "WIN1256" | "WINDOWS1256" => encoding_rs::WINDOWS_1256,
            "WIN1257" | "WINDOWS1257" => encoding_rs::WINDOWS_1257,
            "WIN1258" | "ABC" | "TCVN" | "TCVN5712" | "VSCII" | "WINDOWS1258" => encoding_rs::WINDOWS_1258,
            "EUCJP" => encoding_rs::EUC_JP,
            "SJIS" | "SHIFTJIS" | "MSKANJI" | "WIN932" | "WINDOWS932" => encoding_rs::SHIFT_JIS,
            "EUCKR" | "UHC" | "WIN949" | "WINDOWS949" => encoding_rs::EUC_KR,
            "EUCCN" | "GBK" | "WIN936" | "WINDOWS936" | "GB18030" => encoding_rs::GB18030,
            "BIG5" | "WIN950" | "WINDOWS950" => encoding_rs::BIG5,
            _ => return Self::Other,
        })
    }

    /// Whether the characters of names are the ones that a server of the encoding UTF8 sees.
    pub fn names_are_certain(self) -> bool {
        matches!(self, Self::Utf8 | Self::Latin1 | Self::Table(_))
    }

    /// The text as characters; `None` where its bytes are not what the encoding allows, or not safe to read.
    pub fn decode(self, text: &[u8]) -> Option<Cow<'_, str>> {
        if text.contains(&0) {
            return None;
        }
        if self == Self::Utf8 || text.is_ascii() {
            return std::str::from_utf8(text).ok().map(Cow::Borrowed);
        }
        match self {
            Self::Utf8 => None,
            Self::Table(table) => table.decode_without_bom_handling_and_without_replacement(text),
            Self::Latin1 | Self::AsciiSafe => Some(by_number(text)),
            // Letters end in bytes from 0x30 on: never in a quote, a dollar sign, a dash or a slash.
            Self::Other => {
                let hidden = text.windows(2).any(|pair| matches!(pair, [0x80..=0xff, b'\\']));
                (!hidden).then(|| by_number(text))
            }
        }
    }
}

fn by_number(text: &[u8]) -> Cow<'_, str> {
    Cow::Owned(text.iter().copied().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_servers_own() {
        assert_eq!(Encoding::named("UTF8"), Encoding::Utf8);
        assert_eq!(Encoding::named("iso-8859-1"), Encoding::Latin1);
        assert_eq!(Encoding::named("SHIFT_JIS"), Encoding::named("SJIS"));
        assert_eq!(Encoding::named("JOHAB"), Encoding::Other);
        assert_eq!(Encoding::named("no such thing"), Encoding::Other);
    }

    #[test]
    fn a_second_byte_that_looks_like_a_backslash_is_part_of_its_letter() {
        let text = b"E'\x95\x5c'";
        assert_eq!(Encoding::named("SJIS").decode(text).unwrap(), "E'\u{8868}'");
        assert_eq!(Encoding::Utf8.decode(text), None);
        assert_eq!(Encoding::Other.decode(text), None);
    }

    #[test]
    fn what_the_encoding_does_not_have_is_refused() {
        for name in ["SJIS", "GBK", "BIG5", "EUC_JP", "UHC"] {
            assert_eq!(Encoding::named(name).decode(b"'\xff'; drop table t --'"), None, "{name}");
            assert_eq!(Encoding::named(name).decode(b"select '\x81' drop"), None, "{name}");
        }
        assert_eq!(Encoding::Latin1.decode(b"\xe9").unwrap(), "\u{e9}");
        assert_eq!(Encoding::Latin1.decode(b"a\0"), None);
    }
}
