//! What replicas tell each other through the store that they share: which agents are connected to whom, what waits there, and
//! the words of people for agents of another one.
//!
//! Each has one row that it rewrites when something changes, and looks at the others' once a second. A word goes to the replica
//! with the agent, and the agent's answer comes back the same way; whether it counts stays the agent's to say. Whoever can write
//! into the store could speak for people: the store is as trusted as the console.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use guard_common::api::control::{ApprovalAnswer, DecideApprovalRequest, FleetApproval};
use prost::Message;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Fleet, approvals::Unanswered};
use crate::{
    people::now,
    store::{Store, StoreError, sql::Sql},
};

/// How often the others are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How often a replica says that it is there when nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Seconds after which one that says nothing is gone.
const GONE: i64 = 10;
/// Seconds that a word may wait for the replica with the agent.
const WORD: i64 = 20;
/// How often it is looked for the answer to a word.
const ANSWER: Duration = Duration::from_millis(200);
/// Seconds after which what is left over is deleted.
const LEFT_OVER: i64 = 3_600;

/// Hands words to agents of other replicas.
#[derive(Clone)]
pub struct Relay(Store);

impl Relay {
    /// Through the store, where several replicas share it.
    pub fn of(store: &Store) -> Option<Self> {
        store.is_shared().then(|| Self(store.clone()))
    }

    /// Hands one word over and waits for the answer, until whoever waits has waited enough.
    pub async fn decide(&self, asked: &DecideApprovalRequest) -> Result<ApprovalAnswer, Unanswered> {
        let failed = |error: StoreError| {
            tracing::warn!(%error, "a person's word cannot be handed to another replica");
            Unanswered::Late
        };
        let id = Uuid::now_v7().to_string();
        let insert = "INSERT INTO verdicts (id, agent_id, at, asked) VALUES ($1, $2, $3, $4)";
        let values =
            [id.as_str().into(), asked.agent_id.as_str().into(), now().into(), asked.encode_to_vec().into()];
        self.0.query(Sql::new(insert, values)).await.map_err(failed)?;
        let select = "SELECT answer FROM verdicts WHERE id = $1 AND answer IS NOT NULL";
        loop {
            tokio::time::sleep(ANSWER).await;
            let lines = self.0.look_up(Sql::new(select, [id.as_str().into()])).await.map_err(failed)?;
            if let Some(line) = lines.first() {
                return ApprovalAnswer::decode(line.bytes(0)).map_err(|_| Unanswered::Late);
            }
        }
    }
}

/// What one replica says of itself.
#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
struct State {
    connected: Vec<String>,
    /// Encoded `FleetApproval`s.
    waiting: Vec<String>,
}

impl State {
    fn of(fleet: &Fleet) -> Self {
        let waiting = fleet.waiting.list_here(None);
        let mut waiting: Vec<String> =
            waiting.iter().map(|one| STANDARD.encode(one.encode_to_vec())).collect();
        waiting.sort_unstable();
        Self { connected: fleet.sessions.here(), waiting }
    }

    fn approvals(&self) -> impl Iterator<Item = FleetApproval> {
        self.waiting.iter().filter_map(|one| FleetApproval::decode(&*STANDARD.decode(one).ok()?).ok())
    }
}

/// Tells the others of this replica, and learns of them, for as long as it is not dropped.
pub async fn follow(fleet: Fleet) {
    let mut circle = Circle {
        id: Uuid::new_v4().to_string(),
        fleet,
        said: None,
        revision: 0,
        others: HashMap::new(),
        taken: HashSet::new(),
    };
    loop {
        if let Err(error) = circle.turn().await {
            tracing::debug!(%error, "the other replicas cannot be asked");
        }
        tokio::time::sleep(EVERY).await;
    }
}

struct Circle {
    id: String,
    fleet: Fleet,
    said: Option<(State, Instant)>,
    revision: i64,
    /// By id: the revision and what it says.
    others: HashMap<String, (i64, State)>,
    /// Words that were handed to agents here.
    taken: HashSet<String>,
}

impl Circle {
    async fn turn(&mut self) -> Result<(), StoreError> {
        self.say().await?;
        self.hear().await?;
        self.carry().await
    }

    /// Rewrites the own row where something has changed, or the others might think that nobody is there.
    async fn say(&mut self) -> Result<(), StoreError> {
        let state = State::of(&self.fleet);
        let known = self.said.as_ref().filter(|(said, _)| *said == state);
        if known.is_some_and(|(_, at)| at.elapsed() < HEARTBEAT) {
            return Ok(());
        }
        if known.is_none() {
            self.revision += 1;
        }
        let text = serde_json::to_vec(&state).unwrap_or_default();
        let say = "INSERT INTO replicas (id, seen, revision, state) VALUES ($1, $2, $3, $4)
             ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, revision = excluded.revision, state = excluded.state";
        let values = [self.id.as_str().into(), now().into(), self.revision.into(), text.into()];
        let old = now() - LEFT_OVER;
        let steps = vec![
            Sql::new(say, values),
            Sql::new("DELETE FROM replicas WHERE seen < $1", [old.into()]),
            Sql::new("DELETE FROM verdicts WHERE at < $1", [old.into()]),
        ];
        self.fleet.store.run(steps).await?;
        self.said = Some((state, Instant::now()));
        Ok(())
    }

    /// Reads the rows of the others that have changed.
    async fn hear(&mut self) -> Result<(), StoreError> {
        let store = &self.fleet.store;
        let select = "SELECT id, revision FROM replicas WHERE id <> $1 AND seen > $2";
        let lines = store.look_up(Sql::new(select, [self.id.as_str().into(), (now() - GONE).into()])).await?;
        let mut others = HashMap::with_capacity(lines.len());
        for line in &lines {
            let (id, revision) = (line.text(0).to_owned(), line.int(1));
            let known = self.others.remove(&id).filter(|(known, _)| *known == revision);
            let state = match known {
                Some((_, state)) => state,
                None => {
                    let select = "SELECT state FROM replicas WHERE id = $1";
                    let lines = store.look_up(Sql::new(select, [id.as_str().into()])).await?;
                    lines
                        .first()
                        .and_then(|line| serde_json::from_slice(line.bytes(0)).ok())
                        .unwrap_or_default()
                }
            };
            others.insert(id, (revision, state));
        }
        self.others = others;
        let states = || self.others.values().map(|(_, state)| state);
        self.fleet
            .sessions
            .set_elsewhere(states().flat_map(|state| state.connected.iter().cloned()).collect());
        self.fleet.waiting.set_elsewhere(states().flat_map(State::approvals).collect());
        Ok(())
    }

    /// Hands words that came in at others to the agents here.
    async fn carry(&mut self) -> Result<(), StoreError> {
        let select = "SELECT id, agent_id, asked FROM verdicts WHERE answer IS NULL AND at > $1 ORDER BY id LIMIT 1000";
        let lines = self.fleet.store.look_up(Sql::new(select, [(now() - WORD).into()])).await?;
        self.taken.retain(|id| lines.iter().any(|line| line.text(0) == id));
        for line in &lines {
            let id = line.text(0).to_owned();
            if !self.fleet.waiting.is_here(line.text(1)) || !self.taken.insert(id.clone()) {
                continue;
            }
            let Ok(asked) = DecideApprovalRequest::decode(line.bytes(2)) else { continue };
            tokio::spawn(hand_over(self.fleet.clone(), id, asked));
        }
        Ok(())
    }
}

/// Asks the agent, and leaves its answer for whoever waits.
async fn hand_over(fleet: Fleet, id: String, asked: DecideApprovalRequest) {
    let Ok(answer) = fleet.waiting.decide_here(asked).await else { return };
    let update = "UPDATE verdicts SET answer = $2 WHERE id = $1";
    let values = [id.into(), answer.encode_to_vec().into()];
    if let Err(error) = fleet.store.query(Sql::new(update, values)).await {
        tracing::warn!(%error, "an agent's answer cannot be handed to another replica");
    }
}
