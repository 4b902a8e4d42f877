//! Who is at the other end of a connection that comes from another host: what a server's agent saw and what the agent on
//! the client's host has reported are joined by the ends of the connection and by time.
//!
//! Connections enter, claims leave. Either record may come first: nothing is decided when one is stored. Clocks differ by
//! what agents' greetings told, and by a little more; ports are used again. Where it is not certain, that is said; where two
//! agents claim the same, both are shown and neither is believed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use guard_common::{
    api::control::{
        ClaimedClient, RemoteClient, StoredDecision, remote_client::Known, stored_decision::Subject,
    },
    audit::v1::{ClientConnected, ConnectionOpened, Record, connection_opened::Transport, record::Body},
};
use prost::Message;

use super::{
    Keep, LOOK_TIME, StoreError,
    id::sequence_of,
    row::{
        flow,
        kind::{CLIENT_CONNECTED, CONNECTION_OPENED},
    },
    search::{Search, time},
    sql::{Line, Sql},
};

/// What both records of one connection may be apart, in microseconds, after what is known of the clocks.
pub(crate) const APART: i64 = 120_000_000;
/// How far a connection that was there before somebody watched is followed back, or on.
const REACH: i64 = 30 * 86_400_000_000;
/// Connections of one question.
pub(crate) const AT_ONCE: usize = 200;
/// Records of one answer. Beyond, nothing is decided: a flood must not hide what an honest agent says.
const MOST: usize = 2_000;

/// What an agent has reported.
#[derive(Clone, Debug)]
struct Report {
    agent_id: String,
    host: String,
    sequence: u64,
    /// By the control plane's clock, as well as that is known.
    at: i64,
    /// As the agent's host had it.
    told_at: i64,
    own_address: bool,
    connected: ClientConnected,
}

/// A connection as the server's agent saw it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: i64,
    preexisting: bool,
}

/// Where to look.
#[derive(Clone, Copy)]
pub(super) enum Asked<'a> {
    /// The store that is served from.
    Keep(&'a dyn Keep),
    /// A folder that is read beside a server. It answers at once.
    Search(&'a Search),
}

impl Asked<'_> {
    async fn look(self, questions: Vec<Sql>) -> Result<Vec<Vec<Line>>, StoreError> {
        match self {
            Self::Keep(keep) => keep.look(questions, LOOK_TIME).await,
            Self::Search(search) => search.look(&questions, LOOK_TIME),
        }
    }
}

/// Says of each decision on a connection from elsewhere who reports to be its other end.
pub(super) async fn fill(asked: Asked<'_>, decisions: &mut [StoredDecision]) {
    let mut open: Vec<&mut StoredDecision> = decisions.iter_mut().filter(|one| ends(one).is_some()).collect();
    for some in open.chunks_mut(AT_ONCE) {
        if let Err(error) = fill_some(asked, some).await {
            tracing::warn!(%error, "what other hosts' agents report cannot be looked up");
            let note = "what other hosts' agents report could not be looked up".to_owned();
            for one in some.iter_mut() {
                one.remote = Some(RemoteClient { note: note.clone(), ..RemoteClient::default() });
            }
        }
    }
}

/// The ends of a connection over TCP from another address than loopback.
fn ends(stored: &StoredDecision) -> Option<String> {
    let Some(Subject::Connection(opened)) = &stored.subject else { return None };
    let client: std::net::SocketAddr = opened.client_address.parse().ok()?;
    let elsewhere = opened.transport() == Transport::Tcp && !client.ip().to_canonical().is_loopback();
    if elsewhere { flow(&opened.client_address, &opened.server_address) } else { None }
}

async fn fill_some(asked: Asked<'_>, some: &mut [&mut StoredDecision]) -> Result<(), StoreError> {
    let flows: BTreeSet<String> = some.iter().filter_map(|one| ends(one)).collect();
    let flows: Vec<String> = flows.into_iter().collect();
    let questions = vec![reports_sql(&flows), clocks_sql(some)];
    let mut answers = asked.look(questions).await?.into_iter();
    let (lines, clocks) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
    let flooded = lines.len() > MOST;
    let clocks: HashMap<&str, i64> = clocks.iter().map(|line| (line.text(0), line.int(1))).collect();
    let reports = by_flow(&lines);
    let reported: Vec<String> = reports.keys().cloned().collect();
    let siblings = match reported.is_empty() {
        true => Vec::new(),
        false => asked.look(vec![siblings_sql(&reported)]).await?.pop().unwrap_or_default(),
    };
    for one in some {
        let (Some(ends), Some(Subject::Connection(opened))) = (ends(one), &one.subject) else { continue };
        let told = one
            .at
            .as_ref()
            .map_or(0, |at| at.seconds.saturating_mul(1_000_000) + i64::from(at.nanos) / 1_000);
        let clock = clocks.get(one.agent_id.as_str()).copied().unwrap_or_default();
        let own = Seen { at: told.saturating_add(clock), preexisting: opened.preexisting };
        let times: Vec<i64> = siblings
            .iter()
            .filter(|line| line.text(0) == ends && line.text(1) == one.agent_id)
            .map(|line| line.int(2))
            .collect();
        let others =
            reports.get(&ends).into_iter().flatten().filter(|report| report.agent_id != one.agent_id);
        let claims = claims(own, &times, others);
        one.remote = judge(opened, claims, flooded);
    }
    Ok(())
}

/// `$1, $2, ..`
fn places(count: usize) -> String {
    (1..=count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

fn reports_sql(flows: &[String]) -> Sql {
    let text = format!(
        "SELECT r.flow, r.id, r.at, r.at + a.clock, r.payload, a.agent_id, a.host, a.addresses
         FROM records r JOIN agents a ON a.id = r.id >> 44
         WHERE r.kind = {CLIENT_CONNECTED} AND r.flow IN ({}) ORDER BY r.at DESC LIMIT {}",
        places(flows.len()),
        MOST + 1
    );
    Sql::new(text, flows.iter().map(|flow| flow.as_str().into()))
}

fn siblings_sql(flows: &[String]) -> Sql {
    let text = format!(
        "SELECT r.flow, a.agent_id, r.at + a.clock FROM records r JOIN agents a ON a.id = r.id >> 44
         WHERE r.kind = {CONNECTION_OPENED} AND r.flow IN ({}) ORDER BY r.at DESC LIMIT {}",
        places(flows.len()),
        MOST
    );
    Sql::new(text, flows.iter().map(|flow| flow.as_str().into()))
}

fn clocks_sql(some: &[&mut StoredDecision]) -> Sql {
    let agents: BTreeSet<&str> = some.iter().map(|one| one.agent_id.as_str()).collect();
    let text = format!("SELECT agent_id, clock FROM agents WHERE agent_id IN ({})", places(agents.len()));
    Sql::new(text, agents.into_iter().map(Into::into))
}

fn by_flow(lines: &[Line]) -> HashMap<String, Vec<Report>> {
    let mut reports: HashMap<String, Vec<Report>> = HashMap::new();
    for line in lines.iter().take(MOST) {
        let Ok(Record { body: Some(Body::ClientConnected(connected)), .. }) = Record::decode(line.bytes(4))
        else {
            continue;
        };
        let report = Report {
            agent_id: line.text(5).to_owned(),
            host: line.text(6).to_owned(),
            sequence: sequence_of(line.int(1)),
            at: line.int(3),
            told_at: line.int(2),
            own_address: has_address(line.text(7), &connected.client_address),
            connected,
        };
        reports.entry(line.text(0).to_owned()).or_default().push(report);
    }
    reports
}

/// Whether the address of this end is among those that an agent said its host has, each on a line.
pub(crate) fn has_address(said: &str, end: &str) -> bool {
    let Ok(end) = end.parse::<std::net::SocketAddr>() else { return false };
    let ip = end.ip().to_canonical();
    said.lines()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .any(|one: std::net::IpAddr| one == ip)
}

/// What each agent says of a connection, the nearest in time first. `siblings`: when the server's agent saw connections with
/// the same ends, this one included.
fn claims<'a>(own: Seen, siblings: &[i64], reports: impl Iterator<Item = &'a Report>) -> Vec<ClaimedClient> {
    let mut by_agent: BTreeMap<&str, Vec<&Report>> = BTreeMap::new();
    for report in reports {
        by_agent.entry(&report.agent_id).or_default().push(report);
    }
    let mut found: Vec<(i64, ClaimedClient)> = Vec::new();
    for reports in by_agent.values_mut() {
        reports.sort_by_key(|report| (report.at, report.sequence));
        let Some((report, uncertain)) = pick(own, siblings, reports) else { continue };
        let claim = ClaimedClient {
            agent_id: report.agent_id.clone(),
            host: report.host.clone(),
            sequence: report.sequence,
            at: Some(time(report.told_at)),
            workload: report.connected.workload.clone(),
            own_address: report.own_address,
            uncertain,
            preexisting: report.connected.preexisting,
        };
        found.push((report.at.saturating_sub(own.at).saturating_abs(), claim));
    }
    found.sort_by_key(|(apart, _)| *apart);
    found.into_iter().map(|(_, claim)| claim).collect()
}

/// The report of one agent, in the order of time, that is about this connection; and whether it may be about another one.
fn pick<'a>(own: Seen, siblings: &[i64], reports: &[&'a Report]) -> Option<(&'a Report, bool)> {
    let apart = |at: i64| at.saturating_sub(own.at).saturating_abs();
    let fresh: Vec<&Report> = reports
        .iter()
        .copied()
        .filter(|report| !report.connected.preexisting && apart(report.at) <= APART)
        .collect();
    if own.preexisting {
        // It began some time before, and its report with it.
        let before = reports.iter().rev().find(|report| {
            report.at <= own.at.saturating_add(APART) && report.at >= own.at.saturating_sub(REACH)
        });
        let after = || reports.iter().find(|report| report.connected.preexisting && report.at >= own.at);
        return before.or_else(after).map(|report| (*report, true));
    }
    let mut same: Vec<i64> = siblings.iter().copied().filter(|at| apart(*at) <= APART).collect();
    same.sort_unstable();
    if fresh.len() > 1 || same.len() > 1 {
        // Both sides tell of each in the order of time, whatever their clocks say.
        let place = same.iter().position(|at| *at == own.at);
        let in_order =
            place.filter(|_| same.len() == fresh.len()).and_then(|place| fresh.get(place).copied());
        let nearest = || fresh.iter().copied().min_by_key(|report| apart(report.at));
        return in_order.or_else(nearest).map(|report| (report, true));
    }
    if let Some(report) = fresh.first() {
        return Some((report, false));
    }
    // Whoever began to watch later has found it open: the first look since, and no newer connection in between.
    let later = reports.iter().find(|report| {
        report.connected.preexisting
            && report.at >= own.at.saturating_sub(APART)
            && report.at <= own.at.saturating_add(REACH)
    })?;
    let newer = siblings.iter().any(|at| *at > own.at && *at <= later.at.saturating_sub(APART));
    (!newer).then_some((*later, true))
}

/// What the claims come to. Nothing for a client of the server's own host that nobody else claims.
fn judge(opened: &ConnectionOpened, claims: Vec<ClaimedClient>, flooded: bool) -> Option<RemoteClient> {
    let local = opened.workload.as_ref().is_some_and(|workload| workload.pid != 0);
    if local && claims.is_empty() {
        return None;
    }
    let (known, note) = match claims.as_slice() {
        _ if flooded => (
            Known::Conflict,
            "more has been reported about connections with these ends than is looked through: nothing is believed",
        ),
        [] => (
            Known::Nobody,
            "no agent reports it: none on the client's host has `clients.report` on, or an address was translated on \
             the way",
        ),
        _ if local => (
            Known::Conflict,
            "the server's own kernel has attested a process of its host, and another host's agent claims the connection",
        ),
        [one] if !one.own_address => (
            Known::Unbelievable,
            "the agent has reported an address that it never said its host has: it is not believed",
        ),
        [one] if one.uncertain => (
            Known::Reported,
            "as reported by the agent on the client's host; ports were used again or one side watched later: it may be \
             another connection with the same ends",
        ),
        [_] => (Known::Reported, "as reported by the agent on the client's host"),
        _ => (Known::Conflict, "several agents claim this connection: none of them is believed"),
    };
    Some(RemoteClient { known: known.into(), claims, note: note.to_owned() })
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::Workload;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const NOON: i64 = 1_800_000_000 * SECOND;

    fn report(agent: &str, at: i64) -> Report {
        Report {
            agent_id: agent.to_owned(),
            host: format!("host-of-{agent}"),
            sequence: u64::try_from(at / SECOND).unwrap(),
            at,
            told_at: at,
            own_address: true,
            connected: ClientConnected::default(),
        }
    }

    fn found_open(agent: &str, at: i64) -> Report {
        let connected = ClientConnected { preexisting: true, ..ClientConnected::default() };
        Report { connected, ..report(agent, at) }
    }

    fn seen(at: i64) -> Seen {
        Seen { at, preexisting: false }
    }

    /// Agent, when it reported, and whether that is uncertain.
    fn joined(own: Seen, siblings: &[i64], reports: &[Report]) -> Vec<(String, i64, bool)> {
        let claims = claims(own, siblings, reports.iter());
        let at = |claim: &ClaimedClient| i64::try_from(claim.sequence).unwrap() * SECOND;
        claims.iter().map(|claim| (claim.agent_id.clone(), at(claim), claim.uncertain)).collect()
    }

    fn one(agent: &str, at: i64, uncertain: bool) -> Vec<(String, i64, bool)> {
        vec![(agent.to_owned(), at, uncertain)]
    }

    #[test]
    fn either_side_may_be_first_and_clocks_may_differ() {
        for apart in [-119, -1, 0, 1, 119] {
            let at = NOON + apart * SECOND;
            assert_eq!(joined(seen(NOON), &[NOON], &[report("a", at)]), one("a", at, false), "{apart}");
        }
        for apart in [-121, 121, 86_400] {
            assert!(joined(seen(NOON), &[NOON], &[report("a", NOON + apart * SECOND)]).is_empty(), "{apart}");
        }
    }

    #[test]
    fn a_port_that_is_used_again_is_paired_in_order_and_said_to_be_uncertain() {
        // The client's clock is 20 seconds behind: the nearest in time would be the wrong one.
        let siblings = [NOON, NOON + 30 * SECOND];
        let reports = [report("a", NOON - 20 * SECOND), report("a", NOON + 10 * SECOND)];
        assert_eq!(joined(seen(siblings[0]), &siblings, &reports), one("a", NOON - 20 * SECOND, true));
        assert_eq!(joined(seen(siblings[1]), &siblings, &reports), one("a", NOON + 10 * SECOND, true));
        // One of the reports is missing: what is left is said to be uncertain.
        let claims = joined(seen(siblings[1]), &siblings, &reports[1..]);
        assert_eq!(claims, one("a", NOON + 10 * SECOND, true));
        // Used again an hour later it is no question.
        let siblings = [NOON, NOON + 3_600 * SECOND];
        let reports = [report("a", NOON), report("a", NOON + 3_600 * SECOND)];
        assert_eq!(joined(seen(siblings[1]), &siblings, &reports), one("a", NOON + 3_600 * SECOND, false));
    }

    #[test]
    fn what_was_open_before_somebody_watched_is_found_on_the_other_side() {
        let hours = 3_600 * SECOND;
        let own = Seen { at: NOON + 5 * hours, preexisting: true };
        assert_eq!(joined(own, &[own.at], &[report("a", NOON)]), one("a", NOON, true));
        let reports = [found_open("a", NOON + 5 * hours)];
        assert_eq!(joined(seen(NOON), &[NOON], &reports), one("a", NOON + 5 * hours, true));
        let siblings = [NOON, NOON + hours];
        assert!(joined(seen(NOON), &siblings, &reports).is_empty(), "the ends have been used again since");
        assert_eq!(joined(seen(NOON + hours), &siblings, &reports).len(), 1);
        // What the kernel told goes before what a look found.
        let both = [report("a", NOON), found_open("a", NOON + SECOND)];
        assert_eq!(joined(seen(NOON), &[NOON], &both), one("a", NOON, false));
    }

    #[test]
    fn two_agents_that_claim_the_same_are_both_shown_and_not_believed() {
        let opened = ConnectionOpened::default();
        let reports = [report("b", NOON + 5 * SECOND), report("a", NOON + SECOND)];
        let both = claims(seen(NOON), &[NOON], reports.iter());
        assert_eq!(both.iter().map(|claim| claim.agent_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let remote = judge(&opened, both, false).unwrap();
        assert_eq!((remote.known(), remote.claims.len()), (Known::Conflict, 2));
        let single = || claims(seen(NOON), &[NOON], reports[..1].iter());
        assert_eq!(judge(&opened, single(), false).unwrap().known(), Known::Reported);
        assert_eq!(judge(&opened, single(), true).unwrap().known(), Known::Conflict, "a flood hides nothing");
        assert_eq!(judge(&opened, Vec::new(), false).unwrap().known(), Known::Nobody);
        let unbelievable = Report { own_address: false, ..reports[0].clone() };
        let claim = claims(seen(NOON), &[NOON], [unbelievable].iter());
        assert_eq!(judge(&opened, claim, false).unwrap().known(), Known::Unbelievable);
        let workload = Some(Workload { pid: 7, ..Workload::default() });
        let local = ConnectionOpened { workload, ..opened };
        assert_eq!(judge(&local, Vec::new(), false), None);
        assert_eq!(judge(&local, single(), false).unwrap().known(), Known::Conflict);
    }

    #[test]
    fn an_address_counts_where_its_host_has_said_it() {
        let said = "10.0.0.2 1800000000\nfd77::2 1800000000\n";
        assert!(has_address(said, "10.0.0.2:40000") && has_address(said, "[::ffff:10.0.0.2]:1"));
        assert!(has_address(said, "[fd77::2]:1") && !has_address(said, "10.0.0.20:1"));
        assert!(!has_address(said, "10.0.0.2") && !has_address("", "10.0.0.2:1"));
    }
}
