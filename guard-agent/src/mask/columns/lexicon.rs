//! Words of many languages and what they speak of: a folded word enters, a set of [`Concept`]s leaves.
//!
//! A word counts only as a whole, or as a part of a compound of which every part is known: `kreditkartennummer` is read,
//! `hotel` has no `tel` in it.

use std::{collections::HashMap, sync::LazyLock};

use super::words_of_people::PEOPLE;
use super::words_of_things::THINGS;

macro_rules! concepts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a word speaks of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Concept { $($(#[$doc])* $name,)* }
    };
}

concepts! {
    /// A name, of whatever.
    Name,
    /// First, given.
    First,
    /// Last, family.
    Last,
    /// A word that alone says a part of a person's name.
    OwnName,
    /// Full, legal, preferred.
    Full,
    /// How somebody is called in a program: user name, nickname.
    Nick,
    /// A person: customer, employee, patient, mother.
    Person,
    /// A word that makes a name that of a thing: product, file, host.
    Thing,
    /// Networks and machines.
    Network,
    /// Mail.
    Mail,
    /// The e of e-mail.
    Electronic,
    /// Telephone.
    Phone,
    /// Words that mean a telephone only where people are: cell, mobile.
    PhoneMaybe,
    /// Number, code.
    Number,
    /// Address.
    Address,
    /// Street.
    Street,
    /// House, flat.
    House,
    /// Postal code.
    Zip,
    /// Town.
    City,
    /// Coordinates.
    Geo,
    /// Birth.
    Birth,
    /// Date, day, year.
    Date,
    /// Age.
    Age,
    /// Place.
    Place,
    /// Social.
    Social,
    /// Security.
    Security,
    /// Insurance.
    Insurance,
    /// National, state.
    National,
    /// Personal.
    Personal,
    /// Identity, identification.
    Identity,
    /// Tax, fiscal.
    Tax,
    /// id.
    Id,
    /// A word that alone names a national number.
    NationalNumber,
    /// A short or ambiguous one.
    NationalMaybe,
    /// Passport, identity card.
    Passport,
    /// Licence.
    Licence,
    /// Driver.
    Driver,
    /// Number plate.
    Plate,
    /// Card.
    Card,
    /// Credit, debit, payment.
    Credit,
    /// A word that alone names a card's number or code.
    CardNumber,
    /// Expiry.
    Expiry,
    /// Holder.
    Holder,
    /// IBAN.
    Iban,
    /// Bank.
    Bank,
    /// Account.
    Account,
    /// A word that alone names the number of an account.
    AccountNumber,
    /// Routing number, sort code, BIC.
    Routing,
    /// Salary, income.
    Income,
    /// Balance, wealth.
    Balance,
    /// Health, medical.
    Health,
    /// A word that alone is about somebody's health.
    Illness,
    /// Blood.
    Blood,
    /// What the law protects most.
    Special,
    /// The same where people are: race, union.
    SpecialMaybe,
    /// Sexual, political: with a word behind it.
    Sexual,
    /// Orientation, party, status.
    Orientation,
    /// Marital.
    Marital,
    /// Status, type, group: what somebody is sorted into.
    Sort,
    /// IP.
    Ip,
    /// MAC.
    Mac,
    /// Remote, client.
    Remote,
    /// Device.
    Device,
    /// A word that alone names a device.
    DeviceNumber,
    /// JWT.
    Jwt,
    /// Token.
    Token,
    /// API, access, authentication.
    Access,
    /// Session.
    Session,
    /// Key.
    Key,
    /// Secret.
    Secret,
    /// Private.
    Private,
    /// Public.
    Public,
    /// A cloud's name.
    Cloud,
    /// Password.
    Password,
    /// Words that are passwords only sometimes: pass, clave.
    PasswordMaybe,
    /// Hash, digest, encrypted.
    Hash,
    /// Salt.
    Salt,
    /// PIN.
    Pin,
    /// Question, answer, hint.
    Answer,
    /// Value, data, content: says nothing.
    Value,
    /// Home, private, work, primary, old: qualifies and changes nothing.
    Qualifier,
    /// Count, verified, type, template: what follows or precedes is about the data, not the data.
    About,
    /// Billing, shipping, home: where somebody gets something.
    Delivery,
    /// is, has: a flag.
    Flag,
    /// Order, invoice, product numbers, versions, amounts.
    Other,
}

/// A set of concepts.
pub type Concepts = u128;

impl Concept {
    /// The set of this one.
    pub const fn bit(self) -> Concepts {
        1 << self as u32
    }
}

/// The set of several concepts.
macro_rules! set {
    ($($concept:ident)|*) => { 0 $(| $crate::mask::columns::lexicon::Concept::$concept.bit())* };
}
pub(in crate::mask) use set;

/// Shortest part of a compound in letters; scripts without spaces have shorter ones.
const PART: usize = 3;
/// Longest word that is looked at as a compound.
const COMPOUND: usize = 64;

static WORDS: LazyLock<HashMap<&'static str, Concepts, ahash::RandomState>> = LazyLock::new(|| {
    let mut words: HashMap<&'static str, Concepts, ahash::RandomState> = HashMap::default();
    for (concept, list) in PEOPLE.iter().chain(THINGS) {
        for word in list.split_whitespace() {
            *words.entry(word).or_default() |= concept.bit();
        }
    }
    words
});

/// What a word speaks of; `None` where it, or a part of it, is not known.
pub fn concepts(word: &str) -> Option<Concepts> {
    WORDS.get(word).copied().or_else(|| compound(word))
}

/// What a word speaks of that is in the lexicon as it stands.
pub fn exactly(word: &str) -> Concepts {
    WORDS.get(word).copied().unwrap_or(0)
}

/// What a word speaks of that is a compound of known ones; linking letters of German and its relatives may stand between.
fn compound(word: &str) -> Option<Concepts> {
    let limits: smallvec::SmallVec<[usize; COMPOUND]> =
        word.char_indices().map(|(at, _)| at).chain([word.len()]).take(COMPOUND + 1).collect();
    let whole = *limits.last()? == word.len();
    if !whole || word.len() < 2 * PART {
        return None;
    }
    // best[i]: concepts of the characters before the i-th, with the fewest parts.
    let mut best: [Option<(u8, Concepts)>; COMPOUND + 1] = [None; COMPOUND + 1];
    best[0] = Some((0, 0));
    for end in 1..limits.len() {
        for start in (0..end).rev().take(24) {
            let Some((parts, sofar)) = best[start] else { continue };
            let part = &word[limits[start]..limits[end]];
            let linked = matches!(part, "s" | "n" | "es" | "en" | "e") && start > 0 && end + 1 < limits.len();
            let found = if linked {
                Some(0)
            } else if part.len() >= PART || matches!(part, "nr" | "no" | "id") && end + 1 == limits.len() {
                WORDS.get(part).copied()
            } else {
                None
            };
            let Some(found) = found else { continue };
            let better = best[end].is_none_or(|(fewest, _)| parts + 1 < fewest);
            if better {
                best[end] = Some((parts + 1, sofar | found));
            }
        }
    }
    best[limits.len() - 1].filter(|(parts, _)| *parts <= 6).map(|(_, concepts)| concepts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compounds_are_read_and_accidents_are_not() {
        let has = |word, set: Concepts| concepts(word).is_some_and(|found| found & set == set);
        assert!(has("kundenkartennummer", set!(Person | CardNumber)));
        assert!(has("privattelefonnummer", set!(Phone)));
        assert!(has("geburtsdatum", set!(Birth)));
        assert!(has("homephone", set!(Phone)));
        assert!(has("手机号码", set!(Phone)));
        for word in [
            "hotel",
            "mailing",
            "session",
            "shipping",
            "discard",
            "cardinality",
            "caliban",
            "template",
            "pinned",
        ] {
            let sensitive = set!(Phone | Mail | NationalNumber | Pin | Card | Iban);
            assert_eq!(concepts(word).unwrap_or(0) & sensitive, 0, "{word}");
        }
    }
}
