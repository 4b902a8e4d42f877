//! What a record takes on disk: the figures that docs/scale.md reckons with come from here (`-- --nocapture`).

use std::path::Path;

use guard_common::{
    api::control::Hello,
    audit::v1::{
        Decision, Effect, Outcome, Outcomes, SealedRecord, Statement,
        decision::Verdict,
        outcome::Status,
        record::Body,
        statement::{Parse, Protocol},
    },
};
use guard_control::store::{Appended, Batch, Store, row::Row, sql::Sql};
use guard_tests::{Postgres, skip};

use super::agent::Chain;

const RECORDS: usize = 20_000;
/// Statements whose outcomes come together in one record.
const OUTCOMES: usize = 20;

/// As long as applications write them, the short ones more often.
const TEXTS: [&str; 4] = [
    "UPDATE pgbench_accounts SET abalance = abalance + ? WHERE aid = ?",
    "SELECT abalance FROM pgbench_accounts WHERE aid = ?",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (?, ?, ?, ?, CURRENT_TIMESTAMP)",
    "SELECT t0.id, t0.created_at, t0.updated_at, t0.status, t0.customer_id, t1.id, t1.name, t1.email, t1.country \
     FROM shop.orders AS t0 LEFT OUTER JOIN shop.customers AS t1 ON t1.id = t0.customer_id WHERE t0.status IN (?, ?, ?) \
     AND t0.created_at >= ? AND t1.country = ? ORDER BY t0.created_at DESC, t0.id LIMIT ? OFFSET ?",
];

/// A statement as the proxy records it, with everything that it fills in.
fn statement(n: usize) -> Body {
    let decision = Decision {
        verdict: Verdict::Allowed.into(),
        policy: "applications-read-and-write".to_owned(),
        policy_hash: "9f2c4e61b7a05d3388e1c0f4a2b6d7791e5f3a8c4d2b6907f1e8a3c5d7b90214".to_owned(),
        evaluation_ns: 1_240,
        cached: true,
        mode: "enforce".to_owned(),
        ..Decision::default()
    };
    let effect = Effect {
        action: "update".to_owned(),
        object: "pgbench_accounts".to_owned(),
        object_kind: "table".to_owned(),
        has_where: Some(true),
        object_schema: Some("public".to_owned()),
    };
    Body::Statement(Statement {
        connection_id: "0193f2d4-8c1e-7f55-9d0e-0123456789ab".to_owned(),
        ordinal: n as u64,
        text: TEXTS[n % TEXTS.len()].to_owned(),
        text_bytes: TEXTS[n % TEXTS.len()].len() as u64,
        fingerprint: "5c1f0a9be27d4c36".to_owned(),
        parse: Parse::Full.into(),
        effects: vec![effect],
        decision: Some(decision),
        protocol: Protocol::Extended.into(),
        db_user: "shop".to_owned(),
        database: "shop".to_owned(),
        workload: "shop-web.service".to_owned(),
        parts: 1,
        ..Statement::default()
    })
}

fn outcomes(first: usize) -> Body {
    let outcome = |n: usize| Outcome {
        ordinal: n as u64,
        status: Status::Completed.into(),
        command_tag: "UPDATE 1".to_owned(),
        rows: 1,
        duration_us: 480,
        ..Outcome::default()
    };
    Body::Outcomes(Outcomes {
        connection_id: "0193f2d4-8c1e-7f55-9d0e-0123456789ab".to_owned(),
        outcomes: (first..first + OUTCOMES).map(outcome).collect(),
    })
}

fn records(chain: &mut Chain) -> Vec<SealedRecord> {
    let bodies = (0..RECORDS).flat_map(|n| {
        let told = (n % OUTCOMES == OUTCOMES - 1).then(|| outcomes(n + 1 - OUTCOMES));
        [Some(statement(n)), told].into_iter().flatten()
    });
    bodies.map(|body| chain.seal(body)).collect()
}

async fn fill(store: &Store, chain: &Chain, records: &[SealedRecord]) {
    store.hello(Hello { agent_id: chain.id.clone(), ..Hello::default() }).await.unwrap();
    for some in records.chunks(5_000) {
        let batch = Batch::new(chain.id.clone(), 1, some.iter().cloned().map(Row::new).collect());
        assert!(matches!(store.append(batch).await.unwrap(), Appended::Stored(_)));
    }
}

fn size(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    files
        .filter(|file| file.file_name().to_string_lossy().contains("sqlite"))
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_takes_about_a_kilobyte() {
    let mut chain = Chain::new();
    let records = records(&mut chain);
    let count = records.len() as u64;
    let payload = records.iter().map(|record| record.payload.len() as u64).sum::<u64>();
    let dir = tempfile::tempdir().unwrap();
    let (store, handle) = Store::open(dir.path()).unwrap();
    fill(&store, &chain, &records).await;
    drop(store);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
    let embedded = size(dir.path());
    println!("payload {} bytes a record, embedded store {}", payload / count, embedded / count);
    assert!(embedded / count < 1_200, "{} bytes a record in the embedded store", embedded / count);
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let postgres = Postgres::start().unwrap();
    let url = format!("postgresql://postgres@{}/postgres", postgres.address());
    let store = Store::postgres(&url.parse().unwrap(), None).await.unwrap();
    fill(&store, &chain, &records).await;
    let total = "SELECT CAST(sum(pg_total_relation_size(inhrelid)) AS BIGINT) FROM pg_inherits
         WHERE inhparent = 'records'::regclass";
    let shared = store.query(Sql::new(total, [])).await.unwrap()[0].int(0).cast_unsigned();
    println!("PostgreSQL {}", shared / count);
    assert!(shared / count < 1_400, "{} bytes a record in PostgreSQL", shared / count);
}
