//! Who may be an agent: join tokens, certificates, revocation.
//!
//! A token and a request enter, a certificate leaves, and the store knows both. Of a token only its hash is kept; it works
//! once. An agent id has one owner: a second host that asks for it gets nothing until somebody has revoked the first.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use guard_common::audit::{chain::GENESIS, checkpoint::PublicKey, v1::ControlEvent};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    ca::{Authority, CaError, Issued},
    store::{
        Store, StoreError, micros,
        sql::{Sql, Value},
    },
};

/// What a token begins with, so that scanners for secrets find a lost one.
const PREFIX: &str = "guard-join-";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Longest text that is looked at as a token.
const MAX_TOKEN: usize = 128;

/// Why nobody gets a certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No such token, or it is used up, or it came too late: which of them is not told.
    #[error(
        "the join token is not valid: it is wrong, was used before or has expired. Make another with \
         `guard-control token create`"
    )]
    Token,
    /// Somebody has this id.
    #[error(
        "agent {0} is enrolled already. If this is the same host anew, run `guard-control agents revoke {0}` first; if \
         it is a copy of that host, move its journal away: it then gets an id of its own"
    )]
    Taken(Uuid),
    /// Its certificates are revoked.
    #[error("the certificates of agent {0} are revoked: enrol it again with a new join token")]
    Revoked(Uuid),
    /// Not one that the authority has signed for the agent, as far as the store knows.
    #[error("this certificate is not known here: enrol the agent with a join token")]
    Unknown,
    /// A field is wrong.
    #[error("{0}")]
    Request(&'static str),
    /// The authority does not sign.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no randomness.
    #[error("the operating system gives no random numbers")]
    Random,
}

/// A token that waits for its agent.
#[derive(Clone, Debug)]
pub struct Token {
    /// The first digits of its hash: what names it.
    pub id: String,
    /// What somebody called it.
    pub name: String,
    /// Microseconds since 1970.
    pub created: i64,
    /// The same.
    pub expires: i64,
    /// When it was used, and by which agent.
    pub used: Option<(i64, String)>,
}

/// Makes a token that works once within `ttl`. It is shown here and never again.
pub async fn create_token(store: &Store, name: &str, ttl: Duration) -> Result<String, EnrolError> {
    let mut random = [0; TOKEN_BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| EnrolError::Random)?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let now = SystemTime::now();
    let values = [hash(&token).into(), name.into(), micros(now).into(), micros(now + ttl).into()];
    let insert = "INSERT INTO tokens (hash, name, created, expires) VALUES ($1, $2, $3, $4)";
    // Long-used ones have said what they had to say.
    let old = Sql::new("DELETE FROM tokens WHERE expires < $1", [micros(now - 90 * DAY).into()]);
    store.run(vec![old, Sql::new(insert, values)]).await?;
    Ok(token)
}

const DAY: Duration = Duration::from_secs(86_400);

/// All tokens that are remembered, the newest first.
pub async fn tokens(store: &Store) -> Result<Vec<Token>, EnrolError> {
    let select = "SELECT hash, name, created, expires, used, agent_id FROM tokens ORDER BY created DESC";
    let lines = store.query(Sql::new(select, [])).await?;
    let token = |line: &crate::store::sql::Line| Token {
        id: hex::encode(line.bytes(0).get(..6).unwrap_or_default()),
        name: line.text(1).to_owned(),
        created: line.int(2),
        expires: line.int(3),
        used: line.maybe_int(4).map(|at| (at, line.text(5).to_owned())),
    };
    Ok(lines.iter().map(token).collect())
}

/// Takes back a token that nobody has used. False: there is none with this id.
pub async fn delete_token(store: &Store, id: &str) -> Result<bool, EnrolError> {
    let found = tokens(store).await?.into_iter().any(|token| token.id == id && token.used.is_none());
    let Some(prefix) = hex::decode(id).ok().filter(|_| found) else { return Ok(false) };
    let delete = "DELETE FROM tokens WHERE substr(hash, 1, 6) = $1 AND used IS NULL RETURNING expires";
    Ok(!store.query(Sql::new(delete, [prefix.into()])).await?.is_empty())
}

/// Who asks for the first certificate.
#[derive(Clone, Debug)]
pub struct Applicant {
    /// The agent's id.
    pub agent_id: Uuid,
    /// Name of its host.
    pub host: String,
    /// The key of its checkpoints, where it has one already.
    pub signing_key: Option<PublicKey>,
}

/// Gives certificates.
#[derive(Debug)]
pub struct Registrar {
    authority: Authority,
    lifetime: Duration,
    policy_key: Option<PublicKey>,
}

impl Registrar {
    /// Certificates of `authority`, good for `lifetime`.
    pub fn new(authority: Authority, lifetime: Duration) -> Self {
        Self { authority, lifetime, policy_key: None }
    }

    /// Agents are told that this key signs policies.
    pub fn with_policy_key(self, key: PublicKey) -> Self {
        Self { policy_key: Some(key), ..self }
    }

    /// The key that signs policies.
    pub fn policy_key(&self) -> Option<PublicKey> {
        self.policy_key
    }

    /// Who signs.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A join token becomes a certificate.
    pub async fn enrol(
        &self,
        store: &Store,
        token: &str,
        applicant: &Applicant,
        request: &[u8],
    ) -> Result<Issued, EnrolError> {
        let agent = applicant.agent_id;
        // Before the token is used up: a mistake here should not cost one.
        let issued = self.authority.issue(request, agent, self.lifetime)?;
        let now = micros(SystemTime::now());
        let id = agent.to_string();
        let lines = store.run(self.steps(token, applicant, &issued, now)).await?;
        let filled = |at: usize| lines.get(at).is_some_and(|lines| !lines.is_empty());
        if !filled(0) {
            let event = self.event("token-refused", &id, &applicant.host, "a join token was not valid");
            store.note_event(event).await?;
            return Err(EnrolError::Token);
        }
        if !filled(1) {
            let detail = "a host with a valid join token asked for an id that another one has";
            store.note_event(self.event("duplicate-agent", &id, &applicant.host, detail)).await?;
            return Err(EnrolError::Taken(agent));
        }
        let detail = format!("certificate {}", issued.serial);
        store.note_event(self.event("enrolled", &id, &applicant.host, &detail)).await?;
        tracing::info!(agent = id, host = applicant.host, serial = issued.serial, "an agent has enrolled");
        Ok(issued)
    }

    /// In one transaction: is the token good, and is the id free; if so, the certificate is known and the token is used.
    fn steps(&self, token: &str, applicant: &Applicant, issued: &Issued, now: i64) -> Vec<Sql> {
        let id = applicant.agent_id.to_string();
        let token = hash(token);
        let good = "SELECT expires FROM tokens WHERE hash = $1 AND used IS NULL AND expires > $2";
        // Two at once with one token, or with one id: the second finds the token used, or the id taken.
        let insert = "INSERT INTO certificates (serial, agent_id, host, issued, expires)
             SELECT $1, $2, $3, CAST($4 AS BIGINT), CAST($5 AS BIGINT)
             WHERE EXISTS (SELECT 1 FROM tokens WHERE hash = $6 AND used IS NULL AND expires > $4)
               AND NOT EXISTS (SELECT 1 FROM certificates WHERE agent_id = $2 AND revoked IS NULL AND expires > $4)
             RETURNING serial";
        let used = "UPDATE tokens SET used = $1, agent_id = $2
             WHERE hash = $3 AND used IS NULL AND EXISTS (SELECT 1 FROM certificates WHERE serial = $4)";
        // It is seen from now on, and its first key is the one that it names now.
        let seen = "INSERT INTO agents (agent_id, host, version, mode, labels, first_seen, last_seen, head_hash, signing_key)
             SELECT $1, $2, '', '', '{}', CAST($3 AS BIGINT), CAST($3 AS BIGINT), $4, $5
             WHERE EXISTS (SELECT 1 FROM certificates WHERE serial = $6)
             ON CONFLICT (agent_id) DO UPDATE SET signing_key = coalesce(agents.signing_key, excluded.signing_key)";
        let (from, until) = (now, micros(issued.validity.1));
        let key = applicant.signing_key.as_ref().map(|key| key.as_bytes().to_vec());
        let serial = issued.serial.clone();
        vec![
            Sql::new(good, [token.clone().into(), now.into()]),
            Sql::new(
                insert,
                [
                    Value::from(serial.clone()),
                    id.clone().into(),
                    applicant.host.clone().into(),
                    from.into(),
                    until.into(),
                    token.clone().into(),
                ],
            ),
            Sql::new(used, [now.into(), id.clone().into(), token.into(), serial.clone().into()]),
            Sql::new(
                seen,
                [
                    Value::from(id),
                    applicant.host.clone().into(),
                    now.into(),
                    GENESIS.to_vec().into(),
                    key.into(),
                    serial.into(),
                ],
            ),
        ]
    }

    /// The next certificate of an agent whose present one is good.
    pub async fn renew(
        &self,
        store: &Store,
        agent_id: Uuid,
        serial: &str,
        request: &[u8],
    ) -> Result<Issued, EnrolError> {
        check(store, agent_id, serial).await?;
        let issued = self.authority.issue(request, agent_id, self.lifetime)?;
        let insert = "INSERT INTO certificates (serial, agent_id, host, issued, expires)
             SELECT $1, agent_id, host, CAST($2 AS BIGINT), CAST($3 AS BIGINT) FROM certificates WHERE serial = $4 AND revoked IS NULL
             RETURNING host";
        let values = [
            issued.serial.clone().into(),
            micros(SystemTime::now()).into(),
            micros(issued.validity.1).into(),
            serial.into(),
        ];
        // What has expired long ago proves nothing any more.
        let old = "DELETE FROM certificates WHERE agent_id = $1 AND expires < $2";
        let values_old = [agent_id.to_string().into(), micros(SystemTime::now() - 365 * DAY).into()];
        let lines = store.run(vec![Sql::new(insert, values), Sql::new(old, values_old)]).await?;
        let host = lines.first().and_then(|lines| lines.first()).map(|line| line.text(0).to_owned());
        let Some(host) = host else { return Err(EnrolError::Revoked(agent_id)) };
        let detail = format!("certificate {} follows {serial}", issued.serial);
        store.note_event(self.event("renewed", &agent_id.to_string(), &host, &detail)).await?;
        Ok(issued)
    }

    fn event(&self, event: &str, agent_id: &str, host: &str, detail: &str) -> ControlEvent {
        ControlEvent {
            event: event.to_owned(),
            agent_id: agent_id.to_owned(),
            host: host.to_owned(),
            detail: detail.to_owned(),
            ..ControlEvent::default()
        }
    }
}

/// Whether this certificate may still be used.
pub async fn check(store: &Store, agent_id: Uuid, serial: &str) -> Result<(), EnrolError> {
    let select = "SELECT agent_id, revoked FROM certificates WHERE serial = $1";
    let lines = store.query(Sql::new(select, [serial.into()])).await?;
    match lines.first() {
        Some(line) if line.text(0) != agent_id.to_string() => Err(EnrolError::Unknown),
        Some(line) if line.maybe_int(1).is_some() => Err(EnrolError::Revoked(agent_id)),
        Some(_) => Ok(()),
        None => Err(EnrolError::Unknown),
    }
}

/// Whether an agent with this id has ever had a certificate: it then speaks by one, or not at all.
pub async fn is_enrolled(store: &Store, agent_id: &str) -> Result<bool, StoreError> {
    let select = "SELECT 1 FROM certificates WHERE agent_id = $1 LIMIT 1";
    Ok(!store.query(Sql::new(select, [agent_id.into()])).await?.is_empty())
}

/// Revokes all certificates of an agent; how many there were.
pub async fn revoke(store: &Store, agent_id: Uuid, reason: &str) -> Result<usize, EnrolError> {
    let update = "UPDATE certificates SET revoked = $1, reason = $2
         WHERE agent_id = $3 AND revoked IS NULL RETURNING serial";
    let id = agent_id.to_string();
    let values = [micros(SystemTime::now()).into(), reason.into(), id.clone().into()];
    let revoked = store.query(Sql::new(update, values)).await?.len();
    if revoked > 0 {
        let event = ControlEvent {
            event: "revoked".to_owned(),
            agent_id: id,
            detail: reason.to_owned(),
            ..ControlEvent::default()
        };
        store.note_event(event).await?;
    }
    Ok(revoked)
}

/// Takes a key as the one that signs an agent's chain from now on. False: there is no such agent.
pub async fn trust_key(store: &Store, agent_id: Uuid, key: &PublicKey) -> Result<bool, EnrolError> {
    let update = "UPDATE agents SET signing_key = $1, key_alarm = NULL WHERE agent_id = $2 RETURNING host";
    let values = [key.as_bytes().to_vec().into(), agent_id.to_string().into()];
    let lines = store.query(Sql::new(update, values)).await?;
    let Some(host) = lines.first().map(|line| line.text(0).to_owned()) else { return Ok(false) };
    let event = ControlEvent {
        event: "key-trusted".to_owned(),
        agent_id: agent_id.to_string(),
        host,
        detail: format!("key {}", key.id()),
        ..ControlEvent::default()
    };
    store.note_event(event).await?;
    Ok(true)
}

/// Certificates that are revoked and not expired.
pub async fn revoked(store: &Store) -> Result<std::collections::HashSet<String>, StoreError> {
    let select = "SELECT serial FROM certificates WHERE revoked IS NOT NULL AND expires > $1";
    let lines = store.query(Sql::new(select, [micros(SystemTime::now()).into()])).await?;
    Ok(lines.iter().map(|line| line.text(0).to_owned()).collect())
}

/// Tokens are random enough for a plain hash.
fn hash(token: &str) -> Vec<u8> {
    let token = &token[..token.floor_char_boundary(MAX_TOKEN)];
    Sha256::digest(token.trim().as_bytes()).to_vec()
}
