//! Ships the journal to the control plane and remembers what it has acknowledged.
//!
//! Durable records enter from the journal's files, acknowledgements from the control plane. A control plane that is
//! away is normal: the journal is the spool. It must never hold up a session, never send what a power cut could take
//! back, and never send records in plaintext to another host.

mod approvals;
mod backoff;
mod endpoint;
mod stream;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use guard_common::api::{agent::UplinkStatus, control::Hello};
use tokio::task::JoinHandle;

use self::{backoff::Backoff, stream::Stream};
use crate::{
    approval::Approvals,
    audit::{AuditLog, ReadError, acknowledged},
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
        "`control.endpoint` is `{0}`: this version speaks to control planes without TLS, and therefore only on this \
         host. Name a loopback address such as `http://127.0.0.1:7400` and put a tunnel behind it"
    )]
    Plaintext(String),
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
}

/// The running uplink. Dropped, it stops.
#[derive(Debug)]
pub struct UplinkHandle {
    state: Arc<State>,
    audit: AuditLog,
    task: Option<JoinHandle<()>>,
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
    start_with(config, identity, audit, None)
}

/// The same, and tells the control plane of the statements that wait in `approvals`.
pub fn start_with(
    config: &ControlConfig,
    identity: Identity,
    audit: AuditLog,
    approvals: Option<Approvals>,
) -> Result<UplinkHandle, UplinkError> {
    let state = Arc::new(State::default());
    let Some(address) = config.endpoint.as_deref().filter(|address| !address.is_empty()) else {
        return Ok(UplinkHandle { state, audit, task: None });
    };
    let endpoint = endpoint::parse(address)?;
    // From here on, what is deleted before the control plane has it is a gap.
    let known = acknowledged(audit.dir()).unwrap_or(0).min(*audit.durable().borrow());
    audit.set_acknowledged(known);
    state.update(|status| {
        status.endpoint = address.to_owned();
        status.acknowledged_sequence = known;
    });
    let hello = Hello {
        agent_id: audit.agent_id().to_string(),
        host: identity.host,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: identity.mode.to_owned(),
        labels: config.labels.clone().into_iter().collect(),
        oldest_sequence: 0,
    };
    let stream = Stream {
        endpoint,
        address: address.to_owned(),
        hello,
        audit: audit.clone(),
        state: state.clone(),
        approvals,
    };
    let task = tokio::spawn(keep_up(stream));
    Ok(UplinkHandle { state, audit, task: Some(task) })
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
        if let Some(task) = &self.task {
            task.abort();
        }
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
