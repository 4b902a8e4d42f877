//! Visitors that are slow: others are served, and who never finishes a request is sent away.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{browser::Browser, site::Site};

#[tokio::test(flavor = "multi_thread")]
async fn who_never_finishes_a_request_holds_up_nobody_and_is_sent_away() {
    let site = Site::start().await;
    let mut slow = Vec::new();
    for begun in
        ["", "G", "GET / HTTP/1.1\r\nHost: x\r\nX-", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"].repeat(40)
    {
        let mut socket = TcpStream::connect(site.console).await.unwrap();
        socket.write_all(begun.as_bytes()).await.unwrap();
        slow.push((begun, socket));
    }
    let began = Instant::now();
    let mut browser = Browser::new(site.console);
    assert_eq!(browser.get("/sign-in").await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // Headers may take ten seconds.
    let mut gone = 0;
    for (begun, mut socket) in slow.into_iter().filter(|(begun, _)| begun.starts_with("GET")) {
        let mut answer = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "`{begun}` is still open");
        gone += 1;
    }
    assert_eq!(gone, 40);
    site.stop().await;
}
