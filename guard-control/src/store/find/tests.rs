//! Every way to a decision leads to the same: what is found is held against a plain look through everything.

use bytes::Bytes;
use guard_common::{
    api::control::{DecisionsRequest, Hello, StoredDecision, stored_decision::Subject},
    audit::{
        chain::Head,
        v1::{
            ClientConnected, ConnectionOpened, Decision, Gap, Record, Statement, Workload,
            connection_opened::Access, decision::Verdict, record::Body,
        },
    },
};
use pbjson_types::Timestamp;
use prost::Message;

use crate::store::{Appended, Batch, Store, row::Row, sql::Sql};

/// One decision as it was told, and where it must be found.
struct Told {
    agent: String,
    sequence: u64,
    at: i64,
    verdict: Verdict,
    round: bool,
    connection: bool,
    words: String,
    /// The client's end of a connection from another host.
    client: String,
}

const SERVER: &str = "10.0.0.1:5432";
/// The agent that reports clients, by its place among the agents.
const REPORTER: usize = 3;

const TEXTS: [&str; 12] = [
    "select 1",
    "SELECT 100%_sure",
    "drop table t",
    "update a set b = ?",
    "insert into c",
    "delete from d",
    "copy e to f",
    "grant g to h",
    "truncate i",
    "call j()",
    "vacuum k",
    "select \u{1f} odd",
];
const VERDICTS: [(&str, Verdict); 4] = [
    ("allowed", Verdict::Allowed),
    ("refused", Verdict::Refused),
    ("would_refuse", Verdict::WouldRefuse),
    ("would_hold", Verdict::WouldHold),
];

fn body(n: usize, told: &mut Told) -> Body {
    let decision =
        Decision { verdict: told.verdict.into(), policy: format!("p{}", n % 3), ..Decision::default() };
    if told.connection {
        let executable = format!("/usr/bin/tool{}", n % 5);
        told.words = format!("{executable} p{}", n % 3);
        let access = if told.round { Access::NonProxied } else { Access::Proxied };
        if n.is_multiple_of(2) {
            told.client = format!("10.0.{}.2:{}", n % 4, 40_000 + n);
        }
        return Body::ConnectionOpened(ConnectionOpened {
            client_address: told.client.clone(),
            server_address: SERVER.to_owned(),
            access: access.into(),
            decision: Some(decision),
            workload: Some(Workload { executable, ..Workload::default() }),
            ..ConnectionOpened::default()
        });
    }
    let (text, db_user) = (TEXTS[n * 7 % TEXTS.len()].to_owned(), format!("u{}", n % 4));
    told.words = format!("{text} {db_user} p{}", n % 3);
    Body::Statement(Statement { text, db_user, decision: Some(decision), ..Statement::default() })
}

fn record(at: i64, body: Body) -> Bytes {
    let nanos = i32::try_from(at % 1_000_000).unwrap() * 1_000;
    let moment = Some(Timestamp { seconds: at / 1_000_000, nanos });
    Record { at: moment, ..Record::now(body) }.encode_to_vec().into()
}

/// What the agent on the other end's host reports of a connection, twice; nothing where there is none.
fn reports(n: usize, told: &mut Told) -> Vec<Body> {
    if told.client.is_empty() || n.is_multiple_of(4) {
        return Vec::new();
    }
    let executable = format!("/opt/far{}", n % 3);
    told.words.push_str(&executable);
    let report = ClientConnected {
        client_address: told.client.clone(),
        server_address: SERVER.to_owned(),
        workload: Some(Workload { executable, ..Workload::default() }),
        ..ClientConnected::default()
    };
    vec![Body::ClientConnected(report); 2]
}

/// Fills a store; what was told, the newest first.
async fn fill(store: &Store) -> Vec<Told> {
    let agents: Vec<String> = (1..=4).map(|n| format!("00000000-0000-4000-8000-00000000000{n}")).collect();
    let mut heads = [Head::default(); 4];
    for agent in &agents {
        store
            .hello(Hello { agent_id: agent.clone(), host: "h".to_owned(), ..Hello::default() })
            .await
            .unwrap();
    }
    let mut all = Vec::new();
    for n in 0..600 {
        // The second has few, the third is silent after a while.
        let whose = match n {
            _ if n % 10 == 3 => 1,
            0..200 if n % 2 == 0 => 2,
            _ => 0,
        };
        let at = 1_700_000_000_000_000 + n as i64 * 7_000_003;
        let connection = n % 9 == 0;
        let mut told = Told {
            agent: agents[whose].clone(),
            sequence: heads[whose].sequence + 1,
            at,
            verdict: if n % 11 == 0 { VERDICTS[1 + n % 3].1 } else { Verdict::Allowed },
            round: connection && n % 4 == 0,
            connection,
            words: String::new(),
            client: String::new(),
        };
        let decided = n % 13 != 5;
        let body = if decided { body(n, &mut told) } else { Body::Gap(Gap::default()) };
        let mut bodies = vec![(whose, body)];
        bodies.extend(reports(n, &mut told).into_iter().map(|body| (REPORTER, body)));
        for (whose, body) in bodies {
            let sealed = heads[whose].seal(record(at, body));
            let batch = Batch::new(agents[whose].clone(), 1, vec![Row::new(sealed)]);
            assert!(matches!(store.append(batch).await.unwrap(), Appended::Stored(_)));
        }
        if decided {
            all.push(told);
        }
    }
    all.reverse();
    all
}

/// Whether a decision is what was asked for.
fn fits(told: &Told, request: &DecisionsRequest) -> bool {
    let micros = |moment: &Timestamp| moment.seconds * 1_000_000 + i64::from(moment.nanos) / 1_000;
    let verdict = VERDICTS.iter().find(|(name, _)| *name == request.verdict);
    verdict.is_none_or(|(_, verdict)| *verdict == told.verdict)
        && (request.kind.is_empty() || (request.kind == "connection") == told.connection)
        && (!request.non_proxied || told.round)
        && (request.agent_id.is_empty() || request.agent_id == told.agent)
        && request.since.as_ref().is_none_or(|since| told.at >= micros(since))
        && request.until.as_ref().is_none_or(|until| told.at < micros(until))
        && (told.words.to_ascii_lowercase().contains(&request.contains.to_ascii_lowercase())
            || !told.client.is_empty()
                && format!("{} > {SERVER}", told.client).starts_with(&request.contains))
}

async fn found(store: &Store, request: &DecisionsRequest) -> Vec<(String, u64)> {
    let (mut all, mut request) = (Vec::new(), request.clone());
    loop {
        let answer = store.decisions(request.clone()).await.unwrap();
        assert!(answer.decisions.len() <= request.limit as usize);
        all.extend(answer.decisions.into_iter().map(
            |StoredDecision { agent_id, sequence, subject, .. }| {
                assert!(matches!(subject, Some(Subject::Statement(_) | Subject::Connection(_))));
                (agent_id, sequence)
            },
        ));
        if answer.next_page.is_empty() {
            return all;
        }
        request.page = answer.next_page;
    }
}

fn requests() -> Vec<DecisionsRequest> {
    let mut all = Vec::new();
    let agents = [
        "",
        "00000000-0000-4000-8000-000000000001",
        "00000000-0000-4000-8000-000000000002",
        "00000000-0000-4000-8000-000000000003",
    ];
    let moment = |seconds: i64| Some(Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 });
    for contains in
        ["", "select", "DROP", "p1", "tool3", "u2", "0%_s", "absent", "far", "opt/far1", "10.0.2.2:4", "e"]
    {
        for (verdict, kind) in [
            ("", ""),
            ("allowed", ""),
            ("refused", ""),
            ("would_hold", "statement"),
            ("", "connection"),
            ("refused", "connection"),
        ] {
            for agent in agents {
                for (since, until) in [(None, None), (moment(1_000), moment(2_500)), (None, moment(700))] {
                    for non_proxied in [false, true] {
                        all.push(DecisionsRequest {
                            limit: 40,
                            verdict: verdict.to_owned(),
                            agent_id: agent.to_owned(),
                            kind: kind.to_owned(),
                            non_proxied,
                            contains: contains.to_owned(),
                            page: String::new(),
                            since,
                            until,
                        });
                    }
                }
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_a_decision_leads_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (store, handle) = Store::open(dir.path()).unwrap();
    let told = fill(&store).await;
    let mut something = 0;
    for request in requests() {
        let expected: Vec<_> = told
            .iter()
            .filter(|told| fits(told, &request))
            .map(|told| (told.agent.clone(), told.sequence))
            .collect();
        something += usize::from(!expected.is_empty());
        assert_eq!(found(&store, &request).await, expected, "{request:?}");
    }
    assert!(something > 200, "{something}");
    drop(store);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_is_about_any_more_is_forgotten_and_may_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, handle) = Store::open(dir.path()).unwrap();
    let count = async |what: &str| {
        let select = format!("SELECT count(*), coalesce(sum(count), 0) FROM {what}");
        let select = if what == "tallies" { select } else { format!("SELECT count(*) FROM {what}") };
        let lines = store.query(Sql::new(select, [])).await.unwrap();
        (lines[0].int(0), lines[0].int(1))
    };
    let told = fill(&store).await;
    let decisions = i64::try_from(told.len()).unwrap();
    assert_eq!(count("tallies").await.1, decisions);
    let matters = count("matters").await.0;
    assert!(matters > 20 && matters < decisions, "{matters} of {decisions}");
    // Each chain keeps its last record.
    assert_eq!(store.forget(1_800_000_000_000_000).await.unwrap(), 626);
    assert_eq!(count("tallies").await, (0, 0));
    assert!(count("matters").await.0 <= 4);
    // What was remembered of them is forgotten too.
    let mut head = Head::default();
    let agent = "00000000-0000-4000-8000-000000000009";
    store.hello(Hello { agent_id: agent.to_owned(), ..Hello::default() }).await.unwrap();
    let statement = Statement {
        text: "drop table t".to_owned(),
        decision: Some(Decision { verdict: Verdict::Refused.into(), ..Decision::default() }),
        ..Statement::default()
    };
    let sealed = head.seal(Record::now(Body::Statement(statement)).encode_to_vec().into());
    store.append(Batch::new(agent.to_owned(), 1, vec![Row::new(sealed)])).await.unwrap();
    let request = DecisionsRequest {
        contains: "drop table".to_owned(),
        agent_id: agent.to_owned(),
        ..DecisionsRequest::default()
    };
    assert_eq!(store.decisions(request).await.unwrap().decisions.len(), 1);
    let lost = "SELECT count(*) FROM records r WHERE matter IS NOT NULL AND NOT EXISTS (SELECT 1 FROM matters m WHERE m.id = r.matter)";
    assert_eq!(store.query(Sql::new(lost, [])).await.unwrap()[0].int(0), 0);
    drop(store);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
}
