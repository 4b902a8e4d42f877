//! What clients write is shown, never run: in every field, on every page, in every form in which it leaves.

use guard_common::audit::v1::{
    Ancestor, ConnectionClosed, ConnectionOpened, Decision, Effect, Gap, Outcome, Outcomes, PolicyChange,
    SensorState, SessionStarted, Statement, Workload, connection_opened::Access, decision::Verdict,
    record::Body,
};
use uuid::Uuid;

use super::site::Site;

const HOSTILE: &str =
    "<script>alert(1)</script>\"><img src=x onerror=alert(2)>'--\u{202e}\u{0}\u{1b}[2J</pre></code>";

fn all_of(connection_id: &str, words: &str) -> Vec<Body> {
    let own = words.to_owned();
    let decision = |verdict: Verdict| {
        Some(Decision {
            verdict: verdict.into(),
            policy: own.clone(),
            reason: own.clone(),
            subject: own.clone(),
            errors: vec![own.clone()],
            ..Decision::default()
        })
    };
    let workload = Workload {
        executable: own.clone(),
        argv: vec![own.clone(); 3],
        user: own.clone(),
        login_user: own.clone(),
        login_uid: Some(7),
        unit: own.clone(),
        ai_agent: own.clone(),
        cgroup: own.clone(),
        comm: own.clone(),
        pid: 7,
        ancestry: vec![Ancestor { executable: own.clone(), comm: own.clone(), ..Ancestor::default() }],
        ..Workload::default()
    };
    vec![
        Body::PolicyChange(PolicyChange {
            policy_hash: own.clone(),
            source: own.clone(),
            error: own.clone(),
            ..Default::default()
        }),
        Body::SensorState(SensorState {
            rung: own.clone(),
            missing: vec![own.clone()],
            ..SensorState::default()
        }),
        Body::Gap(Gap { source: own.clone(), detail: own.clone(), ..Gap::default() }),
        Body::ConnectionOpened(ConnectionOpened {
            connection_id: connection_id.to_owned(),
            access: Access::NonProxied.into(),
            unix_path: own.clone(),
            server_address: own.clone(),
            workload: Some(workload),
            decision: decision(Verdict::WouldRefuse),
            ..ConnectionOpened::default()
        }),
        Body::SessionStarted(SessionStarted {
            connection_id: connection_id.to_owned(),
            db_user: own.clone(),
            database: own.clone(),
            application_name: own.clone(),
            failure: own.clone(),
            client_tls: own.clone(),
            ..SessionStarted::default()
        }),
        Body::Statement(Statement {
            connection_id: connection_id.to_owned(),
            ordinal: 1,
            text: own.clone(),
            text_loss: own.clone(),
            evidence: own.clone(),
            db_user: own.clone(),
            database: own.clone(),
            workload: own.clone(),
            effects: vec![Effect { action: own.clone(), object: own.clone(), ..Effect::default() }],
            decision: decision(Verdict::Refused),
            ..Statement::default()
        }),
        Body::Outcomes(Outcomes {
            connection_id: connection_id.to_owned(),
            outcomes: vec![Outcome {
                ordinal: 1,
                command_tag: own.clone(),
                sqlstate: own.clone(),
                ..Outcome::default()
            }],
        }),
        Body::ConnectionClosed(ConnectionClosed {
            connection_id: connection_id.to_owned(),
            reason: own.clone(),
            ..ConnectionClosed::default()
        }),
    ]
}

fn assert_harmless(path: &str, body: &str) {
    for part in ["<script>", "<img", "onerror=alert(2)>'", "\u{202e}", "\u{0}", "\u{1b}", "</pre></code>'"] {
        assert!(!body.contains(part), "{part:?} on {path}");
    }
    // Nothing but our own file is run.
    assert_eq!(body.matches("<script").count(), body.matches("<script src=\"/static/").count(), "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_words_are_text_on_every_page() {
    let site = Site::start().await;
    let mut browser = site.signed_in("admin auditor").await;
    let connection = Uuid::now_v7().to_string();
    let (chain, _stream) = site.agent_with(all_of(&connection, HOSTILE)).await;
    let escaped: String = url::form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    let saved = [("name", "<b>x</b>"), ("query", &format!("contains={escaped}"))];
    assert_eq!(browser.post("/search/save", &saved).await.status, 303);
    let mut seen = 0;
    for path in [
        "/".to_owned(),
        "/live".to_owned(),
        "/round-the-proxy".to_owned(),
        "/search".to_owned(),
        format!("/search?contains={escaped}"),
        format!("/search?agent={escaped}&page={escaped}"),
        format!("/connections/{}/{connection}", chain.id),
        "/agents".to_owned(),
        format!("/agents/{}", chain.id),
        format!("/agents/{escaped}"),
        "/policies".to_owned(),
        "/verification".to_owned(),
        "/actions".to_owned(),
        format!("/sign-in?to={escaped}"),
        format!("/approvals/{escaped}/{escaped}"),
        format!("/{escaped}"),
    ] {
        let body = browser.get(&path).await.body;
        assert_harmless(&path, &body);
        seen += body.matches("&lt;script&gt;alert(1)").count();
    }
    assert!(seen > 25, "the words are there, as text: {seen}");
    let whole = browser.get(&format!("/connections/{}/{connection}", chain.id)).await;
    assert_eq!(whole.status, 200);
    assert!(whole.body.contains("What happened") && whole.body.contains("Closed after"), "{}", whole.body);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_everything_and_breaks_nothing() {
    let site = Site::start().await;
    let mut browser = site.signed_in("auditor").await;
    let (_chain, _stream) = site.agent_with(all_of(&Uuid::now_v7().to_string(), "=cmd(),\"x\"\r\n<b>")).await;
    let lines = browser.get("/export?format=jsonl").await;
    assert!(lines.headers["content-disposition"].to_str().unwrap().contains("guard-decisions.jsonl"));
    let lines: Vec<serde_json::Value> =
        lines.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["statement"]["text"], "=cmd(),\"x\"\r\n<b>");
    let table = browser.get("/export?format=csv&verdict=refused").await.body;
    assert!(
        table.starts_with("time,host,agent_id,") && table.contains("\"'=cmd(),\"\"x\"\"\r\n<b>\""),
        "{table}"
    );
    assert_eq!(browser.get("/export?verdict=nonsense").await.status, 400);
    assert_eq!(browser.get("/export?format=xls").await.status, 400);
    site.stop().await;
}
