//! One stream to the control plane: hello, resume, batches and acknowledgements, until something ends it.
//!
//! Several batches may be on their way; each is bounded in records and bytes.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use guard_common::{
    api::control::{
        AgentMessage, Batch, ControlMessage, Hello, HostFacts, PolicyStatus,
        agent_message::Message as ToControl, control_message::Message as FromControl,
        ingest_client::IngestClient,
    },
    audit::timestamp,
};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, codec::CompressionEncoding, transport::Channel};

use super::{
    Doors, State, UplinkError, approvals::Telling, credentials::Credentials, endpoint::Way, expiry, reason,
    root_cause, tls,
};
use crate::audit::{AuditLog, ReadError, Reader};

/// Batches that may be on their way.
const WINDOW: usize = 4;
/// Records of one batch.
const BATCH_RECORDS: usize = 5_000;
/// Bytes of one batch, unless its only record is larger.
const BATCH_BYTES: usize = 1024 * 1024;
/// How long the control plane may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How often the acknowledged position is written down.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// What a stream needs; used for one after the other.
#[derive(Debug)]
pub struct Stream {
    pub(super) way: Way,
    pub(super) credentials: Credentials,
    /// Counts the certificates that came while the agent runs.
    pub(super) renewals: watch::Receiver<u64>,
    pub(super) hello: Hello,
    pub(super) audit: AuditLog,
    pub(super) state: Arc<State>,
    pub(super) doors: Doors,
}

/// An open stream.
struct Open {
    messages: mpsc::Sender<AgentMessage>,
    answers: Streaming<ControlMessage>,
    /// Nothing while a batch is being read.
    reader: Option<Reader>,
    /// The last record of each batch that is on its way.
    in_flight: VecDeque<u64>,
    acknowledged: u64,
    saved: Instant,
    /// Where the control plane wants to hear of approvals.
    telling: Option<Telling>,
    /// What runs, where the control plane wants to hear of it.
    running: Option<watch::Receiver<PolicyStatus>>,
    /// What this host says of itself, where the control plane wants to hear of it.
    facts: Option<watch::Receiver<HostFacts>>,
}

impl Stream {
    /// Ships records until something goes wrong; also says whether the control plane took anything.
    pub async fn run(&self) -> (UplinkError, bool) {
        let mut renewals = self.renewals.clone();
        renewals.borrow_and_update();
        let mut open = match self.open().await {
            Ok(open) => open,
            Err(error) => return (error, false),
        };
        let began = open.acknowledged;
        let Err(error) = self.pump(&mut open, renewals).await;
        (error, open.acknowledged > began)
    }

    fn unreachable(&self, reason: String) -> UplinkError {
        UplinkError::Unreachable { endpoint: self.way.address.clone(), reason }
    }

    async fn connect(&self) -> Result<Channel, UplinkError> {
        let Some(name) = &self.way.tls else {
            let connected = self.way.endpoint.connect().await;
            return connected.map_err(|error| self.unreachable(root_cause(&error)));
        };
        let held = self.credentials.load()?;
        let held = held.ok_or_else(|| UplinkError::NotEnrolled(self.way.address.clone()))?;
        self.state.update(|status| status.certificate_expires = expiry(&held.named));
        if held.named.left().is_zero() {
            return Err(UplinkError::Unusable("has expired".to_owned()));
        }
        if held.named.agent_id != self.audit.agent_id() {
            let other = format!("is that of another journal, of agent {}", held.named.agent_id);
            return Err(UplinkError::Unusable(other));
        }
        let config = tls::known(&held).map_err(|error| UplinkError::Unusable(error.to_string()))?;
        tls::connect(&self.way, name, config).await
    }

    async fn open(&self) -> Result<Open, UplinkError> {
        let channel = self.connect().await?;
        let (messages, receiver) = mpsc::channel(WINDOW + 1);
        let clock = Some(timestamp(SystemTime::now()));
        let hello = Hello { oldest_sequence: self.audit.oldest(), clock, ..self.hello.clone() };
        let oldest = hello.oldest_sequence;
        let _ = messages.try_send(AgentMessage { message: Some(ToControl::Hello(hello)) });
        let mut client = IngestClient::new(channel);
        if self.way.tls.is_some() {
            client = client.send_compressed(CompressionEncoding::Zstd);
        }
        let opening = async {
            let mut answers = client.stream(ReceiverStream::new(receiver)).await?.into_inner();
            let first = answers.message().await?;
            Ok::<_, tonic::Status>((answers, first))
        };
        let (answers, first) = tokio::time::timeout(ANSWER_TIME, opening)
            .await
            .map_err(|_| UplinkError::Silent(ANSWER_TIME))?
            .map_err(|status| self.unreachable(reason(&status)))?;
        let Some(FromControl::Resume(resume)) = first.and_then(|first| first.message) else {
            return Err(UplinkError::Nonsense("something else than where to go on"));
        };
        let (stored, ours) = (resume.stored_sequence, *self.audit.durable().borrow());
        if stored > ours {
            let journal = self.audit.dir().display().to_string();
            return Err(UplinkError::Ahead { stored, ours, journal });
        }
        // The control plane's word counts, also where it has less than we thought.
        self.audit.set_acknowledged(stored);
        self.state.update(|status| {
            status.connected = true;
            status.acknowledged_sequence = stored;
            status.error.clear();
        });
        tracing::info!(endpoint = self.way.address, stored, "connected to the control plane");
        let reader = Reader::open(self.audit.dir(), stored + 1)?;
        // Behind a hole the control plane expects exactly the record that Hello named as the oldest.
        if reader.position() > stored + 1 && reader.position() != oldest {
            return Err(ReadError::Missing { expected: stored + 1 }.into());
        }
        let telling = match &self.doors.approvals {
            Some(approvals) if resume.takes_approvals => {
                Some(Telling::begin(approvals, messages.clone()).await)
            }
            _ => None,
        };
        Ok(Open {
            messages,
            answers,
            reader: Some(reader),
            in_flight: VecDeque::new(),
            acknowledged: stored,
            saved: Instant::now(),
            telling,
            running: self
                .doors
                .policies
                .as_ref()
                .filter(|_| resume.takes_policy_status)
                .map(|door| door.running()),
            facts: self
                .doors
                .clients
                .as_ref()
                .filter(|_| resume.takes_host_facts)
                .map(|clients| clients.facts()),
        })
    }

    async fn pump(
        &self,
        open: &mut Open,
        mut renewals: watch::Receiver<u64>,
    ) -> Result<std::convert::Infallible, UplinkError> {
        let mut durable = self.audit.durable();
        let mut waiting_since = tokio::time::Instant::now();
        loop {
            let upto = *durable.borrow_and_update();
            if open.in_flight.is_empty() {
                waiting_since = tokio::time::Instant::now();
            }
            // What is said of the host counts for records that follow.
            open.say_facts().await;
            while open.in_flight.len() < WINDOW && open.send(upto).await? {}
            tokio::select! {
                answer = open.answers.message() => {
                    self.take(open, answer)?;
                    waiting_since = tokio::time::Instant::now();
                }
                () = tell(&mut open.telling) => {}
                status = next_status(&mut open.running) => {
                    let message = AgentMessage { message: Some(ToControl::PolicyStatus(status)) };
                    // A stream that has ended says why by itself.
                    let _ = open.messages.send(message).await;
                }
                () = changed(&mut open.facts) => {}
                Ok(()) = renewals.changed() => return Err(UplinkError::Renewed),
                changed = durable.changed(), if open.in_flight.len() < WINDOW => {
                    if changed.is_err() {
                        // The journal is gone; whoever closed it ends this task.
                        std::future::pending::<()>().await;
                    }
                }
                () = tokio::time::sleep_until(waiting_since + ANSWER_TIME), if !open.in_flight.is_empty() => {
                    return Err(UplinkError::Silent(ANSWER_TIME));
                }
            }
        }
    }

    fn take(
        &self,
        open: &mut Open,
        answer: Result<Option<ControlMessage>, tonic::Status>,
    ) -> Result<(), UplinkError> {
        let answer = answer.map_err(|status| UplinkError::Ended(reason(&status)))?;
        let Some(answer) = answer else { return Err(UplinkError::Ended("it said no reason".to_owned())) };
        match answer.message {
            Some(FromControl::Ack(ack)) => {
                let sent = open.in_flight.back().copied().unwrap_or(open.acknowledged);
                if ack.stored_sequence < open.acknowledged || ack.stored_sequence > sent {
                    return Err(UplinkError::Nonsense("an acknowledgement of records that were not sent"));
                }
                while open.in_flight.front().is_some_and(|last| *last <= ack.stored_sequence) {
                    open.in_flight.pop_front();
                }
                self.acknowledge(open, ack.stored_sequence);
                Ok(())
            }
            Some(FromControl::Reject(reject)) => {
                Err(UplinkError::Rejected { sequence: reject.sequence, reason: reject.reason })
            }
            Some(FromControl::Resume(_)) => Err(UplinkError::Nonsense("where to go on, for a second time")),
            Some(FromControl::ApprovalVerdict(verdict)) => {
                if let Some(telling) = &open.telling {
                    telling.take(verdict);
                }
                Ok(())
            }
            Some(FromControl::Policy(offer)) => {
                if let (Some(door), Some(signed)) = (&self.doors.policies, offer.policy) {
                    door.offer(signed);
                }
                Ok(())
            }
            Some(FromControl::KnownDatabases(known)) => {
                if let Some(clients) = &self.doors.clients {
                    clients.know(&known);
                }
                Ok(())
            }
            None => Err(UplinkError::Nonsense("a message that this version does not know")),
        }
    }

    fn acknowledge(&self, open: &mut Open, sequence: u64) {
        open.acknowledged = sequence;
        self.audit.set_acknowledged(sequence);
        self.state.update(|status| status.acknowledged_sequence = sequence);
        if open.saved.elapsed() >= SAVE_EVERY {
            open.saved = Instant::now();
            // A hint for the next start; what goes wrong here is told when the stream ends.
            let _ = self.audit.save_acknowledged();
        }
    }
}

/// Tells what has changed, where anybody wants to hear it.
async fn tell(telling: &mut Option<Telling>) {
    match telling {
        Some(telling) => telling.next().await,
        None => std::future::pending().await,
    }
}

/// What runs now, where anybody wants to hear it.
async fn next_status(running: &mut Option<watch::Receiver<PolicyStatus>>) -> PolicyStatus {
    if let Some(running) = running
        && running.changed().await.is_ok()
    {
        return running.borrow_and_update().clone();
    }
    std::future::pending().await
}

/// Returns when the host has something new to say of itself, where anybody wants to hear it.
async fn changed(facts: &mut Option<watch::Receiver<HostFacts>>) {
    if let Some(facts) = facts
        && facts.changed().await.is_ok()
    {
        // To be said before the next batch.
        facts.mark_changed();
        return;
    }
    std::future::pending().await
}

impl Open {
    /// Says of the host what is new.
    async fn say_facts(&mut self) {
        let news = match &mut self.facts {
            Some(facts) if facts.has_changed().unwrap_or(false) => facts.borrow_and_update().clone(),
            _ => return,
        };
        // A stream that has ended says why by itself.
        let _ = self.messages.send(AgentMessage { message: Some(ToControl::HostFacts(news)) }).await;
    }

    /// Sends the next batch of records up to `upto`. False: there is none.
    async fn send(&mut self, upto: u64) -> Result<bool, UplinkError> {
        let Some(mut reader) = self.reader.take() else { return Ok(false) };
        if reader.position() > upto {
            self.reader = Some(reader);
            return Ok(false);
        }
        // Files may be slow: not on a thread that serves sessions.
        let read = tokio::task::spawn_blocking(move || {
            let batch = read_batch(&mut reader, upto);
            (reader, batch)
        });
        let (reader, batch) =
            read.await.map_err(|_| UplinkError::Nonsense("nothing: the agent is stopping"))?;
        self.reader = Some(reader);
        let batch = batch?;
        let Some(last) = batch.records.last().map(|record| record.sequence) else { return Ok(false) };
        let message = AgentMessage { message: Some(ToControl::Batch(batch)) };
        match tokio::time::timeout(ANSWER_TIME, self.messages.send(message)).await {
            Ok(Ok(())) => self.in_flight.push_back(last),
            // The answers tell why.
            Ok(Err(_)) => return Ok(false),
            Err(_) => return Err(UplinkError::Silent(ANSWER_TIME)),
        }
        Ok(true)
    }
}

/// Reads as many records as a batch holds. The last one may take it over the size: by no more than fits a message.
fn read_batch(reader: &mut Reader, upto: u64) -> Result<Batch, ReadError> {
    let mut batch = Batch::default();
    let mut bytes = 0;
    while batch.records.len() < BATCH_RECORDS && bytes < BATCH_BYTES && reader.position() <= upto {
        let Some(record) = reader.next_record()? else { break };
        bytes += record.encoded_len();
        batch.records.push(record);
    }
    Ok(batch)
}
