//! The program as people and scripts use it.

use std::process::{Command, Output};

use guard_common::audit::v1::{connection_opened::Access, decision::Verdict};

use super::{
    agent::{Chain, Stream, connection, statement},
    killed::Process,
};

pub fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guard-control"));
    // What stands in the environment of whoever runs the tests is no part of them.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GUARD_") || name == "NO_COLOR") {
        command.env_remove(name);
    }
    command.args(args).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
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

#[tokio::test(flavor = "multi_thread")]
async fn tokens_policies_and_proofs_are_made_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let at = data.to_str().unwrap();
    let failed = |args: &[&str], says: &str| {
        let output = run(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && error.contains(says), "{args:?}: {error}");
    };
    failed(&["token", "create", "--data", at], "--listen-tls");
    failed(&["audit", "head", "--data", at], "there is no store");
    let server = Process::with(&data, &["--listen-tls", "127.0.0.1:0", "--prove-seconds", "1"]);
    let line = stdout(&run(&["token", "create", "--json", "--name", "db7", "--ttl", "10m", "--data", at]));
    let token: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert!(token["token"].as_str().unwrap().starts_with("guard-join-"));
    assert_eq!(token["ca_fingerprint"].as_str().unwrap().len(), 64);
    let list = stdout(&run(&["token", "list", "--json", "--data", at]));
    assert!(list.contains("db7") && !list.contains(token["token"].as_str().unwrap()), "{list}");
    let listed: serde_json::Value = serde_json::from_str(list.trim()).unwrap();
    stdout(&run(&["token", "delete", listed["id"].as_str().unwrap(), "--data", at]));
    failed(&["token", "delete", "0123456789ab", "--data", at], "token list");
    failed(&["agents", "revoke", "0193f2d4-8c1e-4f55-9d0e-0123456789ab", "--data", at], "no certificate");

    let folder = dir.path().join("policies/topic");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |text: &str| std::fs::write(folder.join("policy.cedar"), text).unwrap();
    let policies = dir.path().join("policies");
    let policies = policies.to_str().unwrap();
    write("@id(\"all\")\npermit (principal, action, resource);");
    let publish = ["policy", "publish", policies, "--untested", "--note", "first", "--data", at];
    assert!(stdout(&run(&publish)).contains("version 1 is published"));
    failed(&publish, "nothing to publish");
    write("permit (");
    failed(&publish, "policy.cedar");
    failed(&["policy", "stage", "9", "--all", "--data", at], "no version 9");
    failed(&["policy", "stage", "1", "--label", "canary", "--data", at], "name=value");
    stdout(&run(&["policy", "stage", "1", "--label", "canary=yes", "--data", at]));
    assert!(stdout(&run(&["policy", "versions", "--data", at])).contains("first"));

    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(server.address, &chain.id, 1).await.unwrap();
    stream.store(chain.next(20)).await;
    let key = stdout(&run(&["audit", "key", "--data", at]));
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (head, proof, grown) = (file("head.json"), file("proof.json"), file("grown.json"));
    let prove = ["audit", "prove", "--agent", &chain.id, "--sequence", "7", "--output", &proof, "--data", at];
    let mut proved = false;
    for _ in 0..50 {
        proved = run(&prove).status.success();
        if proved {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(proved, "{}", String::from_utf8_lossy(&run(&prove).stderr));
    stdout(&run(&["audit", "head", "--output", &head, "--data", at]));
    stream.store(chain.next(20)).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    stdout(&run(&["audit", "prove", "--since", &head, "--output", &grown, "--data", at]));
    let verify = ["audit", "verify", "--key", key.trim(), &head, &proof, &grown];
    let said = stdout(&run(&verify));
    assert!(said.contains("record 7 of agent") && said.contains("nothing was changed"), "{said}");
    let text = std::fs::read_to_string(&proof).unwrap();
    std::fs::write(&proof, text.replace("\"sequence\": 7", "\"sequence\": 8")).unwrap();
    let forged = run(&verify);
    assert_eq!(forged.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&forged.stdout).contains("FAILED"));
    drop(stream);
    server.terminate();
}
