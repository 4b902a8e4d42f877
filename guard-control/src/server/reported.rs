//! What agents say of their hosts, and watching what they report of other hosts' connections.
//!
//! Addresses, places of databases and clocks enter and are kept beside the agent; where all databases are leaves for those who
//! report. Claims that cannot be true, or that two agents make, become events of the control plane's own chain.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use guard_common::{
    api::control::{HostFacts, KnownDatabases},
    audit::v1::ControlEvent,
};
use pbjson_types::Timestamp;
use tokio::sync::watch;

use crate::store::{
    Store, StoreError, micros,
    remote::{APART, AT_ONCE, has_address},
    sql::Sql,
};

/// Addresses of one host, and places of its databases, that are kept.
const MOST_ADDRESSES: usize = 2_048;
const MOST_DATABASES: usize = 256;
/// Databases that an agent is told of.
const MOST_KNOWN: usize = 4_096;
/// How long an address counts for records that come late.
const KEPT: i64 = 30 * 86_400;
/// How often it is looked where databases are.
const LOOK: Duration = Duration::from_secs(5);
/// Other agents' reports that are held against a batch.
const MOST_CLAIMS: usize = 5_000;

/// Notes how far the clock of an agent's host is off.
pub(super) async fn note_clock(
    store: &Store,
    agent_id: &str,
    clock: Option<&Timestamp>,
) -> Result<(), StoreError> {
    let Some(clock) = clock else { return Ok(()) };
    let told = clock.seconds.saturating_mul(1_000_000).saturating_add(i64::from(clock.nanos) / 1_000);
    let off = micros(SystemTime::now()).saturating_sub(told);
    // Beyond 300 years no sum of it and a time can be trusted to fit.
    let off = off.clamp(-(1 << 53), 1 << 53);
    let update = "UPDATE agents SET clock = $2 WHERE agent_id = $1";
    store.query(Sql::new(update, [agent_id.into(), off.into()])).await.map(|_| ())
}

/// Keeps what an agent says of its host. An address that it has no more counts for a while: records may come late.
pub(super) async fn note_facts(store: &Store, agent_id: &str, facts: &HostFacts) -> Result<(), StoreError> {
    let select = "SELECT addresses FROM agents WHERE agent_id = $1";
    let known = store.look_up(Sql::new(select, [agent_id.into()])).await?;
    let now = micros(SystemTime::now()) / 1_000_000;
    let addresses = merged(known.first().map_or("", |line| line.text(0)), &facts.addresses, now);
    let databases = facts.databases.iter().take(MOST_DATABASES);
    let databases: BTreeSet<SocketAddr> = databases.filter_map(|text| text.parse().ok()).collect();
    let databases: Vec<String> = databases.iter().map(ToString::to_string).collect();
    let update = "UPDATE agents SET addresses = $2, databases = $3 WHERE agent_id = $1";
    let values = [agent_id.into(), addresses.into(), databases.join("\n").into()];
    store.query(Sql::new(update, values)).await.map(|_| ())
}

/// One address on a line, with the second at which it was said last.
fn merged(known: &str, said: &[String], now: i64) -> String {
    let mut all: BTreeMap<IpAddr, i64> = BTreeMap::new();
    for line in known.lines() {
        let mut words = line.split(' ');
        let (address, at) = (words.next().and_then(|word| word.parse().ok()), words.next());
        let at = at.and_then(|word| word.parse::<i64>().ok()).unwrap_or_default();
        if let Some(address) = address.filter(|_| at >= now - KEPT) {
            all.insert(address, at);
        }
    }
    all.extend(said.iter().take(MOST_ADDRESSES).filter_map(|text| Some((text.parse().ok()?, now))));
    let mut newest: Vec<(IpAddr, i64)> = all.into_iter().collect();
    newest.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
    newest.truncate(MOST_ADDRESSES);
    newest.iter().map(|(address, at)| format!("{address} {at}\n")).collect()
}

/// Looks where the fleet's databases are.
pub(super) async fn follow_databases(store: Store, known: watch::Sender<KnownDatabases>) {
    loop {
        let select = "SELECT databases FROM agents WHERE databases <> ''";
        match store.look_up(Sql::new(select, [])).await {
            Ok(lines) => {
                let all: BTreeSet<&str> = lines.iter().flat_map(|line| line.text(0).lines()).collect();
                let cut = all.len() > MOST_KNOWN;
                let addresses = all.into_iter().take(MOST_KNOWN).map(str::to_owned).collect();
                let found = KnownDatabases { addresses, cut };
                known.send_if_modified(|known| {
                    let changed = *known != found;
                    *known = found;
                    changed
                });
            }
            Err(error) => tracing::debug!(%error, "cannot look where databases are"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A report of a batch: its number, its ends, and its time by the agent's clock.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) sequence: u64,
    pub(super) flow: String,
    pub(super) at: i64,
}

/// What is wrong with an agent's reports: the first of each kind.
pub(super) async fn alarms(
    store: &Store,
    (agent_id, host): (&str, &str),
    claims: &[Claim],
) -> Result<Vec<ControlEvent>, StoreError> {
    let select = "SELECT addresses, clock FROM agents WHERE agent_id = $1";
    let mut asked = vec![Sql::new(select, [agent_id.into()])];
    for some in claims.chunks(AT_ONCE) {
        let places: Vec<String> = (2..=some.len() + 1).map(|n| format!("${n}")).collect();
        let select = format!(
            "SELECT r.flow, r.at + a.clock, a.agent_id, a.host FROM records r JOIN agents a ON a.id = r.id >> 44
             WHERE r.kind = 23 AND a.agent_id <> $1 AND r.flow IN ({}) ORDER BY r.at DESC LIMIT {MOST_CLAIMS}",
            places.join(", ")
        );
        let flows = some.iter().map(|claim| claim.flow.as_str().into());
        asked.push(Sql::new(select, std::iter::once(agent_id.into()).chain(flows)));
    }
    let answers = store.look(asked).await?;
    let mut answers = answers.into_iter();
    let own = answers.next().unwrap_or_default();
    let (said, clock) = own.first().map_or(("", 0), |line| (line.text(0), line.int(1)));
    let event = |event: &str, sequence, detail| ControlEvent {
        event: event.to_owned(),
        agent_id: agent_id.to_owned(),
        host: host.to_owned(),
        sequence,
        detail,
        count: 0,
    };
    let mut events = Vec::new();
    let client = |claim: &Claim| claim.flow.split(" > ").next().unwrap_or_default().to_owned();
    if let Some(claim) = claims.iter().find(|claim| !has_address(said, &client(claim))) {
        let detail = format!(
            "it reports the connection {}, and never said that its host has that address: it is not believed",
            claim.flow
        );
        events.push(event("client-unbelievable", claim.sequence, detail));
    }
    let lines: Vec<_> = answers.flatten().collect();
    let clash = claims.iter().find_map(|claim| {
        let at = claim.at.saturating_add(clock);
        let is_same = |other: i64| other.saturating_sub(at).saturating_abs() <= APART;
        let other = lines.iter().find(|line| line.text(0) == claim.flow && is_same(line.int(1)))?;
        Some((claim, other))
    });
    if let Some((claim, other)) = clash {
        let detail = format!(
            "it claims the connection {}, as does agent {} on {}: neither is believed",
            claim.flow,
            other.text(2),
            other.text(3)
        );
        events.push(event("client-claimed-twice", claim.sequence, detail));
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_for_a_while_and_bounded() {
        let said = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let first = merged("", &said(&["10.0.0.1", "fe80::1", "nonsense", "10.0.0.1"]), 1_000);
        assert_eq!(first, "10.0.0.1 1000\nfe80::1 1000\n");
        let second = merged(&first, &said(&["10.0.0.2"]), 2_000);
        assert!(has_address(&second, "10.0.0.1:1") && has_address(&second, "10.0.0.2:1"));
        let later = merged(&second, &said(&["10.0.0.2"]), 1_500 + KEPT);
        assert!(!has_address(&later, "10.0.0.1:1") && has_address(&later, "10.0.0.2:1"));
        let many: Vec<String> = (0..5_000_u32).map(|n| std::net::Ipv4Addr::from(n).to_string()).collect();
        assert_eq!(merged(&later, &many, 3_000 + KEPT).lines().count(), MOST_ADDRESSES);
    }
}
