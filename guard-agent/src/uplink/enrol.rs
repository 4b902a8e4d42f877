//! A join token becomes a certificate, and a certificate the next one.
//!
//! The key is made here, and only its public half leaves the host. Before the token is sent, the control plane has proved
//! to be the one whose fingerprint was given.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use guard_common::api::control::{EnrolRequest, Enrolled, RenewRequest, enrolment_client::EnrolmentClient};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tokio::sync::watch;
use tonic::{Status, transport::Channel};
use uuid::Uuid;

use super::{
    UplinkError,
    credentials::{CredentialError, Credentials, Held, Kept, Named},
    endpoint::{self, Way},
    tls::{self, Fingerprint},
};
use crate::audit;

/// How long the control plane may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// The longest between two looks at the certificate: the clock may have been set, or the agent enrolled anew.
const LOOK: Duration = Duration::from_secs(600);
/// The shortest between two tries.
const RETRY: Duration = Duration::from_secs(1);

/// Why the agent has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It has one.
    #[error(
        "this agent has enrolled at {control}, and its certificate is good: `--again` takes another one, with a token, \
         after `guard-control agents revoke {agent_id}`"
    )]
    Already {
        /// Where.
        control: String,
        /// As whom.
        agent_id: Uuid,
    },
    /// Without TLS.
    #[error("`--control` must be an https:// URL such as https://control.example:7443")]
    Plaintext,
    /// The URL is none, or nobody answers.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// The control plane refused.
    #[error("the control plane refused: {0}")]
    Refused(String),
    /// The control plane took too long.
    #[error("the control plane has not answered within {} seconds", ANSWER_TIME.as_secs())]
    Silent,
    /// The certificate is not the one that was asked for.
    #[error("the control plane answered with a certificate for something else; nothing was changed")]
    Other,
    /// A file.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The journal's folder.
    #[error("cannot use the journal's folder: {0}")]
    Journal(std::io::Error),
    /// The key could not be made, or TLS not be set up.
    #[error("cannot make a key: {0}")]
    Key(String),
}

/// What is needed to join.
#[derive(Debug)]
pub struct Invitation {
    /// https:// URL of the control plane.
    pub control: String,
    /// The token.
    pub token: String,
    /// Of its authority.
    pub fingerprint: Fingerprint,
    /// Also where there is a certificate.
    pub again: bool,
}

/// Joins; says as which agent, and until when.
pub async fn enrol(invitation: &Invitation, host: &str, state: &Path) -> Result<Named, EnrolError> {
    let credentials = Credentials::in_state(state);
    if let Ok(Some(held)) = credentials.load()
        && !invitation.again
        && !held.named.left().is_zero()
    {
        let control = credentials.control().unwrap_or_default();
        return Err(EnrolError::Already { control, agent_id: held.named.agent_id });
    }
    let way = endpoint::parse(&invitation.control)?;
    let Some(name) = &way.tls else { return Err(EnrolError::Plaintext) };
    let journal = state.join("journal");
    let agent_id = audit::claim_agent_id(&journal).map_err(EnrolError::Journal)?;
    let signing_key = audit::public_key(&journal).map(|key| key.as_bytes().to_vec()).unwrap_or_default();
    let config = tls::unknown(invitation.fingerprint).map_err(|error| EnrolError::Key(error.to_string()))?;
    let channel = tls::connect(&way, name, config).await.map_err(explain)?;
    let (key, request) = request(agent_id)?;
    let request = EnrolRequest {
        token: invitation.token.clone(),
        request,
        agent_id: agent_id.to_string(),
        host: host.to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        signing_key,
    };
    let mut client = EnrolmentClient::new(channel);
    let enrolled = answered(tokio::time::timeout(ANSWER_TIME, client.enrol(request)).await)?;
    let named = keep(&credentials, &key, &enrolled, agent_id)?;
    credentials.save_control(&invitation.control)?;
    Ok(named)
}

/// Another authority than the one that was named is what a wrong fingerprint, or somebody in between, looks like.
fn explain(error: UplinkError) -> EnrolError {
    match error {
        UplinkError::Unreachable { endpoint, reason } if reason.contains("UnknownIssuer") => {
            let reason = "its certificate is not from the authority with this --ca-fingerprint; the token was not sent";
            EnrolError::Uplink(UplinkError::Unreachable { endpoint, reason: reason.to_owned() })
        }
        error => EnrolError::Uplink(error),
    }
}

/// Renews the agent's certificate whenever a third of its time is left, and says so in `renewed`.
pub(super) async fn keep_renewing(credentials: Credentials, way: Way, renewed: watch::Sender<u64>) {
    let mut told = false;
    loop {
        let held = credentials.load().ok().flatten();
        let Some(held) = held.filter(|held| !held.named.left().is_zero()) else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let wait = held.named.renew_at().duration_since(SystemTime::now()).unwrap_or_default();
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(LOOK)).await;
            continue;
        }
        match renew(&credentials, &way, &held).await {
            Ok(named) => {
                told = false;
                tracing::info!(left = ?named.left(), "the certificate for the control plane was renewed");
                renewed.send_modify(|count| *count += 1);
            }
            Err(error) => {
                if !told {
                    tracing::warn!(%error, left = ?held.named.left(), "the certificate could not be renewed yet");
                }
                told = true;
            }
        }
        tokio::time::sleep((held.named.left() / 10).clamp(RETRY, LOOK)).await;
    }
}

async fn renew(credentials: &Credentials, way: &Way, held: &Held) -> Result<Named, EnrolError> {
    let Some(name) = &way.tls else { return Err(EnrolError::Plaintext) };
    let config = tls::known(held).map_err(|error| EnrolError::Key(error.to_string()))?;
    let channel: Channel = tls::connect(way, name, config).await?;
    let (key, request) = request(held.named.agent_id)?;
    let mut client = EnrolmentClient::new(channel);
    let answer = client.renew(RenewRequest { request });
    let enrolled = answered(tokio::time::timeout(ANSWER_TIME, answer).await)?;
    keep(credentials, &key, &enrolled, held.named.agent_id)
}

fn answered(
    answer: Result<Result<tonic::Response<Enrolled>, Status>, tokio::time::error::Elapsed>,
) -> Result<Enrolled, EnrolError> {
    match answer {
        Ok(Ok(enrolled)) => Ok(enrolled.into_inner()),
        Ok(Err(status)) => Err(EnrolError::Refused(super::reason(&status))),
        Err(_) => Err(EnrolError::Silent),
    }
}

/// A new key, and the request for its certificate.
fn request(agent_id: Uuid) -> Result<(KeyPair, Vec<u8>), EnrolError> {
    let failed = |error: rcgen::Error| EnrolError::Key(error.to_string());
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, agent_id.to_string());
    let request = params.serialize_request(&key).map_err(failed)?;
    Ok((key, request.der().to_vec()))
}

/// Keeps what has come, if it is what was asked for.
fn keep(
    credentials: &Credentials,
    key: &KeyPair,
    enrolled: &Enrolled,
    agent_id: Uuid,
) -> Result<Named, EnrolError> {
    let named = Named::of(&enrolled.certificate).filter(|named| named.agent_id == agent_id);
    let named = named.ok_or(EnrolError::Other)?;
    let held = Held {
        key: key.serialize_der().try_into().map_err(|_| EnrolError::Other)?,
        certificate: enrolled.certificate.clone().into(),
        authorities: enrolled.authorities.iter().map(|der| der.clone().into()).collect(),
        named,
    };
    // Key and certificate belong together, or rustls does not take them.
    if held.authorities.is_empty() || tls::known(&held).is_err() {
        return Err(EnrolError::Other);
    }
    let pem = key.serialize_pem();
    credentials.save(&Kept {
        key: &pem,
        certificate: &enrolled.certificate,
        authorities: &enrolled.authorities,
        policy_keys: &enrolled.policy_keys,
    })?;
    Ok(named)
}
