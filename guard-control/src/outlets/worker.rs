//! One outlet at work: what is stored and has not left enters, batches leave, cursors follow.
//!
//! It works alone, in steps of bounded size, and waits longer after each failure. It never moves a cursor past what the receiver
//! has not taken, and never asks the store for more than one batch.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

use super::{
    Given, Outlet, OutletError, Taken,
    config::Common,
    cursors::{Behind, Cursors, Missed, Moved},
    is_wanted,
};
use crate::store::StoreError;

/// Records of one batch.
const BATCH: usize = 1_000;
/// Bytes of one batch, unless the last portion goes beyond.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Records of one agent in a batch: the others wait for a moment alone.
const PORTION: usize = 500;
/// How soon new records are looked for.
const IDLE: Duration = Duration::from_millis(500);
/// How soon another replica's outlet is looked at again.
const WAIT: Duration = Duration::from_secs(5);
/// The first pause after a failure; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How often the outlet is claimed anew while nothing leaves.
const CLAIM: Duration = Duration::from_secs(10);
/// How long the end may take.
const GRACE: Duration = Duration::from_secs(5);

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Outlet(#[from] OutletError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

enum Round {
    /// There may be more at once.
    More,
    /// Nothing is left.
    Idle,
    /// Another replica has the outlet.
    Elsewhere,
}

/// One outlet and its place.
pub(super) struct Worker {
    cursors: Cursors,
    outlet: Box<dyn Outlet>,
    common: Common,
    /// The agent after which the next round begins: everybody's turn comes.
    after: i64,
    /// Something has left since the first agent's turn.
    progressed: bool,
    /// How far the agents are whose records are held, and not durable yet.
    held: HashMap<i64, u64>,
    /// What the held records move.
    moved: Moved,
    claimed: Option<Instant>,
}

/// What is on its way.
#[derive(Default)]
struct Batch {
    given: Vec<Given>,
    moved: Moved,
    bytes: usize,
}

impl Worker {
    pub(super) fn new(cursors: Cursors, outlet: Box<dyn Outlet>, common: Common) -> Self {
        Self {
            cursors,
            outlet,
            common,
            after: 0,
            progressed: false,
            held: HashMap::new(),
            moved: Moved::default(),
            claimed: None,
        }
    }

    /// Works until `stopped`.
    pub(super) async fn work(mut self, mut stopped: watch::Receiver<bool>) {
        let mut pause = PAUSE;
        while !*stopped.borrow() {
            let round = {
                let round = self.round();
                tokio::pin!(round);
                tokio::select! {
                    round = &mut round => Some(round),
                    // What is on its way may still arrive.
                    () = ended(&mut stopped) => timeout(GRACE, round).await.ok(),
                }
            };
            let rest = match round {
                Some(Ok(Round::More)) => {
                    pause = PAUSE;
                    continue;
                }
                Some(Ok(Round::Idle)) => {
                    pause = PAUSE;
                    IDLE
                }
                Some(Ok(Round::Elsewhere)) => WAIT,
                Some(Err(failed)) => {
                    self.failed(&failed, pause).await;
                    let rest = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    rest
                }
                // What was interrupted comes again after the next start.
                None => {
                    self.forget().await;
                    break;
                }
            };
            tokio::select! {
                () = ended(&mut stopped) => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
        if !matches!(timeout(GRACE, self.settle()).await, Ok(Ok(_))) {
            self.forget().await;
        }
        if let Ok(Err(error)) = timeout(GRACE, self.cursors.release()).await {
            tracing::debug!(outlet = self.cursors.name(), %error, "an outlet was not released");
        }
    }

    async fn failed(&mut self, failed: &Failed, pause: Duration) {
        let (outlet, seconds) = (self.cursors.name(), pause.as_secs_f32());
        tracing::warn!(outlet, error = %failed, "records wait in the store: next attempt in {seconds} s");
        self.forget().await;
        // Where the store itself is away there is nowhere to note it.
        if matches!(failed, Failed::Outlet(_)) {
            let _ = self.cursors.failed(&failed.to_string()).await;
        }
    }

    async fn forget(&mut self) {
        self.outlet.forget().await;
        self.held.clear();
        self.moved = Moved::default();
    }

    /// Gives out one batch.
    async fn round(&mut self) -> Result<Round, Failed> {
        if self.claimed.is_none_or(|claimed| claimed.elapsed() > CLAIM) {
            if !self.cursors.claim(self.common.begin).await? {
                self.forget().await;
                return Ok(Round::Elsewhere);
            }
            self.claimed = Some(Instant::now());
        }
        if self.outlet.is_due() {
            return self.settle().await;
        }
        let behind: Vec<Behind> = self.cursors.behind(self.after).await?;
        let Some(last) = behind.last().map(|one| one.agent) else {
            // The first agents again, if any were left out.
            let again = self.after > 0 && self.progressed;
            (self.after, self.progressed) = (0, false);
            return Ok(if again { Round::More } else { Round::Idle });
        };
        let batch = self.gather(behind, last).await?;
        if batch.moved.upto.is_empty() {
            // All of them are held.
            return Ok(Round::More);
        }
        let taken = match batch.given.is_empty() {
            true if self.held.is_empty() => Taken::Given,
            true => Taken::Held,
            false => self.outlet.take(&batch.given).await?,
        };
        let refused = self.outlet.refused();
        if refused > 0 {
            let why = "were refused for good by the receiver";
            self.moved.missed.push(Missed { why, records: refused, ..Missed::default() });
        }
        self.held.extend(batch.moved.upto.iter().copied());
        self.moved.sent += batch.moved.sent;
        self.moved.passed_over += batch.moved.passed_over;
        self.moved.missed.extend(batch.moved.missed);
        self.progressed = true;
        match taken {
            Taken::Given => self.note().await,
            Taken::Held => Ok(Round::More),
        }
    }

    /// A batch of the agents in `behind`, whose last is `last`.
    async fn gather(&mut self, behind: Vec<Behind>, last: i64) -> Result<Batch, Failed> {
        let mut batch = Batch::default();
        self.after = last;
        for mut one in behind {
            one.given = one.given.max(self.held.get(&one.agent).copied().unwrap_or(0));
            if one.given >= one.stored {
                continue;
            }
            let room = BATCH.saturating_sub(batch.given.len());
            if room == 0 || batch.bytes >= BATCH_BYTES {
                break;
            }
            let portion = self.cursors.read(&one, room.min(PORTION)).await?;
            if portion.missed > 0 {
                batch.moved.missed.push(Missed {
                    why: "were deleted after their time, before they had left",
                    agent_id: one.agent_id.clone(),
                    host: one.host.clone(),
                    upto: portion.upto,
                    records: portion.missed,
                });
            }
            for sealed in &portion.records {
                let given = Given::new(one.agent, (&one.agent_id, &one.host), sealed);
                if is_wanted(self.common.send, &given.flat) {
                    batch.bytes += sealed.payload.len();
                    batch.moved.sent += 1;
                    batch.given.push(given);
                } else {
                    batch.moved.passed_over += 1;
                }
            }
            batch.moved.upto.push((one.agent, portion.upto));
            self.after = one.agent;
        }
        Ok(batch)
    }

    async fn settle(&mut self) -> Result<Round, Failed> {
        self.outlet.settle().await?;
        self.note().await
    }

    /// The receiver has everything: the cursors follow.
    async fn note(&mut self) -> Result<Round, Failed> {
        self.moved.upto = self.held.iter().map(|(agent, upto)| (*agent, *upto)).collect();
        if self.moved.upto.is_empty() {
            return Ok(Round::Idle);
        }
        let mine = self.cursors.advance(&self.moved).await?;
        self.held.clear();
        let moved = std::mem::take(&mut self.moved);
        self.claimed = mine.then(Instant::now);
        for missed in &moved.missed {
            let (outlet, agent, records) = (self.cursors.name(), &missed.agent_id, missed.records);
            tracing::error!(outlet, agent, records, "records {}", missed.why);
            self.cursors.note_missed(missed).await?;
        }
        Ok(if mine { Round::More } else { Round::Elsewhere })
    }
}

/// The control plane is stopping, or has.
async fn ended(stopped: &mut watch::Receiver<bool>) {
    // What it gives holds a lock: not for longer than this.
    let _ = stopped.wait_for(|stopped| *stopped).await.is_ok();
}
