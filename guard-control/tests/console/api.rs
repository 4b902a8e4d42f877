//! The API as its description has it.

use axum::http::Method;
use guard_common::audit::v1::{connection_opened::Access, decision::Verdict};
use guard_tests::{Postgres, skip};
use serde_json::Value;

use super::{
    agent::{connection, statement},
    browser::Browser,
    site::Site,
};

async fn token(site: &Site, roles: &'static str) -> String {
    site.people.with(move |book| book.make_token("t", None, &roles.parse().unwrap(), ("x", 1))).await.unwrap()
}

/// Holds `value` to the part of the schema that says which fields there are and what they are.
fn hold(described: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        return hold(described, described.pointer(name.trim_start_matches('#')).unwrap(), value, at);
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let fits = kinds.iter().any(|kind| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    });
    assert!(fits, "{at}: {value} is none of {kinds:?}");
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{at}: {name} is missing in {value}");
    }
    if let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, value) in fields {
            // Messages of the record may have more fields than are told here.
            if let Some(schema) = known.get(name) {
                hold(described, schema, value, &format!("{at}.{name}"));
            }
        }
    }
    for one in value.as_array().into_iter().flatten() {
        hold(described, &schema["items"], one, &format!("{at}[]"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_they_are_described() {
    hold_answers(Site::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_the_same_from_postgresql() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let postgres = Postgres::start().unwrap();
    hold_answers(Site::replica(&postgres).await).await;
}

async fn hold_answers(site: Site) {
    let (_chain, _stream) = site
        .agent_with(vec![
            statement("drop table a", Verdict::Refused),
            connection("/usr/bin/psql", Access::NonProxied),
        ])
        .await;
    guard_control::proof::gather(&site.app.fleet.store, &site.app.key).await.unwrap();
    let mut program = Browser::new(site.console);
    let described: Value = serde_json::from_str(&program.get("/api/v1/openapi.json").await.body).unwrap();
    let bearer = format!("Bearer {}", token(&site, "auditor").await);
    for (path, methods) in described["paths"].as_object().unwrap() {
        let Some(operation) = methods.get("get").filter(|_| !path.contains('{')) else { continue };
        let content = &operation["responses"]["200"]["content"];
        let answer =
            program.send(Method::GET, &format!("/api/v1{path}"), &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        if let Some(json) = content.get("application/json") {
            hold(&described, &json["schema"], &serde_json::from_str(&answer.body).unwrap(), path);
        }
        if operation["x-guard-role"] != "nobody" {
            let answer = program.get(&format!("/api/v1{path}")).await;
            assert_eq!(answer.status, 401, "{path} without a token");
            let error = &described["components"]["schemas"]["Error"];
            hold(&described, error, &serde_json::from_str(&answer.body).unwrap(), path);
        }
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_hold_for_tokens_as_they_do_for_people() {
    let site = Site::start().await;
    let bearer = format!("Bearer {}", token(&site, "viewer").await);
    let mut program = Browser::new(site.console);
    let headers = [("authorization", bearer.as_str())];
    for (path, status) in
        [("/me", 200), ("/decisions", 200), ("/export", 403), ("/actions", 403), ("/nowhere", 404)]
    {
        let answer = program.send(Method::GET, &format!("/api/v1{path}"), &headers, "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        serde_json::from_str::<Value>(&answer.body).unwrap();
    }
    for (path, headers) in [
        ("/api/v1/me", [("authorization", "Bearer guard_wrong")]),
        ("/api/v1/me", [("authorization", "Basic YTpi")]),
        ("/metrics", [("accept", "*/*")]),
    ] {
        assert_eq!(program.send(Method::GET, path, &headers, "").await.status, 401, "{path}");
    }
    let metrics = program.send(Method::GET, "/metrics", &headers, "").await;
    assert!(metrics.body.contains("guard_control_agents 0\n"), "{}", metrics.body);
    assert_eq!(program.get("/healthz").await.body, "ok\n");
    assert_eq!(program.get("/readyz").await.body, "ready\n");
    let bad = program.send(Method::GET, "/api/v1/decisions?limit=many", &headers, "").await;
    assert_eq!(bad.status, 400);
    site.stop().await;
}
