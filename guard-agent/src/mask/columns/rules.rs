//! Which sets of concepts make which kind of data: the rules, best first.
//!
//! The order of words does not matter, so that `numero_telefono`, `phone_number` and `telefonnummer` are one rule.

use guard_policy::vocabulary::DataKind::{self, *};

use super::lexicon::{Concept, Concepts, set};

/// How much the words have to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing else.
    Nothing,
    /// The table or another word speaks of people.
    People,
    /// The table does not speak of things.
    NoThings,
    /// Values have to look like it too.
    Values,
}

/// What makes a kind.
#[derive(Debug)]
pub struct Rule {
    /// All of these are there.
    pub all: Concepts,
    /// One of these is, unless the set is empty.
    pub any: Concepts,
    /// None of these is.
    pub none: Concepts,
    /// Then it is this.
    pub kind: DataKind,
    /// If this holds as well.
    pub need: Need,
    /// It is also when a word says that the column is about the data: `blood type`, `marital status`.
    pub despite: bool,
}

impl Rule {
    /// Whether it speaks of these words.
    pub fn matches(&self, concepts: Concepts) -> bool {
        concepts & self.all == self.all
            && (self.any == 0 || concepts & self.any != 0)
            && concepts & self.none == 0
    }

    /// Whether one of its words is `id`: `national_id` is no reference to another table.
    pub fn speaks_of_id(&self) -> bool {
        (self.all | self.any) & Concept::Id.bit() != 0
    }
}

const fn rule(all: Concepts, any: Concepts, none: Concepts, kind: DataKind) -> Rule {
    Rule { all, any, none, kind, need: Need::Nothing, despite: false }
}

const fn people(all: Concepts, any: Concepts, none: Concepts, kind: DataKind) -> Rule {
    Rule { all, any, none, kind, need: Need::People, despite: false }
}

const fn no_things(all: Concepts, any: Concepts, none: Concepts, kind: DataKind) -> Rule {
    Rule { all, any, none, kind, need: Need::NoThings, despite: false }
}

const fn values(all: Concepts, any: Concepts, none: Concepts, kind: DataKind) -> Rule {
    Rule { all, any, none, kind, need: Need::Values, despite: false }
}

const fn despite(all: Concepts, any: Concepts, none: Concepts, kind: DataKind) -> Rule {
    Rule { all, any, none, kind, need: Need::Nothing, despite: true }
}

/// The rules.
pub const RULES: &[Rule] = &[
    // Secrets.
    rule(set!(Token), set!(Password | PasswordMaybe), set!(Public), AccessToken),
    rule(set!(), set!(Jwt), set!(), Jwt),
    despite(set!(Hash), set!(Password | PasswordMaybe | Pin), set!(), PasswordHash),
    rule(set!(Salt), set!(Password | PasswordMaybe), set!(), PasswordHash),
    people(set!(Salt), set!(), set!(), PasswordHash),
    rule(set!(Cloud), set!(Key | Secret | Token), set!(Public), CloudKey),
    rule(set!(Private | Key), set!(), set!(Public | Address), PrivateKey),
    rule(set!(Answer), set!(Security | Secret), set!(), Password),
    rule(set!(Password), set!(), set!(), Password),
    people(set!(PasswordMaybe), set!(), set!(Passport), Password),
    people(set!(Pin), set!(), set!(Zip), Password),
    rule(set!(Pin), set!(Card | Hash), set!(), Password),
    rule(set!(Key), set!(Access | Secret), set!(Public), AccessToken),
    rule(set!(Secret), set!(), set!(Public | Number), AccessToken),
    rule(set!(Session), set!(Token | Key), set!(), AccessToken),
    rule(set!(Token), set!(), set!(Public | Network | Thing), AccessToken),
    // Money.
    rule(set!(Iban), set!(), set!(), Iban),
    rule(set!(Holder), set!(Card | Account | Bank | Name), set!(Number), PersonName),
    rule(set!(CardNumber), set!(), set!(Holder), PaymentCard),
    despite(set!(Card | Expiry), set!(), set!(), PaymentCard),
    rule(
        set!(Card),
        set!(Number | Security),
        set!(Other | Identity | Thing | Insurance | National | Health),
        PaymentCard,
    ),
    rule(set!(Card | Credit), set!(), set!(Name | Thing | Other), PaymentCard),
    values(set!(Card), set!(), set!(Id | Name | Thing | Other | Identity), PaymentCard),
    rule(set!(Routing), set!(), set!(Address | Key), BankAccount),
    rule(set!(AccountNumber), set!(), set!(), BankAccount),
    rule(set!(Account | Bank), set!(), set!(Name | Balance | Holder), BankAccount),
    rule(set!(Account | Number), set!(), set!(Name | Thing | Balance), BankAccount),
    rule(set!(Bank | Number), set!(), set!(Name | Phone | Mail), BankAccount),
    rule(set!(Income), set!(), set!(), Income),
    rule(set!(Balance), set!(Account | Person | Bank), set!(), Income),
    // Health, and what else the law protects.
    despite(set!(Blood), set!(About | Sort), set!(), Health),
    rule(set!(Illness), set!(), set!(Thing), Health),
    rule(set!(Health), set!(Insurance | Number | Value | Id), set!(), Health),
    despite(set!(Marital | About), set!(), set!(), Special),
    rule(set!(Special), set!(), set!(Thing), Special),
    people(set!(SpecialMaybe), set!(), set!(Thing), Special),
    rule(set!(Sexual | Orientation), set!(), set!(), Special),
    // Numbers by which states know people.
    rule(set!(NationalNumber), set!(), set!(), NationalId),
    rule(set!(Social | Security), set!(), set!(), NationalId),
    rule(set!(Social | Insurance), set!(), set!(), NationalId),
    rule(set!(National | Insurance), set!(), set!(), NationalId),
    rule(set!(Insurance | Number), set!(Person), set!(), NationalId),
    rule(set!(Driver | Licence), set!(), set!(), Document),
    rule(set!(Plate), set!(), set!(Thing), Document),
    rule(set!(Licence | Number), set!(Person | Driver), set!(), Document),
    rule(set!(Passport), set!(), set!(Password), Document),
    rule(set!(Tax), set!(Id | Number | Identity), set!(Other | Thing), NationalId),
    rule(set!(National), set!(Identity | Id | Number), set!(Thing | Phone | Zip | Address), NationalId),
    rule(set!(Identity), set!(Number | Card | Personal), set!(Thing | Device | Other), NationalId),
    rule(set!(Personal | Number), set!(), set!(Phone | Account | Other | Mail | Zip), NationalId),
    rule(set!(Personal | Id | Number), set!(), set!(), NationalId),
    rule(set!(Driver | Number), set!(), set!(Phone), Document),
    people(set!(NationalMaybe), set!(), set!(Account), NationalId),
    values(set!(NationalMaybe), set!(), set!(Account), NationalId),
    people(set!(Identity), set!(), set!(Device | Nick), NationalId),
    // Machines.
    rule(set!(DeviceNumber), set!(), set!(), Device),
    rule(set!(Mac), set!(Address | Device | Remote | Ip), set!(), Device),
    values(set!(Mac), set!(), set!(), Device),
    rule(set!(Device), set!(Id | Identity), set!(Thing), Device),
    rule(set!(Ip), set!(), set!(Number), IpAddress),
    rule(set!(Remote | Address), set!(), set!(Mail | Phone | Street), IpAddress),
    // People.
    rule(set!(Mail), set!(), set!(Number | Thing | Zip), Email),
    values(set!(Mail), set!(), set!(Zip), Email),
    rule(set!(Phone), set!(), set!(Thing), Phone),
    values(set!(Phone), set!(), set!(), Phone),
    people(set!(PhoneMaybe), set!(), set!(Thing), Phone),
    values(set!(PhoneMaybe), set!(), set!(), Phone),
    rule(set!(Birth | Place), set!(), set!(), Address),
    rule(set!(Birth | City), set!(), set!(), Address),
    rule(set!(Birth | Name), set!(), set!(), PersonName),
    rule(set!(Birth), set!(), set!(Thing | Sort | Other), BirthDate),
    people(set!(Age), set!(), set!(Thing), BirthDate),
    rule(set!(OwnName), set!(), set!(Thing | Other), PersonName),
    rule(set!(Nick), set!(), set!(Thing | Other | Value | Date), PersonName),
    rule(set!(Name), set!(First | Last), set!(Thing | Other), PersonName),
    people(set!(Name), set!(), set!(Thing | Other | Network), PersonName),
    rule(set!(Name | Full), set!(), set!(Thing | Other | Network), PersonName),
    rule(set!(Street), set!(), set!(Thing), Address),
    rule(set!(House | Number), set!(), set!(Thing), Address),
    people(set!(House), set!(), set!(Thing), Address),
    rule(set!(Address), set!(), set!(Thing | Network | Other | Key | Token), Address),
    rule(set!(Delivery), set!(Zip | City), set!(Thing), Address),
    no_things(set!(Zip), set!(), set!(Other | Thing | Card | Password), Address),
    people(set!(Zip), set!(), set!(Other), Address),
    people(set!(City), set!(), set!(Name | Other), Address),
    people(set!(Geo), set!(), set!(), Location),
];
