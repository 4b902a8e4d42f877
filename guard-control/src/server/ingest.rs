//! Agents' streams. Hello and batches enter; resume, acknowledgements and rejections leave.
//!
//! One task per stream. A batch is acknowledged after the store has it on disk, never before. An agent with a certificate
//! speaks for itself alone, and nobody else for it.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use guard_common::{
    api::control::{
        Ack, AgentMessage, ApprovalVerdict, Batch as BatchMessage, ControlMessage, Hello, PolicyOffer,
        PolicyStatus, Reject, Resume, agent_message::Message as FromAgent,
        control_message::Message as ToAgent, ingest_server::Ingest,
    },
    audit::v1::ControlEvent,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{
    Fleet, News, Revocations, enrolment,
    reported::{self, Claim},
    sessions::{NoPlace, Session},
    transport::Peer,
};
use crate::{
    ca::Named,
    enrol::{self, EnrolError},
    policy,
    store::{
        Appended, Batch, StoreError,
        row::{Row, kind},
    },
};

/// How long a new stream may take to say hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// How long an agent may leave answers unread.
const READ_TIME: Duration = Duration::from_secs(60);
/// Answers that may be unread.
const ANSWERS: usize = 16;
const MAX_LABELS: usize = 64;
const MAX_NAME: usize = 256;
/// Longest word of an agent about its policies.
const MAX_PROBLEM: usize = 4_096;

/// The ingest service.
pub struct IngestService {
    fleet: Fleet,
    news: News,
}

impl IngestService {
    /// Stores into the fleet's store until the news say otherwise.
    pub(super) fn new(fleet: Fleet, news: News) -> Self {
        Self { fleet, news }
    }
}

type Answers = mpsc::Sender<Result<ControlMessage, Status>>;

#[tonic::async_trait]
impl Ingest for IngestService {
    type StreamStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (answers, receiver) = mpsc::channel(ANSWERS);
        let stream = Stream {
            fleet: self.fleet.clone(),
            news: self.news.clone(),
            offered: None,
            peer: request.extensions().get().cloned().unwrap_or(Peer::Nobody),
            messages: request.into_inner(),
            answers,
        };
        tokio::spawn(stream.run());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// What a stream waits for.
enum Came {
    Message(Option<Box<AgentMessage>>),
    /// Of a person, for the agent.
    Verdict(Box<ApprovalVerdict>),
    /// Somebody has handed out policies.
    Rollouts,
    /// Databases have come, or gone.
    Databases,
}

/// What an agent wants to hear of, and by what policies are chosen for it.
struct Wants {
    policies: bool,
    databases: bool,
    labels: HashMap<String, String>,
}

/// One agent's stream.
struct Stream {
    fleet: Fleet,
    news: News,
    /// The version of the policies that the agent has, or was offered last; nothing before it has said what it has.
    offered: Option<u64>,
    peer: Peer,
    messages: Streaming<AgentMessage>,
    answers: Answers,
}

impl Stream {
    async fn run(mut self) {
        if let Err(status) = self.talk().await {
            tracing::info!(code = ?status.code(), reason = status.message(), "an agent's stream ended");
            let _ = tokio::time::timeout(READ_TIME, self.answers.send(Err(status))).await;
        }
    }

    async fn talk(&mut self) -> Result<(), Status> {
        let hello = match tokio::time::timeout(HELLO_TIME, self.messages.message()).await {
            Ok(message) => greeting(message?)?,
            Err(_) => {
                return Err(Status::deadline_exceeded("the first message must be Hello, and come at once"));
            }
        };
        let (agent_id, host, oldest) = (hello.agent_id.clone(), hello.host.clone(), hello.oldest_sequence);
        self.identify(&hello).await?;
        let mut session = self.place(&hello).await?;
        tracing::info!(agent = agent_id, host = hello.host, "an agent has connected");
        let mut place = self.fleet.waiting.enter(&agent_id, &hello.host);
        let wants = Wants {
            policies: hello.takes_policies,
            databases: hello.reports_clients,
            labels: hello.labels.clone(),
        };
        let clock = hello.clock;
        let stored_sequence = self.fleet.store.hello(hello).await.map_err(unavailable)?;
        reported::note_clock(&self.fleet.store, &agent_id, clock.as_ref()).await.map_err(unavailable)?;
        self.news.databases.mark_changed();
        let resume = Resume {
            stored_sequence,
            takes_approvals: true,
            takes_policy_status: true,
            takes_host_facts: true,
        };
        self.answer(ToAgent::Resume(resume)).await?;
        loop {
            let message = tokio::select! {
                biased;
                status = until_unwelcome(&self.peer, &mut self.news.revocations) => return Err(status),
                _ = &mut session.superseded => {
                    return Err(Status::aborted("a newer stream of the same agent has taken over"));
                }
                _ = self.news.stopping.wait_for(|stopping| *stopping) => {
                    return Err(Status::unavailable("the control plane is stopping"));
                }
                Some(verdict) = place.verdicts.recv() => Came::Verdict(Box::new(verdict)),
                Ok(()) = self.news.rollouts.changed(), if wants.policies && self.offered.is_some() => Came::Rollouts,
                Ok(()) = self.news.databases.changed(), if wants.databases => Came::Databases,
                message = self.messages.message() => Came::Message(message?.map(Box::new)),
            };
            let message = match message {
                Came::Message(message) => message,
                Came::Verdict(verdict) => {
                    self.answer(ToAgent::ApprovalVerdict(*verdict)).await?;
                    continue;
                }
                Came::Rollouts => {
                    self.offer(&wants).await?;
                    continue;
                }
                Came::Databases => {
                    let known = self.news.databases.borrow_and_update().clone();
                    self.answer(ToAgent::KnownDatabases(known)).await?;
                    continue;
                }
            };
            match message.map(|message| message.message) {
                None => return Ok(()),
                Some(Some(FromAgent::Batch(batch))) => {
                    if !self.take((&agent_id, &host), oldest, batch).await? {
                        return Ok(());
                    }
                }
                Some(Some(FromAgent::Approval(update))) => {
                    update.request.into_iter().for_each(|request| place.update(request));
                }
                Some(Some(FromAgent::ApprovalAnswer(answer))) => place.answer(answer),
                Some(Some(FromAgent::PolicyStatus(status))) => self.runs(&agent_id, status).await?,
                Some(Some(FromAgent::HostFacts(facts))) => {
                    reported::note_facts(&self.fleet.store, &agent_id, &facts).await.map_err(unavailable)?;
                }
                Some(Some(FromAgent::Hello(_))) => {
                    return Err(Status::failed_precondition("Hello comes once, as the first message"));
                }
                Some(None) => return Err(Status::unimplemented("a message that this version does not know")),
            }
        }
    }

    /// Offers the agent the version that somebody has chosen for its labels, where it is newer than what it has.
    async fn offer(&mut self, wants: &Wants) -> Result<(), Status> {
        let wanted = {
            let rollouts = self.news.rollouts.borrow_and_update();
            rollouts.wanted(|name| wants.labels.get(name).map(String::as_str))
        };
        let Some(wanted) = wanted.filter(|wanted| Some(*wanted) > self.offered) else { return Ok(()) };
        match policy::signed(&self.fleet.store, wanted).await {
            Ok(signed) => {
                self.offered = Some(wanted);
                self.answer(ToAgent::Policy(PolicyOffer { policy: Some(signed) })).await
            }
            Err(error) => {
                tracing::warn!(%error, wanted, "a version of the policies cannot be handed out");
                Ok(())
            }
        }
    }

    async fn runs(&mut self, agent_id: &str, mut status: PolicyStatus) -> Result<(), Status> {
        if self.offered.is_none() {
            // What was handed out before it came.
            self.news.rollouts.mark_changed();
        }
        self.offered = self.offered.max(Some(status.version));
        for text in [&mut status.hash, &mut status.error] {
            text.truncate(text.floor_char_boundary(MAX_PROBLEM));
        }
        let running = (status.version, status.hash.as_str(), status.error.as_str());
        policy::note_running(&self.fleet.store, agent_id, running).await.map_err(unavailable)
    }

    /// Makes sure that this peer may speak for the agent that it says it is.
    async fn identify(&self, hello: &Hello) -> Result<(), Status> {
        match &self.peer {
            Peer::Nobody => Err(Status::unauthenticated(
                "records are taken from agents with a certificate: `guard-agent enroll` gets one",
            )),
            Peer::Agent(named) if named.agent_id.to_string() != hello.agent_id => {
                let detail = format!("its certificate is that of agent {}", named.agent_id);
                self.note("wrong-agent", hello, &detail).await;
                Err(Status::permission_denied(format!(
                    "the certificate names agent {}, and this journal is that of agent {}: enroll the agent anew",
                    named.agent_id, hello.agent_id
                )))
            }
            Peer::Agent(named) => {
                match enrol::check(&self.fleet.store, named.agent_id, &named.serial).await {
                    Ok(()) => Ok(()),
                    Err(error) => {
                        if matches!(error, EnrolError::Revoked(_)) {
                            self.note("revoked-connects", hello, &format!("certificate {}", named.serial))
                                .await;
                        }
                        Err(enrolment::status(error))
                    }
                }
            }
            // Whoever has a certificate is not believed without it.
            Peer::Plain => match enrol::is_enrolled(&self.fleet.store, &hello.agent_id)
                .await
                .map_err(unavailable)?
            {
                false => Ok(()),
                true => {
                    self.note("duplicate-agent", hello, "it came without TLS, and its id has a certificate")
                        .await;
                    Err(Status::permission_denied(
                        "this agent id has a certificate: it is taken over TLS alone, at the https:// endpoint",
                    ))
                }
            },
        }
    }

    async fn place(&self, hello: &Hello) -> Result<Session, Status> {
        match self.fleet.sessions.enter(&hello.agent_id, &hello.instance) {
            Ok(session) => Ok(session),
            Err(NoPlace::Full) => Err(Status::resource_exhausted("too many agents are connected")),
            Err(NoPlace::Duplicate) => {
                self.note("duplicate-agent", hello, "another agent with its id is connected").await;
                Err(Status::already_exists(
                    "another agent with this id is connected: one of the two journals is a copy. Move the copy's folder \
                     away; it then gets an id of its own",
                ))
            }
        }
    }

    /// In the control plane's own chain, at most once an hour. Where it cannot be said, the store says why.
    async fn note(&self, event: &str, hello: &Hello, detail: &str) {
        let event = ControlEvent {
            event: event.to_owned(),
            agent_id: hello.agent_id.clone(),
            host: hello.host.clone(),
            detail: detail.to_owned(),
            ..ControlEvent::default()
        };
        let Some(event) = self.news.refusals.refused(event, Instant::now()) else {
            tracing::debug!(agent = hello.agent_id, host = hello.host, "an agent was refused again");
            return;
        };
        tracing::warn!(
            agent = event.agent_id,
            host = event.host,
            event = event.event,
            detail,
            "an agent was refused"
        );
        if let Err(error) = self.fleet.store.note_event(event).await {
            tracing::error!(%error, "this could not be recorded");
        }
    }

    /// Stores a batch and says so. False: it was rejected, and the stream ends.
    async fn take(
        &self,
        (agent_id, host): (&str, &str),
        oldest: u64,
        batch: BatchMessage,
    ) -> Result<bool, Status> {
        let (agent, live) = (agent_id.to_owned(), self.fleet.live.clone());
        // Decoding and hashing thousands of records: not on a thread that other streams wait for.
        let reckoned = tokio::task::spawn_blocking(move || {
            let seen = live.glimpse(&batch.records);
            let rows: Vec<Row> = batch.records.into_iter().map(Row::new).collect();
            let claims = rows.iter().filter_map(claim).collect::<Vec<_>>();
            (Batch::new(agent, oldest, rows), seen, claims)
        });
        let (batch, seen, claims) =
            reckoned.await.map_err(|_| Status::unavailable("the control plane is stopping"))?;
        match self.fleet.store.append(batch).await.map_err(unavailable)? {
            Appended::Stored(stored_sequence) => {
                self.fleet.live.tell(agent_id, host, seen);
                self.look_at((agent_id, host), &claims).await;
                self.answer(ToAgent::Ack(Ack { stored_sequence })).await?;
                Ok(true)
            }
            Appended::Rejected { sequence, reason } => {
                self.answer(ToAgent::Reject(Reject { reason, sequence })).await?;
                Ok(false)
            }
        }
    }

    /// Notes what is wrong with what an agent reports of other hosts' connections.
    async fn look_at(&self, agent: (&str, &str), claims: &[Claim]) {
        if claims.is_empty() {
            return;
        }
        let events = match reported::alarms(&self.fleet.store, agent, claims).await {
            Ok(events) => events,
            // Whoever looks at the connections is told all the same.
            Err(error) => return tracing::warn!(%error, "an agent's reports could not be looked at"),
        };
        for event in events {
            let Some(event) = self.news.refusals.refused(event, Instant::now()) else { continue };
            tracing::error!(
                agent = event.agent_id,
                host = event.host,
                event = event.event,
                "{}",
                event.detail
            );
            if let Err(error) = self.fleet.store.note_event(event).await {
                tracing::error!(%error, "this could not be recorded");
            }
        }
    }

    async fn answer(&self, message: ToAgent) -> Result<(), Status> {
        let sent = self.answers.send(Ok(ControlMessage { message: Some(message) }));
        match tokio::time::timeout(READ_TIME, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the agent has gone")),
            Err(_) => Err(Status::deadline_exceeded("the agent does not read its answers")),
        }
    }
}

/// What a record claims of another host's connection.
fn claim(row: &Row) -> Option<Claim> {
    let flow = row.columns.flow.clone().filter(|_| row.columns.kind == kind::CLIENT_CONNECTED)?;
    Some(Claim { sequence: row.sealed.sequence, flow, at: row.columns.at })
}

/// Ends when the peer's certificate has expired or is revoked.
async fn until_unwelcome(peer: &Peer, revocations: &mut Revocations) -> Status {
    let Peer::Agent(Named { agent_id, serial, expires }) = peer else { return std::future::pending().await };
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::select! {
        () = tokio::time::sleep(left) => Status::unauthenticated("the agent's certificate has expired"),
        true = async { revocations.wait_for(|revoked| revoked.contains(serial)).await.is_ok() } => {
            enrolment::status(EnrolError::Revoked(*agent_id))
        }
    }
}

/// The agent keeps its records and comes again.
fn unavailable(error: StoreError) -> Status {
    Status::unavailable(error.to_string())
}

/// The first message, if it is a Hello within bounds.
fn greeting(message: Option<AgentMessage>) -> Result<Hello, Status> {
    let Some(FromAgent::Hello(mut hello)) = message.and_then(|message| message.message) else {
        return Err(Status::failed_precondition("the first message must be Hello"));
    };
    let id = Uuid::try_parse(&hello.agent_id)
        .ok()
        .filter(|id| !id.is_nil())
        .ok_or_else(|| Status::invalid_argument("Hello.agent_id must be a UUID"))?;
    // One agent, one spelling.
    hello.agent_id = id.hyphenated().to_string();
    let names = [&hello.host, &hello.agent_version, &hello.mode, &hello.instance];
    let labels = hello.labels.iter().flat_map(|(name, value)| [name, value]);
    if names.into_iter().chain(labels).any(|name| name.len() > MAX_NAME) {
        return Err(Status::invalid_argument("a field of Hello is longer than 256 bytes"));
    }
    if hello.labels.len() > MAX_LABELS {
        return Err(Status::invalid_argument("Hello has more than 64 labels"));
    }
    Ok(hello)
}
