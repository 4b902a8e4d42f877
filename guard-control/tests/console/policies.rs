//! Versions of the policies on pages and in the API: what changed, handing out, going back, dry runs.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use axum::http::Method;
use guard_common::audit::v1::{decision::Verdict, person_action::Outcome};
use guard_control::policy;
use serde_json::{Value, json};

use super::{agent::statement, site::Site};

const FIRST: &str = "@id(\"all\")\npermit (principal, action, resource);\n";
const SECOND: &str = "@id(\"all\")\npermit (principal, action, resource);\n\n@id(\"no-drop\")\n@reason(\"ask a person\")\nforbid (principal, \
                      action == Guard::Action::\"define\", resource);\n";

/// A guard-agent that fails, and says so.
const BROKEN: &str = "cat > /dev/null; echo 'guard-agent: broken' >&2; exit 1";

/// A `guard-agent policy replay` that says how many statements it was given, where the policies are there.
pub const FOURTEEN: &str = r#"test -f "$5/topic/policy.cedar" || exit 1
n=$(grep -c '"statement"')
printf '{"statements": %s, "newly_refused_statements": {"count": 14, "workloads": 3}, "changes": [{"count": 14,
"workload": "<i>web</i>", "then": "allowed", "now": "refused", "policy": "no-drop", "example": "drop table ?"}]}' "$n"
exit 3"#;

fn files(text: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("topic/policy.cedar".to_owned(), text.to_owned())])
}

pub async fn published(site: &Site) {
    for (text, note) in [(FIRST, "first"), (SECOND, "<b>no drops</b>")] {
        policy::publish(&site.app.fleet.store, &site.app.key, files(text), ("ann", note)).await.unwrap();
    }
}

/// A `guard-agent` that reads all records and says what it would.
pub fn agent_that_says(site: &Site, script: &str) {
    let path = site.dir.path().join("guard-agent");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_shown_with_what_changed_and_who_signed() {
    let site = Site::start().await;
    let mut viewer = site.signed_in("viewer").await;
    assert!(viewer.get("/policies").await.body.contains("No host, no policies"));
    published(&site).await;
    let list = viewer.get("/policies").await.body;
    assert!(list.contains("Version 2") && list.contains("&lt;b&gt;no drops"), "{list}");
    assert!(list.contains(&site.app.key.public().id()), "{list}");
    let page = viewer.get("/policies/2").await.body;
    assert!(page.contains(">holds<"), "{page}");
    assert!(page.contains("<ins>+ @id(&quot;no-drop&quot;)"), "{page}");
    assert!(
        !page.contains("<del>") && !page.contains("<form class=\"stack\""),
        "a viewer does nothing: {page}"
    );
    let page = viewer.get("/policies/1?against=2").await.body;
    assert!(page.contains("<del>- @id(&quot;no-drop&quot;)"), "{page}");
    for path in ["/policies/9", "/policies/x"] {
        assert!([400, 404].contains(&viewer.get(path).await.status), "{path}");
    }
    // Somebody has changed the store.
    let forge = "UPDATE policies SET signature = $1 WHERE version = 2";
    let forge = guard_control::store::sql::Sql::new(forge, [vec![0_u8; 64].into()]);
    site.app.fleet.store.query(forge).await.unwrap();
    assert!(viewer.get("/policies/2").await.body.contains("not by this control plane"));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_hand_out_and_go_back_and_it_is_on_record() {
    let site = Site::start().await;
    published(&site).await;
    let mut viewer = site.signed_in("viewer").await;
    let mut admin = site.signed_in("admin").await;
    for path in ["stage", "rollback", "dry-run"] {
        let fields = [("all", "1"), ("days", "7")];
        assert_eq!(viewer.post(&format!("/policies/1/{path}"), &fields).await.status, 403, "{path}");
        let forged = admin.post_raw(&format!("/policies/1/{path}"), &fields, &[]).await;
        assert_eq!(forged.status, 403, "{path} without the form's token");
    }
    assert!(policy::handed(&site.app.fleet.store).await.unwrap().is_empty());
    for wrong in [&[("labels", "")][..], &[("labels", "canary")], &[("labels", "a=b"), ("all", "1")]] {
        assert_eq!(admin.post("/policies/2/stage", wrong).await.status, 400, "{wrong:?}");
    }
    assert_eq!(admin.post("/policies/9/stage", &[("all", "1")]).await.status, 404);
    assert_eq!(admin.post("/policies/2/stage", &[("labels", "canary=yes, region=eu")]).await.status, 303);
    let page = admin.get("/policies/2").await.body;
    assert!(page.contains("canary=yes, region=eu"), "{page}");
    let back = admin.post("/policies/1/rollback", &[]).await;
    assert_eq!((back.status, back.location()), (303, "/policies/3"), "{}", back.body);
    let store = &site.app.fleet.store;
    assert_eq!(policy::files(store, 3).await.unwrap(), files(FIRST));
    let handed = policy::handed(store).await.unwrap();
    assert_eq!((handed[0].version, handed[0].labels.len(), handed[0].author.as_str()), (3, 0, "p-admin"));
    assert_eq!(admin.post("/policies/3/rollback", &[]).await.status, 409, "nothing would change");
    let actions = site.actions().await;
    let done = |action: &str, outcome: Outcome| {
        actions.iter().any(|one| one.action == action && one.outcome() == outcome && !one.subject.is_empty())
    };
    assert!(done("policy-stage", Outcome::Done) && done("policy-rollback", Outcome::Done), "{actions:?}");
    assert!(
        done("policy-stage", Outcome::Refused) && done("policy-dry-run", Outcome::Refused),
        "{actions:?}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_what_would_have_been() {
    let site = Site::start().await;
    published(&site).await;
    let (_chain, _stream) = site
        .agent_with(vec![
            statement("drop table customers", Verdict::Allowed),
            statement("select 1", Verdict::Allowed),
        ])
        .await;
    let mut admin = site.signed_in("admin").await;
    let missing = admin.post("/policies/2/dry-run", &[("days", "7")]).await;
    assert_eq!(missing.status, 303);
    assert!(admin.get("/policies/2").await.body.contains("there is no guard-agent here"));
    assert_eq!(admin.post("/policies/2/dry-run", &[("days", "0")]).await.status, 400);
    agent_that_says(&site, FOURTEEN);
    assert_eq!(admin.post("/policies/2/dry-run", &[("days", "7")]).await.status, 303);
    let page = admin.get("/policies/2").await.body;
    assert!(page.contains("It would have refused 14 statements of 3 workloads"), "{page}");
    assert!(page.contains("Decided anew: 2 statements"), "{page}");
    assert!(page.contains("&lt;i&gt;web") && page.contains("no-drop"), "{page}");
    agent_that_says(&site, BROKEN);
    assert_eq!(admin.post("/policies/2/dry-run", &[("days", "7")]).await.status, 303);
    assert!(admin.get("/policies/2").await.body.contains("guard-agent: broken"));
    // One at a time.
    agent_that_says(&site, "cat > /dev/null; sleep 4; echo '{}'");
    assert_eq!(admin.post("/policies/1/dry-run", &[("days", "7")]).await.status, 303);
    assert!(admin.get("/policies/1").await.body.contains("data-run=\"running\""));
    assert_eq!(admin.post("/policies/2/dry-run", &[("days", "7")]).await.status, 400);
    site.stop().await;
}

/// What `guard-control policy try` says of a version.
async fn tried(site: &Site, bearer: &str, version: &str) -> Output {
    let token = site.dir.path().join("token");
    std::fs::write(&token, bearer.trim_start_matches("Bearer ")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_guard-control"));
    command.args(["policy", "try", version, "--days", "7", "--console", &format!("http://{}", site.console)]);
    command.arg("--token-file").arg(&token);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_do_the_same() {
    let site = Site::start().await;
    published(&site).await;
    site.add("ann", "admin", &[]).await;
    let make = |book: &guard_control::people::Book| {
        book.make_token("t", Some(&book.named("ann")?), &"admin".parse().unwrap(), ("ann", 1))
    };
    let bearer = format!("Bearer {}", site.people.with(make).await.unwrap());
    let mut program = super::browser::Browser::new(site.console);
    let headers = [("authorization", bearer.as_str())];
    let one = program.send(Method::GET, "/api/v1/policies/2", &headers, "").await;
    let one: Value = serde_json::from_str(&one.body).unwrap();
    assert_eq!(
        (&one["signature_holds"], &one["files"]["topic/policy.cedar"]),
        (&json!(true), &json!(SECOND))
    );
    let stage = "/api/v1/policies/2/stage";
    for (body, status) in [
        ("{}", 400),
        ("{\"labels\": {\"a\": \"b\"}, \"all\": true}", 400),
        ("{\"everyone\": 1}", 400),
        ("{\"all\": true}", 200),
    ] {
        let answer = program.send(Method::POST, stage, &headers, body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    let back = program.send(Method::POST, "/api/v1/policies/1/rollback", &headers, "").await;
    assert_eq!(serde_json::from_str::<Value>(&back.body).unwrap(), json!({ "version": 3 }));
    assert_eq!(program.send(Method::POST, stage, &[], "{\"all\": true}").await.status, 401);
    let dry = "/api/v1/policies/2/dry-run";
    assert_eq!(program.send(Method::GET, dry, &headers, "").await.status, 404);
    for (body, status) in [("{\"days\": 0}", 400), ("{\"weeks\": 1}", 400), ("7", 400)] {
        assert_eq!(program.send(Method::POST, dry, &headers, body).await.status, status, "{body}");
    }
    assert_eq!(program.send(Method::POST, dry, &[], "").await.status, 401);
    assert_eq!(program.send(Method::POST, "/api/v1/policies/9/dry-run", &headers, "").await.status, 404);
    let answers = async |program: &mut super::browser::Browser, method| {
        let answer = program.send(method, dry, &headers, "").await;
        (answer.status, serde_json::from_str::<Value>(&answer.body).unwrap())
    };
    agent_that_says(&site, FOURTEEN);
    let (status, run) = answers(&mut program, Method::POST).await;
    assert_eq!((status, &run["state"], &run["days"]), (200, &json!("done"), &json!(7)), "{run}");
    assert_eq!(run["result"]["newly_refused_statements"]["count"], 14);
    assert_eq!(answers(&mut program, Method::GET).await, (200, run));
    let done = tried(&site, &bearer, "2").await;
    let result: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(result["newly_refused_statements"]["count"], 14, "{done:?}");
    // One that takes its time is waited for; one that fails says why.
    agent_that_says(&site, &format!("sleep 3\n{FOURTEEN}"));
    assert_eq!(tried(&site, &bearer, "2").await.stdout, done.stdout);
    for (version, script, said) in [("2", BROKEN, "broken"), ("9", "exit 1", "version")] {
        agent_that_says(&site, script);
        let failed = tried(&site, &bearer, version).await;
        assert!(!failed.status.success() && failed.stdout.is_empty(), "{failed:?}");
        assert!(String::from_utf8_lossy(&failed.stderr).contains(said), "{failed:?}");
    }
    agent_that_says(&site, BROKEN);
    let (_, run) = answers(&mut program, Method::POST).await;
    assert!(run["state"] == "failed" && run["error"].as_str().unwrap().contains("broken"), "{run}");
    agent_that_says(&site, "cat > /dev/null; sleep 4; echo '{}'");
    let (status, run) = answers(&mut program, Method::POST).await;
    assert_eq!((status, &run["state"]), (202, &json!("running")));
    assert_eq!(program.send(Method::POST, dry, &headers, "").await.status, 400, "one at a time");
    let list = program.send(Method::GET, "/api/v1/policies", &headers, "").await;
    let list: Value = serde_json::from_str(&list.body).unwrap();
    assert_eq!(list["versions"].as_array().unwrap().len(), 3);
    assert_eq!(list["rollouts"][0]["version"], 3);
    site.stop().await;
}
