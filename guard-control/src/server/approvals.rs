//! Statements that wait on the hosts: agents' requests enter, people's words leave for the agent that they concern.
//!
//! Kept in memory alone: agents keep their requests, and tell of all that are open whenever they connect. Whether a word
//! counts is the agent's to say.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use guard_common::api::{
    agent::{ApprovalRequest, approval_request::State},
    control::{
        ApprovalAnswer, ApprovalVerdict, DecideApprovalRequest, FleetApproval, ListApprovalsRequest,
        ListApprovalsResponse, approvals_server::Approvals,
    },
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Requests of one agent that are kept.
const MAX_REQUESTS: usize = 10_000;

/// Verdicts for one agent that may be unread.
const VERDICTS: usize = 32;

/// How long an agent may take to answer a verdict.
const ANSWER_TIME: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Table {
    agents: HashMap<String, Host>,
    /// Verdicts that are not answered yet, and whose they are.
    asked: HashMap<String, (String, oneshot::Sender<ApprovalAnswer>)>,
    last: u64,
}

#[derive(Debug)]
struct Host {
    number: u64,
    name: String,
    requests: BTreeMap<String, ApprovalRequest>,
    verdicts: mpsc::Sender<ApprovalVerdict>,
}

/// What waits on all connected hosts.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    table: Arc<Mutex<Table>>,
}

/// One agent's place; what waits there is forgotten when it is dropped.
#[derive(Debug)]
pub struct Place {
    waiting: Waiting,
    agent_id: String,
    number: u64,
    /// For the agent.
    pub verdicts: mpsc::Receiver<ApprovalVerdict>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent has connected.
    pub fn enter(&self, agent_id: &str, name: &str) -> Place {
        let (sender, verdicts) = mpsc::channel(VERDICTS);
        let mut table = self.lock();
        table.last += 1;
        let number = table.last;
        let host = Host { number, name: name.to_owned(), requests: BTreeMap::new(), verdicts: sender };
        table.agents.insert(agent_id.to_owned(), host);
        Place { waiting: self.clone(), agent_id: agent_id.to_owned(), number, verdicts }
    }
}

impl Place {
    /// A request as it stands now.
    pub fn update(&self, request: ApprovalRequest) {
        let mut table = self.waiting.lock();
        let Some(host) = table.agents.get_mut(&self.agent_id).filter(|host| host.number == self.number)
        else {
            return;
        };
        if !matches!(request.state(), State::Waiting | State::Approved) {
            host.requests.remove(&request.id);
        } else if host.requests.len() < MAX_REQUESTS || host.requests.contains_key(&request.id) {
            host.requests.insert(request.id.clone(), request);
        }
    }

    /// What came of a verdict.
    pub fn answer(&self, answer: ApprovalAnswer) {
        let asked = {
            let mut table = self.waiting.lock();
            let own = table.asked.get(&answer.verdict_id).is_some_and(|(agent, _)| *agent == self.agent_id);
            if own { table.asked.remove(&answer.verdict_id) } else { None }
        };
        if let Some((_, asked)) = asked {
            // Whoever asked may have gone.
            let _ = asked.send(answer);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.waiting.lock();
        if table.agents.get(&self.agent_id).is_some_and(|host| host.number == self.number) {
            table.agents.remove(&self.agent_id);
        }
    }
}

/// What a console or a webhook asks.
#[derive(Clone, Debug)]
pub struct ApprovalsService {
    waiting: Waiting,
}

impl ApprovalsService {
    /// Of what waits in `waiting`.
    pub fn new(waiting: Waiting) -> Self {
        Self { waiting }
    }
}

#[tonic::async_trait]
impl Approvals for ApprovalsService {
    async fn list(
        &self,
        request: Request<ListApprovalsRequest>,
    ) -> Result<Response<ListApprovalsResponse>, Status> {
        let wanted = request.into_inner().agent_id;
        let table = self.waiting.lock();
        let agents = table.agents.iter().filter(|(id, _)| wanted.is_empty() || **id == wanted);
        let approvals = agents.flat_map(|(agent_id, host)| {
            host.requests.values().map(|request| FleetApproval {
                agent_id: agent_id.clone(),
                host: host.name.clone(),
                request: Some(request.clone()),
            })
        });
        Ok(Response::new(ListApprovalsResponse { approvals: approvals.collect() }))
    }

    async fn decide(
        &self,
        request: Request<DecideApprovalRequest>,
    ) -> Result<Response<ApprovalAnswer>, Status> {
        let DecideApprovalRequest { agent_id, request_id, approve, reason, person } = request.into_inner();
        let verdict_id = Uuid::now_v7().to_string();
        let (sender, answer) = oneshot::channel();
        let verdict = ApprovalVerdict { verdict_id: verdict_id.clone(), request_id, approve, reason, person };
        {
            let mut table = self.waiting.lock();
            let host = table.agents.get(&agent_id);
            let host = host.ok_or_else(|| Status::not_found("no such agent is connected"))?;
            host.verdicts
                .try_send(verdict)
                .map_err(|_| Status::unavailable("the agent does not take verdicts fast enough"))?;
            table.asked.insert(verdict_id.clone(), (agent_id, sender));
        }
        let answered = tokio::time::timeout(ANSWER_TIME, answer).await;
        self.waiting.lock().asked.remove(&verdict_id);
        match answered {
            Ok(Ok(answer)) => Ok(Response::new(answer)),
            _ => Err(Status::deadline_exceeded("the agent has not answered: look at the request again")),
        }
    }
}
