//! Finding decisions again.

use guard_common::{
    api::control::{DecisionsRequest, StoredDecision, stored_decision::Subject},
    audit::v1::{connection_opened::Access, decision::Verdict},
};
use guard_control::store::{StoreError, search::Search};

use super::{
    Control,
    agent::{Chain, Stream, connection, statement},
};

fn text(decision: &StoredDecision) -> String {
    match &decision.subject {
        Some(Subject::Statement(statement)) => statement.text.clone(),
        Some(Subject::Connection(connection)) => connection.workload.clone().unwrap_or_default().executable,
        None => String::new(),
    }
}

#[tokio::test]
async fn decisions_are_found_by_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let (mut first, mut second) = (Chain::new(), Chain::new());
    let records = vec![
        first.seal(statement("select 100%_sure", Verdict::Allowed)),
        first.seal(statement("drop table customers", Verdict::Refused)),
        first.seal(connection("/usr/bin/psql", Access::NonProxied)),
        first.seal(connection("/usr/bin/web", Access::Proxied)),
    ];
    let (mut stream, _) = Stream::open(control.address, &first.id, 1).await.unwrap();
    stream.store(records).await;
    let (mut stream, _) = Stream::open(control.address, &second.id, 1).await.unwrap();
    stream.store(vec![second.seal(statement("drop table orders", Verdict::WouldRefuse))]).await;
    drop(stream);
    control.stop().await;

    let search = Search::open(dir.path()).unwrap();
    let all = DecisionsRequest::default();
    let find = |request: DecisionsRequest| -> Vec<String> {
        search.decisions(&request).unwrap().decisions.iter().map(text).collect()
    };
    let everything =
        ["drop table orders", "/usr/bin/web", "/usr/bin/psql", "drop table customers", "select 100%_sure"];
    assert_eq!(find(all.clone()), everything);
    let by = |change: fn(&mut DecisionsRequest)| {
        let mut request = DecisionsRequest::default();
        change(&mut request);
        request
    };
    assert_eq!(find(by(|r| r.verdict = "refused".into())), ["drop table customers"]);
    assert_eq!(find(by(|r| r.verdict = "allowed".into())), ["select 100%_sure"]);
    assert_eq!(find(by(|r| r.non_proxied = true)), ["/usr/bin/psql"]);
    assert_eq!(find(by(|r| r.kind = "connection".into())), ["/usr/bin/web", "/usr/bin/psql"]);
    assert_eq!(find(by(|r| r.contains = "CUSTOMERS".into())), ["drop table customers"]);
    assert_eq!(find(by(|r| r.contains = "psql".into())), ["/usr/bin/psql"]);
    assert_eq!(find(by(|r| r.contains = "0%_s".into())), ["select 100%_sure"]);
    assert_eq!(find(by(|r| r.contains = "0_s".into())), Vec::<String>::new());
    assert_eq!(find(by(|r| r.contains = "' OR 1=1 --".into())), Vec::<String>::new());
    assert_eq!(find(DecisionsRequest { agent_id: second.id.clone(), ..all.clone() }), ["drop table orders"]);
    assert_eq!(find(by(|r| r.agent_id = "nobody".into())), Vec::<String>::new());

    let at = |text: &str| guard_control::moment::read(text, &jiff::tz::TimeZone::UTC).unwrap();
    let within = |since: &str, until: &str| {
        let request = DecisionsRequest { since: Some(at(since)), until: Some(at(until)), ..all.clone() };
        find(request).len()
    };
    assert_eq!(
        (within("1h", "2100-01-01"), within("2001-01-01", "1h"), within("2100-01-01", "2101-01-01")),
        (5, 0, 0)
    );
    // The range has a beginning that belongs to it, and an end that does not.
    let moment = search.decisions(&all).unwrap().decisions[2].at;
    let count = |request: DecisionsRequest| find(request).len();
    let (later, before) = (
        count(DecisionsRequest { since: moment, ..all.clone() }),
        count(DecisionsRequest { until: moment, ..all.clone() }),
    );
    assert!(later >= 3 && before <= 2 && later + before == 5, "{later} {before}");

    let mut paged = Vec::new();
    let mut request = DecisionsRequest { limit: 2, ..all };
    loop {
        let answer = search.decisions(&request).unwrap();
        assert!(answer.decisions.len() <= 2);
        paged.extend(answer.decisions.iter().map(text));
        if answer.next_page.is_empty() {
            break;
        }
        request.page = answer.next_page;
    }
    assert_eq!(paged, everything);
    for wrong in
        [by(|r| r.verdict = "maybe".into()), by(|r| r.kind = "x".into()), by(|r| r.page = "1;2".into())]
    {
        assert!(matches!(search.decisions(&wrong), Err(StoreError::Request(_))));
    }
}
