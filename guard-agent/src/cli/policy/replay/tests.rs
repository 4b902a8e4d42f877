use std::io::Cursor;

use guard_common::audit::v1::{
    ConnectionOpened, DatabaseServer, Decision, Effect, Outcome, Outcomes, Record, SessionStarted, Statement,
    Workload, connection_opened::Access, decision::Verdict, record::Body, statement::Parse,
};
use guard_policy::Origin;

use super::*;

fn set(text: &str) -> PolicySet {
    let all = "@id(\"all\") permit (principal, action, resource);";
    let files = [("a/policy.cedar".to_owned(), format!("{all}\n{text}"))].into();
    PolicySet::from_files(files, Origin::BuiltIn).unwrap()
}

fn opened(id: &str, workload: Workload) -> Body {
    let server = DatabaseServer {
        name: "main".to_owned(),
        engine: "postgresql".to_owned(),
        environment: "production".to_owned(),
    };
    Body::ConnectionOpened(ConnectionOpened {
        connection_id: id.to_owned(),
        access: Access::Proxied.into(),
        server: Some(server),
        workload: Some(workload),
        decision: Some(decision(Verdict::Allowed, "agent")),
        ..ConnectionOpened::default()
    })
}

fn started(id: &str) -> Body {
    Body::SessionStarted(SessionStarted {
        connection_id: id.to_owned(),
        db_user: "app".to_owned(),
        database: "shop".to_owned(),
        ..SessionStarted::default()
    })
}

fn decision(verdict: Verdict, mode_from: &str) -> Decision {
    Decision { verdict: verdict.into(), mode_from: mode_from.to_owned(), ..Decision::default() }
}

fn statement(id: &str, action: &str, object: &str, decision: Decision) -> Body {
    let effect = Effect {
        action: action.to_owned(),
        object: format!("sales.{object}"),
        object_kind: "table".to_owned(),
        object_schema: Some("sales".to_owned()),
        ..Effect::default()
    };
    Body::Statement(Statement {
        connection_id: id.to_owned(),
        text: format!("{action} {object}"),
        parse: Parse::Full.into(),
        parts: 1,
        effects: vec![effect],
        decision: Some(decision),
        ..Statement::default()
    })
}

/// As an export, to the policies, and what comes of it.
fn replayed(policies: &PolicySet, bodies: Vec<Body>) -> serde_json::Value {
    let line = |(number, body): (usize, Body)| {
        let mut value = serde_json::to_value(Record::now(body)).unwrap();
        value["sequence"] = (number + 1).into();
        value["hash"] = "00".into();
        format!("{value}\n")
    };
    let export: String = bodies.into_iter().enumerate().map(line).collect();
    let tally = replay(Input::lines(Cursor::new(export.into_bytes())), policies).unwrap();
    let json = tally.as_json(policies);
    let refused = &json["newly_refused_statements"]["count"];
    assert_eq!(tally.refuses_more(), refused != 0, "{json}");
    assert!(!tally.describe(policies).is_empty());
    json
}

#[test]
fn what_would_be_refused_is_counted_by_workload() {
    let policies = set(r#"@id("no-t") @reason("no") forbid (principal, action, resource is Guard::Object)
        when { resource.name == "a.b" && resource.schema == "sales" && context.database == "shop" };"#);
    let unit = |unit: &str| Workload { unit: unit.to_owned(), ..Workload::default() };
    let allowed = || decision(Verdict::Allowed, "agent");
    let json = replayed(
        &policies,
        vec![
            opened("1", unit("orders.service")),
            started("1"),
            opened("2", unit("reports.service")),
            started("2"),
            statement("1", "select", "a.b", allowed()),
            statement("1", "select", "a.b", allowed()),
            statement("2", "select", "a.b", allowed()),
            statement("2", "select", "c", allowed()),
            statement("2", "select", "a.b", decision(Verdict::Refused, "agent")),
            statement("2", "select", "c", decision(Verdict::Refused, "agent")),
            statement("3", "select", "c", allowed()),
        ],
    );
    assert_eq!(json["newly_refused_statements"], serde_json::json!({"count": 3, "workloads": 2}));
    assert_eq!(json["newly_allowed_statements"], serde_json::json!({"count": 1, "workloads": 1}));
    assert_eq!((&json["refused_statements"], &json["refused_statements_that_ran"]), (&4.into(), &3.into()));
    assert_eq!(json["skipped"]["statement whose connection is not in the record"], 1);
    assert_eq!(json["changes"][0]["policy"], "all");
}

#[test]
fn monitor_mode_then_is_no_change_of_policy_now() {
    let policies = set(r#"@id("no") @reason("no") forbid (principal, action, resource is Guard::Object)
        when { resource in Guard::Environment::"production" && context.db_user == "app" };"#);
    let json = replayed(
        &policies,
        vec![
            opened("1", Workload::default()),
            started("1"),
            statement("1", "drop", "t", decision(Verdict::WouldRefuse, "server")),
            // What only a trial policy refused is news.
            statement("1", "drop", "t", decision(Verdict::WouldRefuse, "policy")),
        ],
    );
    assert_eq!(json["newly_refused_statements"]["count"], 1);
    assert_eq!(json["refused_statements_that_ran"], 2);
    assert_eq!(json["changes"][0]["then"], "allowed, watched");
}

#[test]
fn rates_are_counted_along_the_record() {
    let policies = set(r#"@id("bulk") @reason("no") forbid (principal, action, resource is Guard::Object)
        when { context.rows_per_minute > 100 };"#);
    let rows = |rows| {
        let outcomes = vec![Outcome { ordinal: 1, rows, ..Outcome::default() }];
        Body::Outcomes(Outcomes { connection_id: "1".to_owned(), outcomes })
    };
    let select = || statement("1", "select", "t", decision(Verdict::Allowed, "agent"));
    let bodies = vec![opened("1", Workload::default()), started("1"), select(), rows(101), select()];
    assert_eq!(replayed(&policies, bodies)["newly_refused_statements"]["count"], 1);
    let bodies = vec![opened("1", Workload::default()), started("1"), select(), rows(100), select()];
    assert_eq!(replayed(&policies, bodies)["newly_refused_statements"]["count"], 0);
}

#[test]
fn a_line_that_is_no_record_is_named() {
    let lines = Input::lines(Cursor::new(b"\n{\"sequence\": 1}\nnonsense\n".to_vec()));
    let error = replay(lines, &set("")).unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("audit search --json"), "{error}");
    let nowhere = Input::open(std::path::Path::new("/nonexistent")).err().map(|error| error.to_string());
    assert!(nowhere.is_some_and(|error| error.contains("/nonexistent")));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Input::open(empty.path()), Err(InputError::Empty(_))));
}
