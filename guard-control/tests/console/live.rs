//! What happens is seen while it happens.

use std::time::Duration;

use guard_common::audit::v1::{connection_opened::Access, decision::Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    agent::{connection, statement},
    browser::Browser,
    site::Site,
};

/// Reads a stream of events until `wanted` is in it.
struct Events {
    stream: TcpStream,
    read: String,
}

impl Events {
    async fn open(browser: &Browser, path: &str) -> Self {
        let mut stream = TcpStream::connect(browser.address).await.unwrap();
        let (name, value) = &browser.cookies[0];
        let request = format!("GET {path} HTTP/1.1\r\nHost: guard\r\nCookie: {name}={value}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self { stream, read: String::new() };
        events.until("text/event-stream").await;
        events
    }

    async fn until(&mut self, wanted: &str) -> &str {
        let reading = async {
            let mut part = [0; 4_096];
            while !self.read.contains(wanted) {
                let length = self.stream.read(&mut part).await.unwrap();
                assert!(length > 0, "the stream has ended: {}", self.read);
                self.read.push_str(&String::from_utf8_lossy(&part[..length]));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it comes in time");
        &self.read
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bypass_is_seen_live_and_filters_hold() {
    let site = Site::start().await;
    let browser = site.signed_in("viewer").await;
    let (mut chain, mut stream) = site.agent_with(Vec::new()).await;
    let mut all = Events::open(&browser, "/live/events").await;
    let mut round = Events::open(&browser, "/live/events?only=round").await;
    let records = vec![
        chain.seal(statement("select <b>1</b>", Verdict::Allowed)),
        chain.seal(connection("/usr/bin/psql-bypass", Access::NonProxied)),
    ];
    stream.store(records).await;
    let seen = all.until("psql-bypass").await;
    assert!(seen.contains("event: rows") && seen.contains("select &lt;b&gt;1"), "{seen}");
    let seen = round.until("psql-bypass").await;
    assert!(!seen.contains("select"), "{seen}");
    // Open streams do not hold the console's end up.
    tokio::time::timeout(Duration::from_secs(8), site.stop()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_follows_without_a_session() {
    let site = Site::start().await;
    let mut browser = Browser::new(site.console);
    assert_eq!(browser.get("/live/events").await.status, 303);
    site.stop().await;
}
