//! The socket of `guard-agent approvals`: people who are not root reach it too, and the kernel says who they are.
//!
//! Its mode is 0666; nothing on it is trusted but the credentials of the peer, from which the person is found who logged
//! in. Each sees the requests that they have made or may decide on, and no others. Connections and questions are bounded.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use guard_common::{
    api::agent::{
        ApprovalRequest, DecideApprovalRequest, ListApprovalsRequest, ListApprovalsResponse,
        ShowApprovalRequest,
        approvals_client::ApprovalsClient,
        approvals_server::{Approvals as ApprovalsService, ApprovalsServer},
    },
    audit::v1::Workload,
};
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream, unix::UCred};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint, Server, server::Connected},
};

use super::{Agent, LocalError, local::Serving};
use crate::approval::{Exact, VoteError, Voter, in_words};

/// Connections at the same time.
const MAX_CONNECTIONS: usize = 128;

/// Connections of one user at the same time.
const PER_USER: usize = 16;

/// How long a connection lives: what people ask takes seconds, what says nothing must not keep its place.
const LIVES: Duration = Duration::from_secs(60);

/// How long a caller waits until the sensor has told who it is.
const ATTESTED_WITHIN: Duration = Duration::from_secs(5);
/// Questions of one user in a minute.
const PER_MINUTE: u32 = 600;

/// Users whose questions are counted at the same time.
const MAX_COUNTED: usize = 1_024;

/// How long the agent may take to answer: a name service may be slow.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The socket in the run folder.
pub fn socket_path(run: &Path) -> PathBuf {
    run.join("approvals.sock")
}

/// Serves people until dropped.
pub(super) fn serve(agent: Arc<Agent>) -> Result<Serving, LocalError> {
    let path = socket_path(&agent.config.paths.run);
    let failed = |error| LocalError::Listen { path: path.clone(), error };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    let service = ApprovalsServer::new(Service { agent, counted: Mutex::default() })
        .max_decoding_message_size(64 * 1024);
    let task = tokio::spawn(async move {
        let server = Server::builder().timeout(ANSWER_WITHIN).concurrency_limit_per_connection(4);
        let served = { server }.add_service(service).serve_with_incoming(incoming(listener)).await;
        if let Err(error) = served {
            tracing::error!("the socket for approvals has failed: {error}");
        }
    });
    Ok(Serving::new(task, path))
}

/// One connection, with its place among them.
struct Peer {
    stream: UnixStream,
    /// When it ends, whatever it is at.
    until: Pin<Box<tokio::time::Sleep>>,
    _place: Place,
}

/// Connections by user.
type Places = Arc<Mutex<HashMap<u32, usize>>>;

/// The place of one connection.
struct Place {
    uid: u32,
    places: Places,
}

impl Place {
    /// A place for `uid`: nobody has more than a few, and others than root leave some of them all to root.
    fn take(uid: u32, places: &Places) -> Option<Self> {
        let mut taken = places.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or(0);
        let limit = if uid == 0 { MAX_CONNECTIONS } else { MAX_CONNECTIONS - PER_USER };
        if own >= PER_USER || all >= limit {
            return None;
        }
        *taken.entry(uid).or_default() += 1;
        Some(Self { uid, places: Arc::clone(places) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut own) = taken.entry(self.uid) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

/// Connections as there is room for them; who finds none is hung up on.
fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<Peer>> {
    let places = Places::default();
    UnixListenerStream::new(listener).filter_map(move |stream| match stream {
        Ok(stream) => {
            let uid = stream.peer_cred().ok()?.uid();
            let place = Place::take(uid, &places)?;
            Some(Ok(Peer { stream, until: Box::pin(tokio::time::sleep(LIVES)), _place: place }))
        }
        Err(error) => {
            // Such as too many open files: that passes.
            tracing::warn!("a connection for approvals was lost: {error}");
            None
        }
    })
}

impl Connected for Peer {
    type ConnectInfo = Option<UCred>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.peer_cred().ok()
    }
}

mod io_of_peer {
    use std::{
        io,
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Peer;

    impl AsyncRead for Peer {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Peer {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}

struct Service {
    agent: Arc<Agent>,
    /// Questions of each user since when.
    counted: Mutex<HashMap<u32, (Instant, u32)>>,
}

impl Service {
    /// The process that asks, as the kernel knows it.
    async fn caller<T>(&self, request: &Request<T>) -> Result<Arc<Workload>, Status> {
        let unknown = || Status::permission_denied("the kernel does not say who asks");
        let credentials =
            request.extensions().get::<Option<UCred>>().copied().flatten().ok_or_else(unknown)?;
        self.count(credentials.uid())?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).ok_or_else(unknown)?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        // Half of an answer would be somebody else: without a name, in no group.
        let busy = || Status::unavailable("the agent is too busy to find out who you are: try again");
        let workload = self.agent.sensor.attested_unix(pid, (uid, gid), ATTESTED_WITHIN).await;
        let workload = workload.ok_or_else(busy)?;
        // Another process may have got its number by now: nobody decides under a name that may be another's.
        if workload.pid != pid || workload.uid != uid && workload.euid != uid {
            return Err(unknown());
        }
        Ok(workload)
    }

    fn count(&self, uid: u32) -> Result<(), Status> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if counted.len() >= MAX_COUNTED && !counted.contains_key(&uid) {
            counted.retain(|_, (since, _)| since.elapsed() < Duration::from_secs(60));
        }
        let (since, count) = counted.entry(uid).or_insert((now, 0));
        if since.elapsed() >= Duration::from_secs(60) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > PER_MINUTE {
            return Err(Status::resource_exhausted("you ask too often: wait a minute"));
        }
        Ok(())
    }

    /// Who asks, with those of the groups that `requests` name in which they are.
    async fn voter(&self, caller: Arc<Workload>, requests: &[ApprovalRequest]) -> Result<Voter, Status> {
        let wanted: BTreeSet<String> = requests
            .iter()
            .filter_map(|request| request.needs.as_ref())
            .flat_map(|needs| &needs.requirements)
            .flat_map(|requirement| requirement.groups.iter().cloned())
            .collect();
        let groups = self.agent.approvals.groups().clone();
        let found = tokio::task::spawn_blocking(move || Voter::local(&groups, &caller, &wanted)).await;
        found.map_err(|_| Status::unavailable("the agent is stopping"))
    }

    /// One request, if `caller` may see it.
    async fn find(
        &self,
        caller: Arc<Workload>,
        id: &str,
    ) -> Result<(ApprovalRequest, Vec<Arc<Exact>>, Voter), Status> {
        let id = id.trim().to_ascii_lowercase();
        let unknown = || Status::not_found(VoteError::Unknown(id.clone()).to_string());
        let (request, exacts) = self.agent.approvals.show(&id).ok_or_else(unknown)?;
        let voter = self.voter(caller, std::slice::from_ref(&request)).await?;
        if self.sees(&request, &voter) { Ok((request, exacts, voter)) } else { Err(unknown()) }
    }

    fn sees(&self, request: &ApprovalRequest, voter: &Voter) -> bool {
        voter.person.uid == 0 || voter.is_approver_of(request) || self.agent.approvals.is_own(request, voter)
    }

    /// What `voter` is shown of `request`.
    fn shown(&self, mut request: ApprovalRequest, voter: &Voter) -> ApprovalRequest {
        let may_not = self.agent.approvals.may_not(&request, voter);
        request.may_decide = may_not.is_none();
        request.may_not = may_not.unwrap_or_default();
        request.effects_in_words = in_words(&request.effects);
        request
    }
}

#[tonic::async_trait]
impl ApprovalsService for Service {
    async fn list(
        &self,
        request: Request<ListApprovalsRequest>,
    ) -> Result<Response<ListApprovalsResponse>, Status> {
        let caller = self.caller(&request).await?;
        let requests = self.agent.approvals.list(request.get_ref().all);
        let voter = self.voter(caller, &requests).await?;
        let seen = requests.into_iter().filter(|request| self.sees(request, &voter));
        let requests = seen.map(|request| self.shown(request, &voter)).collect();
        Ok(Response::new(ListApprovalsResponse { requests }))
    }

    async fn show(&self, request: Request<ShowApprovalRequest>) -> Result<Response<ApprovalRequest>, Status> {
        let caller = self.caller(&request).await?;
        let ShowApprovalRequest { id, full } = request.into_inner();
        let (request, exacts, voter) = self.find(caller, &id).await?;
        let mut shown = self.shown(request, &voter);
        if full {
            // Whoever decides sees what they decide on, and root. Nobody else reads literals here.
            let allowed = shown.may_decide || voter.person.uid == 0 && voter.ai_agent.is_empty();
            if allowed { add_full(&mut shown, &exacts) } else { shown.full_missing = NOT_YOURS.to_owned() }
        }
        Ok(Response::new(shown))
    }

    async fn decide(
        &self,
        request: Request<DecideApprovalRequest>,
    ) -> Result<Response<ApprovalRequest>, Status> {
        let caller = self.caller(&request).await?;
        let DecideApprovalRequest { id, approve, reason } = request.into_inner();
        let (request, _, voter) = self.find(caller, &id).await?;
        let voted = self.agent.approvals.vote(&request.id, &voter, approve, &reason).await;
        let voted = voted.map_err(|error| {
            tracing::info!(
                request = request.id,
                by = voter.name(),
                approve,
                "a decision does not count: {error}"
            );
            Status::new(code(&error), error.to_string())
        })?;
        Ok(Response::new(self.shown(voted, &voter)))
    }
}

const NOT_YOURS: &str = "only who may decide on it sees it";

const NOT_KEPT: &str =
    "it is kept only as long as it waits, not over a restart of the agent, and only where all of it is known";

fn add_full(shown: &mut ApprovalRequest, exacts: &[Arc<Exact>]) {
    if exacts.is_empty() {
        NOT_KEPT.clone_into(&mut shown.full_missing);
    }
    for exact in exacts {
        match exact.text() {
            Ok(text) => {
                if !shown.full_text.is_empty() {
                    shown.full_text.push_str("\n-- or, prepared before: ");
                }
                shown.full_text.push_str(text);
                shown.full_parameters.extend(exact.parameters().iter().map(ToString::to_string));
            }
            Err(why) => why.clone_into(&mut shown.full_missing),
        }
    }
}

fn code(error: &VoteError) -> Code {
    match error {
        VoteError::Unknown(_) => Code::NotFound,
        VoteError::Over { .. } | VoteError::Approved(_) | VoteError::Twice => Code::FailedPrecondition,
        VoteError::Own | VoteError::NotAPerson(_) | VoteError::NotInGroup(_) => Code::PermissionDenied,
        VoteError::Unrecorded(_) => Code::Unavailable,
    }
}

/// A connection to the agent whose run folder is `run`.
pub async fn connect(run: &Path) -> Result<ApprovalsClient<Channel>, LocalError> {
    let path = socket_path(run);
    let connector = {
        let path = path.clone();
        tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        })
    };
    // The address is not used: the connector knows the path.
    let endpoint = Endpoint::from_static("http://agent.invalid").timeout(ANSWER_WITHIN);
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| LocalError::NoAnswer { path, reason: super::local::root_cause(&error) })?;
    Ok(ApprovalsClient::new(channel).max_decoding_message_size(64 * 1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places() {
        let places = Places::default();
        let mine: Vec<_> = (0..PER_USER).map(|_| Place::take(7, &places).expect("room")).collect();
        assert!(Place::take(7, &places).is_none());
        let others: Vec<_> = (100..200).filter_map(|uid| Place::take(uid, &places)).collect();
        assert_eq!(others.len(), MAX_CONNECTIONS - 2 * PER_USER);
        let root: Vec<_> = (0..PER_USER + 1).filter_map(|_| Place::take(0, &places)).collect();
        assert_eq!(root.len(), PER_USER);
        drop(mine);
        drop(root);
        assert!(Place::take(7, &places).is_some());
    }
}
