//! A session that is logged in: waits for either side and lets `frontend` and `backend` deal with what came.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use guard_common::audit::v1::outcome::Status;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Proxy, Served, SessionError, Worker,
    held::Holding,
    login::served,
    masking::Masking,
    pending::{Awaited, MAX_PENDING, Pending},
    pipe::{Event, Pipe},
    prepared::Names,
    recorder::Recorder,
    refusal::Refusals,
    settings::Settings,
};
use crate::{
    approval::Word,
    decide::{Scope, Session},
    sql::{Modes, Room},
    wire::postgres::{ErrorResponse, TransactionStatus},
};

/// How long outcomes wait to be recorded together.
const OUTCOMES_WAIT: Duration = Duration::from_millis(200);

/// What happens to a session beside its bytes.
enum Alarm {
    /// The timer has run out.
    Timer,
    /// The agent stops.
    Stopping,
}

/// What a session waits for.
enum Next {
    Bytes(Event),
    Alarm(Alarm),
    /// About a statement that waits for people.
    Word(Word),
}

/// The session's one timer and the sign that the agent stops. Both rarely come, and asking them costs as much as a
/// message: they are asked once, and again only when something else than bytes has woken the session.
struct Alarms<'a, S> {
    timer: Pin<&'a mut Sleep>,
    /// When the timer rings, if it has been set.
    wakes_at: Option<Instant>,
    stopped: Pin<&'a mut S>,
    stopping: bool,
    /// Whom both will wake, once they know.
    waker: Option<Waker>,
}

impl<S: Future<Output = bool>> Alarms<'_, S> {
    /// Makes the timer ring at `at`, if it does not ring sooner.
    fn ring_by(&mut self, at: Instant) {
        if self.wakes_at.is_none_or(|wakes_at| at < wakes_at) {
            self.timer.as_mut().reset(at);
            self.wakes_at = Some(at);
            self.waker = None;
        }
    }

    /// True while both will wake the task of `cx`.
    fn know(&self, cx: &Context<'_>) -> bool {
        self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Alarm> {
        self.waker = None;
        if self.wakes_at.is_some() && self.timer.as_mut().poll(cx).is_ready() {
            self.wakes_at = None;
            return Poll::Ready(Alarm::Timer);
        }
        // A lost sender means the agent is gone: that is stopping too.
        if !self.stopping && self.stopped.as_mut().poll(cx).is_ready() {
            self.stopping = true;
            return Poll::Ready(Alarm::Stopping);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The next thing that happens.
async fn next<S: Future<Output = bool>>(
    pipe: &mut Pipe,
    reads: bool,
    holding: &mut Holding,
    alarms: &mut Alarms<'_, S>,
) -> Next {
    let mut woken = false;
    poll_fn(|cx| {
        if let Poll::Ready(event) = pipe.poll_next(reads, cx) {
            return Poll::Ready(Next::Bytes(event));
        }
        if let Poll::Ready(word) = holding.poll_word(cx) {
            return Poll::Ready(Next::Word(word));
        }
        let ask = woken || !alarms.know(cx);
        woken = true;
        if ask { alarms.poll(cx).map(Next::Alarm) } else { Poll::Pending }
    })
    .await
}

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
    pub(super) settings: Settings,
    /// INVARIANT: always `settings.modes()`.
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
    /// `None`: rows pass as they are.
    pub(super) masking: Option<Box<Masking>>,
    /// The statement that waits for people, if one does.
    pub(super) holding: Holding,
    /// Room for what statements were sent with; `None`: the record does not hold it.
    pub(super) literals: Option<Room>,
}

impl Relay<'_> {
    /// Relays until one side ends. In a box: a future holds what is moved into it twice.
    pub(super) async fn run(mut self: Box<Self>) -> Result<Served, SessionError> {
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
        let mut alarms = Alarms {
            timer: pin!(sleep_until(far_away())),
            wakes_at: None,
            stopped: pin!(async move { stopping.wait_for(|stopping| *stopping).await.is_ok() }),
            stopping: false,
            waker: None,
        };
        let mut stop_at: Option<Instant> = None;
        let mut flush_at: Option<Instant> = None;
        let idle_limit = match self.proxy.limits.idle_timeout_seconds {
            0 => None,
            seconds => Some(Duration::from_secs(seconds)),
        };
        let mut idle_at: Option<Instant> = None;
        // What the login has read is sent by then.
        let mut rest_at = Some(Instant::now() + OUTCOMES_WAIT);
        let mut reason = "closed by the server";
        // What came along with the login's last message.
        self.on_server()?;
        self.on_client().await?;
        self.pipe.rest();
        loop {
            if self.recorder.waiting() {
                alarms.ring_by(*flush_at.get_or_insert_with(|| Instant::now() + OUTCOMES_WAIT));
            } else {
                flush_at = None;
            }
            if let Some(limit) = idle_limit
                && idle_at.is_none()
                && self.idle()
            {
                idle_at = Some(Instant::now() + limit);
            }
            if let Some(at) = idle_at {
                alarms.ring_by(at);
            }
            for at in [rest_at, self.rows_wait()].into_iter().flatten() {
                alarms.ring_by(at);
            }
            let reads = self.pending.len() < MAX_PENDING
                && !self.refusals.full()
                && !self.finished
                && !self.reads_catalog()
                && self.holding.reads(&self.pipe);
            self.pipe.swallows = self.reads_catalog();
            let next = next(&mut self.pipe, reads, &mut self.holding, &mut alarms).await;
            if matches!(next, Next::Bytes(_)) {
                idle_at = None;
            }
            match next {
                Next::Bytes(Event::Client) => self.on_client().await?,
                Next::Bytes(Event::Server) => {
                    let reading = self.reads_catalog();
                    self.on_server()?;
                    if self.holding.waits() {
                        Box::pin(self.skip_held()).await?;
                    }
                    if reading && !self.reads_catalog() {
                        self.on_client().await?;
                    }
                }
                Next::Word(word) => Box::pin(self.on_word(word)).await?,
                Next::Bytes(Event::ClientEnded) => {
                    self.holding.withdraw("its client has gone");
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
                Next::Bytes(Event::ClientGone) => return Ok("the client vanished"),
                Next::Bytes(Event::ServerEnded) => {
                    self.release_rows()?;
                    return Ok(reason);
                }
                Next::Alarm(Alarm::Timer) => {
                    // It may ring for what has been dealt with since.
                    if flush_at.is_some_and(|at| at <= Instant::now()) {
                        self.recorder.flush();
                        self.pipe.rest();
                    }
                    if rest_at.is_some_and(|at| at <= Instant::now()) {
                        rest_at = None;
                        self.pipe.rest();
                    }
                    if self.rows_wait().is_some_and(|at| at <= Instant::now()) {
                        self.on_server()?;
                    }
                }
                Next::Alarm(Alarm::Stopping) => {
                    Box::pin(self.give_up("the agent is stopping")).await?;
                    let at = Instant::now() + Duration::from_secs(self.proxy.limits.drain_seconds);
                    stop_at = Some(at);
                    alarms.ring_by(at);
                }
            }
            if idle_at.is_some_and(|at| at <= Instant::now()) {
                return Err(SessionError::Idle);
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
        self.passing == 0 && self.dropping == 0 && self.pipe.requests.unread().is_empty()
    }

    /// True where ending the session interrupts nothing.
    fn at_rest(&self) -> bool {
        self.pending.is_empty() && self.transaction == TransactionStatus::Idle
    }

    /// True where only the client's next statement is waited for. Replication waits for changes.
    fn idle(&self) -> bool {
        self.at_rest() && self.whole() && !self.replication && !self.finished
    }

    /// Tells the client something at the next message's place.
    fn say(&mut self, response: &ErrorResponse) {
        if self.server_passing == 0 {
            self.pipe.answers.insert(&response.encode());
        }
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}
