//! What waits is told elsewhere: once, signed, with a link that leads back to it alone.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use guard_common::api::agent::{ApprovalRequest, approval_request::State as RequestState};
use guard_control::http::config::File;
use serde_json::Value;

use super::{
    approvals::{request, tell, until_waiting},
    site::Site,
};

type Came = Arc<Mutex<Vec<(String, HeaderMap, String)>>>;

/// Takes messages; the first one it refuses as if it were busy.
async fn receiver() -> (String, Came) {
    let came: Came = Came::default();
    let take = |path: &'static str| {
        async move |State(came): State<Came>, headers: HeaderMap, body: Bytes| {
            let mut came = came.lock().unwrap();
            came.push((path.to_owned(), headers, String::from_utf8(body.to_vec()).unwrap()));
            if came.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/json", post(take("json")))
        .route("/chat", post(take("chat")))
        .with_state(came.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, came)
}

async fn until(came: &Came, wanted: impl Fn(&[(String, HeaderMap, String)]) -> bool) {
    for _ in 0..600 {
        if wanted(&came.lock().unwrap()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not come: {:?}", came.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_told_once_signed_and_with_a_link_back() {
    const SECRET: &str = "0123456789abcdef0123";
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let (address, came) = receiver().await;
    let settings = format!(
        "url = \"https://guard.example.org\"\n[[webhooks]]\nname = \"paging\"\nurl = \"{address}/json\"\nsecret_file = {secret:?}\n\
         [[webhooks]]\nname = \"chat\"\nkind = \"slack\"\nurl = \"{address}/chat\"\n"
    );
    let file: File = toml::from_str(&settings).unwrap();
    let site = Site::with(file, true).await;
    let (chain, stream) = site.agent_with(Vec::new()).await;
    let mut waits = request("k3m9x2pa", "bob");
    waits.text = "delete from a -- <!channel> ``` <https://evil|x>".to_owned();
    tell(&stream, waits.clone()).await;
    tell(&stream, waits.clone()).await;
    until_waiting(&site, 1).await;
    tell(&stream, ApprovalRequest { state: RequestState::Denied.into(), ..waits }).await;
    // Both kinds of message of both events; the first attempt of one was refused.
    until(&came, |came| came.len() == 5).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let came = came.lock().unwrap().clone();
    assert_eq!(came.len(), 5, "nobody is told twice: {came:?}");
    let json: Vec<_> = came
        .iter()
        .filter(|(path, headers, _)| path == "json" && headers["x-guard-event"] == "approval.waiting")
        .collect();
    let (_, headers, body) = json.last().unwrap();
    let signature = headers["x-guard-signature"].to_str().unwrap();
    let (time, tag) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    ring::hmac::verify(&key, format!("{time}.{body}").as_bytes(), &hex::decode(tag).unwrap()).unwrap();
    let message: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&message["event"], &message["request_id"]), (&"approval.waiting".into(), &"k3m9x2pa".into()));
    let link = message["url"].as_str().unwrap();
    let path = link.strip_prefix("https://guard.example.org").unwrap();
    assert!(path.starts_with(&format!("/approvals/{}/k3m9x2pa?sig=", chain.id)), "{link}");
    let chat = &came.iter().find(|(path, ..)| path == "chat").unwrap().2;
    assert!(
        chat.contains("&lt;!channel&gt;") && !chat.contains("<!channel>") && !chat.contains("<https://evil"),
        "{chat}"
    );

    // The link asks to sign in first, then shows its request; changed, it shows nothing.
    let mut browser = super::browser::Browser::new(site.console);
    assert!(browser.get(path).await.location().starts_with("/sign-in?to=%2Fapprovals%2F"));
    let mut browser = site.signed_in("viewer").await;
    assert_eq!(browser.get(path).await.status, 200);
    assert_eq!(browser.get(&path.replace("k3m9x2pa", "k3m9x2pb")).await.status, 400);
    site.stop().await;
}
