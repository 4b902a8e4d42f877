//! A SIEM behind syslog: rsyslog, and receivers that break.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use guard_common::audit::v1::decision::Verdict;
use guard_tests::{Authority, receivers::Rsyslog, skip};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpListener,
};

use super::{
    super::{
        agent::{Chain, Stream, gap, statement},
        killed::Process,
    },
    Site, given_out, only, statements, store, until,
};

fn settings(address: impl std::fmt::Display, more: &str) -> String {
    format!("[[syslog]]\nname = \"siem\"\naddress = \"{address}\"\n{more}\n")
}

fn messages(rsyslog: &Rsyslog) -> Vec<Value> {
    rsyslog
        .messages()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_takes_everything_over_tls_and_understands_it() {
    if skip::without(&[skip::Need::Rsyslog]) {
        return;
    }
    let authority = Authority::new().unwrap();
    let rsyslog = Rsyslog::start(&authority).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tls = format!("ca = \"{}\"", authority.certificate().display());
    let address = format!("localhost:{}", rsyslog.address().port());
    let mut chain = Chain::new();
    let evil = "drop table \"a\" where b=']|\\'\n<13>1 - forged - - - - x\r\u{1b}[2J\u{202e}";
    let mut records = statements(&mut chain, 998);
    records.push(chain.seal(statement(evil, Verdict::Refused)));
    records.push(chain.seal(gap()));
    let site = Site::start(dir.path(), &settings(&address, &tls));
    store(&site.store, &chain.id, &records).await;
    given_out(&site.store).await;
    until("rsyslog has written it", async || rsyslog.messages().len() == 1_000).await;
    let written = messages(&rsyslog);
    let refused =
        written.iter().find(|message| message["msg"].as_str().unwrap().contains("drop table")).unwrap();
    assert_eq!(refused["pri"], "108");
    assert_eq!(refused["hostname"], "db1");
    assert_eq!((&refused["app-name"], &refused["msgid"]), (&"guard".into(), &"statement".into()));
    let data = refused["structured-data"].as_str().unwrap();
    assert!(
        data.starts_with("[guard@32473 agent=\"") && data.contains(" sequence=\"999\" verdict=\"refused\""),
        "{data}"
    );
    let text = refused["msg"].as_str().unwrap();
    assert!(text.contains("cs1=drop table \"a\" where b\\=']|\\\\'\\n<13>1 - forged"), "{text}");
    assert!(text.contains("\\\\u{1b}[2J\\\\u{202e}"), "{text}");
    assert!(written.iter().all(|message| message["app-name"] == "guard"), "nothing was forged");
    site.stop().await;

    // JSON, and only what a person should look at, by another outlet.
    let other = format!("{tls}\nformat = \"json\"\nsend = \"notable\"\nmax_bytes = 2048");
    let site = Site::start(dir.path(), &settings(&address, &other).replace("siem", "notable"));
    until("the notable ones have left", async || rsyslog.messages().len() == 1_000 + 101).await;
    until("and that is noted", async || {
        let states = guard_control::outlets::state::states(&site.store).await.unwrap();
        let notable = states.iter().find(|one| one.name == "notable");
        // 99 of the first, a refusal and a gap.
        notable.is_some_and(|one| (one.sent, one.passed_over, one.waiting) == (101, 899, 0))
    })
    .await;
    let last = messages(&rsyslog).pop().unwrap();
    let body: Value = serde_json::from_str(last["msg"].as_str().unwrap().trim()).unwrap();
    assert_eq!((&body["kind"], &body["lost"]), (&"gap".into(), &3.into()));
    assert_eq!(body["key"], format!("{}:1000", chain.id));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_certificate_of_ours_gets_nothing() {
    if skip::without(&[skip::Need::Rsyslog]) {
        return;
    }
    let rsyslog = Rsyslog::start(&Authority::new().unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tls = format!("ca = \"{}\"", Authority::new().unwrap().certificate().display());
    // The authority's folder has gone: that is noticed at the start.
    let (kept, handle) = guard_control::store::Store::open(dir.path()).unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let file = super::file(&settings(rsyslog.address(), &tls));
    assert!(guard_control::outlets::start(&file, &kept, false, &stopped).is_err());
    drop(kept);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();

    let stranger = Authority::new().unwrap();
    let site = Site::start(
        dir.path(),
        &settings(rsyslog.address(), &format!("ca = \"{}\"", stranger.certificate().display())),
    );
    let mut chain = Chain::new();
    store(&site.store, &chain.id.clone(), &statements(&mut chain, 5)).await;
    until("it is said", async || only(&site.store).await.error.contains("certificate")).await;
    let state = only(&site.store).await;
    assert_eq!((state.sent, state.waiting), (0, 5), "{state:?}");
    assert!(state.failures > 0 && rsyslog.messages().is_empty());
    site.stop().await;
}

/// A receiver of frames that goes away after so many, again and again.
async fn fickle(frames_each: usize) -> (u16, Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (kept, visits) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (into, count) = (kept.clone(), visits.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let visit = count.fetch_add(1, Ordering::SeqCst);
            let mut reader = BufReader::new(stream);
            // The third one stays.
            let most = if visit < 3 { frames_each } else { usize::MAX };
            let mut taken = 0;
            while taken < most {
                let mut length = Vec::new();
                if reader.read_until(b' ', &mut length).await.unwrap_or(0) == 0 {
                    break;
                }
                let length: usize = String::from_utf8(length).unwrap().trim().parse().unwrap();
                let mut frame = vec![0; length];
                if reader.read_exact(&mut frame).await.is_err() {
                    break;
                }
                into.lock().unwrap().push(String::from_utf8(frame).unwrap());
                taken += 1;
            }
        }
    });
    (port, kept, visits)
}

/// The sequences in messages, each once.
fn sequences(messages: &[String]) -> BTreeSet<u64> {
    let of = |message: &String| message.split("sequence=\"").nth(1)?.split('"').next()?.parse().ok();
    messages.iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_drops_comes_again() {
    let (port, kept, visits) = fickle(137).await;
    let dir = tempfile::tempdir().unwrap();
    let plain = settings(format!("127.0.0.1:{port}"), "tls = false");
    let mut chain = Chain::new();
    let records = statements(&mut chain, 3_000);
    let site = Site::start(dir.path(), &plain);
    store(&site.store, &chain.id, &records[..1_500]).await;
    until("something has arrived", async || !kept.lock().unwrap().is_empty()).await;
    // In the middle of it.
    site.crash().await;
    let site = Site::start(dir.path(), &plain);
    store(&site.store, &chain.id, &records[1_500..]).await;
    given_out(&site.store).await;
    let all: BTreeSet<u64> = (1..=3_000).collect();
    until("everything has arrived", async || sequences(&kept.lock().unwrap()) == all).await;
    assert!(visits.load(Ordering::SeqCst) > 3);
    site.stop().await;

    // Nothing that has arrived comes again after an orderly restart.
    let before = kept.lock().unwrap().len();
    let site = Site::start(dir.path(), &plain);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(kept.lock().unwrap().len(), before);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_away_holds_nothing_up() {
    let gone = guard_tests::ports::free().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path(), &settings(gone, "tls = false"));
    let mut chain = Chain::new();
    for _ in 0..20 {
        let records = statements(&mut chain, 100);
        store(&site.store, &chain.id, &records).await;
    }
    until("the failures show", async || only(&site.store).await.failures > 1).await;
    let state = only(&site.store).await;
    assert!(state.waiting == 2_000 && state.sent == 0 && state.error.contains("refused"), "{state:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_goes_on_where_it_was() {
    let (port, kept, _) = fickle(usize::MAX).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("outlets.toml");
    std::fs::write(&file, settings(format!("127.0.0.1:{port}"), "tls = false")).unwrap();
    let more = ["--outlets", file.to_str().unwrap()];
    let data = dir.path().join("data");
    let mut chain = Chain::new();
    for round in 1..=3 {
        let server = Process::with(&data, &more);
        let (mut stream, _) = Stream::open(server.address, &chain.id, 1).await.unwrap();
        for _ in 0..4 {
            let records = chain.next(500);
            stream.store(records).await;
        }
        until("something has left", async || {
            sequences(&kept.lock().unwrap()).len() > (round - 1) * 2_000 + 100
        })
        .await;
        server.kill();
    }
    let server = Process::with(&data, &more);
    let all: BTreeSet<u64> = (1..=6_000).collect();
    until("everything has arrived", async || sequences(&kept.lock().unwrap()) == all).await;
    let told = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_guard-control"));
        let output = command.args(["outlets", "--json", "--data"]).arg(&data).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    until("it is told", async || told()["waiting"] == 0).await;
    assert_eq!(
        (&told()["name"], &told()["kind"], &told()["running"]),
        (&"siem".into(), &"syslog".into(), &true.into())
    );
    server.terminate();
    assert_eq!(told()["running"], false);
}
