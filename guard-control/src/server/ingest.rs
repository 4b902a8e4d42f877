//! Agents' streams. Hello and batches enter; resume, acknowledgements and rejections leave.
//!
//! One task per stream. A batch is acknowledged after the store has it on disk, never before.

use std::time::Duration;

use guard_common::api::control::{
    Ack, AgentMessage, ApprovalVerdict, Batch as BatchMessage, ControlMessage, Hello, Reject, Resume,
    agent_message::Message as FromAgent, control_message::Message as ToAgent, ingest_server::Ingest,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::Fleet;
use crate::store::{Appended, Batch, StoreError, row::Row};

/// How long a new stream may take to say hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// How long an agent may leave answers unread.
const READ_TIME: Duration = Duration::from_secs(60);
/// Answers that may be unread.
const ANSWERS: usize = 16;
const MAX_LABELS: usize = 64;
const MAX_NAME: usize = 256;

/// The ingest service.
pub struct IngestService {
    fleet: Fleet,
    stopping: watch::Receiver<bool>,
}

impl IngestService {
    /// Stores into the fleet's store until `stopping` says otherwise.
    pub fn new(fleet: Fleet, stopping: watch::Receiver<bool>) -> Self {
        Self { fleet, stopping }
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
            stopping: self.stopping.clone(),
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
}

/// One agent's stream.
struct Stream {
    fleet: Fleet,
    stopping: watch::Receiver<bool>,
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
        let mut session = self
            .fleet
            .sessions
            .enter(&agent_id)
            .ok_or_else(|| Status::resource_exhausted("too many agents are connected"))?;
        tracing::info!(agent = agent_id, host = hello.host, "an agent has connected");
        let mut place = self.fleet.waiting.enter(&agent_id, &host);
        let stored_sequence = self.fleet.store.hello(hello).await.map_err(unavailable)?;
        self.answer(ToAgent::Resume(Resume { stored_sequence, takes_approvals: true })).await?;
        loop {
            let message = tokio::select! {
                biased;
                _ = &mut session.superseded => {
                    return Err(Status::aborted("a newer stream of the same agent has taken over"));
                }
                _ = self.stopping.wait_for(|stopping| *stopping) => {
                    return Err(Status::unavailable("the control plane is stopping"));
                }
                Some(verdict) = place.verdicts.recv() => Came::Verdict(Box::new(verdict)),
                message = self.messages.message() => Came::Message(message?.map(Box::new)),
            };
            let message = match message {
                Came::Message(message) => message,
                Came::Verdict(verdict) => {
                    self.answer(ToAgent::ApprovalVerdict(*verdict)).await?;
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
                Some(Some(FromAgent::Hello(_))) => {
                    return Err(Status::failed_precondition("Hello comes once, as the first message"));
                }
                Some(None) => return Err(Status::unimplemented("a message that this version does not know")),
            }
        }
    }

    /// Stores a batch and says so. False: it was rejected, and the stream ends.
    async fn take(
        &self,
        (agent_id, host): (&str, &str),
        oldest: u64,
        batch: BatchMessage,
    ) -> Result<bool, Status> {
        let seen = self.fleet.live.glimpse(&batch.records);
        let rows = batch.records.into_iter().map(Row::new).collect();
        let batch = Batch { agent_id: agent_id.to_owned(), oldest, rows };
        match self.fleet.store.append(batch).await.map_err(unavailable)? {
            Appended::Stored(stored_sequence) => {
                self.fleet.live.tell(agent_id, host, seen);
                self.answer(ToAgent::Ack(Ack { stored_sequence })).await?;
                Ok(true)
            }
            Appended::Rejected { sequence, reason } => {
                self.answer(ToAgent::Reject(Reject { reason, sequence })).await?;
                Ok(false)
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
    let names = [&hello.host, &hello.agent_version, &hello.mode];
    let labels = hello.labels.iter().flat_map(|(name, value)| [name, value]);
    if names.into_iter().chain(labels).any(|name| name.len() > MAX_NAME) {
        return Err(Status::invalid_argument("a field of Hello is longer than 256 bytes"));
    }
    if hello.labels.len() > MAX_LABELS {
        return Err(Status::invalid_argument("Hello has more than 64 labels"));
    }
    Ok(hello)
}
