//! What takes a person to mend, and what must be told.

use std::fs;

use guard_agent::{
    config::{ControlConfig, JournalConfig, Sync},
    uplink::{self, UplinkError},
};
use guard_control::store::search::Search;

use super::{ANY, Agent, Control, control, eventually, identity, statement, stored};

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_put_back_is_told_and_nothing_is_sent() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = Control::start(data.path(), ANY).await;
    let (journal, backup) = (state.path().join("journal"), state.path().join("backup"));
    let agent = Agent::start(&journal, control.address);
    agent.record(10);
    agent.arrived(10).await;
    agent.stop().await;
    copy(&journal, &backup);
    let agent = Agent::start(&journal, control.address);
    agent.record(10);
    agent.arrived(20).await;
    agent.stop().await;
    fs::remove_dir_all(&journal).unwrap();
    copy(&backup, &journal);

    // Shorter than what is stored: it says so itself.
    let agent = Agent::start(&journal, control.address);
    eventually(|| !agent.uplink.status().error.is_empty(), || "an alarm".to_owned()).await;
    let error = agent.uplink.status().error;
    assert!(error.contains("has 20 records of this agent, the journal only 10"), "{error}");
    agent.stop().await;

    // Longer, but another chain: the control plane says so, and keeps what it has.
    let (log, handle) = guard_agent::audit::AuditLog::open(&JournalConfig::default(), &journal).unwrap();
    for _ in 0..30 {
        log.record(statement("forged"));
    }
    handle.close().await.unwrap();
    let agent = Agent::start(&journal, control.address);
    eventually(
        || agent.uplink.status().error.contains("rejected record 21"),
        || format!("{:?}", agent.uplink.status()),
    )
    .await;
    let alarm = Search::open(data.path()).unwrap().agents().unwrap().remove(0).alarm;
    assert!(alarm.contains("record 21 does not fit"), "{alarm}");
    agent.stop().await;

    // The way out that the error names.
    fs::rename(&journal, state.path().join("moved-away")).unwrap();
    let agent = Agent::start(&journal, control.address);
    agent.record(5);
    agent.arrived(5).await;
    agent.stop().await;
    control.stop().await;
    let agents = Search::open(data.path()).unwrap().agents().unwrap();
    let mut records: Vec<_> = agents.iter().map(|agent| agent.stored_sequence).collect();
    records.sort_unstable();
    assert_eq!(records, [5, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_full_journal_dropped_are_missing_by_number() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Control::start(data.path(), ANY).await;
    let address = first.address;
    let config = JournalConfig {
        max_mib: 4,
        segment_mib: 1,
        sync: Sync::Os,
        sign_seconds: 0,
        ..JournalConfig::default()
    };
    let agent = Agent::with(state.path(), address, config);
    agent.record(3);
    agent.arrived(3).await;
    first.stop().await;
    for n in 0..100 {
        agent.log.commit(statement(&format!("{n} {}", "x".repeat(100 * 1024)))).await.unwrap();
    }
    let oldest = agent.log.oldest();
    assert!(oldest > 4);
    let control = Control::start(data.path(), &address.to_string()).await;
    let last = agent.log.status().last_sequence;
    assert!(last > 103, "gap records are in the journal");
    agent.arrived(last).await;
    agent.stop().await;
    control.stop().await;
    let agent = Search::open(data.path()).unwrap().agents().unwrap().remove(0);
    assert_eq!((agent.missing, agent.alarm.as_str()), (oldest - 4, ""));
    assert!(agent.gaps > 1);
    assert!(stored(data.path()).iter().all(|sequence| *sequence <= 3 || *sequence >= oldest));
}

#[tokio::test]
async fn endpoints_that_cannot_be_used_are_refused_at_once() {
    let state = tempfile::tempdir().unwrap();
    let (log, _journal) =
        guard_agent::audit::AuditLog::open(&JournalConfig::default(), state.path()).unwrap();
    for remote in ["http://192.0.2.1:7400", "http://control.example:443"] {
        let error = uplink::start(&control(remote), identity(), log.clone()).expect_err("plaintext");
        assert!(
            matches!(error, UplinkError::Plaintext(_)) && error.to_string().contains("loopback"),
            "{error}"
        );
    }
    let off = uplink::start(&ControlConfig::default(), identity(), log.clone()).unwrap();
    assert_eq!(off.status().endpoint, "");
    assert_eq!(log.acknowledged(), None, "without a control plane nobody is waited for");
    off.close(std::time::Duration::from_secs(1)).await;
}
