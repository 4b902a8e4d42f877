//! A session that is logged in: waits for either side and lets `frontend` and `backend` deal with what came.

use std::time::Duration;

use guard_common::audit::v1::outcome::Status;
use tokio::time::{Instant, sleep_until};

use super::{
    Proxy, Served, SessionError, Worker,
    login::served,
    pending::{Awaited, MAX_PENDING, Pending},
    pipe::{Event, Pipe},
    prepared::Names,
    recorder::Recorder,
    refusal::Refusals,
};
use crate::{
    decide::{Scope, Session},
    sql::Modes,
    wire::postgres::{ErrorResponse, TransactionStatus},
};

/// How long outcomes wait to be recorded together.
const OUTCOMES_WAIT: Duration = Duration::from_millis(200);

/// How long a session may go on once the agent stops, if it is in the middle of something.
const DRAIN: Duration = Duration::from_secs(5);

/// Everything that one session knows.
pub(super) struct Relay<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) worker: &'a Worker,
    pub(super) pipe: Pipe,
    pub(super) pending: Pending,
    pub(super) names: Names,
    pub(super) refusals: Refusals,
    pub(super) recorder: Recorder,
    pub(super) session: Session,
    /// INVARIANT: always `session.scope()`.
    pub(super) scope: Scope,
    pub(super) modes: Modes,
    pub(super) replication: bool,
    pub(super) transaction: TransactionStatus,
    /// Bytes of the client's message under way that go to the server unread.
    pub(super) passing: usize,
    /// Bytes of it that go nowhere.
    pub(super) dropping: usize,
    /// Bytes of the server's message under way that go to the client unread.
    pub(super) server_passing: usize,
    /// Rows that the client was sent by the statement under way and that are not counted yet.
    pub(super) uncounted_rows: u64,
    /// The client's messages are skipped up to Sync, as the server would.
    pub(super) skipping: bool,
    /// The client has said goodbye.
    pub(super) finished: bool,
}

impl Relay<'_> {
    /// Relays until one side ends.
    pub(super) async fn run(mut self) -> Result<Served, SessionError> {
        let result = self.relay().await;
        for awaited in self.pending.drain().collect::<Vec<_>>() {
            match awaited {
                Awaited::Query(running)
                | Awaited::Execute(Some(running))
                | Awaited::FunctionCall(running) => self.recorder.ended(running, Status::Unknown),
                _ => {}
            }
        }
        self.recorder.flush();
        let reason = match result {
            Ok(reason) => reason.to_owned(),
            Err(error) => {
                tracing::info!(server = %self.proxy.server.get().name, "session ended: {error}");
                if let Some(response) = error.for_client() {
                    self.say(&response);
                }
                error.to_string()
            }
        };
        self.pipe.finish(super::LAST_WORDS).await;
        Ok(Served { reason, ..served(&self.pipe, self.recorder.statements()) })
    }

    async fn relay(&mut self) -> Result<&'static str, SessionError> {
        let mut stopping = self.proxy.stopping.clone();
        let mut stopped =
            std::pin::pin!(async move { stopping.wait_for(|stopping| *stopping).await.is_ok() });
        let mut stop_at: Option<Instant> = None;
        let mut flush_at: Option<Instant> = None;
        let mut reason = "closed by the server";
        // One timer for the whole session: making one for every message would cost more than the message.
        let mut timer = std::pin::pin!(sleep_until(far_away()));
        let mut wakes_at = None;
        // What came along with the login's last message.
        self.on_server()?;
        self.on_client().await?;
        self.pipe.rest();
        loop {
            if self.recorder.waiting() {
                flush_at.get_or_insert_with(|| Instant::now() + OUTCOMES_WAIT);
            } else {
                flush_at = None;
            }
            let wake = [flush_at, stop_at].into_iter().flatten().min();
            if let Some(at) = wake.filter(|at| wakes_at.is_none_or(|wakes_at| *at < wakes_at)) {
                timer.as_mut().reset(at);
                wakes_at = Some(at);
            }
            let reads = self.pending.len() < MAX_PENDING && !self.refusals.full() && !self.finished;
            let event = tokio::select! {
                biased;
                event = self.pipe.next(reads, wakes_at.is_some().then_some(timer.as_mut())) => Some(event),
                // A lost sender means the agent is gone: that is stopping too.
                _ = &mut stopped, if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + DRAIN);
                    None
                }
            };
            match event {
                Some(Event::Client) => self.on_client().await?,
                Some(Event::Server) => self.on_server()?,
                Some(Event::ClientEnded) => {
                    // The server ends when it has dealt with what it was sent: what runs is not cut short.
                    self.finished = true;
                    reason = if self.whole() {
                        "closed by the client"
                    } else {
                        "the client vanished in mid-message"
                    };
                    self.pipe.close_server_after_flush();
                }
                // As without guard: the server gives up what it cannot send.
                Some(Event::ClientGone) => return Ok("the client vanished"),
                Some(Event::ServerEnded) => return Ok(reason),
                // It may ring for what has been dealt with since: the next round sets it anew.
                Some(Event::Timer) => {
                    wakes_at = None;
                    if flush_at.is_some_and(|at| at <= Instant::now()) {
                        self.recorder.flush();
                        self.pipe.rest();
                    }
                }
                None => {}
            }
            if let Some(at) = stop_at
                && (self.at_rest() || at <= Instant::now())
            {
                return Err(SessionError::Stopping);
            }
            if self.finished && reason == "closed by the server" {
                reason = "closed by the client";
            }
        }
    }

    /// True between the client's messages.
    fn whole(&self) -> bool {
        self.passing == 0 && self.dropping == 0 && self.pipe.from_client.is_empty()
    }

    /// True where ending the session interrupts nothing.
    fn at_rest(&self) -> bool {
        self.pending.is_empty() && self.transaction == TransactionStatus::Idle
    }

    /// Tells the client something at the next message's place.
    fn say(&mut self, response: &ErrorResponse) {
        if self.server_passing == 0 {
            self.pipe.to_client.extend_from_slice(&response.encode());
        }
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
