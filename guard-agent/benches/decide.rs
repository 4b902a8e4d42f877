//! Nanoseconds per statement of reading and deciding: one line of JSON per round on standard output.
//!
//! `cargo xtask bench decide` runs it, takes medians and prints a table. Everything is measured on one thread, through
//! the same calls as a session makes.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use guard_agent::{
    config::{Config, Mode},
    decide::{AppliedMode, Decider, DecisionCache, Session},
    sql::{Classifier, Limits, Modes, Statement},
};
use guard_common::audit::v1::Workload;
use guard_policy::{Origin, PolicySet, Principal, Rates, Target};

/// The statements of a pgbench transaction.
const PGBENCH: &[&str] = &[
    "BEGIN;",
    "UPDATE pgbench_accounts SET abalance = abalance + -4711 WHERE aid = 91823;",
    "SELECT abalance FROM pgbench_accounts WHERE aid = 91823;",
    "UPDATE pgbench_tellers SET tbalance = tbalance + -4711 WHERE tid = 7;",
    "UPDATE pgbench_branches SET bbalance = bbalance + -4711 WHERE bid = 1;",
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (7, 1, 91823, -4711, CURRENT_TIMESTAMP);",
    "END;",
];

/// As an order entry application asks.
const ORDER_ENTRY: &[&str] = &[
    "SELECT c_discount, c_last, c_credit, w_tax FROM customer, warehouse WHERE w_id = $1 AND c_w_id = w_id AND c_d_id = $2 AND c_id = $3",
    "SELECT d_next_o_id, d_tax FROM district WHERE d_w_id = $1 AND d_id = $2 FOR UPDATE",
    "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = $1 AND d_id = $2",
    "INSERT INTO oorder (o_id, o_d_id, o_w_id, o_c_id, o_entry_d, o_ol_cnt, o_all_local) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    "UPDATE stock SET s_quantity = $1, s_ytd = s_ytd + $2, s_order_cnt = s_order_cnt + 1, s_remote_cnt = s_remote_cnt + $3 WHERE s_i_id = $4 AND s_w_id = $5",
    "SELECT count(DISTINCT s_i_id) AS stock_count FROM order_line, stock WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id < $3 AND ol_o_id >= $4 AND s_w_id = $5 AND s_i_id = ol_i_id AND s_quantity < $6",
    "DELETE FROM new_order WHERE no_o_id = $1 AND no_d_id = $2 AND no_w_id = $3",
];

/// As an analyst asks.
const REPORTS: &[&str] = &[
    "SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price, avg(l_discount) AS avg_disc, count(*) AS count_order FROM lineitem WHERE l_shipdate <= date '1998-12-01' - interval '90' day GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus",
    "SELECT s_acctbal, s_name, n_name, p_partkey, p_mfgr FROM part, supplier, partsupp, nation, region WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND p_size = 15 AND p_type LIKE '%BRASS' AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'EUROPE' AND ps_supplycost = (SELECT min(ps_supplycost) FROM partsupp, supplier, nation, region WHERE p_partkey = ps_partkey AND s_suppkey = ps_suppkey AND s_nationkey = n_nationkey AND n_regionkey = r_regionkey AND r_name = 'EUROPE') ORDER BY s_acctbal DESC LIMIT 100",
    "SELECT o_year, sum(CASE WHEN nation = 'BRAZIL' THEN volume ELSE 0 END) / sum(volume) AS mkt_share FROM (SELECT extract(year FROM o_orderdate) AS o_year, l_extendedprice * (1 - l_discount) AS volume, n2.n_name AS nation FROM part, supplier, lineitem, orders, customer, nation n1, nation n2, region WHERE p_partkey = l_partkey AND s_suppkey = l_suppkey AND l_orderkey = o_orderkey AND o_custkey = c_custkey AND c_nationkey = n1.n_nationkey AND n1.n_regionkey = r_regionkey) AS all_nations GROUP BY o_year ORDER BY o_year",
];

const SETS: &[(&str, &[&str])] = &[("pgbench", PGBENCH), ("order_entry", ORDER_ENTRY), ("reports", REPORTS)];

/// How long each figure is measured in a round.
const SLICE: Duration = Duration::from_millis(150);

/// Statements that are decided on between two looks at the clock.
const BATCH: usize = 512;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds: u32 = match rounds.and_then(|at| arguments.get(at + 1)) {
        Some(rounds) => rounds.parse().context("`--rounds` takes a number")?,
        None => 1,
    };
    let sets = [("", PolicySet::built_in()?), ("_100_more_policies", with_more(100)?)];
    let deciders = sets.map(|(name, set)| (name, Arc::new(Decider::new(set, &enforcing()))));
    for _ in 0..rounds {
        let mut figures = BTreeMap::new();
        for (set, texts) in SETS {
            measure_reading(set, texts, &mut figures);
            for (policies, decider) in &deciders {
                measure_deciding(&format!("{set}_decide"), policies, decider, texts, &mut figures);
            }
        }
        println!("{}", serde_json::to_string(&figures)?);
    }
    Ok(())
}

fn enforcing() -> Config {
    Config { mode: Mode::Enforce, ..Config::default() }
}

/// The built-in policies and others of which each speaks of some actions.
fn with_more(count: usize) -> Result<PolicySet> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let topics = [
        include_str!("../../policies/baseline/policy.cedar"),
        include_str!("../../policies/ai-agents/policy.cedar"),
        include_str!("../../policies/destructive-statements/policy.cedar"),
        include_str!("../../policies/unreadable-statements/policy.cedar"),
    ];
    for (number, topic) in topics.into_iter().enumerate() {
        files.insert(format!("topic{number}"), topic.to_owned());
    }
    let actions = [
        "drop",
        "alter",
        "create",
        "grant_privilege",
        "truncate",
        "file",
        "do",
        "call",
        "copy_out",
        "select",
    ];
    for (number, action) in (0..count).zip(actions.iter().cycle()) {
        files.insert(
            format!("more{number}"),
            format!(
                "@id(\"more-{number}\") @reason(\"more\") \
                 forbid (principal, action == Guard::Action::\"{action}\", resource) \
                 when {{ resource.name == \"secret_{number}\" && !(principal has unit && principal.unit == \"a\") }};"
            ),
        );
    }
    Ok(PolicySet::from_files(files, Origin::BuiltIn)?)
}

fn session(decider: &Decider) -> Session {
    let workload = Workload {
        executable: "/usr/lib/postgresql/15/bin/pgbench".to_owned(),
        unit: "orders.service".to_owned(),
        user: "orders".to_owned(),
        ..Workload::default()
    };
    let principal = Principal::new(&workload);
    let AppliedMode { mode, from: mode_from } = decider.mode("main", "shop");
    Session {
        meter: decider.meter(&principal, "main"),
        principal,
        target: Target::new("production", "main", "postgresql", "shop"),
        mode,
        mode_from,
        proxied: true,
        transport: "tcp",
        db_user: "app".to_owned(),
        application_name: "pgbench".to_owned(),
        search_path: guard_agent::sql::SearchPath::default(),
        roles: guard_agent::sql::Roles::of("app"),
    }
}

/// Repeats `batch`, which gives the time that it took and what it did, until there is enough.
fn per_item(mut batch: impl FnMut() -> (Duration, usize)) -> f64 {
    let (mut taken, mut done) = (Duration::ZERO, 0);
    let deadline = Instant::now() + SLICE * 4;
    while taken < SLICE && Instant::now() < deadline {
        let (time, items) = batch();
        taken += time;
        done += items;
    }
    taken.as_secs_f64() * 1e9 / f64::from(u32::try_from(done.max(1)).unwrap_or(u32::MAX))
}

fn timed(items: usize, work: impl FnOnce()) -> (Duration, usize) {
    let started = Instant::now();
    work();
    (started.elapsed(), items)
}

fn measure_reading(set: &str, texts: &[&str], figures: &mut BTreeMap<String, f64>) {
    let uncached = Limits { cache_entries: 0, ..Limits::default() };
    for (name, limits) in [("uncached", uncached), ("cached", Limits::default())] {
        let mut classifier = Classifier::new(limits);
        let mut read = || {
            for text in texts {
                black_box(classifier.classify(black_box(text.as_bytes()), &Modes::default()));
            }
        };
        read();
        figures.insert(format!("{set}_classify_{name}_ns"), per_item(|| timed(texts.len(), &mut read)));
    }
}

fn measure_deciding(
    set: &str,
    policies: &str,
    decider: &Arc<Decider>,
    texts: &[&str],
    figures: &mut BTreeMap<String, f64>,
) {
    let session = session(decider);
    let scope = session.scope();
    let statements = copies(texts);
    let mut cache = DecisionCache::new(Arc::clone(decider));
    for statement in &statements[..texts.len()] {
        cache.rule(&session, scope, statement);
    }
    let mut note = |what: &str, value| figures.insert(format!("{set}_{what}{policies}_ns"), value);
    note(
        "cached",
        per_item(|| {
            timed(texts.len(), || {
                for statement in &statements[..texts.len()] {
                    black_box(cache.rule(&session, scope, black_box(statement)));
                }
            })
        }),
    );
    // The cache knows none of them by its address, and holds what sessions bring.
    note(
        "uncached",
        per_item(|| {
            let fresh = copies(texts);
            timed(fresh.len(), || {
                for statement in &fresh {
                    black_box(cache.rule(&session, scope, black_box(statement)));
                }
            })
        }),
    );
    // Nothing is prepared at all: the first statement of a new kind of session.
    note(
        "first",
        per_item(|| {
            timed(texts.len(), || {
                for statement in &statements[..texts.len()] {
                    black_box(decider.statement(&session, black_box(statement), Rates::default()));
                }
            })
        }),
    );
}

/// A batch of statements, each at an address of its own.
fn copies(texts: &[&str]) -> Vec<Arc<Statement>> {
    let mut classifier = Classifier::new(Limits { cache_entries: 0, ..Limits::default() });
    let texts = texts.iter().cycle().take(BATCH);
    texts.map(|text| classifier.classify(text.as_bytes(), &Modes::default())).collect()
}
