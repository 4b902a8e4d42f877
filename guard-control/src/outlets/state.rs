//! How outlets fare, as the store knows it: for the command line and for metrics.

use std::fmt::Write;

use crate::store::{
    Store, StoreError, now,
    sql::{Line, Sql},
};

/// One outlet.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct State {
    /// Its name.
    pub name: String,
    /// syslog, parquet, ..
    pub kind: String,
    /// A server works for it.
    pub running: bool,
    /// Records that left.
    pub sent: u64,
    /// Records that it does not want.
    pub passed_over: u64,
    /// Records that were deleted before they could leave.
    pub missed: u64,
    /// Records that wait.
    pub waiting: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Why nothing leaves; empty where something does.
    pub error: String,
    /// When something failed last, in microseconds since 1970; 0: never.
    pub failed_at: i64,
    /// When something left last, in microseconds since 1970; 0: never.
    pub sent_at: i64,
}

/// All outlets that were ever there, by name.
pub async fn states(store: &Store) -> Result<Vec<State>, StoreError> {
    let select = "SELECT o.name, o.kind, o.lease, o.sent, o.passed_over, o.missed, o.failures, o.error, o.failed_at, o.sent_at,
             (SELECT CAST(coalesce(sum(a.head_sequence - coalesce(c.sequence, 0)), 0) AS BIGINT) FROM agents a
              LEFT JOIN outlet_cursors c ON c.outlet = o.name AND c.agent = a.id)
         FROM outlets o ORDER BY o.name";
    let lines = store.look_up(Sql::new(select, [])).await?;
    let time = now();
    let state = |line: &Line| State {
        name: line.text(0).to_owned(),
        kind: line.text(1).to_owned(),
        running: line.int(2) > time,
        sent: line.int(3).cast_unsigned(),
        passed_over: line.int(4).cast_unsigned(),
        missed: line.int(5).cast_unsigned(),
        failures: line.int(6).cast_unsigned(),
        error: line.text(7).to_owned(),
        failed_at: line.int(8),
        sent_at: line.int(9),
        waiting: line.int(10).max(0).cast_unsigned(),
    };
    Ok(lines.iter().map(state).collect())
}

/// Forgets an outlet that is not used any more; false where there is none, or a server works for it.
pub async fn forget(store: &Store, name: &str) -> Result<bool, StoreError> {
    let outlet = "DELETE FROM outlets WHERE name = $1 AND lease < $2 RETURNING 1";
    let cursors =
        "DELETE FROM outlet_cursors WHERE outlet = $1 AND NOT EXISTS (SELECT 1 FROM outlets WHERE name = $1)";
    let steps = vec![Sql::new(outlet, [name.into(), now().into()]), Sql::new(cursors, [name.into()])];
    let answers = store.run(steps).await?;
    Ok(answers.first().is_some_and(|lines| !lines.is_empty()))
}

type Count = fn(&State) -> u64;

/// As Prometheus reads it.
pub fn metrics(states: &[State]) -> String {
    let mut text = String::new();
    let counts: [(&str, &str, &str, Count); 7] = [
        ("running", "gauge", "Whether a server works for the outlet.", |one| one.running.into()),
        ("waiting", "gauge", "Records that wait to leave.", |one| one.waiting),
        ("sent_total", "counter", "Records that left.", |one| one.sent),
        ("passed_over_total", "counter", "Records that the outlet does not want.", |one| one.passed_over),
        ("missed_total", "counter", "Records that were deleted before they left.", |one| one.missed),
        ("failures_total", "counter", "Attempts that failed.", |one| one.failures),
        ("failing", "gauge", "Whether the last attempt failed.", |one| (!one.error.is_empty()).into()),
    ];
    for (name, kind, help, of) in counts {
        let _ = writeln!(
            text,
            "# HELP guard_control_outlet_{name} {help}\n# TYPE guard_control_outlet_{name} {kind}"
        );
        for one in states {
            // INVARIANT: names of outlets hold nothing that ends a label: the settings file is checked.
            let labels = format!("{{outlet=\"{}\",kind=\"{}\"}}", one.name, one.kind);
            let _ = writeln!(text, "guard_control_outlet_{name}{labels} {}", of(one));
        }
    }
    text
}
