//! How far an outlet has given out whose records, in the store.
//!
//! Enters: what has left. Leaves: what has not. A cursor only goes forward, and only after the receiver has what lies before it.
//! Where several replicas share the store, one of them works for an outlet at a time.

use std::time::Duration;

use guard_common::audit::v1::{ControlEvent, SealedRecord};
use uuid::Uuid;

use super::config::Begin;
use crate::store::{
    Store, StoreError,
    id::{RANGE, first_id},
    now,
    sql::{Line, Sql, Value},
};

/// How long an outlet is a replica's own without a word from it.
const LEASE: Duration = Duration::from_secs(60);
/// Agents that are looked at in one round.
const AGENTS: i64 = 512;
/// Bytes of records that are read at once, unless one alone has more.
const MAX_BYTES: i64 = 2 * 1024 * 1024;
/// Longest error that is kept.
const MAX_ERROR: usize = 500;

/// An agent of which something has not been given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Its row in the store.
    pub agent: i64,
    /// Its id.
    pub agent_id: String,
    /// Its host.
    pub host: String,
    /// Given out up to here.
    pub given: u64,
    /// Stored up to here.
    pub stored: u64,
}

/// What was read of an agent's records.
#[derive(Debug, Default)]
pub struct Portion {
    /// The records, in the order of the chain.
    pub records: Vec<SealedRecord>,
    /// Everything up to here was looked at.
    pub upto: u64,
    /// Numbers among them whose records were deleted after their time, before this outlet gave them out.
    pub missed: u64,
}

/// What a batch has moved.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// Agents' rows and how far each is now.
    pub upto: Vec<(i64, u64)>,
    /// Records that left.
    pub sent: u64,
    /// Records that the outlet does not want.
    pub passed_over: u64,
    /// Records that were gone.
    pub missed: Vec<Missed>,
}

/// Records that an outlet cannot give out any more.
#[derive(Clone, Debug, Default)]
pub struct Missed {
    /// Why.
    pub why: &'static str,
    /// The agent's id, where they are one agent's.
    pub agent_id: String,
    /// Its host.
    pub host: String,
    /// The last number that was looked at, where they are one agent's.
    pub upto: u64,
    /// How many.
    pub records: u64,
}

/// The place of one outlet.
pub struct Cursors {
    store: Store,
    name: String,
    kind: &'static str,
    holder: String,
}

impl Cursors {
    /// Of the outlet with this name and kind.
    pub fn new(store: Store, (name, kind): (&str, &'static str), shared: bool) -> Self {
        // The embedded store has one server: after a restart it need not wait for itself.
        let holder = if shared { Uuid::new_v4().to_string() } else { "embedded".to_owned() };
        Self { store, name: name.to_owned(), kind, holder }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes or keeps the outlet for this process; false where another replica has it. The first time ever it is set to where it
    /// begins.
    pub async fn claim(&self, begin: Begin) -> Result<bool, StoreError> {
        let from = match begin {
            Begin::Now => "a.head_sequence".to_owned(),
            // What was deleted before the outlet was there is no loss of it.
            Begin::Oldest => format!(
                "coalesce((SELECT min(r.id) - a.id * {RANGE} - 1 FROM records r
                   WHERE r.id > a.id * {RANGE} AND r.id < (a.id + 1) * {RANGE}), a.head_sequence)"
            ),
        };
        let place = format!(
            "INSERT INTO outlet_cursors (outlet, agent, sequence) SELECT $1, a.id, {from} FROM agents a
             WHERE a.head_sequence > 0 AND NOT EXISTS (SELECT 1 FROM outlets o WHERE o.name = $1)
             ON CONFLICT DO NOTHING"
        );
        let take = "INSERT INTO outlets (name, kind, holder, lease) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO UPDATE SET kind = $2, holder = $3, lease = $4
             WHERE outlets.holder = $3 OR outlets.lease < $5 RETURNING 1";
        let (time, name) = (now(), Value::from(self.name.as_str()));
        let until = time.saturating_add(i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX));
        let values = [name.clone(), self.kind.into(), self.holder.as_str().into(), until.into(), time.into()];
        let answers = self.store.run(vec![Sql::new(place, [name]), Sql::new(take, values)]).await?;
        Ok(answers.last().is_some_and(|lines| !lines.is_empty()))
    }

    /// Gives the outlet up, for another replica to take at once.
    pub async fn release(&self) -> Result<(), StoreError> {
        let release = "UPDATE outlets SET lease = 0 WHERE name = $1 AND holder = $2";
        let values = [self.name.as_str().into(), self.holder.as_str().into()];
        self.store.run(vec![Sql::new(release, values)]).await.map(drop)
    }

    /// Agents with rows after `after` that have something to give out.
    pub async fn behind(&self, after: i64) -> Result<Vec<Behind>, StoreError> {
        let select = "SELECT a.id, a.agent_id, a.host, coalesce(c.sequence, 0), a.head_sequence FROM agents a
             LEFT JOIN outlet_cursors c ON c.outlet = $1 AND c.agent = a.id
             WHERE a.id > $2 AND a.head_sequence > coalesce(c.sequence, 0) ORDER BY a.id LIMIT $3";
        let values = [self.name.as_str().into(), after.into(), AGENTS.into()];
        let lines = self.store.look_up(Sql::new(select, values)).await?;
        let behind = |line: &Line| Behind {
            agent: line.int(0),
            agent_id: line.text(1).to_owned(),
            host: line.text(2).to_owned(),
            given: line.int(3).cast_unsigned(),
            stored: line.int(4).cast_unsigned(),
        };
        Ok(lines.iter().map(behind).collect())
    }

    /// The next records of an agent, at most `limit`.
    pub async fn read(&self, behind: &Behind, limit: usize) -> Result<Portion, StoreError> {
        let base = first_id(behind.agent);
        let (first, last) = (base + behind.given.cast_signed() + 1, base + behind.stored.cast_signed());
        // Their lengths first: the largest records are larger than all the others together.
        let select =
            "SELECT id, length(payload) FROM records WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3";
        let values = [first.into(), last.into(), i64::try_from(limit).unwrap_or(i64::MAX).into()];
        let lengths = self.store.look_up(Sql::new(select, values)).await?;
        let mut bytes = 0_i64;
        let within = |line: &&Line| {
            bytes = bytes.saturating_add(line.int(1));
            bytes <= MAX_BYTES
        };
        let many = lengths.iter().take_while(within).count().max(1).min(lengths.len());
        let whole = many == lengths.len() && lengths.len() < limit;
        let upto = match lengths.get(many.saturating_sub(1)) {
            // Nothing is left behind the last one.
            Some(_) | None if whole => last,
            Some(line) => line.int(0),
            None => last,
        };
        let mut portion = Portion { upto: (upto - base).cast_unsigned(), ..Portion::default() };
        if many > 0 {
            let select = "SELECT id, hash, payload FROM records WHERE id BETWEEN $1 AND $2 ORDER BY id";
            let lines = self.store.look_up(Sql::new(select, [first.into(), upto.into()])).await?;
            portion.records = lines.iter().map(|line| sealed(base, line)).collect();
        }
        let gone = portion.upto.saturating_sub(behind.given).saturating_sub(portion.records.len() as u64);
        if gone > 0 {
            let never_came = self.never_came(behind, portion.upto).await?;
            portion.missed = gone.saturating_sub(never_came);
        }
        Ok(portion)
    }

    /// Numbers behind the cursor up to `upto` whose records never came: those are on record already.
    async fn never_came(&self, behind: &Behind, upto: u64) -> Result<u64, StoreError> {
        let select = "SELECT first, last FROM holes WHERE agent = $1 AND last > $2 AND first <= $3";
        let (from, upto) = (behind.given.cast_signed(), upto.cast_signed());
        let lines =
            self.store.look_up(Sql::new(select, [behind.agent.into(), from.into(), upto.into()])).await?;
        let within = |line: &Line| line.int(1).min(upto) - line.int(0).max(from + 1) + 1;
        Ok(lines.iter().map(within).sum::<i64>().max(0).cast_unsigned())
    }

    /// Notes what has left; false where another replica has the outlet by now.
    pub async fn advance(&self, moved: &Moved) -> Result<bool, StoreError> {
        let time = now();
        let until = time.saturating_add(i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX));
        let update = "UPDATE outlets SET sent = sent + $3, passed_over = passed_over + $4, missed = missed + $5, error = NULL,
                 sent_at = $6, lease = $7 WHERE name = $1 AND holder = $2 RETURNING 1";
        let values = [
            self.name.as_str().into(),
            self.holder.as_str().into(),
            moved.sent.cast_signed().into(),
            moved.passed_over.cast_signed().into(),
            moved.missed.iter().map(|one| one.records).sum::<u64>().cast_signed().into(),
            time.into(),
            until.into(),
        ];
        let mut steps = vec![Sql::new(update, values)];
        let forward = "INSERT INTO outlet_cursors (outlet, agent, sequence) SELECT $1, $2, $3
             WHERE EXISTS (SELECT 1 FROM outlets WHERE name = $1 AND holder = $4)
             ON CONFLICT (outlet, agent) DO UPDATE SET sequence = $3 WHERE outlet_cursors.sequence < $3";
        steps.extend(moved.upto.iter().map(|(agent, upto)| {
            let upto = upto.cast_signed().into();
            Sql::new(forward, [self.name.as_str().into(), (*agent).into(), upto, self.holder.as_str().into()])
        }));
        let answers = self.store.run(steps).await?;
        Ok(answers.first().is_some_and(|lines| !lines.is_empty()))
    }

    /// Notes that nothing leaves, and why.
    pub async fn failed(&self, problem: &str) -> Result<(), StoreError> {
        let update = "UPDATE outlets SET failures = failures + 1, error = $3, failed_at = $4 WHERE name = $1 AND holder = $2";
        let problem = &problem[..problem.floor_char_boundary(MAX_ERROR)];
        let values = [self.name.as_str().into(), self.holder.as_str().into(), problem.into(), now().into()];
        self.store.run(vec![Sql::new(update, values)]).await.map(drop)
    }

    /// Says in the control plane's own chain that records will not leave.
    pub async fn note_missed(&self, missed: &Missed) -> Result<(), StoreError> {
        let Missed { why, agent_id, host, upto, records } = missed;
        let event = ControlEvent {
            event: "outlet-missed".to_owned(),
            agent_id: agent_id.clone(),
            host: host.clone(),
            sequence: *upto,
            detail: format!("outlet {}: {records} records {why}", self.name),
            count: 0,
        };
        self.store.note_event(event).await
    }
}

fn sealed(base: i64, line: &Line) -> SealedRecord {
    SealedRecord {
        sequence: (line.int(0) - base).cast_unsigned(),
        hash: line.bytes(1).to_vec().into(),
        payload: line.bytes(2).to_vec().into(),
        ..SealedRecord::default()
    }
}
