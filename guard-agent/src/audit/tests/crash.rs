//! A real writer process, killed in mid-stream.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use super::{assert_verifies, body, open, reasons};

const DIR: &str = "GUARD_TEST_JOURNAL";

/// Not a test of its own: what the other test starts as a process. It says which records were committed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by committed_records_survive_a_kill"]
async fn writer_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (log, _handle) = open(&PathBuf::from(dir));
    for n in 0_u64.. {
        log.record(body(&format!("noise {n}")));
        log.commit(body(&format!("committed {n}"))).await.unwrap();
        println!("committed {n}");
    }
}

#[test]
fn committed_records_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut promised = Vec::new();
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "audit::tests::crash::writer_process", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let committed = |line: &String| line.starts_with("committed ");
        promised.extend(lines.by_ref().filter(committed).take(50 * round));
        std::thread::sleep(Duration::from_millis(7 * round as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        promised.extend(lines.filter(committed));
        let (_log, handle) = open(dir.path());
        drop(handle);
        let kept: Vec<_> =
            reasons(dir.path()).into_iter().filter(|reason| reason.starts_with("committed ")).collect();
        // The last of a round may have been kept without anybody having been told.
        let mut kept = kept.into_iter();
        for promise in &promised {
            assert!(kept.any(|record| record == *promise), "round {round}: `{promise}` is lost");
        }
        assert_verifies(dir.path());
    }
    assert!(promised.len() >= 500);
}
