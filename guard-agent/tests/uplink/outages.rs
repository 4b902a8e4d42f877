//! The control plane is away, comes, goes and comes back.

use std::time::Duration;

use super::{ANY, Agent, Control, eventually, stored};

#[tokio::test(flavor = "multi_thread")]
async fn records_wait_for_the_control_plane_and_arrive_once() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A port that is free for now.
    let first = Control::start(data.path(), ANY).await;
    let address = first.address;
    first.stop().await;

    let agent = Agent::start(state.path(), address);
    agent.record(500);
    eventually(|| !agent.uplink.status().error.is_empty(), || "an error in the status".to_owned()).await;
    assert!(agent.uplink.status().error.contains("does not answer"), "{:?}", agent.uplink.status());
    assert!(!agent.uplink.status().connected);

    for round in 1..=3 {
        let control = Control::start(data.path(), &address.to_string()).await;
        agent.record(300);
        agent.arrived(500 + 300 * round).await;
        assert!(agent.uplink.status().connected && agent.uplink.status().error.is_empty());
        control.stop().await;
        eventually(|| !agent.uplink.status().connected, || "the outage is seen".to_owned()).await;
    }
    agent.record(10);
    tokio::time::timeout(Duration::from_secs(5), agent.stop())
        .await
        .expect("an outage does not hold up the end");
    assert_eq!(stored(data.path()), (1..=1400).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_records_arrive_before_an_orderly_end() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = Control::start(data.path(), ANY).await;
    let agent = Agent::start(state.path(), control.address);
    agent.record(1);
    agent.arrived(1).await;
    agent.record(20_000);
    agent.stop().await;
    control.stop().await;
    assert_eq!(stored(data.path()).len(), 20_001);
    assert_eq!(guard_agent::audit::acknowledged(state.path()), Some(20_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_the_largest_size_get_through() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = Control::start(data.path(), ANY).await;
    let agent = Agent::start(state.path(), control.address);
    for length in [10, 4 * 1024 * 1024 - 1024, 600 * 1024, 600 * 1024, 4 * 1024 * 1024 - 1024, 10] {
        agent.log.commit(super::statement(&"x".repeat(length))).await.unwrap();
    }
    agent.arrived(6).await;
    agent.stop().await;
    control.stop().await;
    assert_eq!(stored(data.path()).len(), 6);
}
