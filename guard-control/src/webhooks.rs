//! Telling people elsewhere that a statement waits.
//!
//! Requests enter as agents tell of them; a signed JSON message or one as chats take it leaves, with a link back. Messages
//! hold no literals, since agents send none. Each webhook has a queue of its own: one that does not answer holds up nobody.

pub mod link;
pub mod message;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::http::{Request, header};
use guard_common::api::{agent::approval_request::State, control::FleetApproval};
use tokio::sync::{broadcast::error::RecvError, mpsc};

use crate::{
    http::{
        HttpError,
        app::App,
        config::{self, Webhook, WebhookKind},
        metrics::Metrics,
        outward::Outward,
    },
    people::now,
};

/// Messages that may wait for one webhook; the oldest give way to nobody: newer ones are given up.
const QUEUE: usize = 256;
/// Pauses between attempts in seconds; after the last one a message is given up.
const PAUSES: [u64; 5] = [1, 5, 20, 60, 180];
/// Events that are remembered, so that an agent that comes again does not tell twice.
const REMEMBERED: usize = 20_000;

/// Something that people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// It waits.
    Waiting,
    /// Enough people have approved it.
    Approved,
    /// Somebody has denied it.
    Denied,
    /// It has run.
    Ran,
    /// Nobody has said enough in time.
    Expired,
    /// Its client does not want it any more.
    Withdrawn,
}

impl Event {
    fn of(state: State) -> Option<Self> {
        Some(match state {
            State::Waiting => Self::Waiting,
            State::Approved => Self::Approved,
            State::Denied => Self::Denied,
            State::Ran => Self::Ran,
            State::Expired => Self::Expired,
            State::Withdrawn | State::Refused => Self::Withdrawn,
            State::Unspecified => return None,
        })
    }

    /// As messages have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "approval.waiting",
            Self::Approved => "approval.approved",
            Self::Denied => "approval.denied",
            Self::Ran => "approval.ran",
            Self::Expired => "approval.expired",
            Self::Withdrawn => "approval.withdrawn",
        }
    }
}

struct Hook {
    settings: Webhook,
    secret: Option<String>,
    outward: Outward,
}

/// Starts telling; ends with the control plane.
pub fn start(app: &App) -> Result<(), HttpError> {
    let mut queues = Vec::new();
    for settings in &app.file.webhooks {
        let bad =
            |problem: String| HttpError::Settings { path: format!("webhook {}", settings.name), problem };
        let secret = settings.secret_file.as_deref().map(config::secret).transpose()?;
        if secret.as_ref().is_some_and(|secret| secret.len() < 16) {
            return Err(bad("its secret has less than 16 bytes".to_owned()));
        }
        let outward = Outward::new(settings.ca.as_deref()).map_err(|error| bad(error.to_string()))?;
        let hook = Hook { settings: settings.clone(), secret, outward };
        let (queue, messages) = mpsc::channel(QUEUE);
        tokio::spawn(deliver(app.clone(), hook, messages));
        queues.push((settings.name.clone(), queue));
    }
    if !queues.is_empty() {
        tokio::spawn(follow(app.clone(), queues));
    }
    Ok(())
}

type Told = (Event, Arc<FleetApproval>);

/// Hands what changes to every webhook's queue.
async fn follow(app: App, queues: Vec<(String, mpsc::Sender<Told>)>) {
    let mut changes = app.fleet.waiting.changes();
    let mut seen = Seen::default();
    let mut stopping = app.stopping.clone();
    loop {
        let change = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            change = changes.recv() => change,
        };
        let all = match change {
            Ok(change) => vec![change],
            Err(RecvError::Closed) => return,
            // What waits now is told; what came and went meanwhile is in the record.
            Err(RecvError::Lagged(_)) => app.fleet.waiting.list(None).into_iter().map(Arc::new).collect(),
        };
        for change in all {
            let event = change.request.as_ref().and_then(|request| Event::of(request.state()));
            let Some(event) = event.filter(|event| seen.is_new(*event, &change)) else { continue };
            for (name, queue) in &queues {
                if queue.try_send((event, change.clone())).is_err() {
                    tracing::warn!(
                        webhook = name,
                        "too many messages wait for this webhook: one is given up"
                    );
                    Metrics::count(&app.metrics.hooks_failed);
                }
            }
        }
    }
}

/// What was told already.
#[derive(Default)]
struct Seen {
    known: HashSet<(Event, String, String)>,
    order: VecDeque<(Event, String, String)>,
}

impl Seen {
    fn is_new(&mut self, event: Event, change: &FleetApproval) -> bool {
        let id = change.request.as_ref().map(|request| request.id.clone()).unwrap_or_default();
        let key = (event, change.agent_id.clone(), id);
        if !self.known.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Sends one webhook's messages, one after the other.
async fn deliver(app: App, hook: Hook, mut messages: mpsc::Receiver<Told>) {
    let mut stopping = app.stopping.clone();
    while let Some((event, change)) = messages.recv().await {
        let body = match hook.settings.kind {
            WebhookKind::Json => message::json(&app, event, &change),
            WebhookKind::Slack => message::slack(&app, event, &change),
        };
        let body = body.to_string();
        let sent = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            sent = insist(&hook, event, &body) => sent,
        };
        match sent {
            Ok(()) => Metrics::count(&app.metrics.hooks_sent),
            Err(problem) => {
                Metrics::count(&app.metrics.hooks_failed);
                tracing::warn!(webhook = hook.settings.name, problem, "a message to a webhook is given up");
            }
        }
    }
}

async fn insist(hook: &Hook, event: Event, body: &str) -> Result<(), String> {
    let mut problem = String::new();
    for pause in std::iter::once(0).chain(PAUSES) {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        match send(hook, event, body).await {
            Ok(()) => return Ok(()),
            // What it does not want now, it will not want later.
            Err(refused) if refused.for_good => return Err(refused.problem),
            Err(refused) => problem = refused.problem,
        }
    }
    Err(problem)
}

struct Refused {
    problem: String,
    for_good: bool,
}

async fn send(hook: &Hook, event: Event, body: &str) -> Result<(), Refused> {
    let failed = |problem: String, for_good| Refused { problem, for_good };
    let mut request = Request::post(hook.settings.url.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("guard-control/", env!("CARGO_PKG_VERSION")))
        .header("x-guard-event", event.name());
    if let Some(secret) = &hook.secret {
        // Signed anew each time: whoever takes it looks at the time, too.
        request = request.header("x-guard-signature", message::signature(secret, now(), body));
    }
    let request = request.body(body.as_bytes().to_vec()).map_err(|error| failed(error.to_string(), true))?;
    let answer = hook.outward.send(request).await.map_err(|error| failed(error.to_string(), false))?;
    let status = answer.status();
    match status.is_success() {
        true => Ok(()),
        false => {
            let for_good = status.is_client_error() && !matches!(status.as_u16(), 408 | 429);
            Err(failed(format!("it answers {status}"), for_good))
        }
    }
}

#[cfg(test)]
mod tests {
    use guard_common::api::agent::ApprovalRequest;

    use super::*;

    #[test]
    fn an_agent_that_comes_again_tells_nobody_twice_and_memory_is_bounded() {
        let change = |id: usize| FleetApproval {
            agent_id: "a".to_owned(),
            request: Some(ApprovalRequest { id: id.to_string(), ..ApprovalRequest::default() }),
            ..FleetApproval::default()
        };
        let mut seen = Seen::default();
        assert!(seen.is_new(Event::Waiting, &change(1)) && !seen.is_new(Event::Waiting, &change(1)));
        assert!(seen.is_new(Event::Ran, &change(1)) && seen.is_new(Event::Waiting, &change(2)));
        for id in 0..(REMEMBERED * 2) {
            seen.is_new(Event::Denied, &change(id));
        }
        assert!(seen.known.len() <= REMEMBERED && seen.order.len() <= REMEMBERED);
    }
}
