//! A stream of NATS JetStream.

use async_nats::jetstream::{self, consumer::AckPolicy};
use futures_util::StreamExt;
use guard_tests::{Authority, receivers::NatsServer, skip};
use serde_json::Value;

use super::{
    super::agent::{Chain, gap, statement},
    Site, given_out, only, statements, store, until,
};
use guard_common::audit::v1::decision::Verdict;

fn settings(server: &str, more: &str) -> String {
    format!("[[nats]]\nname = \"bus\"\nservers = [\"{server}\"]\n{more}\n")
}

/// Everything in the stream: subject, message id, body.
async fn all(context: &jetstream::Context) -> Vec<(String, String, Value)> {
    let mut stream = context.get_stream("GUARD").await.unwrap();
    let count = usize::try_from(stream.info().await.unwrap().state.messages).unwrap();
    let config = jetstream::consumer::pull::Config { ack_policy: AckPolicy::None, ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count);
    let read = messages.map(|message| {
        let message = message.unwrap();
        let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id")).unwrap().to_string();
        (message.subject.to_string(), id, serde_json::from_slice(&message.payload).unwrap())
    });
    read.collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_stands_in_the_stream_once() {
    if skip::without(&[skip::Need::Nats]) {
        return;
    }
    let mut server = NatsServer::start(None).unwrap();
    let url = format!("nats://{}", server.address());
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new();
    let mut records = statements(&mut chain, 1_500);
    records.push(chain.seal(gap()));
    // Larger than what a server takes: it is cut, and says so.
    records.push(chain.seal(statement(&"x".repeat(3 << 20), Verdict::Refused)));
    let site = Site::start(dir.path(), &settings(&url, ""));
    store(&site.store, &chain.id, &records[..900]).await;
    given_out(&site.store).await;
    server.crash().unwrap();
    store(&site.store, &chain.id, &records[900..]).await;
    until("the failure shows", async || only(&site.store).await.failures > 0).await;
    assert_eq!(only(&site.store).await.waiting, 602);
    server.restart().unwrap();
    let state = given_out(&site.store).await;
    assert_eq!(state.error, "", "{state:?}");
    site.stop().await;

    let context = jetstream::new(async_nats::connect(&url).await.unwrap());
    let found = all(&context).await;
    assert_eq!(found.len(), 1_502);
    for (at, (subject, id, body)) in found.iter().enumerate() {
        assert_eq!((id, &body["sequence"]), (&format!("{}:{}", chain.id, at + 1), &(at + 1).into()));
        let kind = if at == 1_500 { "gap" } else { "statement" };
        assert_eq!(subject, &format!("guard.audit.{kind}.{}", chain.id));
    }
    assert_eq!(found[9].2["verdict"], "refused");
    assert_eq!(found[9].2["record"]["statement"]["db_user"], "app");
    let large = &found[1_501].2;
    assert!(
        large["cut"] == true
            && large["record"].is_null()
            && large["statement"].as_str().unwrap().len() > 100_000
    );

    // A copy of the place that lags behind, as after a restore: the stream leaves out what it has.
    let site = Site::start(dir.path(), &settings(&url, ""));
    let again = "UPDATE outlet_cursors SET sequence = 700";
    site.store.run(vec![guard_control::store::sql::Sql::new(again, [])]).await.unwrap();
    until("they have left again", async || only(&site.store).await.sent >= 1_502 + 802).await;
    assert_eq!(all(&context).await.len(), 1_502);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_a_token_or_not_at_all() {
    if skip::without(&[skip::Need::Nats]) {
        return;
    }
    let authority = Authority::new().unwrap();
    let server = NatsServer::start(Some((&authority, "s3cret"))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "wrong\n").unwrap();
    let more =
        format!("ca = \"{}\"\ntoken_file = \"{}\"", authority.certificate().display(), token.display());
    let url = format!("tls://localhost:{}", server.address().port());
    let mut chain = Chain::new();
    let site = Site::start(dir.path(), &settings(&url, &more));
    store(&site.store, &chain.id.clone(), &statements(&mut chain, 20)).await;
    until("the failure shows", async || only(&site.store).await.failures > 0).await;
    let state = only(&site.store).await;
    assert!(state.sent == 0 && !state.error.contains("wrong"), "{state:?}");
    std::fs::write(&token, "s3cret\n").unwrap();
    assert_eq!(given_out(&site.store).await.sent, 20);
    site.stop().await;
}
