//! The program as people and scripts use it.

use std::process::{Command, Output};

use guard_common::audit::v1::{connection_opened::Access, decision::Verdict};

use super::{
    agent::{Chain, Stream, connection, statement},
    killed::Process,
};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_guard-control")).args(args).env_remove("NO_COLOR").output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_and_agents_are_shown_by_a_server_and_from_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Process::start(&data);
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(server.address, &chain.id, 1).await.unwrap();
    let records = vec![
        chain.seal(statement("drop table a\x1b[2J\nb", Verdict::Refused)),
        chain.seal(connection("/usr/bin/psql", Access::NonProxied)),
    ];
    stream.store(records).await;
    let url = format!("http://{}", server.address);
    let data = data.to_str().unwrap();
    for place in [["--server", &url], ["--data", data]] {
        let json = stdout(&run(&[&["decisions", "--json"][..], &place].concat()));
        let lines: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["connection"]["access"], "NON_PROXIED");
        assert_eq!(lines[1]["statement"]["decision"]["verdict"], "REFUSED");
        let one = stdout(&run(&[&["decisions", "--json", "--verdict", "refused"][..], &place].concat()));
        assert_eq!(one.lines().count(), 1);
        let round = stdout(&run(&[&["decisions", "--non-proxied", "--limit", "5"][..], &place].concat()));
        assert!(round.contains("/usr/bin/psql") && round.contains("round the proxy"), "{round}");
        let table = stdout(&run(&[&["decisions"][..], &place].concat()));
        assert!(!table.contains('\x1b'), "neither colours nor what a client wrote: {table:?}");
        assert!(table.contains("\\u{1b}[2J\\nb"), "{table}");
        let agents = stdout(&run(&[&["agents", "--json"][..], &place].concat()));
        let agent: serde_json::Value = serde_json::from_str(agents.trim()).unwrap();
        assert_eq!(agent["stored_sequence"], "2");
        assert_eq!(agent.get("connected").is_some(), place[0] == "--server");
        assert!(stdout(&run(&[&["agents"][..], &place].concat())).contains(&chain.id));
    }
    drop(stream);
    server.terminate();
    assert_eq!(stdout(&run(&["decisions", "--json", "--data", data])).lines().count(), 2);
}

#[test]
fn failures_say_what_to_do_and_exit_with_their_code() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], i32, &str); 5] = [
        (&["decisions", "--server", "http://127.0.0.1:1"], 1, "guard-control serve"),
        (&["decisions", "--data", dir.path().to_str().unwrap()], 1, "there is no store"),
        (
            &["serve", "--listen", "0.0.0.0:0", "--data", dir.path().to_str().unwrap()],
            1,
            "--insecure-plaintext",
        ),
        (&["decisions", "--verdict", "maybe"], 2, "would_refuse"),
        (&["decisons"], 2, "decisions"),
    ];
    for (args, code, says) in cases {
        let output = run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
}

#[test]
fn the_manual_and_completions_are_made() {
    assert!(stdout(&run(&["man"])).contains(".TH guard-control"));
    assert!(stdout(&run(&["completions", "bash"])).contains("non-proxied"));
}
