//! Names fall into words: `custMail`, `telefon_priv`, `Geburts-Datum` and `手机号` enter, folded words leave.

use smallvec::SmallVec;

/// Words of one name that are looked at, and characters of one word.
const WORDS: usize = 16;
const CHARACTERS: usize = 64;

/// The words of a name, in lower case and without accents.
pub type Words = SmallVec<[String; 6]>;

/// Splits at everything that is no letter, at humps of camels, and between letters and digits; digits are dropped.
pub fn words(name: &str) -> Words {
    let mut words = Words::new();
    let mut word = String::new();
    let mut previous = Class::Other;
    let mut characters = name.chars().take(WORDS * CHARACTERS).peekable();
    while let Some(character) = characters.next() {
        let class = Class::of(character);
        let hump = class == Class::Upper
            && (previous == Class::Lower
                || (previous == Class::Upper
                    && characters.peek().is_some_and(|&next| Class::of(next) == Class::Lower)));
        let starts =
            hump || class == Class::Other || class == Class::Digit || script_changes(previous, class);
        if starts && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if words.len() == WORDS {
            return words;
        }
        if !matches!(class, Class::Other | Class::Digit) && word.len() < CHARACTERS {
            fold(character, &mut word);
        }
        previous = class;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Lower,
    Upper,
    Digit,
    /// Scripts without upper case and without spaces.
    Ideographic,
    Other,
}

impl Class {
    fn of(character: char) -> Self {
        match character {
            '0'..='9' => Self::Digit,
            'A'..='Z' => Self::Upper,
            'a'..='z' => Self::Lower,
            '\u{3005}' | '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7AF}' => {
                Self::Ideographic
            }
            // Marks belong to the letter before: Thai, Hindi, Arabic.
            '\u{0300}'..='\u{036F}'
            | '\u{064B}'..='\u{0652}'
            | '\u{0900}'..='\u{0DFF}'
            | '\u{0E00}'..='\u{0E7F}' => Self::Lower,
            _ if character.is_uppercase() => Self::Upper,
            _ if character.is_alphabetic() => Self::Lower,
            _ => Self::Other,
        }
    }
}

fn script_changes(previous: Class, class: Class) -> bool {
    (previous == Class::Ideographic) != (class == Class::Ideographic)
}

/// One character in lower case, without accents; what is written with two letters keeps the first reading.
pub fn fold(character: char, word: &mut String) {
    for lower in character.to_lowercase() {
        match lower {
            'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ā' | 'ă' | 'ą' => word.push('a'),
            'æ' => word.push_str("ae"),
            'ç' | 'ć' | 'č' | 'ĉ' => word.push('c'),
            'ď' | 'đ' | 'ð' => word.push('d'),
            'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ė' | 'ę' | 'ě' => word.push('e'),
            'ğ' | 'ģ' => word.push('g'),
            'ì' | 'í' | 'î' | 'ï' | 'ī' | 'į' | 'ı' => word.push('i'),
            'ķ' => word.push('k'),
            'ł' | 'ľ' | 'ĺ' | 'ļ' => word.push('l'),
            'ñ' | 'ń' | 'ň' | 'ņ' => word.push('n'),
            'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ő' | 'ø' | 'ō' => word.push('o'),
            'œ' => word.push_str("oe"),
            'ř' | 'ŕ' => word.push('r'),
            'ß' => word.push_str("ss"),
            'ś' | 'š' | 'ş' | 'ș' => word.push('s'),
            'ť' | 'ţ' | 'ț' => word.push('t'),
            'þ' => word.push_str("th"),
            'ù' | 'ú' | 'û' | 'ü' | 'ű' | 'ů' | 'ū' | 'ų' => word.push('u'),
            'ý' | 'ÿ' => word.push('y'),
            'ź' | 'ż' | 'ž' => word.push('z'),
            'ё' => word.push('е'),
            'ά' => word.push('α'),
            'έ' => word.push('ε'),
            'ή' => word.push('η'),
            'ί' => word.push('ι'),
            'ό' => word.push('ο'),
            'ύ' => word.push('υ'),
            'ώ' => word.push('ω'),
            'ς' => word.push('σ'),
            'أ' | 'إ' | 'آ' => word.push('ا'),
            '\u{0300}'..='\u{036F}' | '\u{064B}'..='\u{0652}' => {}
            other => word.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_into_words() {
        let split = |name| words(name).join(" ");
        assert_eq!(split("custMail"), "cust mail");
        assert_eq!(split("HTTPServerIP"), "http server ip");
        assert_eq!(split("telefon_priv2"), "telefon priv");
        assert_eq!(split("Geburts-Datum"), "geburts datum");
        assert_eq!(split("Straße"), "strasse");
        assert_eq!(split("user手机号"), "user 手机号");
        assert_eq!(split("FIRST_NAME"), "first name");
        assert_eq!(split("Prénom"), "prenom");
        assert_eq!(split("__"), "");
    }
}
