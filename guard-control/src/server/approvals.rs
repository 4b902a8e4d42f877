//! Statements that wait on the hosts: agents' requests enter, people's words leave for the agent that they concern.
//!
//! Only [`crate::console::say`] hands in words of people, of whom it has made sure: agents reach no such door here.
//! Kept in memory alone: agents keep their requests, and tell of all that are open whenever they connect. Whether a word
//! counts is the agent's to say. What waits at agents of other replicas is known through the shared store ([`super::replicas`]).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use guard_common::api::{
    agent::{ApprovalRequest, approval_request::State},
    control::{ApprovalAnswer, ApprovalVerdict, DecideApprovalRequest, FleetApproval},
};
use tokio::sync::{broadcast, mpsc, oneshot};
use uuid::Uuid;

use super::replicas::Relay;

/// Requests of one agent that are kept.
const MAX_REQUESTS: usize = 10_000;

/// Verdicts for one agent that may be unread.
const VERDICTS: usize = 32;

/// Changes that a reader may be behind.
const CHANGES: usize = 256;

/// How long an agent may take to answer a verdict.
const ANSWER_TIME: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Table {
    agents: HashMap<String, Host>,
    /// Verdicts that are not answered yet, and whose they are.
    asked: HashMap<String, (String, oneshot::Sender<ApprovalAnswer>)>,
    last: u64,
    /// What waits at agents that are connected to other replicas.
    elsewhere: BTreeMap<(String, String), FleetApproval>,
}

#[derive(Debug)]
struct Host {
    number: u64,
    name: String,
    requests: BTreeMap<String, ApprovalRequest>,
    verdicts: mpsc::Sender<ApprovalVerdict>,
}

/// What waits on all connected hosts.
#[derive(Clone)]
pub struct Waiting {
    table: Arc<Mutex<Table>>,
    changes: broadcast::Sender<Arc<FleetApproval>>,
    /// By which words reach the agents of other replicas.
    relay: Option<Relay>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { table: Arc::default(), changes: broadcast::channel(CHANGES).0, relay: None }
    }
}

/// Why nobody knows what came of a person's word.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Unanswered {
    /// The agent is not connected.
    #[error("no such agent is connected")]
    Absent,
    /// Too many verdicts wait for the agent.
    #[error("the agent does not take verdicts fast enough")]
    Busy,
    /// It has not answered in time.
    #[error("the agent has not answered: look at the request again")]
    Late,
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

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

impl Waiting {
    /// With other replicas.
    pub(super) fn among(relay: Relay) -> Self {
        Self { relay: Some(relay), ..Self::default() }
    }

    /// What waits at agents of other replicas, as of now.
    pub(super) fn set_elsewhere(&self, approvals: Vec<FleetApproval>) {
        let key = |one: &FleetApproval| Some((one.agent_id.clone(), one.request.as_ref()?.id.clone()));
        let all = approvals.into_iter().filter_map(|one| Some((key(&one)?, one)));
        self.lock().elsewhere = all.collect();
    }

    /// Whether the agent is connected to this replica.
    pub(super) fn is_here(&self, agent_id: &str) -> bool {
        self.lock().agents.contains_key(agent_id)
    }

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

    /// Requests as they change from now on.
    pub fn changes(&self) -> broadcast::Receiver<Arc<FleetApproval>> {
        self.changes.subscribe()
    }

    /// All requests, or those of one agent.
    pub fn list(&self, agent_id: Option<&str>) -> Vec<FleetApproval> {
        let mut all = self.list_here(agent_id);
        let table = self.lock();
        let elsewhere =
            table.elsewhere.values().filter(|one| agent_id.is_none_or(|wanted| one.agent_id == wanted));
        all.extend(elsewhere.filter(|one| !table.agents.contains_key(&one.agent_id)).cloned());
        all
    }

    /// Those at agents of this replica.
    pub(super) fn list_here(&self, agent_id: Option<&str>) -> Vec<FleetApproval> {
        let table = self.lock();
        let agents = table.agents.iter().filter(|(id, _)| agent_id.is_none_or(|wanted| *id == wanted));
        let approvals = agents.flat_map(|(agent_id, host)| {
            host.requests.values().map(|request| FleetApproval {
                agent_id: agent_id.clone(),
                host: host.name.clone(),
                request: Some(request.clone()),
            })
        });
        approvals.collect()
    }

    /// One request.
    pub fn find(&self, agent_id: &str, request_id: &str) -> Option<FleetApproval> {
        let table = self.lock();
        let Some(host) = table.agents.get(agent_id) else {
            return table.elsewhere.get(&(agent_id.to_owned(), request_id.to_owned())).cloned();
        };
        let request = Some(host.requests.get(request_id)?.clone());
        Some(FleetApproval { agent_id: agent_id.to_owned(), host: host.name.clone(), request })
    }

    /// Hands one person's word to the agent, wherever it is connected, and waits for what it says of it.
    pub async fn decide(&self, asked: DecideApprovalRequest) -> Result<ApprovalAnswer, Unanswered> {
        let elsewhere = !self.is_here(&asked.agent_id)
            && self.lock().elsewhere.keys().any(|(agent_id, _)| *agent_id == asked.agent_id);
        match &self.relay {
            Some(relay) if elsewhere => {
                let answer = tokio::time::timeout(ANSWER_TIME, relay.decide(&asked)).await;
                answer.unwrap_or(Err(Unanswered::Late))
            }
            _ => self.decide_here(asked).await,
        }
    }

    /// The same where the agent is connected to this replica.
    pub(super) async fn decide_here(
        &self,
        asked: DecideApprovalRequest,
    ) -> Result<ApprovalAnswer, Unanswered> {
        let DecideApprovalRequest { agent_id, request_id, approve, reason, person } = asked;
        let verdict_id = Uuid::now_v7().to_string();
        let (sender, answer) = oneshot::channel();
        let verdict = ApprovalVerdict { verdict_id: verdict_id.clone(), request_id, approve, reason, person };
        {
            let mut table = self.lock();
            let host = table.agents.get(&agent_id).ok_or(Unanswered::Absent)?;
            host.verdicts.try_send(verdict).map_err(|_| Unanswered::Busy)?;
            table.asked.insert(verdict_id.clone(), (agent_id, sender));
        }
        let answered = tokio::time::timeout(ANSWER_TIME, answer).await;
        self.lock().asked.remove(&verdict_id);
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(Unanswered::Late),
        }
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
        let changed = FleetApproval {
            agent_id: self.agent_id.clone(),
            host: host.name.clone(),
            request: Some(request.clone()),
        };
        // Nobody may be looking.
        let _ = self.waiting.changes.send(Arc::new(changed));
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
