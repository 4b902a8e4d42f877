//! What an agent's chain says about the agent itself: its sensor, its policies, its checkpoints.

use std::collections::HashMap;

use guard_common::{
    api::control::Agent,
    audit::v1::{Checkpoint, Gap, PolicyChange, Record, SensorState, record::Body},
};
use prost::Message;
use rusqlite::Connection;

use super::{ReadingError, Readings, agent, first_id, lock, sequence_of};

/// How far behind the newest record facts are looked for.
const BACK: i64 = 20_000;
/// Records at a chain's beginning that are looked at too: an agent says there what it is.
const BEGINNING: i64 = 200;
/// Records of an agent about itself that are read.
const MOST: i64 = 200;

/// What is known of one agent.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its host's kernel.
    pub kernel: String,
    /// What its kernel side sees; nothing where it has not said so.
    pub sensor: Option<SensorState>,
    /// The newest policy set that is in force: its hash.
    pub policy_hash: String,
    /// The newest change of policies, taken or not.
    pub policy: Option<PolicyChange>,
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The newest gap.
    pub gap: Option<Gap>,
}

/// How well a host is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What policy forbids does not happen, and what goes round the proxy is seen.
    Enforced,
    /// Everything is seen, nothing is refused.
    Monitored,
    /// Without the kernel side: what goes round the proxy is not seen.
    ProxyOnly,
    /// Its agent is not connected.
    Silent,
}

impl Level {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::Enforced, Self::Monitored, Self::ProxyOnly, Self::Silent];

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Monitored => "monitored",
            Self::ProxyOnly => "proxy-only",
            Self::Silent => "silent",
        }
    }

    /// In a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Enforced => "what policy forbids does not happen",
            Self::Monitored => "everything is seen, nothing is refused",
            Self::ProxyOnly => "no kernel side: what goes round the proxy is not seen",
            Self::Silent => "its agent is not connected",
        }
    }
}

/// The protection of an agent's host.
pub fn level(agent: &Agent, facts: &Facts) -> Level {
    let blind = facts.sensor.as_ref().is_some_and(|sensor| {
        sensor.rung == "no-bpf" || !sensor.programs.iter().any(|program| program.attached)
    });
    match agent.connected {
        false => Level::Silent,
        true if blind => Level::ProxyOnly,
        true if agent.mode == "enforce" => Level::Enforced,
        true => Level::Monitored,
    }
}

impl Readings {
    /// Of these agents. What was read before is read no more.
    pub async fn facts(&self, agents: &[Agent]) -> Result<HashMap<String, Facts>, ReadingError> {
        let ids: Vec<String> = agents.iter().map(|agent| agent.agent_id.clone()).collect();
        let room = self.0.clone();
        self.with(move |connection| {
            let mut all = HashMap::with_capacity(ids.len());
            for agent_id in ids {
                let known = lock(&room.facts).get(&agent_id).cloned().unwrap_or_default();
                let known = update(connection, &agent_id, known)?;
                lock(&room.facts).insert(agent_id.clone(), known.clone());
                all.insert(agent_id, known.1);
            }
            Ok(all)
        })
        .await
    }
}

fn update(
    connection: &Connection,
    agent_id: &str,
    (seen, mut facts): (u64, Facts),
) -> Result<(u64, Facts), ReadingError> {
    let Some((agent, last)) = agent(connection, agent_id)? else { return Ok((seen, facts)) };
    let base = first_id(agent);
    if seen == 0 {
        read(connection, (base, base + BEGINNING.min(last)), &mut facts)?;
    }
    let behind = seen.cast_signed().max(last - BACK).max(0);
    read(connection, (base + behind, base + last), &mut facts)?;
    if facts.policy_hash.is_empty() && last > 0 {
        facts.policy_hash = decided_by(connection, (base, base + last))?;
    }
    Ok((sequence_of(base + last), facts))
}

/// Takes what the records behind `after` up to `until` say.
fn read(connection: &Connection, (after, until): (i64, i64), facts: &mut Facts) -> Result<(), ReadingError> {
    // Kinds are the field numbers of `Record.body`.
    let mut statement = connection.prepare_cached(
        "SELECT payload FROM records WHERE id > $1 AND id <= $2 AND kind IN (10, 12, 13, 14, 61)
         ORDER BY id DESC LIMIT $3",
    )?;
    let mut rows = statement.query([after, until, MOST])?;
    let mut newest_first = Vec::new();
    while let Some(row) = rows.next()? {
        let record = Record::decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
        newest_first.extend(record.ok().and_then(|record| record.body));
    }
    for body in newest_first.into_iter().rev() {
        match body {
            Body::AgentStarted(started) => {
                facts.kernel = started.kernel;
                facts.policy_hash = started.policy_hash;
            }
            Body::PolicyChange(change) => {
                if change.error.is_empty() {
                    facts.policy_hash.clone_from(&change.policy_hash);
                }
                facts.policy = Some(change);
            }
            Body::SensorState(sensor) => facts.sensor = Some(sensor),
            Body::Gap(gap) => facts.gap = Some(gap),
            Body::Checkpoint(checkpoint) => facts.checkpoint = Some(checkpoint),
            _ => {}
        }
    }
    Ok(())
}

/// The policy set that made the newest decision.
fn decided_by(connection: &Connection, (after, until): (i64, i64)) -> Result<String, ReadingError> {
    let mut statement = connection.prepare_cached(
        "SELECT payload FROM records WHERE id > $1 AND id <= $2 AND kind IN (20, 30) ORDER BY id DESC LIMIT 1",
    )?;
    let mut rows = statement.query([after.max(until - BACK), until])?;
    let Some(row) = rows.next()? else { return Ok(String::new()) };
    let record = Record::decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?);
    let decision = match record.ok().and_then(|record| record.body) {
        Some(Body::ConnectionOpened(connection)) => connection.decision,
        Some(Body::Statement(statement)) => statement.decision,
        _ => None,
    };
    Ok(decision.unwrap_or_default().policy_hash)
}
