//! Policies for the fleet: a folder enters, signed versions leave, each for the hosts that somebody has chosen.
//!
//! A version that does not fit the schema is never stored. Which hosts run it is said by labels, step by step; going back is a
//! new version with the old content, since agents take no older one than they have.

pub mod diff;
pub mod dry_run;

use std::{collections::BTreeMap, path::Path, time::SystemTime};

use guard_common::{
    api::control::{PolicyBundle, PolicyFile, SignedPolicy},
    audit::{checkpoint::PublicKey, policy::message, v1::ControlEvent},
};
use guard_policy::{Origin, PolicyError, PolicySet};
use prost::Message;

use crate::{
    keys::SigningKey,
    store::{
        Store, StoreError, micros,
        sql::{Line, Sql},
    },
};

/// Largest bundle in bytes: it has to fit a message.
const MAX_BUNDLE: usize = 4 * 1024 * 1024;
/// Longest note or author.
const MAX_NOTE: usize = 1_024;

/// Why a version is not published or handed out.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The policies are not valid.
    #[error(transparent)]
    Policies(#[from] PolicyError),
    /// The folder is too large.
    #[error("the policies take more than 4 MiB")]
    TooLarge,
    /// Nothing would change.
    #[error("version {0} has the same content: there is nothing to publish")]
    Same(u64),
    /// There is no such version.
    #[error("there is no version {0}: see `guard-control policy versions`")]
    Unknown(u64),
    /// A label is none.
    #[error("`{0}` is no label: write it as name=value")]
    Label(String),
    /// Too long.
    #[error("a note has at most {MAX_NOTE} bytes")]
    Note,
    /// Somebody else published at the same time.
    #[error("somebody else has published at the same time: look, and try again")]
    Raced,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A version.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its number: each is higher than the ones before.
    pub number: u64,
    /// Microseconds since 1970.
    pub at: i64,
    /// Who published it.
    pub author: String,
    /// What they said of it.
    pub note: String,
    /// Of the set, as `guard-agent status` shows it.
    pub hash: String,
    /// The key that signed it.
    pub key_id: String,
}

/// The files of a folder that policies are made of, and the hash of the set, which fits the schema.
pub fn read(folder: &Path) -> Result<(BTreeMap<String, String>, String), PublishError> {
    let files = PolicySet::files_of(folder)?;
    let set = PolicySet::from_files(files.clone(), Origin::Folder(folder.to_owned()))?;
    Ok((files, set.hash().to_owned()))
}

/// Publishes these files as the next version. No host runs it yet.
pub async fn publish(
    store: &Store,
    key: &SigningKey,
    files: BTreeMap<String, String>,
    (author, note): (&str, &str),
) -> Result<Version, PublishError> {
    if author.len() > MAX_NOTE || note.len() > MAX_NOTE {
        return Err(PublishError::Note);
    }
    let hash = PolicySet::from_files(files.clone(), Origin::BuiltIn)?.hash().to_owned();
    let last = versions(store).await?.into_iter().next();
    if let Some(last) = last.as_ref().filter(|last| last.hash == hash) {
        return Err(PublishError::Same(last.number));
    }
    let number = last.map_or(1, |last| last.number + 1);
    let at = micros(SystemTime::now());
    let files = files.into_iter().map(|(name, content)| PolicyFile { name, content }).collect();
    let bundle =
        PolicyBundle { version: number, files, at: at / 1_000_000, author: author.into(), note: note.into() };
    let bundle = bundle.encode_to_vec();
    if bundle.len() > MAX_BUNDLE {
        return Err(PublishError::TooLarge);
    }
    let signature = key.sign(&message(&bundle));
    let insert = "INSERT INTO policies (version, at, author, note, hash, bundle, key_id, signature)
         SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), $3, $4, $5, $6, $7, $8
         WHERE NOT EXISTS (SELECT 1 FROM policies WHERE version >= $1) RETURNING version";
    let values = [
        number.cast_signed().into(),
        at.into(),
        author.into(),
        note.into(),
        hash.clone().into(),
        bundle.into(),
        key.public().id().into(),
        signature.into(),
    ];
    if store.query(Sql::new(insert, values)).await?.is_empty() {
        return Err(PublishError::Raced);
    }
    note_event(store, "policy-published", &format!("version {number} by {author}: {note}")).await?;
    let key_id = key.public().id();
    Ok(Version { number, at, author: author.to_owned(), note: note.to_owned(), hash, key_id })
}

async fn note_event(store: &Store, event: &str, detail: &str) -> Result<(), StoreError> {
    let event =
        ControlEvent { event: event.to_owned(), detail: detail.to_owned(), ..ControlEvent::default() };
    store.note_event(event).await
}

/// All versions, the newest first.
pub async fn versions(store: &Store) -> Result<Vec<Version>, StoreError> {
    let select = "SELECT version, at, author, note, hash, key_id FROM policies ORDER BY version DESC";
    let version = |line: &Line| Version {
        number: line.int(0).cast_unsigned(),
        at: line.int(1),
        author: line.text(2).to_owned(),
        note: line.text(3).to_owned(),
        hash: line.text(4).to_owned(),
        key_id: line.text(5).to_owned(),
    };
    Ok(store.query(Sql::new(select, [])).await?.iter().map(version).collect())
}

/// A version with its signature.
pub async fn signed(store: &Store, number: u64) -> Result<SignedPolicy, PublishError> {
    let select = "SELECT bundle, key_id, signature FROM policies WHERE version = $1";
    let lines = store.query(Sql::new(select, [number.cast_signed().into()])).await?;
    let line = lines.first().ok_or(PublishError::Unknown(number))?;
    Ok(SignedPolicy {
        bundle: line.bytes(0).to_vec(),
        key_id: line.text(1).to_owned(),
        signature: line.bytes(2).to_vec(),
    })
}

/// Whether a version is as it was when the owner of this key signed it.
pub fn holds(signed: &SignedPolicy, key: &PublicKey) -> bool {
    key.signed(&message(&signed.bundle), &signed.signature)
}

/// The files of a version.
pub async fn files(store: &Store, number: u64) -> Result<BTreeMap<String, String>, PublishError> {
    files_of(&signed(store, number).await?).ok_or(PublishError::Unknown(number))
}

/// The files of a signed version; nothing where it is none.
pub fn files_of(signed: &SignedPolicy) -> Option<BTreeMap<String, String>> {
    let bundle = PolicyBundle::decode(&*signed.bundle).ok()?;
    Some(bundle.files.into_iter().map(|file| (file.name, file.content)).collect())
}

/// Publishes the content of an older version anew, and hands it to every host.
pub async fn rollback(
    store: &Store,
    key: &SigningKey,
    number: u64,
    author: &str,
) -> Result<Version, PublishError> {
    let files = files(store, number).await?;
    let new = publish(store, key, files, (author, &format!("back to version {number}"))).await?;
    stage(store, new.number, &Labels::new(), author).await?;
    Ok(new)
}

/// Labels that a host must have; none: every host.
pub type Labels = BTreeMap<String, String>;

/// `name=value`.
pub fn label(text: &str) -> Result<(String, String), PublishError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(PublishError::Label(text.to_owned())),
    }
}

/// Hands a version to the hosts with these labels, from now on.
pub async fn stage(store: &Store, number: u64, labels: &Labels, author: &str) -> Result<(), PublishError> {
    let insert = "INSERT INTO rollouts (version, labels, at, author)
         SELECT version, $2, CAST($3 AS BIGINT), $4 FROM policies WHERE version = $1 RETURNING version";
    let text = serde_json::to_string(labels).unwrap_or_default();
    let at = micros(SystemTime::now());
    let values = [number.cast_signed().into(), text.into(), at.into(), author.into()];
    if store.query(Sql::new(insert, values)).await?.is_empty() {
        return Err(PublishError::Unknown(number));
    }
    let detail = format!("version {number} for {}, by {author}", whom(labels));
    Ok(note_event(store, "policy-staged", &detail).await?)
}

/// The hosts with these labels, in words.
pub fn whom(labels: &Labels) -> String {
    match labels.is_empty() {
        true => "every host".to_owned(),
        false => labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", "),
    }
}

/// A version was handed to hosts.
#[derive(Clone, Debug)]
pub struct Handed {
    /// The version.
    pub version: u64,
    /// To whom.
    pub labels: Labels,
    /// Microseconds since 1970.
    pub at: i64,
    /// By whom.
    pub author: String,
}

/// What was handed to whom, the newest first.
pub async fn handed(store: &Store) -> Result<Vec<Handed>, StoreError> {
    let select = "SELECT version, labels, at, author FROM rollouts ORDER BY id DESC LIMIT 1000";
    let handed = |line: &Line| {
        Some(Handed {
            version: line.int(0).cast_unsigned(),
            labels: serde_json::from_str(line.text(1)).ok()?,
            at: line.int(2),
            author: line.text(3).to_owned(),
        })
    };
    Ok(store.query(Sql::new(select, [])).await?.iter().filter_map(handed).collect())
}

/// What somebody has handed to whom, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollouts(Vec<(u64, Labels)>);

impl Rollouts {
    /// As they stand.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let select = "SELECT version, labels FROM rollouts ORDER BY id DESC LIMIT 1000";
        let lines = store.query(Sql::new(select, [])).await?;
        // Labels that cannot be read fit nobody.
        let rollout =
            |line: &Line| Some((line.int(0).cast_unsigned(), serde_json::from_str(line.text(1)).ok()?));
        Ok(Self(lines.iter().filter_map(rollout).collect()))
    }

    /// The version for a host with these labels: the newest that it was handed, and never an older one afterwards.
    pub fn wanted<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Option<u64> {
        let fits = |labels: &Labels| labels.iter().all(|(name, value)| label(name) == Some(value.as_str()));
        self.0.iter().filter(|(_, labels)| fits(labels)).map(|(number, _)| *number).max()
    }
}

/// Notes what an agent runs.
pub async fn note_running(
    store: &Store,
    agent_id: &str,
    (version, hash, error): (u64, &str, &str),
) -> Result<(), StoreError> {
    let update =
        "UPDATE agents SET policy_version = $1, policy_hash = $2, policy_error = $3 WHERE agent_id = $4";
    let values = [version.cast_signed().into(), hash.into(), error.into(), agent_id.into()];
    store.query(Sql::new(update, values)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_gets_the_newest_version_that_was_handed_to_it() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let rollouts = Rollouts(vec![
            (3, labels(&[("canary", "yes")])),
            (2, labels(&[])),
            (1, labels(&[("team", "x"), ("canary", "yes")])),
        ]);
        let wanted = |pairs: &[(&str, &str)]| {
            let host = labels(pairs);
            rollouts.wanted(|name| host.get(name).map(String::as_str))
        };
        assert_eq!(wanted(&[("canary", "yes")]), Some(3));
        assert_eq!(wanted(&[("canary", "no")]), Some(2));
        assert_eq!(wanted(&[]), Some(2));
        assert_eq!(Rollouts::default().wanted(|_| None), None);
    }
}
