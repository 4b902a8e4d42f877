//! The agent ends in mid-stream, in order and by a kill, and goes on where the control plane is.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use guard_agent::audit::verify;

use super::{ANY, Agent, Control, statement, stored};

const DIR: &str = "GUARD_TEST_JOURNAL";
const ADDRESS: &str = "GUARD_TEST_CONTROL";

/// Not a test of its own: the agent that the test below starts as a process and kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_killed_agent_loses_nothing_that_was_committed"]
async fn agent_process() {
    let (Some(dir), Ok(address)) = (std::env::var_os(DIR), std::env::var(ADDRESS)) else { return };
    let agent = Agent::start(&PathBuf::from(dir), address.parse().unwrap());
    for n in 0_u64.. {
        agent.record(20);
        agent.log.commit(statement("committed")).await.unwrap();
        println!("committed {} after {n}", agent.log.status().last_sequence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_loses_nothing_that_was_committed() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = Control::start(data.path(), ANY).await;
    let mut promised = 0;
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restarts::agent_process", "--ignored", "--nocapture"])
            .env(DIR, state.path())
            .env(ADDRESS, control.address.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let number = |line: String| line.strip_prefix("committed ")?.split(' ').next()?.parse::<u64>().ok();
        let mut numbers = lines.filter_map(number);
        promised = numbers.by_ref().take(60).last().expect("the agent commits");
        std::thread::sleep(Duration::from_millis(900 + 70 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        promised = numbers.last().unwrap_or(promised);
    }
    let agent = Agent::start(state.path(), control.address);
    let last = agent.log.status().last_sequence;
    assert!(last >= promised, "{promised} records were promised, {last} are there");
    agent.arrived(last).await;
    agent.stop().await;
    control.stop().await;
    assert_eq!(stored(data.path()), (1..=last).collect::<Vec<_>>());
    verify(state.path(), &[], Duration::ZERO).expect("the journal is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_restarts_goes_on_where_it_was() {
    let (state, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let control = Control::start(data.path(), ANY).await;
    for round in 1..=5 {
        let agent = Agent::start(state.path(), control.address);
        agent.record(1_000);
        agent.stop().await;
        let agents = guard_control::store::search::Search::open(data.path()).unwrap().agents().unwrap();
        assert_eq!(agents.len(), usize::from(!agents.is_empty()), "round {round}");
    }
    let agent = Agent::start(state.path(), control.address);
    agent.arrived(5_000).await;
    agent.stop().await;
    control.stop().await;
    assert_eq!(stored(data.path()), (1..=5_000).collect::<Vec<_>>());
}
