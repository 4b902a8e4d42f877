//! The words before a span: `SSN: `, `tel. `, `geb. am `, `<ssn>`, `ssn=`. They decide what weak forms are.

use std::collections::HashMap;

use guard_policy::vocabulary::DataKind;

use crate::mask::columns::{
    self,
    lexicon::{self, Concept, Concepts, set},
};

/// How far back words are read, and how many.
const REACH: usize = 48;
const WORDS: usize = 4;

/// Words that are remembered; when there are more, it starts anew.
const KEPT: usize = 512;
/// Bytes of a word that is remembered.
const LONGEST: usize = 40;

/// Words and what they speak of, remembered: texts of one column have the same words before their numbers.
#[derive(Debug, Default)]
pub struct WordMemory(Option<Box<Known>>);

type Known = HashMap<Box<str>, Option<Concepts>, ahash::RandomState>;

impl WordMemory {
    /// What `word` speaks of.
    fn read(&mut self, word: &str) -> Option<Concepts> {
        if word.len() > LONGEST {
            return read(word);
        }
        let known = self.0.get_or_insert_default();
        if let Some(found) = known.get(word) {
            return *found;
        }
        let found = read(word);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(word.into(), found);
        found
    }
}

/// What the words before a span say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// It is this.
    pub kind: Option<DataKind>,
    /// It is a number of something else: an order, a version, an amount.
    pub other: bool,
}

impl Context {
    /// Of the span that starts at `start`.
    pub fn before(cell: &[u8], start: usize, words: &mut WordMemory) -> Self {
        // `Safari/6535.27.5`: a version.
        if let [.., before, b'/'] = cell[..start]
            && before.is_ascii_alphabetic()
        {
            return Self { kind: None, other: true };
        }
        let mut floor = start.saturating_sub(REACH);
        // A whole character.
        while floor < start && (0x80..0xC0).contains(&cell[floor]) {
            floor += 1;
        }
        let text = &cell[floor..start];
        let cut = text
            .iter()
            .rposition(|byte| matches!(byte, b'\n' | b';' | b'|' | b'}' | b'@'))
            .map_or(0, |cut| cut + 1);
        let Ok(text) = std::str::from_utf8(&text[cut..]) else { return Self::default() };
        let mut context = Self::default();
        let mut concepts: Concepts = 0;
        let mut rest = text;
        let mut unknown = 0;
        let mut refers = false;
        for _ in 0..WORDS {
            let Some((word, gap, before)) = last_word(rest) else { break };
            rest = before;
            // Words that are further away are of something else once a kind is clear.
            if context.kind.is_some()
                && !gap.chars().all(|character| matches!(character, ' ' | '-' | '_' | '\''))
            {
                break;
            }
            // A key `v` is no version.
            let key = word.len() == 1 && gap.contains(['"', ':', '=']);
            let Some(found) = words.read(word).filter(|_| !key) else {
                unknown += 1;
                if context.kind.is_some() || unknown > 1 {
                    break;
                }
                continue;
            };
            // The nearest word that says something about numbers.
            if concepts == 0
                && found & set!(Other) != 0
                && found & set!(Phone | NationalNumber | Passport) == 0
            {
                context.other = true;
                return context;
            }
            concepts |= found;
            refers |= context.kind.is_none() && found == set!(Id);
            let kind = columns::by_words(concepts);
            let fits =
                !refers || matches!(kind, Some(DataKind::NationalId | DataKind::Document | DataKind::Device));
            context.kind = kind.filter(|_| fits).or(context.kind);
        }
        context
    }
}

/// The last word of a text, what stands behind it, and the text before it.
fn last_word(text: &str) -> Option<(&str, &str, &str)> {
    let is_letter = |character: char| character.is_alphabetic() || is_mark(character);
    let end = text.trim_end_matches(|character| !is_letter(character)).len();
    let start = text[..end].trim_end_matches(is_letter).len();
    (start < end).then(|| (&text[start..end], &text[end..], &text[..start]))
}

fn is_mark(character: char) -> bool {
    matches!(character, '\u{0300}'..='\u{036F}' | '\u{064B}'..='\u{0652}' | '\u{0900}'..='\u{0DFF}' | '\u{0E00}'..='\u{0E7F}')
}

/// What one word speaks of; verbs and words that only texts have are looked for first.
fn read(word: &str) -> Option<Concepts> {
    let mut folded = String::new();
    word.chars().take(40).for_each(|character| columns::fold(character, &mut folded));
    let verb = match folded.as_str() {
        "born" | "nee" | "ne" | "nato" | "nata" | "nacido" | "nacida" | "nascido" | "nascida" | "geboren"
        | "fodd" | "fodt" | "syntynyt" | "urodzony" | "urodzona" | "narozen" | "narozena" | "dogumlu"
        | "родился" | "родилась" | "生まれ" => Concept::Birth.bit(),
        "call" | "calls" | "ring" | "dial" | "reach" | "callback" | "anrufen" | "appeler" | "llamar"
        | "позвонить" | "звоните" => Concept::Phone.bit(),
        "v" | "ver" | "kernel" | "firmware" => Concept::Other.bit(),
        _ => return lexicon::concepts(&folded),
    };
    Some(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_before_say_what_it_is() {
        let before = |text: &str| Context::before(text.as_bytes(), text.len(), &mut WordMemory::default());
        let kind = |text: &str| before(text).kind;
        for (text, expected) in [
            ("SSN: ", DataKind::NationalId),
            ("my social security number is ", DataKind::NationalId),
            ("<ssn>", DataKind::NationalId),
            ("tel. ", DataKind::Phone),
            ("Telefonnummer: ", DataKind::Phone),
            ("geb. am ", DataKind::BirthDate),
            ("date of birth: ", DataKind::BirthDate),
            ("born on ", DataKind::BirthDate),
            ("生年月日：", DataKind::BirthDate),
            ("電話：", DataKind::Phone),
            ("телефон: ", DataKind::Phone),
            ("Passport No. ", DataKind::Document),
            ("credit card ", DataKind::PaymentCard),
            ("Numéro de téléphone : ", DataKind::Phone),
        ] {
            assert_eq!(kind(text), Some(expected), "{text}");
        }
        assert_eq!(kind("order "), None);
        assert!(before("order no. ").other || kind("order no. ").is_none());
        assert_eq!(kind("a hotel with "), None);
    }
}
