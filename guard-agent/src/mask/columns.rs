//! What a column holds, by its name: a table's and a column's name and the type enter, [`Named`] leaves.
//!
//! Names fall into words of many languages; rules say which words together make which kind. Never decides by a part of
//! a word: `hotel` has no `tel` in it. Values are the business of [`super::detect`].

pub(crate) mod lexicon;
mod rules;
mod tokens;
mod types;
mod words_of_people;
mod words_of_things;

use guard_policy::vocabulary::DataKind;

pub(crate) use self::tokens::fold;
pub use self::types::ColumnType;
use self::{
    lexicon::{Concepts, set},
    rules::{Need, RULES, Rule},
    tokens::Words,
};
use super::detect::Hint;

/// What a column's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// All of its values are of this kind.
    Sensitive(DataKind),
    /// Values are of this kind if they look like it; or the name helps to tell what numbers in it are.
    Hint(Hint),
    /// Nothing.
    Plain,
}

/// Words whose neighbours change what they mean.
const PHRASES: &[(&str, Concepts)] = &[
    ("contact no", set!(Phone)),
    ("contact nr", set!(Phone)),
    ("contact num", set!(Phone)),
    ("contact number", set!(Phone)),
    ("sort code", set!(Routing)),
    ("swift code", set!(Routing)),
    ("user agent", set!(About)),
    ("mac os", set!(About)),
    ("gift card", set!(About)),
    ("report card", set!(About)),
    ("business card", set!(About)),
    ("sim card", set!(About)),
    ("score card", set!(About)),
    ("zip file", set!(About)),
    ("vat number", set!(Other)),
    ("vat id", set!(Other)),
    ("postal address", set!(Address)),
    ("mot de passe", set!(Password)),
    ("kata sandi", set!(Password)),
    ("so dien thoai", set!(Phone)),
    ("so cccd", set!(NationalNumber)),
    ("ho ten", set!(OwnName)),
    ("nr tel", set!(Phone)),
    ("forwarded for", set!(Ip)),
    ("cc owner", set!(Holder)),
    ("data ur", set!(Birth)),
    ("datum nar", set!(Birth)),
    ("created by", set!(Other)),
    ("updated by", set!(Other)),
];

/// What the column `column` of `table` holds; `table` may be empty.
pub fn by_name(table: &str, column: &str, ty: ColumnType) -> Named {
    let words = tokens::words(column);
    let name = Name::read(&words);
    let around = Name::of_table(table);
    let named = name.judge(&around, ty);
    match (named, ty) {
        // The type speaks for itself where the name does not speak of networks.
        (Named::Plain | Named::Hint(_), ColumnType::Inet) => {
            if (name.concepts | around.concepts) & set!(Network) != 0 {
                Named::Hint(Hint::of(DataKind::IpAddress))
            } else {
                Named::Sensitive(DataKind::IpAddress)
            }
        }
        (Named::Plain | Named::Hint(_), ColumnType::Mac) => {
            if (name.concepts | around.concepts) & set!(Network) != 0 {
                Named::Hint(Hint::of(DataKind::Device))
            } else {
                Named::Sensitive(DataKind::Device)
            }
        }
        _ => named,
    }
}

/// What a few words in a text speak of: `social security number`, `geb. am`. Only what needs no table.
pub(crate) fn by_words(concepts: Concepts) -> Option<DataKind> {
    let rule = RULES.iter().find(|rule| rule.matches(concepts & !set!(Other | Thing)))?;
    let weak = concepts & set!(NationalMaybe | PhoneMaybe | Card | Pin | Mail) != 0;
    (rule.need == Need::Nothing || weak).then_some(rule.kind)
}

/// Whether a table, or a key of a document, with this name is about people.
pub fn is_about_people(name: &str) -> bool {
    let name = Name::of_table(name);
    name.concepts & set!(Person | Name) != 0 && name.concepts & set!(Thing | About) == 0
}

/// The words of a name, read.
#[derive(Debug, Default)]
struct Name {
    /// What they speak of.
    concepts: Concepts,
    /// What the last of them speaks of.
    last: Concepts,
    /// The last word is not known: it may change what the others mean.
    ends_unknown: bool,
    /// The last word is `id`, whatever it makes of the word before it.
    ends_with_id: bool,
    /// Its last word ends with `id`, and something stands before that.
    refers: bool,
    /// A word is not known.
    has_unknown: bool,
    /// How many there are.
    len: usize,
}

impl Name {
    fn read(words: &Words) -> Self {
        let mut name = Self { len: words.len(), ..Self::default() };
        for word in words {
            let found = lexicon::concepts(word);
            // One letter says nothing: `c_name`, `name_e` but for the e of e-mail.
            let short = word.len() == 1;
            name.ends_unknown = found.is_none() && !short;
            name.has_unknown |= name.ends_unknown;
            name.last = found.unwrap_or(0);
            name.ends_with_id = word == "id";
            // `creditcardid` refers to a card, `nationalid` is a word of its own.
            name.refers = word.ends_with("id")
                && name.last & set!(Id) != 0
                && (lexicon::exactly(word) == 0 || name.len > 1);
            name.concepts |= name.last;
        }
        if words.len() > 1 {
            let joined = words.join(" ");
            let padded = format!(" {joined} ");
            for (phrase, concepts) in PHRASES {
                if padded.contains(&format!(" {phrase} ")) {
                    name.concepts |= concepts;
                }
            }
            // `addr_line`, `credit_card`: written apart what the lexicon knows in one.
            for (at, pair) in words.windows(2).enumerate() {
                let together = lexicon::exactly(&format!("{}{}", pair[0], pair[1]));
                name.concepts |= together;
                if together != 0 && at + 2 == words.len() {
                    name.last = together;
                    name.ends_unknown = false;
                    name.ends_with_id = pair[1] == "id";
                    name.refers = false;
                }
            }
        }
        name
    }

    /// A table's name: its last word says what its rows are, `app_users` or `customer_products`.
    fn of_table(table: &str) -> Self {
        let mut words = tokens::words(table);
        // `customer_list` has customers in it.
        words.retain(|word| !matches!(word.as_str(), "list" | "lists"));
        let mut name = Self::read(&words);
        if name.last & set!(Person) != 0 {
            name.concepts &= !set!(Thing | Network | About);
        } else if name.last & set!(Thing | Token | Key | Session | Device) != 0 {
            name.concepts &= !set!(Person);
        }
        name
    }

    fn judge(&self, around: &Self, ty: ColumnType) -> Named {
        if self.concepts == 0 {
            return Named::Plain;
        }
        let about = self.concepts & set!(About | Flag) != 0;
        // `number` of `passports`, `address` of `emails`.
        let generic =
            self.concepts & !set!(Number | Address | Value | Qualifier | Date) == 0 && !self.has_unknown;
        let borrowed =
            around.concepts & set!(Mail | Phone | Passport | Card | CardNumber | Iban | Ip | NationalNumber);
        let part = self.concepts & !set!(First | Last | Full | Qualifier | Value) == 0 && !self.has_unknown;
        let concepts = if generic && self.concepts & set!(Number | Address | Value) != 0 {
            self.concepts | borrowed
        } else if part && around.concepts & set!(Name | Person) != 0 && around.concepts & set!(Thing) == 0 {
            self.concepts | set!(Name | Person)
        } else {
            self.concepts
        };
        let people = concepts & set!(Person) != 0
            || (around.concepts & set!(Person) != 0 && around.concepts & set!(About) == 0)
            || (around.concepts & set!(Address | Card | Mail | Phone) != 0
                && concepts & set!(Zip | City | House | Pin) != 0);
        for rule in RULES.iter().filter(|rule| rule.matches(concepts)) {
            if about && !rule.despite {
                continue;
            }
            if !ty.can_hold(rule.kind) {
                return self.numbers(around);
            }
            match rule.need {
                Need::Values => return Named::Hint(Hint::of(rule.kind)),
                Need::People if !people => continue,
                Need::NoThings if around.concepts & set!(Thing | Network | Geo | City) != 0 => continue,
                Need::People | Need::NoThings | Need::Nothing => {}
            }
            return self.sure(rule, around, ty);
        }
        self.numbers(around)
    }

    /// A rule fits: what its words say together with the last one and with the table.
    fn sure(&self, rule: &Rule, around: &Self, ty: ColumnType) -> Named {
        use DataKind as K;
        let refers = (self.refers || self.last & set!(Id) != 0 && self.len > 1)
            && !rule.speaks_of_id()
            && !matches!(rule.kind, K::NationalId | K::Document | K::Email);
        // Devices are referred to by number, and name themselves by text.
        if refers || self.ends_with_id && ty == ColumnType::Integer && rule.kind == K::Device {
            return Named::Plain;
        }
        let networks = around.concepts & set!(Network) != 0 && around.concepts & set!(Person) == 0;
        let things = around.concepts & set!(Thing) != 0 && around.concepts & set!(Person) == 0;
        let is_name = rule.kind == K::PersonName
            && self.concepts & set!(OwnName | First | Last | Nick | Person | Holder) == 0;
        match rule.kind {
            K::IpAddress | K::Device if networks => Named::Hint(Hint::of(rule.kind)),
            K::Address if networks => Named::Plain,
            K::PersonName if is_name && (things || self.has_unknown) => Named::Plain,
            K::BirthDate if self.ends_unknown && ty != ColumnType::Date => Named::Hint(Hint::of(rule.kind)),
            K::Email | K::Phone | K::PaymentCard | K::Iban | K::IpAddress if self.ends_unknown => {
                Named::Hint(Hint::of(rule.kind))
            }
            kind => Named::Sensitive(kind),
        }
    }

    /// No kind: but numbers in it may be orders or versions.
    fn numbers(&self, around: &Self) -> Named {
        let numbered =
            self.concepts & set!(Other) != 0 || (self.len == 0 && around.concepts & set!(Other) != 0);
        if numbered { Named::Hint(Hint::of_numbers()) } else { Named::Plain }
    }
}

#[cfg(test)]
mod tests;
