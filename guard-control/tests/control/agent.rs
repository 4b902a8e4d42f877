//! An agent as the control plane sees it: a chain and a stream.

use std::net::SocketAddr;

use guard_common::{
    api::control::{
        AgentMessage, Batch, ControlMessage, Hello, agent_message::Message as FromAgent,
        control_message::Message as ToAgent, ingest_client::IngestClient,
    },
    audit::{
        chain::Head,
        v1::{
            ConnectionOpened, Decision, Gap, Record, SealedRecord, Statement, Workload,
            connection_opened::Access, decision::Verdict, record::Body,
        },
    },
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use uuid::Uuid;

/// The chain of an agent.
pub struct Chain {
    pub id: String,
    pub head: Head,
}

impl Chain {
    pub fn new() -> Self {
        Self { id: Uuid::new_v4().to_string(), head: Head::default() }
    }

    pub fn seal(&mut self, body: Body) -> SealedRecord {
        self.head.seal(Record::now(body).encode_to_vec().into())
    }

    /// The next `count` records: statements.
    pub fn next(&mut self, count: usize) -> Vec<SealedRecord> {
        (0..count).map(|_| self.seal(statement("select 1", Verdict::Allowed))).collect()
    }
}

pub fn statement(text: &str, verdict: Verdict) -> Body {
    Body::Statement(Statement {
        text: text.to_owned(),
        db_user: "app".to_owned(),
        workload: "web.service".to_owned(),
        decision: Some(decision(verdict)),
        ..Statement::default()
    })
}

pub fn connection(executable: &str, access: Access) -> Body {
    let workload = Workload { executable: executable.to_owned(), pid: 7, ..Workload::default() };
    Body::ConnectionOpened(ConnectionOpened {
        access: access.into(),
        workload: Some(workload),
        decision: Some(decision(Verdict::WouldRefuse)),
        ..ConnectionOpened::default()
    })
}

pub fn gap() -> Body {
    Body::Gap(Gap { source: "kernel-ring".to_owned(), lost: 3, ..Gap::default() })
}

fn decision(verdict: Verdict) -> Decision {
    Decision { verdict: verdict.into(), policy: "some-policy".to_owned(), ..Decision::default() }
}

/// An open stream.
pub struct Stream {
    pub messages: mpsc::Sender<AgentMessage>,
    pub answers: Streaming<ControlMessage>,
}

pub fn hello(id: &str, oldest: u64) -> FromAgent {
    FromAgent::Hello(Hello {
        agent_id: id.to_owned(),
        host: "db1".to_owned(),
        agent_version: "0.1.0".to_owned(),
        mode: "enforce".to_owned(),
        oldest_sequence: oldest,
        ..Hello::default()
    })
}

impl Stream {
    pub async fn raw(address: SocketAddr) -> Result<Self, tonic::Status> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        Self::over(channel).await
    }

    pub async fn over(channel: tonic::transport::Channel) -> Result<Self, tonic::Status> {
        Self::by(IngestClient::new(channel)).await
    }

    /// Compressed, as agents send over TLS.
    pub async fn packed(channel: tonic::transport::Channel) -> Result<Self, tonic::Status> {
        Self::by(IngestClient::new(channel).send_compressed(tonic::codec::CompressionEncoding::Zstd)).await
    }

    async fn by(mut client: IngestClient<tonic::transport::Channel>) -> Result<Self, tonic::Status> {
        let (messages, receiver) = mpsc::channel(64);
        let answers = client.stream(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Self { messages, answers })
    }

    /// Says hello; also gives what is stored.
    pub async fn open(address: SocketAddr, id: &str, oldest: u64) -> Result<(Self, u64), tonic::Status> {
        Self::raw(address).await?.greet(id, oldest).await
    }

    /// The same on a stream that is open.
    pub async fn greet(mut self, id: &str, oldest: u64) -> Result<(Self, u64), tonic::Status> {
        let stream = &mut self;
        stream.send(hello(id, oldest)).await;
        match stream.answer().await? {
            ToAgent::Resume(resume) => Ok((self, resume.stored_sequence)),
            other => panic!("{other:?} instead of Resume"),
        }
    }

    pub async fn send(&self, message: FromAgent) {
        // After the stream's end the answer tells.
        let _ = self.messages.send(AgentMessage { message: Some(message) }).await;
    }

    pub async fn batch(&self, records: Vec<SealedRecord>) {
        self.send(FromAgent::Batch(Batch { records })).await;
    }

    pub async fn answer(&mut self) -> Result<ToAgent, tonic::Status> {
        let answer = self.answers.message().await?;
        answer.and_then(|answer| answer.message).ok_or_else(|| tonic::Status::ok("the stream has ended"))
    }

    /// Sends a batch that must be stored.
    pub async fn store(&mut self, records: Vec<SealedRecord>) -> u64 {
        self.batch(records).await;
        match self.answer().await {
            Ok(ToAgent::Ack(ack)) => ack.stored_sequence,
            other => panic!("{other:?} instead of Ack"),
        }
    }

    /// Sends a batch that must be rejected.
    pub async fn reject(&mut self, records: Vec<SealedRecord>) -> (u64, String) {
        self.batch(records).await;
        match self.answer().await {
            Ok(ToAgent::Reject(reject)) => (reject.sequence, reject.reason),
            other => panic!("{other:?} instead of Reject"),
        }
    }
}
