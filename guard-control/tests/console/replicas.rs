//! The console on PostgreSQL: every page, and two replicas that share people, sessions and the record.

use axum::http::Method;
use guard_common::audit::v1::{
    ConnectionClosed, ConnectionOpened, Decision, Statement, connection_opened::Access, decision::Verdict,
    record::Body,
};
use guard_tests::{Postgres, skip};
use uuid::Uuid;

use super::{
    agent::{connection, statement},
    approvals,
    browser::Browser,
    site::{PASSWORD, Site},
};

/// A connection with an id, from its beginning to its end.
fn course(id: Uuid) -> Vec<Body> {
    let connection_id = id.to_string();
    let decision = Some(Decision { verdict: Verdict::Allowed.into(), ..Decision::default() });
    let opened = ConnectionOpened {
        connection_id: connection_id.clone(),
        decision: decision.clone(),
        ..ConnectionOpened::default()
    };
    let text = "select the_one_statement".to_owned();
    let ran = Statement { connection_id: connection_id.clone(), text, decision, ..Statement::default() };
    vec![
        Body::ConnectionOpened(opened),
        Body::Statement(ran),
        Body::ConnectionClosed(ConnectionClosed { connection_id, ..ConnectionClosed::default() }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_served_from_postgresql() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let postgres = Postgres::start().unwrap();
    let site = Site::replica(&postgres).await;
    let id = Uuid::now_v7();
    let mut bodies = vec![
        statement("drop table customers", Verdict::Refused),
        connection("/usr/bin/psql", Access::NonProxied),
    ];
    bodies.extend(course(id));
    // What lies around it is not shown with it.
    bodies.extend((0..200).map(|n| statement(&format!("select {n}"), Verdict::Allowed)));
    let (chain, _stream) = site.agent_with(bodies).await;
    let mut browser = site.signed_in("admin").await;
    for (path, shows) in [
        ("/", "some-policy"),
        ("/live", ""),
        ("/round-the-proxy", ">psql<"),
        ("/search?contains=CUSTOMERS", "drop table customers"),
        ("/approvals", ""),
        ("/agents", "db1"),
        (&format!("/agents/{}", chain.id), "db1"),
        (&format!("/connections/{}/{id}", chain.id), "the_one_statement"),
        ("/policies", ""),
        ("/verification", "All chains fit"),
        ("/actions", "sign-in"),
        ("/people", "p-admin"),
        ("/tokens", ""),
        ("/account", ""),
        ("/export?format=csv", "drop table customers"),
        ("/readyz", "ready"),
    ] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.body.contains(shows), "{path}: {}", answer.body);
    }
    let page = browser.get(&format!("/connections/{}/{id}", chain.id)).await.body;
    assert!(!page.contains("select 150"), "it holds another connection's statement");
    let kept = browser.post("/search/save", &[("name", "mine"), ("query", "verdict=refused")]).await;
    assert_eq!(kept.status, 303);
    assert!(browser.get("/search").await.body.contains("mine"));
    assert_eq!(browser.get(&format!("/connections/{}/{}", chain.id, Uuid::now_v7())).await.status, 404);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_people_and_sessions() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let postgres = Postgres::start().unwrap();
    let (one, other) = (Site::replica(&postgres).await, Site::replica(&postgres).await);
    assert_eq!(one.app.link_key, other.app.link_key, "a link from one leads on at the other");
    let first = one.bootstrap().await;
    assert!(other.people.with(|book| book.bootstrap()).await.unwrap().is_none());
    let mut browser = Browser::new(one.console);
    assert_eq!(browser.sign_in("ADMIN", &first).await.status, 303);
    one.add("ann", "viewer", &["dba"]).await;
    let mut browser = one.browser_of("ann").await;
    browser.address = other.console;
    assert_eq!(browser.get("/").await.status, 200, "a session goes on at the other replica");
    // A wrong password counts at both.
    for turn in 0..6 {
        let site = if turn % 2 == 0 { &one } else { &other };
        let mut guessing = Browser::new(site.console);
        guessing.sign_in("ann", "not the password").await;
    }
    let mut waiting = Browser::new(other.console);
    assert_ne!(waiting.sign_in("ann", PASSWORD).await.status, 303);
    // Nobody but admins, and never the last one.
    let people = other.people.clone();
    let admin = people.with(|book| book.named("admin")).await.unwrap();
    let demoted =
        people.with(move |book| book.change(admin.id, &"viewer".parse().unwrap(), &[], false)).await;
    assert!(demoted.is_err());
    let token = one.people.with(|book| book.make_token("t", None, &"viewer".parse().unwrap(), ("x", 1)));
    let bearer = format!("Bearer {}", token.await.unwrap());
    let mut program = Browser::new(other.console);
    let answer = program.send(Method::GET, "/api/v1/me", &[("authorization", &bearer)], "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // Switched off at one, out at the other.
    let ann = one.people.with(|book| book.named("ann")).await.unwrap();
    one.people.with(move |book| book.change(ann.id, &ann.roles, &[], true)).await.unwrap();
    assert_eq!(browser.get("/").await.status, 303);
    let actions: Vec<_> = other.actions().await.into_iter().map(|one| one.action).collect();
    assert!(actions.iter().any(|action| action == "sign-in"), "{actions:?}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_an_agent_of_one_replica_is_decided_at_another() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let postgres = Postgres::start().unwrap();
    let (one, other) = (Site::replica(&postgres).await, Site::replica(&postgres).await);
    one.add("ann", "approver", &["dba"]).await;
    let (chain, mut stream) = one.agent_with(Vec::new()).await;
    approvals::tell(&stream, approvals::request("k3m9x2pa", "bob")).await;
    approvals::until_waiting(&one, 1).await;
    approvals::until_waiting(&other, 1).await;
    assert!(other.app.fleet.sessions.is_connected(&chain.id), "it is connected, wherever that is");
    let mut ann = other.browser_of("ann").await;
    let path = format!("/approvals/{}/k3m9x2pa", chain.id);
    assert!(ann.get("/approvals").await.body.contains("k3m9x2pa"));
    let word = [("word", "approve"), ("reason", "ok")];
    let (answer, told) = tokio::join!(ann.post(&path, &word), approvals::answer(&mut stream, ""));
    let (person, groups, approve) = told;
    assert_eq!((person.as_str(), groups.as_slice(), approve), ("ann", &["dba".to_owned()][..], true));
    assert_eq!(answer.status, 303, "{}", answer.body);
    // It runs, and waits nowhere any more; and an agent that goes is gone everywhere.
    let mut ran = approvals::request("k3m9x2pa", "bob");
    ran.state = guard_common::api::agent::approval_request::State::Ran.into();
    approvals::tell(&stream, ran).await;
    approvals::until_waiting(&other, 0).await;
    drop(stream);
    for _ in 0..300 {
        if !other.app.fleet.sessions.is_connected(&chain.id) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!other.app.fleet.sessions.is_connected(&chain.id));
    one.stop().await;
    other.stop().await;
}
