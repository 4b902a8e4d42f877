//! The socket of the command line: what `guard-agent status` asks a running agent.
//!
//! Only root and the agent's own user can connect: the socket's mode is 0600.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use guard_common::{
    api::agent::{
        JournalStatus, ServerStatus, StatusRequest, StatusResponse,
        local_client::LocalClient,
        local_server::{Local, LocalServer},
    },
    audit::{timestamp, v1::DatabaseServer},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Endpoint, Server},
};

use super::{Agent, fleet::Member, protection};

/// How long a running agent may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Why the command line and a running agent cannot talk.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The agent cannot make its socket.
    #[error("cannot listen on `{path}`: {error}; set `paths.run` to a folder that this user may write")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Another agent answers there.
    #[error(
        "another guard-agent is running: it answers on `{0}`; stop it, or set `paths.run` to another folder"
    )]
    Running(PathBuf),
    /// No agent answers.
    #[error("no guard-agent answers on `{path}`: {reason}; is it running, and are you root?")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// The socket in the run folder.
pub fn socket_path(run: &Path) -> PathBuf {
    run.join("agent.sock")
}

/// Serves the command line until dropped.
pub(super) struct Serving {
    task: JoinHandle<()>,
    path: PathBuf,
}

impl Serving {
    /// Whatever `task` serves at `path`.
    pub(super) fn new(task: JoinHandle<()>, path: PathBuf) -> Self {
        Self { task, path }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
        // Left over at worst: the next start removes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(super) async fn serve(agent: Arc<Agent>) -> Result<Serving, LocalError> {
    let path = socket_path(&agent.config.paths.run);
    if UnixStream::connect(&path).await.is_ok() {
        return Err(LocalError::Running(path));
    }
    let failed = |error| LocalError::Listen { path: path.clone(), error };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let service = LocalServer::new(Service { agent });
    let task = tokio::spawn(async move {
        let server = Server::builder().add_service(service);
        if let Err(error) = server.serve_with_incoming(UnixListenerStream::new(listener)).await {
            tracing::error!("the socket of the command line has failed: {error}");
        }
    });
    Ok(Serving { task, path })
}

struct Service {
    agent: Arc<Agent>,
}

#[tonic::async_trait]
impl Local for Service {
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(gather(&self.agent).await))
    }
}

async fn gather(agent: &Agent) -> StatusResponse {
    let policies = agent.decider.policies();
    let sensor = agent.sensor.measured_state().await;
    let fleet = agent.fleet.lock().await;
    let journal = agent.audit.status();
    let (losses, lost) = agent.connections.losses();
    StatusResponse {
        agent_id: agent.audit.agent_id().to_string(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        mode: agent.config.mode.as_str().to_owned(),
        started: Some(timestamp(agent.started)),
        policy_hash: policies.hash().to_owned(),
        policy_source: policies.origin().to_string(),
        policy_error: agent.policy_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        sensor: Some(sensor),
        servers: fleet.members.values().map(|member| server_status(agent, member)).collect(),
        journal: Some(JournalStatus { directory: agent.audit.dir().display().to_string(), ..journal }),
        uplink: agent
            .uplink
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|uplink| uplink.status()),
        approvals: Some(agent.approvals.status()),
        losses,
        lost,
        clients: Some(agent.clients.status()),
    }
}

fn server_status(agent: &Agent, member: &Member) -> ServerStatus {
    let server = member.slot.get();
    let counts = agent.connections.counts(&server.name);
    let statements = member.counters.counts();
    let (protection, coverage) = protection::of(agent, member, &server);
    let steering = agent.steering.lock().unwrap_or_else(PoisonError::into_inner);
    let steered = steering.as_ref().and_then(|steering| steering.counts(&server.name)).unwrap_or_default();
    let observed = agent.observer.of(&server.name);
    ServerStatus {
        server: Some(DatabaseServer {
            name: server.name.clone(),
            engine: server.engine.as_str().to_owned(),
            environment: server.environment.clone(),
        }),
        addresses: server.endpoints().collect(),
        proxy: member.proxy.join(", "),
        proxy_error: member.proxy_error.clone(),
        proxied_open: counts.proxied_open,
        proxied_total: counts.proxied_total,
        non_proxied_open: counts.non_proxied_open,
        non_proxied_total: counts.non_proxied_total,
        statements: statements.statements,
        refused: statements.refused,
        since: Some(timestamp(member.since)),
        protection: protection.to_owned(),
        coverage,
        last_non_proxied: counts.last_non_proxied.map(timestamp),
        place: server.elsewhere.as_ref().map(|elsewhere| elsewhere.label.clone()).unwrap_or_default(),
        steering: member.steering.clone(),
        steering_error: member.steering_error.clone(),
        steered_total: steered.steered,
        without_proxy_total: steered.without_proxy,
        observed_by: observed.by,
        observe_error: observed.error,
        observed: observed.statements,
        observed_refused: observed.refused,
        observed_lost: observed.lost,
        hold: agent.hold.shown().of(&server.name),
        non_proxied_refused: counts.non_proxied_refused,
        non_proxied_cut: counts.non_proxied_cut,
        non_proxied_not_stopped: counts.non_proxied_not_stopped,
    }
}

/// Asks the agent whose run folder is `run`.
pub async fn status(run: &Path) -> Result<StatusResponse, LocalError> {
    let path = socket_path(run);
    let no_answer = |reason: String| LocalError::NoAnswer { path: path.clone(), reason };
    let connect = {
        let path = path.clone();
        tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        })
    };
    // The address is not used: the connector knows the path.
    let endpoint = Endpoint::from_static("http://agent.invalid").timeout(ANSWER_WITHIN);
    let channel =
        endpoint.connect_with_connector(connect).await.map_err(|error| no_answer(root_cause(&error)))?;
    let response = LocalClient::new(channel).status(StatusRequest {}).await;
    response.map(Response::into_inner).map_err(|status| no_answer(status.message().to_owned()))
}

pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
