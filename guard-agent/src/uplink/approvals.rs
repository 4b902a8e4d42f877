//! Statements that wait, on the stream to the control plane: requests leave as they change, people's words enter.
//!
//! A control plane that does not understand this is told nothing of it. What it says counts only where the configuration
//! lets it, and is checked as the word of somebody at the host is.

use guard_common::{
    api::{
        agent::ApprovalRequest,
        control::{
            AgentMessage, ApprovalAnswer, ApprovalUpdate, ApprovalVerdict,
            agent_message::Message as ToControl,
        },
    },
    audit::v1::Person,
};
use tokio::sync::{broadcast, mpsc};

use crate::approval::{Approvals, CONTROL, Voter};

/// Most groups that a verdict may name.
const MAX_GROUPS: usize = 64;

/// Longest name of a person in bytes.
const MAX_NAME: usize = 256;

/// What the control plane is told on one stream.
pub(super) struct Telling {
    approvals: Approvals,
    changes: broadcast::Receiver<ApprovalRequest>,
    messages: mpsc::Sender<AgentMessage>,
}

impl Telling {
    /// Begins with all that is open.
    pub(super) async fn begin(approvals: &Approvals, messages: mpsc::Sender<AgentMessage>) -> Self {
        let telling = Self { approvals: approvals.clone(), changes: approvals.changes(), messages };
        telling.all().await;
        telling
    }

    async fn all(&self) {
        for request in self.approvals.list(false) {
            self.tell(request).await;
        }
    }

    async fn tell(&self, request: ApprovalRequest) {
        let message = ToControl::Approval(ApprovalUpdate { request: Some(request) });
        // A stream that has ended ends whoever waits for it.
        let _ = self.messages.send(AgentMessage { message: Some(message) }).await;
    }

    /// Waits for the next change and tells it; never ends by itself. Cancel safe but for a change that is being sent, of
    /// which the control plane hears at the next connection.
    pub(super) async fn next(&mut self) {
        match self.changes.recv().await {
            Ok(request) => self.tell(request).await,
            Err(broadcast::error::RecvError::Lagged(_)) => self.all().await,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// One person's word, by the control plane. Answered when it is on record, without holding up the stream.
    pub(super) fn take(&self, verdict: ApprovalVerdict) {
        let (approvals, messages) = (self.approvals.clone(), self.messages.clone());
        tokio::spawn(async move {
            let verdict_id = verdict.verdict_id.clone();
            let answer = match decide(&approvals, verdict).await {
                Ok(request) => {
                    ApprovalAnswer { verdict_id, counted: true, request: Some(request), ..Default::default() }
                }
                Err(problem) => {
                    tracing::info!("a verdict of the control plane does not count: {problem}");
                    ApprovalAnswer { verdict_id, counted: false, problem, request: None }
                }
            };
            let _ = messages.send(AgentMessage { message: Some(ToControl::ApprovalAnswer(answer)) }).await;
        });
    }
}

async fn decide(approvals: &Approvals, verdict: ApprovalVerdict) -> Result<ApprovalRequest, String> {
    if !approvals.takes_verdicts() {
        return Err(
            "this agent takes no approvals from the control plane: see `approvals.from_control`".to_owned()
        );
    }
    let person = verdict.person.filter(|person| !person.user.is_empty()).ok_or("it names no person")?;
    if person.user.len() > MAX_NAME || person.groups.len() > MAX_GROUPS {
        return Err("its person is longer than 256 bytes, or in more than 64 groups".to_owned());
    }
    // Accounts of another host say nothing here.
    let known = Person { user: person.user, via: CONTROL.to_owned(), ..Person::default() };
    let voter = Voter::known(known, person.groups);
    let voted = approvals.vote(&verdict.request_id, &voter, verdict.approve, &verdict.reason).await;
    voted.map_err(|error| error.to_string())
}
