//! Literals in the record: what a statement was sent with enters, what the record may hold of it leaves.
//!
//! As the configuration says: nothing, all of it, or all of it for the holder of a private key alone. INVARIANT: what may
//! hold a password is withheld in every form; where that cannot be told, it may.

mod seal;
mod secret;

use std::fmt;

use guard_common::audit::v1::{AsSent, Literals, Parameter, literals::Kept, parameter::Value};
use prost::Message;

pub use self::seal::{LiteralsKey, NoLiteralsKey, NotOpened, Opener};
pub(crate) use self::secret::{SECRET_TAG, is_secret_kind, names_secret};
use self::{seal::Sealer, secret::Secrets};
use crate::{
    config::{JournalConfig, LiteralForm},
    sql::{self, Sent, Statement},
};

/// What is done with literals.
#[derive(Debug, Default)]
pub struct Keeper {
    form: Form,
    secrets: Secrets,
}

#[derive(Default)]
enum Form {
    #[default]
    Redacted,
    Full,
    Sealed(Box<Sealer>),
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redacted => "Redacted",
            Self::Full => "Full",
            Self::Sealed(_) => "Sealed",
        })
    }
}

impl Keeper {
    /// As `config` says.
    pub fn new(config: &JournalConfig) -> Self {
        let form = match (config.literals, &config.literals_key) {
            (LiteralForm::Redacted, _) => Form::Redacted,
            (LiteralForm::Full, _) => Form::Full,
            (LiteralForm::Encrypted, Some(key)) => Form::Sealed(Box::new(Sealer::new(key.clone()))),
            // The configuration was checked: there is a key. Without one nothing is kept.
            (LiteralForm::Encrypted, None) => Form::Redacted,
        };
        Self { form, secrets: Secrets::default() }
    }

    /// True where statements are to carry what they were sent with.
    pub fn wants(&self) -> bool {
        !matches!(self.form, Form::Redacted)
    }

    /// What the record of `statement` holds of it; nothing where literals are redacted.
    pub fn of(&self, statement: &Statement) -> Option<Literals> {
        let withheld = |why: &str| Some(Literals { kept: Some(Kept::Withheld(why.to_owned())) });
        if !self.wants() {
            return None;
        }
        let Some(sent) = &statement.sent else {
            return withheld("it is not known what it was sent with");
        };
        if let Some(why) = self.secrets.withheld(statement, sent) {
            return withheld(why);
        }
        let sent = as_sent(sent);
        let kept = match &self.form {
            Form::Redacted => return None,
            Form::Full => Kept::Clear(sent),
            Form::Sealed(sealer) => {
                match sealer.seal(&sent.encode_to_vec(), statement.fingerprint.as_bytes()) {
                    Some(sealed) => Kept::Sealed(sealed),
                    None => return withheld("it could not be sealed"),
                }
            }
        };
        Some(Literals { kept: Some(kept) })
    }
}

fn as_sent(sent: &Sent) -> AsSent {
    AsSent {
        text: sent.text().to_owned(),
        text_bytes: sent.bytes() as u64,
        parameters: sent.parameters().iter().map(parameter).collect(),
        parameters_left_out: u32::try_from(sent.left_out()).unwrap_or(u32::MAX),
    }
}

fn parameter(parameter: &sql::Parameter) -> Parameter {
    let Some(value) = &parameter.value else {
        return Parameter { null: true, ..Parameter::default() };
    };
    let bytes = if parameter.bytes > value.len() { parameter.bytes as u64 } else { 0 };
    let value = match std::str::from_utf8(value) {
        Ok(text) if !parameter.binary => Value::Text(text.to_owned()),
        // A letter may be cut in two.
        _ if !parameter.binary => Value::Text(String::from_utf8_lossy(value).into_owned()),
        _ => Value::Binary(value.to_vec()),
    };
    Parameter { value: Some(value), null: false, bytes }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sql::{Classifier, Limits, Modes, Room, Touched};

    /// `text` as a client has sent it.
    pub(super) fn sent(text: &str, touched: Touched) -> Arc<Statement> {
        let modes = Modes::default();
        let read = Classifier::new(Limits::default()).classify(text.as_bytes(), &modes);
        read.as_sent(text.as_bytes(), &modes, touched, &Room::new(1 << 20))
    }

    fn keeper(literals: LiteralForm, literals_key: Option<LiteralsKey>) -> Keeper {
        Keeper::new(&JournalConfig { literals, literals_key, ..JournalConfig::default() })
    }

    #[test]
    fn each_form_holds_what_it_says() {
        let statement = sent("SELECT * FROM t WHERE name = 'Ann'", Touched::default());
        assert_eq!(keeper(LiteralForm::Redacted, None).of(&statement), None);
        let full = keeper(LiteralForm::Full, None).of(&statement).unwrap();
        let Some(Kept::Clear(clear)) = full.kept else { panic!() };
        assert_eq!(clear.text, "SELECT * FROM t WHERE name = 'Ann'");
        let opener = Opener::generate();
        let sealed = keeper(LiteralForm::Encrypted, Some(opener.public())).of(&statement).unwrap();
        assert!(!sealed.encode_to_vec().windows(3).any(|bytes| bytes == b"Ann"));
        let Some(Kept::Sealed(sealed)) = sealed.kept else { panic!() };
        assert_eq!(opener.open(&sealed, &statement.fingerprint).unwrap(), clear);
        assert_eq!(
            keeper(LiteralForm::Encrypted, None).of(&statement),
            None,
            "without a key nothing is kept"
        );
    }

    #[test]
    fn what_nobody_knows_is_not_made_up() {
        let read = Classifier::new(Limits::default()).classify(b"SELECT 1", &Modes::default());
        let Some(Kept::Withheld(why)) = keeper(LiteralForm::Full, None).of(&read).unwrap().kept else {
            panic!()
        };
        assert!(why.contains("not known"), "{why}");
    }

    #[test]
    fn values_keep_their_form() {
        let statement = sent("SELECT $1, $2, $3", Touched::default());
        // One text, one binary, one NULL.
        let mut values = vec![0, 3, 0, 0, 0, 1, 0, 0, 0, 3];
        values.extend([0, 0, 0, 3, b'A', b'n', b'n', 0, 0, 0, 2, 1, 2, 255, 255, 255, 255, 0, 0]);
        let bound = statement.with_values(Some(&values), &Room::new(1 << 20)).unwrap();
        let Some(Kept::Clear(clear)) = keeper(LiteralForm::Full, None).of(&bound).unwrap().kept else {
            panic!()
        };
        let [text, binary, null] = &clear.parameters[..] else { panic!() };
        assert!(text.value == Some(Value::Text("Ann".to_owned())) && !text.null);
        assert!(binary.value == Some(Value::Binary(vec![1, 2])) && !binary.null);
        assert!(null.value.is_none() && null.null);
    }
}
