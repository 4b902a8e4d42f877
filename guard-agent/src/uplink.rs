//! Ships the journal to the control plane and remembers what it has acknowledged.
//!
//! Durable records enter from the journal's files, acknowledgements from the control plane. A control plane that is
//! away is normal: the journal is the spool. It must never hold up a session, never send what a power cut could take
//! back, and never send records in plaintext to another host.

mod approvals;
mod backoff;
mod credentials;
mod endpoint;
pub mod enrol;
mod policies;
mod stream;
mod tls;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guard_common::{
    api::{agent::UplinkStatus, control::Hello},
    audit::timestamp,
};
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

use self::{backoff::Backoff, stream::Stream};
pub use self::{
    credentials::{CredentialError, Credentials, Named},
    policies::Policies,
    tls::Fingerprint,
};
use crate::{
    approval::Approvals,
    audit::{AuditLog, ReadError, acknowledged},
    clients::Clients,
    config::ControlConfig,
};

/// Why records do not get to the control plane. All but the first two pass, or need a person, while the agent runs.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The configured endpoint is none.
    #[error("`control.endpoint` is `{0}`: it must be a URL such as `http://127.0.0.1:7400`")]
    Endpoint(String),
    /// Plaintext would leave this host.
    #[error(
        "`control.endpoint` is `{0}`: without TLS records do not leave this host. Name it as `https://..` and join it with \
         `guard-agent enroll`; `http://` is for a loopback address such as `http://127.0.0.1:7400`"
    )]
    Plaintext(String),
    /// There is no certificate.
    #[error(
        "this agent has no certificate for the control plane at {0}: `guard-control token create` there says how to get one"
    )]
    NotEnrolled(String),
    /// The certificate has expired, or names another chain.
    #[error("the certificate for the control plane {0}: enroll this agent again with `guard-agent enroll`")]
    Unusable(String),
    /// The credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The stream begins anew with the next certificate. No failure.
    #[error("the certificate was renewed")]
    Renewed,
    /// Nobody answers.
    #[error("the control plane at {endpoint} does not answer: {reason}")]
    Unreachable {
        /// Where it should be.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// The control plane ended the stream.
    #[error("the control plane ended the stream: {0}")]
    Ended(String),
    /// The control plane takes no more, or says nothing.
    #[error("the control plane has not acknowledged anything for {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The control plane said something that can't be.
    #[error("the control plane answered with {0}")]
    Nonsense(&'static str),
    /// The control plane knows more of this chain than the journal.
    #[error(
        "the control plane has {stored} records of this agent, the journal only {ours}: the journal was cut or put \
         back. Nothing is sent. Move the folder `{journal}` away and restart the agent: it begins a new journal \
         under a new agent id"
    )]
    Ahead {
        /// Stored there.
        stored: u64,
        /// Durable here.
        ours: u64,
        /// The journal's folder.
        journal: String,
    },
    /// The chain does not fit what the control plane has.
    #[error(
        "the control plane rejected record {sequence}: {reason}. The journal does not go on where the stored chain \
         ends: check it with `guard-agent audit verify`; a new journal begins when its folder is moved away"
    )]
    Rejected {
        /// The first record that does not fit.
        sequence: u64,
        /// Why.
        reason: String,
    },
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] ReadError),
}

impl UplinkError {
    /// Whether it takes a person to mend it.
    fn is_alarm(&self) -> bool {
        match self {
            Self::Ahead { .. } | Self::Rejected { .. } => true,
            Self::NotEnrolled(_) | Self::Unusable(_) | Self::Credentials(_) => true,
            Self::Journal(error) => !matches!(error, ReadError::Missing { .. }),
            _ => false,
        }
    }
}

/// What the agent says of itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the host.
    pub host: String,
    /// `monitor` or `enforce`.
    pub mode: &'static str,
    /// What the agent is known by at the control plane, where it has enrolled.
    pub credentials: Credentials,
}

/// The running uplink. Dropped, it stops.
#[derive(Debug)]
pub struct UplinkHandle {
    state: Arc<State>,
    audit: AuditLog,
    task: Option<JoinHandle<()>>,
    renewal: Option<JoinHandle<()>>,
}

/// What the task tells others.
#[derive(Debug, Default)]
struct State {
    status: Mutex<UplinkStatus>,
}

impl State {
    fn update(&self, change: impl FnOnce(&mut UplinkStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Begins to ship what `audit` records. Without an endpoint nothing is shipped, and the handle says so. Needs a tokio
/// runtime around it.
pub fn start(
    config: &ControlConfig,
    identity: Identity,
    audit: AuditLog,
) -> Result<UplinkHandle, UplinkError> {
    start_with(config, identity, audit, Doors::default())
}

/// What else the stream carries.
#[derive(Debug, Default)]
pub struct Doors {
    /// Statements that wait for people.
    pub approvals: Option<Approvals>,
    /// Policies that the control plane hands down.
    pub policies: Option<Policies>,
    /// What processes of this host connect to.
    pub clients: Option<Clients>,
}

/// The same, with what else the stream carries.
pub fn start_with(
    config: &ControlConfig,
    identity: Identity,
    audit: AuditLog,
    doors: Doors,
) -> Result<UplinkHandle, UplinkError> {
    let state = Arc::new(State::default());
    let configured = config.endpoint.clone().filter(|address| !address.is_empty());
    // Whoever has enrolled needs to configure nothing.
    let Some(address) = configured.or_else(|| identity.credentials.control()) else {
        return Ok(UplinkHandle { state, audit, task: None, renewal: None });
    };
    let way = endpoint::parse(&address)?;
    // From here on, what is deleted before the control plane has it is a gap.
    let known = acknowledged(audit.dir()).unwrap_or(0).min(*audit.durable().borrow());
    audit.set_acknowledged(known);
    state.update(|status| {
        status.endpoint.clone_from(&address);
        status.acknowledged_sequence = known;
    });
    let hello = Hello {
        agent_id: audit.agent_id().to_string(),
        host: identity.host,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: identity.mode.to_owned(),
        labels: config.labels.clone().into_iter().collect(),
        oldest_sequence: 0,
        instance: Uuid::new_v4().to_string(),
        takes_policies: doors.policies.as_ref().is_some_and(|policies| policies.wanted),
        reports_clients: doors.clients.as_ref().is_some_and(Clients::asks_control),
        clock: None,
    };
    let (renewed, renewals) = watch::channel(0);
    let credentials = identity.credentials;
    let renewal = way
        .tls
        .is_some()
        .then(|| tokio::spawn(enrol::keep_renewing(credentials.clone(), way.clone(), renewed)));
    let stream =
        Stream { way, credentials, renewals, hello, audit: audit.clone(), state: state.clone(), doors };
    let task = tokio::spawn(keep_up(stream));
    Ok(UplinkHandle { state, audit, task: Some(task), renewal })
}

impl UplinkHandle {
    /// For the command line.
    pub fn status(&self) -> UplinkStatus {
        self.state.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops, after giving what is durable by now up to `patience` to arrive. Close the journal first: its last records
    /// are then among them.
    pub async fn close(mut self, patience: Duration) {
        let Some(task) = self.task.take() else { return };
        let last = *self.audit.durable().borrow();
        let arrived = async {
            while self.audit.acknowledged().is_some_and(|acknowledged| acknowledged < last) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if self.status().connected {
            let _ = tokio::time::timeout(patience, arrived).await;
        }
        task.abort();
        let _ = task.await;
        if let Err(error) = self.audit.save_acknowledged() {
            tracing::warn!(%error, "cannot write down what the control plane has acknowledged");
        }
    }
}

impl Drop for UplinkHandle {
    fn drop(&mut self) {
        self.task.iter().chain(&self.renewal).for_each(JoinHandle::abort);
    }
}

/// Connects again and again, for as long as the agent runs.
async fn keep_up(stream: Stream) {
    let mut backoff = Backoff::default();
    let mut last_error = String::new();
    loop {
        let (error, had_progress) = stream.run().await;
        if let Err(error) = stream.audit.save_acknowledged() {
            tracing::warn!(%error, "cannot write down what the control plane has acknowledged");
        }
        if matches!(error, UplinkError::Renewed) {
            continue;
        }
        let text = error.to_string();
        stream.state.update(|status| {
            status.connected = false;
            status.error.clone_from(&text);
        });
        if had_progress {
            backoff.reset();
        }
        // Said once, however often it is tried.
        match (text == last_error && !had_progress, error.is_alarm()) {
            (true, _) => tracing::debug!(error = text, "still no uplink"),
            (false, true) => tracing::error!(error = text, "records do not reach the control plane"),
            (false, false) => tracing::warn!(error = text, "the uplink is down; records wait in the journal"),
        }
        last_error = text;
        let pause = if error.is_alarm() { backoff.longest() } else { backoff.next() };
        tokio::time::sleep(pause).await;
    }
}

/// When the agent's certificate expires, for the command line.
fn expiry(named: &Named) -> Option<pbjson_types::Timestamp> {
    Some(timestamp(named.expires))
}

/// What is at the bottom of an error: "transport error" tells nobody anything.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// What a control plane said, or what kept it from saying something.
fn reason(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => root_cause(source),
        None => status.message().to_owned(),
    }
}
