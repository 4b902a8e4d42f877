//! Every command that is used wrongly, or cannot do what it is asked: its exit code, and that it says what to do.

use std::process::Stdio;

use guard_common::audit::v1::decision::Verdict;
use guard_tests::{Postgres, skip};
use serde_json::Value;

use super::{
    agent::{Chain, Stream, statement},
    command_line::{run, stdout},
    killed::Process,
};

/// Exit code 2: what was typed makes no sense, and nothing was done.
#[test]
fn wrong_usage_is_told_before_anything_is_done() {
    let nobody = "0193f2d4-8c1e-4f55-9d0e-0123456789ab";
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["decisions", "--from", "soon"], "write a time as 2026-11-22"),
        (&["decisions", "--limit", "0"], "--limit"),
        (&["decisions", "--kind", "table"], "connection, statement"),
        (&["agents", "revoke", "db7"], "<AGENT>"),
        (&["agents", "trust-key", nobody, "beef"], "<KEY>"),
        (&["token", "create", "--ttl", "soon"], "write it as 90s"),
        (&["policy", "stage", "4"], "--label"),
        (&["policy", "stage", "4", "--all", "--label", "a=b"], "cannot be used with"),
        (&["policy", "stage", "four", "--all"], "<VERSION>"),
        (&["policy", "dry-run", "policies", "--days", "0"], "--days"),
        (&["audit", "prove"], "--agent"),
        (&["audit", "prove", "--agent", nobody], "--sequence"),
        (&["audit", "verify", "--key", "beef", "x"], "--key"),
        (&["audit", "verify", "--key", &"00".repeat(32)], "<FILE>"),
        (&["people", "add", "ann", "--roles", "root"], "is no role: use viewer, approver, auditor or admin"),
        (&["approvals", "approve"], "<ID>"),
        (&["serve", "--store", "mysql://root:s3cret@db/x"], "postgresql://user@host/database"),
        (&["serve", "--store-ca", "ca.pem"], "--store"),
        (&["serve", "--console", "here"], "127.0.0.1:7480"),
        (&["serve", "--listen", "7400"], "--listen"),
    ];
    for (args, says) in cases {
        let output = run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
        assert!(!error.contains("s3cret"), "a password is repeated: {error}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

/// Exit code 1: it could not be done; the message names the way on.
#[test]
fn what_cannot_be_done_names_the_way_on() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let empty = dir.path().to_str().unwrap();
    let (missing, file, token) = (at("missing"), at("file.json"), at("token"));
    std::fs::write(&file, "no json").unwrap();
    std::fs::write(&token, "guard_token").unwrap();
    let key = "00".repeat(32);
    let closed = "http://127.0.0.1:1";
    let nobody = "0193f2d4-8c1e-4f55-9d0e-0123456789ab";
    let cases: &[(&[&str], &str)] = &[
        (&["decisions", "--server", closed], "start it with `guard-control serve`"),
        (&["decisions", "--server", "http://[x"], "no URL such as"),
        (&["agents", "--server", closed], "--data"),
        (&["agents", "--data", empty], "there is no store"),
        (&["agents", "revoke", nobody, "--data", empty], "there is no store"),
        (&["token", "list", "--data", empty], "guard-control serve --data"),
        (&["policy", "versions", "--data", &missing], "guard-control serve --data"),
        (&["policy", "hosts", "--server", closed], "guard-control serve"),
        (&["policy", "publish", &missing, "--data", empty], "missing"),
        (&["policy", "dry-run", &missing, "--data", empty], "missing"),
        (&["policy", "rollback", "1", "--data", empty], "`guard-control serve` makes one"),
        (&["audit", "key", "--data", empty], "`guard-control serve` makes one"),
        (&["audit", "prove", "--since", &missing, "--data", empty], "cannot read"),
        (&["audit", "prove", "--since", &file, "--data", empty], "is no head of a tree"),
        (&["audit", "verify", "--key", &key, &missing], "do not hold"),
        (&["people", "list", "--data", &missing], "there is no store"),
        (&["people", "reset", "ann", "--data", empty], "nobody with the name `ann`"),
        (&["people", "add", "a b", "--data", empty], "a name has 1 to 64 bytes"),
        (&["approvals", "list"], "--token-file"),
        (&["approvals", "list", "--token-file", &missing], "cannot read the token"),
        (
            &["approvals", "list", "--token-file", &token, "--console", "https://127.0.0.1:1"],
            "name another with --console",
        ),
        (&["serve", "--listen", "0.0.0.0:0", "--data", empty], "--listen-tls"),
        (
            &["serve", "--listen", "127.0.0.1:0", "--store", "postgresql://a@db.example/x", "--data", empty],
            "--store-ca",
        ),
        (
            &[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--console",
                "0.0.0.0:0",
                "--console-plaintext",
                "--data",
                &at("plain"),
            ],
            "leave --console-plaintext out",
        ),
        (
            &["serve", "--listen", "127.0.0.1:0", "--console-settings", &missing, "--data", &at("settings")],
            "missing",
        ),
    ];
    for (args, says) in cases {
        let output = run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
    let said = run(&["audit", "verify", "--key", &key, &file]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("FAILED: it is no JSON"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_store_in_use_fails_in_words_or_gives_json() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let at = data.to_str().unwrap();
    let server = Process::start(&data);
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(server.address, &chain.id, 1).await.unwrap();
    stream.store(vec![chain.seal(statement("select 1", Verdict::Allowed))]).await;
    let nobody = "0193f2d4-8c1e-4f55-9d0e-0123456789ab";
    let policies = dir.path().join("policies/topic");
    std::fs::create_dir_all(&policies).unwrap();
    std::fs::write(policies.join("policy.cedar"), "@id(\"all\")\npermit (principal, action, resource);")
        .unwrap();
    let folder = dir.path().join("policies");
    let folder = folder.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["serve", "--listen", "127.0.0.1:0", "--console", "none"], "another guard-control uses"),
        (&["agents", "revoke", nobody], "no certificate that could be revoked"),
        (&["agents", "trust-key", nobody, &"00".repeat(32)], "guard-control agents"),
        (&["token", "delete", "0123456789ab"], "guard-control token list"),
        (&["token", "create", "--ttl", "0s"], "--ttl must be between"),
        (&["policy", "rollback", "7"], "guard-control policy versions"),
        (&["policy", "stage", "7", "--all"], "guard-control policy versions"),
        (&["policy", "publish", folder, "--guard-agent", "/nowhere/guard-agent"], "--untested"),
        (&["policy", "dry-run", folder, "--guard-agent", "/nowhere/guard-agent"], "--guard-agent"),
        (&["audit", "prove", "--agent", nobody, "--sequence", "1"], "there is no signed tree yet"),
    ];
    for (args, says) in cases {
        let output = run(&[*args, &["--data", at]].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(error.contains(says), "{args:?}: {error}");
    }
    let told = |args: &[&str]| stdout(&run(&[args, &["--data", at]].concat()));
    // What is empty says how it is filled; as JSON it is no line.
    assert!(told(&["policy", "versions"]).contains("guard-control policy publish"));
    assert!(told(&["token", "list"]).contains("guard-control token create"));
    assert!(
        told(&["policy", "versions", "--json"]).is_empty() && told(&["token", "list", "--json"]).is_empty()
    );
    assert!(told(&["decisions", "--from", "2100-01-01"]).contains("no decision matches"));
    told(&["policy", "publish", folder, "--untested", "--note", "first"]);
    told(&["people", "add", "ann", "--roles", "admin", "--groups", "dba"]);
    let last_admin = run(&["people", "change", "ann", "--roles", "viewer", "--data", at]);
    assert!(String::from_utf8_lossy(&last_admin.stderr).contains("make another one first"));
    for args in [
        &["decisions", "--json", "--from", "1h"][..],
        &["agents", "--json"],
        &["policy", "versions", "--json"],
        &["people", "list", "--json"],
    ] {
        let lines = told(args);
        assert_eq!(lines.lines().count(), 1, "{args:?}: {lines}");
        let value: Value = serde_json::from_str(lines.trim()).unwrap();
        assert!(value.is_object(), "{args:?}: {lines}");
        assert!(!lines.contains("argon2"), "{lines}");
    }
    let url = format!("http://{}", server.address);
    for args in [["policy", "hosts"], ["decisions", "--non-proxied"]] {
        stdout(&run(&[&args[..], &["--server", &url]].concat()));
    }
    drop(stream);
    server.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path());
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(server.address, &chain.id, 1).await.unwrap();
    stream.store(chain.next(4_000)).await;
    drop(stream);
    server.terminate();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_guard-control"))
        .args(["decisions", "--json", "--limit", "4000", "--data", dir.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The console, people and every command on PostgreSQL, as an operator starts them.
#[test]
fn the_console_and_people_work_on_postgresql() {
    if skip::without(&[skip::Need::Postgres]) {
        return;
    }
    let postgres = Postgres::start().unwrap();
    let url = format!("postgresql://postgres@{}/postgres", postgres.address());
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let place = ["--data", at, "--store", &url];
    let server = Process::with(dir.path(), &["--store", &url, "--console", "127.0.0.1:0"]);
    let told = |args: &[&str]| stdout(&run(&[args, &place].concat()));
    assert!(told(&["people", "add", "ann", "--roles", "approver"]).contains("for the first time"));
    let people = told(&["people", "list", "--json"]);
    assert!(people.contains("\"ann\"") && people.contains("\"admin\""), "{people}");
    assert!(told(&["policy", "versions"]).contains("no version"));
    assert!(told(&["token", "list"]).contains("no token"));
    assert!(!dir.path().join("people.sqlite").exists(), "people are in the store that replicas share");
    let gone = ["people", "list", "--store", "postgresql://a@127.0.0.1:1/x", "--data", at];
    let output = run(&gone);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("PostgreSQL"), "{output:?}");
    server.terminate();
}
