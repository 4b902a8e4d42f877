//! Every request and what becomes of it. All that can happen to one happens here, under one lock: of an approval, a
//! cancellation and the end of its time exactly one comes first, and the others find it over.
//!
//! Does no I/O. INVARIANT: a request leaves `APPROVED` for `RAN` once, by [`Book::claim`].

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use guard_common::{
    api::agent::{ApprovalRequest, Vote, approval_request::State},
    audit::{timestamp, v1::ApprovalRequirement},
};
use tokio::sync::mpsc;

use super::{Ask, AskError, Exact, Voter, Word, people::is_same_person};

/// Requests that are over and still shown.
const MAX_OVER: usize = 500;

/// Requests of one requester that may wait.
const MAX_OF_ONE: usize = 20;

/// Longest reason of an approver in letters.
const MAX_NOTE: usize = 500;

/// Letters of an id: none looks like another.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

/// Why a word on a request does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoteError {
    /// There is none, or it is not for the caller to see.
    #[error("there is no request `{0}` that you may see: `guard-agent approvals list` shows those")]
    Unknown(String),
    /// It has run, was denied, cancelled or timed out.
    #[error("request {id} is over: {how}")]
    Over {
        /// Which.
        id: String,
        /// How it ended.
        how: String,
    },
    /// It needs nobody any more.
    #[error("request {0} is approved already")]
    Approved(String),
    /// Whoever asks does not decide.
    #[error("this is your own request: somebody else has to decide")]
    Own,
    /// AI agents do not decide.
    #[error("this process runs under the AI agent `{0}`: a person has to decide")]
    NotAPerson(String),
    /// In none of the groups.
    #[error("you are not in {0}: see `[approvals.groups]` in the agent's configuration")]
    NotInGroup(String),
    /// Twice.
    #[error("you have approved it already: another person has to")]
    Twice,
    /// What cannot be recorded does not count.
    #[error("the decision cannot be recorded, so the request is withdrawn: {0}")]
    Unrecorded(String),
}

struct Entry {
    request: ApprovalRequest,
    deadline: Instant,
    /// Tells the session that waits; none where it is to be sent again.
    teller: Option<mpsc::Sender<Word>>,
    remind_at: Option<Instant>,
    remind_every: Duration,
    cancel: Option<[u8; 32]>,
    exacts: Vec<Arc<Exact>>,
    /// What people have said is on record.
    released: bool,
}

impl Entry {
    fn is_open(&self) -> bool {
        matches!(self.request.state(), State::Waiting | State::Approved)
    }

    fn is_hold(&self) -> bool {
        self.request.needs.as_ref().is_none_or(|needs| needs.wait != "retry")
    }

    fn end(&mut self, state: State, note: &str) -> ApprovalRequest {
        self.request.set_state(state);
        self.request.closed = Some(timestamp(SystemTime::now()));
        note.clone_into(&mut self.request.note);
        self.exacts = Vec::new();
        self.cancel = None;
        self.request.clone()
    }

    fn tell(&self, word: Word) {
        if let Some(teller) = &self.teller {
            // A session that has not taken the words before is about to, and finds the same.
            let _ = teller.try_send(word);
        }
    }
}

/// What a look at the time has found.
#[derive(Debug, Default)]
pub(super) struct Over {
    pub(super) requests: Vec<ApprovalRequest>,
    /// Ids that are not kept any longer.
    pub(super) forgotten: Vec<String>,
}

/// All requests.
pub(super) struct Book {
    entries: HashMap<String, Entry>,
    /// Ids, the oldest first.
    order: VecDeque<String>,
    max_waiting: usize,
}

impl Book {
    /// With what was kept of an earlier run.
    pub(super) fn new(max_waiting: usize, kept: Vec<ApprovalRequest>) -> Self {
        let mut book = Self { entries: HashMap::new(), order: VecDeque::new(), max_waiting };
        for request in kept {
            let left = request.expires.as_ref().map_or(Duration::ZERO, |expires| {
                let until = Duration::from_secs(u64::try_from(expires.seconds).unwrap_or(0));
                (SystemTime::UNIX_EPOCH + until).duration_since(SystemTime::now()).unwrap_or_default()
            });
            let entry = Entry {
                deadline: Instant::now() + left.min(Duration::from_secs(7 * 86_400)),
                request,
                teller: None,
                remind_at: None,
                remind_every: Duration::ZERO,
                cancel: None,
                exacts: Vec::new(),
                released: true,
            };
            book.order.push_back(entry.request.id.clone());
            book.entries.insert(entry.request.id.clone(), entry);
        }
        book
    }

    /// What a dead agent held never runs; nor does what was approved, where some of what was kept is lost.
    pub(super) fn settle_what_was_left(&mut self, doubtful: bool) -> Vec<ApprovalRequest> {
        let mut over = Vec::new();
        for entry in self.entries.values_mut().filter(|entry| entry.is_open()) {
            if entry.is_hold() {
                over.push(entry.end(State::Withdrawn, "the agent ended while it waited"));
            } else if doubtful && entry.request.state() == State::Approved {
                over.push(entry.end(State::Withdrawn, "the file of requests was damaged"));
            }
        }
        over
    }

    pub(super) fn open(
        &mut self,
        ask: Ask,
        within: Duration,
        teller: Option<mpsc::Sender<Word>>,
        remind: Duration,
    ) -> Result<ApprovalRequest, AskError> {
        let open = self.entries.values().filter(|entry| entry.is_open());
        if open.clone().count() >= self.max_waiting {
            return Err(AskError::TooMany(self.max_waiting));
        }
        let requester = |request: &ApprovalRequest| {
            let label = request.workload.as_ref().map(guard_common::audit::v1::Workload::label);
            (label, request.db_user.clone(), request.server.clone())
        };
        let own = requester(&ask.request);
        if open.filter(|entry| requester(&entry.request) == own).count() >= MAX_OF_ONE {
            return Err(AskError::TooManyOfOne(MAX_OF_ONE));
        }
        let (now, wall) = (Instant::now(), SystemTime::now());
        let mut request = ask.request;
        request.id = self.new_id();
        request.set_state(State::Waiting);
        request.opened = Some(timestamp(wall));
        request.expires = Some(timestamp(wall + within));
        let entry = Entry {
            request: request.clone(),
            deadline: now + within,
            remind_at: (teller.is_some() && !remind.is_zero()).then(|| now + remind),
            remind_every: remind,
            teller,
            cancel: ask.cancel,
            exacts: ask.exacts,
            released: false,
        };
        self.order.push_back(request.id.clone());
        self.entries.insert(request.id.clone(), entry);
        Ok(request)
    }

    fn new_id(&self) -> String {
        loop {
            let bytes = *uuid::Uuid::new_v4().as_bytes();
            // Of 16 random bytes the first 6 and the last 2 are random through and through.
            let letters = bytes[..6].iter().chain(&bytes[14..]);
            let id: String = letters.map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
            if !self.entries.contains_key(&id) {
                return id;
            }
        }
    }

    /// The open request for the same, to be sent again, and its state.
    pub(super) fn same_as(&self, asked: &ApprovalRequest, now: Instant) -> Option<(String, State)> {
        let same = |entry: &&Entry| {
            entry.is_open()
                && !entry.is_hold()
                && entry.deadline > now
                && !asked.binding.is_empty()
                && entry.request.binding == asked.binding
                && entry.request.needs == asked.needs
        };
        let state = |entry: &Entry| match entry.request.state() {
            State::Approved if !entry.released => State::Waiting,
            state => state,
        };
        let found = self.entries.values().filter(same).max_by_key(|entry| state(entry) == State::Approved)?;
        Some((found.request.id.clone(), state(found)))
    }

    pub(super) fn claim(&mut self, id: &str, now: Instant) -> Result<ApprovalRequest, Box<ApprovalRequest>> {
        let Some(entry) = self.entries.get_mut(id) else {
            let note = "it is not known any more".to_owned();
            return Err(Box::new(ApprovalRequest { note, ..ApprovalRequest::default() }));
        };
        if entry.request.state() != State::Approved || !entry.released {
            return Err(Box::new(entry.request.clone()));
        }
        if entry.deadline <= now {
            return Err(Box::new(entry.end(State::Expired, TOO_LATE)));
        }
        Ok(entry.end(State::Ran, ""))
    }

    pub(super) fn vote(
        &mut self,
        id: &str,
        voter: &Voter,
        approve: bool,
        note: &str,
        now: Instant,
    ) -> Result<ApprovalRequest, VoteError> {
        let Some(entry) = self.entries.get_mut(id) else { return Err(VoteError::Unknown(id.to_owned())) };
        if entry.request.state() == State::Waiting && entry.deadline <= now {
            // Whoever looks at the time next tells the session.
            return Err(VoteError::Over { id: id.to_owned(), how: TOO_LATE.to_owned() });
        }
        may_not(&entry.request, voter)?;
        let request = &mut entry.request;
        let counts = counting(request, voter);
        let mut person = voter.person.clone();
        person.groups = counts.iter().flat_map(|one| voter.in_groups(&one.groups)).collect();
        person.groups.sort();
        person.groups.dedup();
        let vote = Vote {
            person: Some(person),
            approve,
            reason: note.chars().filter(|letter| !letter.is_control()).take(MAX_NOTE).collect(),
            at: Some(timestamp(SystemTime::now())),
            policies: counts.iter().map(|one| one.policy.clone()).collect(),
        };
        request.votes.push(vote);
        if !approve {
            let how = if note.is_empty() { String::new() } else { format!(": {note}") };
            entry.released = false;
            return Ok(entry.end(State::Denied, &format!("denied by {}{how}", voter.name())));
        }
        let met = |one: &ApprovalRequirement| {
            let votes =
                request.votes.iter().filter(|vote| vote.approve && vote.policies.contains(&one.policy));
            votes.count() >= one.approvers.max(1) as usize
        };
        if requirements(request).all(met) {
            entry.request.set_state(State::Approved);
        }
        Ok(entry.request.clone())
    }

    /// What was said is on record: who waits may know.
    pub(super) fn release(&mut self, id: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            match entry.request.state() {
                State::Waiting => {}
                _ => {
                    entry.released = true;
                    entry.tell(Word::Settled);
                }
            }
        }
    }

    pub(super) fn withdraw(&mut self, id: &str, why: &str) -> Option<ApprovalRequest> {
        self.end(id, State::Withdrawn, why, Word::Settled)
    }

    pub(super) fn refuse(&mut self, id: &str, why: &str) -> Option<ApprovalRequest> {
        self.end(id, State::Refused, why, Word::Settled)
    }

    pub(super) fn cancel(&mut self, key: &[u8; 32]) -> Option<ApprovalRequest> {
        // A request to try again keeps nobody waiting: the key may be meant for what runs by now.
        let waits = |entry: &&Entry| entry.is_open() && entry.is_hold();
        let found = self.entries.values().filter(waits).find(|entry| entry.cancel.as_ref() == Some(key))?;
        let id = found.request.id.clone();
        self.end(&id, State::Withdrawn, "cancelled by its client", Word::Cancelled)
    }

    fn end(&mut self, id: &str, state: State, why: &str, word: Word) -> Option<ApprovalRequest> {
        let entry = self.entries.get_mut(id).filter(|entry| entry.is_open())?;
        let request = entry.end(state, why);
        entry.tell(word);
        Some(request)
    }

    pub(super) fn estimated(&mut self, id: &str, estimate: Result<String, String>) {
        if let Some(entry) = self.entries.get_mut(id) {
            match estimate {
                Ok(known) => {
                    entry.request.estimate = known;
                    entry.request.estimate_missing.clear();
                }
                Err(why) => entry.request.estimate_missing = why,
            }
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<ApprovalRequest> {
        self.entries.get(id).map(|entry| entry.request.clone())
    }

    pub(super) fn show(&self, id: &str) -> Option<(ApprovalRequest, Vec<Arc<Exact>>)> {
        self.entries.get(id).map(|entry| (entry.request.clone(), entry.exacts.clone()))
    }

    pub(super) fn list(&self, all: bool) -> Vec<ApprovalRequest> {
        let entries = self.order.iter().filter_map(|id| self.entries.get(id));
        entries.filter(|entry| all || entry.is_open()).map(|entry| entry.request.clone()).collect()
    }

    /// How many wait, and how many are approved and have not run.
    pub(super) fn counts(&self) -> (u64, u64) {
        let count =
            |state| self.entries.values().filter(|entry| entry.request.state() == state).count() as u64;
        (count(State::Waiting), count(State::Approved))
    }

    pub(super) fn look(&mut self, now: Instant) -> Over {
        let mut over = Over::default();
        for entry in self.entries.values_mut().filter(|entry| entry.is_open()) {
            if entry.deadline <= now {
                over.requests.push(entry.end(State::Expired, TOO_LATE));
                entry.tell(Word::Settled);
            } else if entry.remind_at.is_some_and(|at| at <= now) {
                entry.remind_at = Some(now + entry.remind_every);
                entry.tell(Word::Remind);
            }
        }
        let ended = self.entries.values().filter(|entry| !entry.is_open()).count();
        for _ in MAX_OVER..ended {
            let is_over = |id: &String| self.entries.get(id).is_none_or(|entry| !entry.is_open());
            let Some(at) = self.order.iter().position(is_over) else { break };
            if let Some(id) = self.order.remove(at) {
                self.entries.remove(&id);
                over.forgotten.push(id);
            }
        }
        over
    }
}

const TOO_LATE: &str = "nobody approved it in time";

fn requirements(request: &ApprovalRequest) -> impl Iterator<Item = &ApprovalRequirement> {
    request.needs.iter().flat_map(|needs| &needs.requirements)
}

/// The requirements that a voter's word counts for.
fn counting(request: &ApprovalRequest, voter: &Voter) -> Vec<ApprovalRequirement> {
    requirements(request).filter(|one| voter.in_groups(&one.groups).next().is_some()).cloned().collect()
}

/// Whether a voter's word on a request would count.
pub(super) fn may_not(request: &ApprovalRequest, voter: &Voter) -> Result<(), VoteError> {
    let id = request.id.clone();
    match request.state() {
        State::Waiting => {}
        State::Approved => return Err(VoteError::Approved(id)),
        State::Ran => return Err(VoteError::Over { id, how: "it has run".to_owned() }),
        _ => return Err(VoteError::Over { id, how: request.note.clone() }),
    }
    if !voter.ai_agent.is_empty() {
        return Err(VoteError::NotAPerson(voter.ai_agent.clone()));
    }
    let own =
        request.workload.as_ref().is_none_or(|who| is_same_person(who, &request.db_user, &voter.person));
    if own {
        return Err(VoteError::Own);
    }
    if counting(request, voter).is_empty() {
        let groups: Vec<&str> =
            requirements(request).flat_map(|one| &one.groups).map(String::as_str).collect();
        return Err(VoteError::NotInGroup(groups.join(" or ")));
    }
    let before = request.votes.iter().filter_map(|vote| vote.person.as_ref());
    if before.into_iter().any(|person| voter.is(person)) {
        return Err(VoteError::Twice);
    }
    Ok(())
}
