//! Statements that wait for people: what is asked enters, leave to run it exactly once leaves, or a refusal.
//!
//! The [book](book) holds every request and is the one place where it changes hands; the [store](store) keeps it over
//! restarts. A statement runs by a [`Claim`], which is made of an approved request once, on record and on disk before.
//! Whatever is in doubt (a crash, a lost file, a changed policy, a client that has gone) never runs.

mod binding;
mod book;
mod exact;
mod hold;
mod people;
mod reason;
mod record;
mod store;
mod words;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use guard_common::{
    api::agent::{ApprovalRequest, ApprovalsStatus, approval_request::State},
    audit::v1::{Person, approval::Event},
};
use tokio::sync::{broadcast, mpsc};

pub use self::{
    binding::{Binding, Bound},
    book::VoteError,
    exact::{Exact, Exacts},
    hold::{Hold, Word},
    people::{CONTROL, Groups, LOCAL, Voter, belongs_here, person},
    reason::{from_name, from_text},
    store::StoreError,
    words::in_words,
};
use self::{book::Book, people::is_same_person, store::Store};
use crate::{
    audit::{AuditError, AuditLog},
    config::ApprovalsConfig,
};

/// Words that a held session may not have taken yet.
const WORDS: usize = 4;

/// Changes that the control plane may not have been told yet; beyond, it is told all that is open.
const CHANGES: usize = 256;

/// How often requests are looked at whose time may be up.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Too many wait.
    #[error("{0} statements wait for approval already, which is the limit")]
    TooMany(usize),
    /// Too many of one requester.
    #[error("{0} statements of yours wait for approval already, which is the limit")]
    TooManyOfOne(usize),
    /// Not on record.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Not on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an approved statement does not run.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClaimError {
    /// It is over, or not approved.
    #[error("{}", .0.note)]
    Over(Box<ApprovalRequest>),
    /// What cannot be recorded does not run.
    #[error("it cannot be recorded: {0}")]
    Unrecorded(String),
}

/// An approved request whose statement is about to run. There is one for each, and it is used up by running.
#[derive(Debug)]
#[must_use = "an approval that nobody uses is lost"]
pub struct Claim {
    request: String,
}

impl Claim {
    /// The request's id.
    pub(crate) fn into_request(self) -> String {
        self.request
    }
}

/// The glass is broken, and the alarm is on record.
#[derive(Debug)]
pub struct Broken(());

/// What comes of asking.
#[derive(Debug)]
pub enum Answer {
    /// It waits on its connection.
    Wait(Hold),
    /// It is refused for now.
    Retry(Box<ApprovalRequest>),
    /// It was approved before, and may run now.
    Run(Claim),
}

/// What is asked.
#[derive(Debug)]
pub struct Ask {
    /// All but id, state and times.
    pub request: ApprovalRequest,
    /// What only `--full` shows; several where it is not certain which one it will be.
    pub exacts: Vec<Arc<Exact>>,
    /// The key with which the client can cancel it, as [`cancel_digest`] makes it.
    pub cancel: Option<[u8; 32]>,
}

/// All requests of this agent. Cheap to clone.
#[derive(Clone)]
pub struct Approvals(Arc<Inner>);

struct Inner {
    book: Mutex<Book>,
    store: Store,
    audit: AuditLog,
    config: ApprovalsConfig,
    /// Requests as they change, for the control plane.
    changes: broadcast::Sender<ApprovalRequest>,
}

impl fmt::Debug for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approvals").finish_non_exhaustive()
    }
}

impl Approvals {
    /// The requests that `folder` keeps. What a dead agent held is withdrawn: it never runs.
    pub fn open(config: &ApprovalsConfig, folder: &Path, audit: AuditLog) -> Result<Self, StoreError> {
        let (store, kept) = Store::open(folder)?;
        let book = Book::new(config.max_waiting, kept.requests);
        let changes = broadcast::channel(CHANGES).0;
        let inner = Inner { book: Mutex::new(book), store, audit, config: config.clone(), changes };
        let approvals = Self(Arc::new(inner));
        approvals.settle_what_was_left(kept.doubtful);
        Ok(approvals)
    }

    /// Requests that are kept in memory alone: for tests.
    pub fn in_memory(config: &ApprovalsConfig, audit: AuditLog) -> Self {
        let book = Mutex::new(Book::new(config.max_waiting, Vec::new()));
        let changes = broadcast::channel(CHANGES).0;
        let store = Store::in_memory();
        Self(Arc::new(Inner { book, store, audit, config: config.clone(), changes }))
    }

    /// INVARIANT: never held across an await.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who may decide, as configured.
    pub fn groups(&self) -> &Groups {
        &self.0.config.groups
    }

    /// How long a request is open: `given` by its policies, or as configured where that is 0.
    pub fn seconds(&self, given: u64) -> u64 {
        if given == 0 { self.0.config.within_seconds } else { given }
    }

    /// Requests as they change from now on. Who is too slow for them looks at [`Self::list`] again.
    pub fn changes(&self) -> broadcast::Receiver<ApprovalRequest> {
        self.0.changes.subscribe()
    }

    fn changed(&self, request: &ApprovalRequest) {
        // Nobody may be listening.
        let _ = self.0.changes.send(request.clone());
    }

    /// Whether the control plane's word counts.
    pub fn takes_verdicts(&self) -> bool {
        self.0.config.from_control
    }

    fn settle_what_was_left(&self, doubtful: bool) {
        let over = self.book().settle_what_was_left(doubtful);
        for request in over {
            self.tell(&request, Event::Withdrawn, None);
            self.0.store.keep_later(&request);
        }
    }

    /// Asks people. A statement that is held is on record and on disk before its client hears of it.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, AskError> {
        let retry = ask.request.needs.as_ref().is_some_and(|needs| needs.wait == "retry");
        if retry && let Some(answer) = self.asked_before(&ask.request).await {
            return Ok(answer);
        }
        let limit = ask.request.needs.as_ref().map_or(0, |needs| needs.within_seconds);
        let limit = self.seconds(u64::from(limit));
        let (teller, words) = mpsc::channel(WORDS);
        let teller = (!retry).then_some(teller);
        let remind = Duration::from_secs(self.0.config.remind_seconds);
        let request = self.book().open(ask, Duration::from_secs(limit), teller, remind)?;
        // From here on it is withdrawn if this is not waited for.
        let hold = Hold::new(self.clone(), request.id.clone(), words);
        self.0.audit.commit(record::body(&request, Event::Requested, None)).await?;
        self.0.store.keep(&request).await?;
        self.changed(&request);
        if retry {
            hold.keep();
            return Ok(Answer::Retry(Box::new(request)));
        }
        Ok(Answer::Wait(hold))
    }

    /// The same was asked before: it is approved, or still waits.
    async fn asked_before(&self, asked: &ApprovalRequest) -> Option<Answer> {
        let (id, state) = self.book().same_as(asked, Instant::now())?;
        match state {
            State::Approved => match self.claim(&id).await {
                Ok(claim) => Some(Answer::Run(claim)),
                // Another session was faster: it asks anew.
                Err(error) => {
                    tracing::info!(request = id, "an approved statement does not run: {error}");
                    None
                }
            },
            _ => self.book().get(&id).map(|request| Answer::Retry(Box::new(request))),
        }
    }

    /// Takes an approved request, to run its statement. Whoever gets it is the only one.
    async fn claim(&self, id: &str) -> Result<Claim, ClaimError> {
        let taken = self.book().claim(id, Instant::now());
        let request = taken.map_err(ClaimError::Over)?;
        // On disk before anything runs: after a crash it must not run again.
        let kept = async {
            self.0.store.keep(&request).await.map_err(|error| error.to_string())?;
            let body = record::body(&request, Event::Ran, None);
            self.0.audit.commit(body).await.map_err(|error| error.to_string())
        };
        match kept.await {
            Ok(()) => {
                self.changed(&request);
                Ok(Claim { request: request.id })
            }
            Err(error) => Err(ClaimError::Unrecorded(error)),
        }
    }

    /// One person's word on a request.
    pub async fn vote(
        &self,
        id: &str,
        voter: &Voter,
        approve: bool,
        note: &str,
    ) -> Result<ApprovalRequest, VoteError> {
        let voted = self.book().vote(id, voter, approve, note, Instant::now())?;
        let event = if approve { Event::Approved } else { Event::Denied };
        let kept = async {
            let body = record::body(&voted, event, Some((&voter.person, note)));
            self.0.audit.commit(body).await.map_err(|error| error.to_string())?;
            self.0.store.keep(&voted).await.map_err(|error| error.to_string())
        };
        if let Err(error) = kept.await {
            if let Some(over) = self.book().withdraw(id, "the decision could not be recorded") {
                self.over(&over, Event::Withdrawn);
            }
            return Err(VoteError::Unrecorded(error));
        }
        tracing::info!(request = id, by = voter.name(), approve, "a person has decided on a statement");
        self.book().release(id);
        self.changed(&voted);
        Ok(voted)
    }

    /// The client cancels what it waits for. True: it waited, and will not run.
    pub fn cancel(&self, key: &[u8; 32]) -> bool {
        let over = self.book().cancel(key);
        over.inspect(|over| self.over(over, Event::Withdrawn)).is_some()
    }

    /// It is not waited for any more. Nothing happens to what is over already.
    fn withdraw(&self, id: &str, why: &str) {
        let over = self.book().withdraw(id, why);
        if let Some(over) = over {
            self.over(&over, Event::Withdrawn);
        }
    }

    /// It was approved, but must not run any more.
    pub fn refuse(&self, id: &str, why: &str) {
        let over = self.book().refuse(id, why);
        if let Some(over) = over {
            self.over(&over, Event::Refused);
        }
    }

    fn over(&self, request: &ApprovalRequest, event: Event) {
        self.changed(request);
        self.tell(request, event, None);
        self.0.store.keep_later(request);
    }

    fn tell(&self, request: &ApprovalRequest, event: Event, person: Option<(&Person, &str)>) {
        self.0.audit.record(record::body(request, event, person));
    }

    /// Puts it on record that somebody goes without an approval, and why. `request` is as for [`Self::ask`].
    pub async fn break_glass(
        &self,
        request: &ApprovalRequest,
        person: &Person,
    ) -> Result<Broken, AuditError> {
        let body = record::body(request, Event::BreakGlass, Some((person, &request.reason)));
        self.0.audit.commit(body).await?;
        tracing::warn!(
            policy = request.policy,
            server = request.server,
            database = request.database,
            db_user = request.db_user,
            user = person.user,
            login_user = person.login_user,
            statement = request.text,
            justification = request.justification,
            "BREAK-GLASS: a statement runs without the approval that it needs"
        );
        Ok(Broken(()))
    }

    /// Requests that `shown` lets see, the oldest first; those that are over as well where `all`.
    pub fn list(&self, all: bool) -> Vec<ApprovalRequest> {
        self.book().list(all)
    }

    /// One request, and what only `--full` shows.
    pub fn show(&self, id: &str) -> Option<(ApprovalRequest, Vec<Arc<Exact>>)> {
        self.book().show(id)
    }

    /// Whether servers are asked what waiting statements would touch.
    pub fn estimates(&self) -> bool {
        self.0.config.estimates
    }

    /// What the server expects a waiting statement to touch, or why that is not known.
    pub fn estimated(&self, id: &str, estimate: Result<String, String>) {
        self.book().estimated(id, estimate);
    }

    /// Why `voter` may not decide on `request`; nothing where they may.
    pub fn may_not(&self, request: &ApprovalRequest, voter: &Voter) -> Option<String> {
        book::may_not(request, voter).err().map(|error| error.to_string())
    }

    /// Whether `voter` has asked for it.
    pub fn is_own(&self, request: &ApprovalRequest, voter: &Voter) -> bool {
        request
            .workload
            .as_ref()
            .is_some_and(|workload| is_same_person(workload, &request.db_user, &voter.person))
    }

    /// For `guard-agent status`.
    pub fn status(&self) -> ApprovalsStatus {
        let (waiting, approved) = self.book().counts();
        ApprovalsStatus { waiting, approved, error: self.0.store.error().unwrap_or_default() }
    }

    /// Ends what has waited long enough, and reminds those who wait.
    pub fn look(&self, now: Instant) {
        let over = self.book().look(now);
        over.requests.iter().for_each(|request| self.over(request, Event::Expired));
        over.forgotten.iter().for_each(|id| self.0.store.forget(id));
    }

    /// Looks again and again, for as long as the agent runs.
    pub async fn keep_time(self) {
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.look(Instant::now());
        }
    }
}

/// Names a session's key to cancel without being it: `body` is that of BackendKeyData, or of a CancelRequest behind its
/// code.
pub fn cancel_digest(body: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(body).into()
}

#[cfg(test)]
mod tests;
