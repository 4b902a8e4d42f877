//! A collector of OpenTelemetry: a small one, that answers as it is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use prost::Message;

use super::{
    super::agent::{Chain, gap},
    Site, given_out, only, statements, store, until,
};

/// What the protocol's own definition says, as far as it is looked at, written down a second time.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(message, repeated, tag = "1")]
        pub resource_logs: Vec<ResourceLogs>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ResourceLogs {
        #[prost(message, optional, tag = "1")]
        pub resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub scope_logs: Vec<ScopeLogs>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub attributes: Vec<KeyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ScopeLogs {
        #[prost(message, repeated, tag = "2")]
        pub log_records: Vec<LogRecord>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct LogRecord {
        #[prost(fixed64, tag = "1")]
        pub time_unix_nano: u64,
        #[prost(int32, tag = "2")]
        pub severity_number: i32,
        #[prost(message, optional, tag = "5")]
        pub body: Option<AnyValue>,
        #[prost(message, repeated, tag = "6")]
        pub attributes: Vec<KeyValue>,
        #[prost(string, tag = "12")]
        pub event_name: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct KeyValue {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(message, optional, tag = "2")]
        pub value: Option<AnyValue>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct AnyValue {
        #[prost(string, optional, tag = "1")]
        pub text: Option<String>,
        #[prost(int64, optional, tag = "3")]
        pub number: Option<i64>,
    }
}

#[derive(Default)]
struct Collected {
    records: Vec<(BTreeMap<String, String>, proto::LogRecord)>,
    /// Answers to the next requests, the last first.
    answers: Vec<(StatusCode, Vec<u8>)>,
}

type Collector = Arc<Mutex<Collected>>;

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    let mut collected = collector.lock().unwrap();
    if let Some(answer) = collected.answers.pop() {
        return answer;
    }
    assert_eq!(headers["content-type"], "application/x-protobuf");
    if headers.get("authorization").is_none_or(|value| value != "Bearer s3cret") {
        return (StatusCode::UNAUTHORIZED, Vec::new());
    }
    for source in proto::Request::decode(body).unwrap().resource_logs {
        let named = source.resource.unwrap().attributes.into_iter();
        let named: BTreeMap<_, _> = named.map(|pair| (pair.key, pair.value.unwrap().text.unwrap())).collect();
        let records = source.scope_logs.into_iter().flat_map(|scope| scope.log_records);
        collected.records.extend(records.map(|record| (named.clone(), record)));
    }
    (StatusCode::OK, Vec::new())
}

fn attribute(record: &proto::LogRecord, name: &str) -> Option<String> {
    let value = record.attributes.iter().find(|pair| pair.key == name)?.value.clone()?;
    value.text.or(value.number.map(|number| number.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_each_record_with_its_agent() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // More than a collector takes is refused by axum.
    let router = Router::new().route("/v1/logs", post(take)).with_state(collector.clone());
    tokio::spawn(async move { axum::serve(listener, router.into_make_service()).await });
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("authorization");
    std::fs::write(&secret, "Bearer s3cret\n").unwrap();
    let settings = format!(
        "[[otlp]]\nname = \"otel\"\nurl = \"http://127.0.0.1:{port}\"\nauthorization_file = \"{}\"\n",
        secret.display()
    );
    let (mut one, mut other) = (Chain::new(), Chain::new());
    // Away for a moment: everything comes again.
    collector.lock().unwrap().answers =
        vec![(StatusCode::TOO_MANY_REQUESTS, Vec::new()), (StatusCode::BAD_GATEWAY, Vec::new())];
    let site = Site::start(dir.path(), &settings);
    store(&site.store, &one.id.clone(), &statements(&mut one, 1_200)).await;
    store(&site.store, &other.id.clone(), &[other.seal(gap())]).await;
    let state = given_out(&site.store).await;
    assert!(state.sent == 1_201 && state.failures == 2 && state.missed == 0, "{state:?}");
    {
        let collected = collector.lock().unwrap();
        let keys: std::collections::BTreeSet<_> =
            collected.records.iter().filter_map(|(_, record)| attribute(record, "log.record.uid")).collect();
        assert_eq!((collected.records.len(), keys.len()), (1_201, 1_201));
        let (source, refused) = &collected.records[9];
        assert_eq!((source["host.name"].as_str(), &source["service.instance.id"]), ("db1", &one.id));
        assert_eq!((refused.severity_number, refused.event_name.as_str()), (13, "guard.statement"));
        assert_eq!(attribute(refused, "guard.verdict").as_deref(), Some("refused"));
        assert_eq!(refused.body.as_ref().unwrap().text.as_deref(), Some("statement refused select 9"));
        assert!(refused.time_unix_nano > 1_700_000_000_000_000_000);
        let (source, gap) =
            collected.records.iter().find(|(_, record)| record.event_name == "guard.gap").unwrap();
        assert_eq!(
            (&source["service.instance.id"], attribute(gap, "guard.lost").as_deref()),
            (&other.id, Some("3"))
        );
    }

    // Refused for good: counted, and said in the control plane's own chain.
    let partial = vec![0x0a, 0x02, 0x08, 0x07];
    collector.lock().unwrap().answers = vec![(StatusCode::OK, partial)];
    store(&site.store, &other.id.clone(), &statements(&mut other, 10)).await;
    until("it is counted", async || only(&site.store).await.missed == 7).await;
    until("and said", async || {
        let collected = collector.lock().unwrap();
        collected
            .records
            .iter()
            .any(|(_, record)| attribute(record, "guard.event").as_deref() == Some("outlet-missed"))
    })
    .await;
    site.stop().await;
}
