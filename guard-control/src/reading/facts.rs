//! What an agent's chain says about the agent itself: its sensor, its policies, its checkpoints.

use std::collections::HashMap;

use guard_common::{
    api::control::Agent,
    audit::v1::{Checkpoint, Gap, PolicyChange, Record, SensorState, record::Body},
};
use prost::Message;

use super::{ReadingError, Readings, lock};
use crate::store::{
    id::first_id,
    sql::{Line, Sql},
};

/// How far behind the newest record facts are looked for.
const BACK: i64 = 20_000;
/// Records at a chain's beginning that are looked at too: an agent says there what it is.
const BEGINNING: i64 = 200;
/// Records of an agent about itself that are read.
const MOST: i64 = 200;
/// Agents that are asked for at once.
const AT_ONCE: usize = 64;

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
        let heads = match agents {
            [] => return Ok(HashMap::new()),
            [one] => self
                .agent(&one.agent_id)
                .await?
                .map(|head| (one.agent_id.clone(), head))
                .into_iter()
                .collect(),
            _ => self.heads().await?,
        };
        let mut all = HashMap::with_capacity(agents.len());
        for some in agents.chunks(AT_ONCE) {
            let mut open: Vec<Open> =
                some.iter().filter_map(|agent| self.open(&agent.agent_id, &heads)).collect();
            self.read(&mut open).await?;
            let mut known = lock(&self.0.facts);
            for one in open {
                known.insert(one.agent_id, (one.last.cast_unsigned(), one.facts));
            }
            let found = some
                .iter()
                .filter_map(|agent| Some((agent.agent_id.clone(), known.get(&agent.agent_id)?.1.clone())));
            all.extend(found);
        }
        Ok(all)
    }

    /// All agents' numbers and last records.
    async fn heads(&self) -> Result<HashMap<String, (i64, i64)>, ReadingError> {
        let lines = self.ask(Sql::new("SELECT agent_id, id, head_sequence FROM agents", [])).await?;
        Ok(lines.iter().map(|line| (line.text(0).to_owned(), (line.int(1), line.int(2)))).collect())
    }

    /// What is left to read of an agent, where there is something.
    fn open(&self, agent_id: &str, heads: &HashMap<String, (i64, i64)>) -> Option<Open> {
        let (agent, last) = *heads.get(agent_id)?;
        let (seen, facts) = lock(&self.0.facts).get(agent_id).cloned().unwrap_or_default();
        let seen = seen.cast_signed();
        (seen == 0 || seen < last).then(|| Open {
            agent_id: agent_id.to_owned(),
            base: first_id(agent),
            seen,
            last,
            facts,
        })
    }

    async fn read(&self, open: &mut [Open]) -> Result<(), ReadingError> {
        let mut questions = Vec::with_capacity(open.len() * 2);
        let mut whose = Vec::with_capacity(open.len() * 2);
        for (at, one) in open.iter().enumerate() {
            if one.seen == 0 {
                questions.push(about_itself(one.base, one.base + BEGINNING.min(one.last)));
                whose.push(at);
            }
            let behind = one.seen.max(one.last - BACK).max(0);
            questions.push(about_itself(one.base + behind, one.base + one.last));
            whose.push(at);
        }
        let answers = self.0.store.look(questions).await?;
        for (at, lines) in whose.into_iter().zip(answers) {
            if let Some(one) = open.get_mut(at) {
                take(&lines, &mut one.facts);
            }
        }
        let mut unsaid: Vec<&mut Open> =
            open.iter_mut().filter(|one| one.facts.policy_hash.is_empty() && one.last > 0).collect();
        if unsaid.is_empty() {
            return Ok(());
        }
        let questions = unsaid.iter().map(|one| decided((one.base, one.base + one.last))).collect();
        let answers = self.0.store.look(questions).await?;
        for (one, lines) in unsaid.iter_mut().zip(answers) {
            one.facts.policy_hash = lines.first().map(|line| decided_by(line.bytes(0))).unwrap_or_default();
        }
        Ok(())
    }
}

/// An agent of whom there is something new to read.
struct Open {
    agent_id: String,
    base: i64,
    seen: i64,
    last: i64,
    facts: Facts,
}

/// What the records behind `after` up to `until` say of the agent itself.
fn about_itself(after: i64, until: i64) -> Sql {
    // Kinds are the field numbers of `Record.body`.
    let select = "SELECT payload FROM records WHERE id > $1 AND id <= $2 AND kind IN (10, 12, 13, 14, 61)
         ORDER BY id DESC LIMIT $3";
    Sql::new(select, [after.into(), until.into(), MOST.into()])
}

fn take(newest_first: &[Line], facts: &mut Facts) {
    for line in newest_first.iter().rev() {
        let Some(body) = Record::decode(line.bytes(0)).ok().and_then(|record| record.body) else { continue };
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
}

/// The newest decision.
fn decided((after, until): (i64, i64)) -> Sql {
    let select = "SELECT payload FROM records WHERE id > $1 AND id <= $2 AND kind IN (20, 30) ORDER BY id DESC LIMIT 1";
    Sql::new(select, [after.max(until - BACK).into(), until.into()])
}

/// The policy set that made a decision.
fn decided_by(payload: &[u8]) -> String {
    let decision = match Record::decode(payload).ok().and_then(|record| record.body) {
        Some(Body::ConnectionOpened(connection)) => connection.decision,
        Some(Body::Statement(statement)) => statement.decision,
        _ => None,
    };
    decision.unwrap_or_default().policy_hash
}
