//! Statements that wait are told to the control plane, and its people's words count where the configuration lets them.

use guard_agent::{
    approval::{Answer, Approvals, Ask},
    config::ApprovalsConfig,
    uplink::Doors,
};
use guard_common::{
    api::{
        agent::{ApprovalRequest, approval_request::State},
        control::DecideApprovalRequest,
    },
    audit::v1::{ApprovalNeeds, ApprovalRequirement, Person},
};

use super::*;

fn ask() -> Ask {
    let requirement =
        ApprovalRequirement { policy: "bulk".to_owned(), groups: vec!["dba".to_owned()], approvers: 1 };
    let needs =
        ApprovalNeeds { requirements: vec![requirement], wait: "retry".to_owned(), within_seconds: 60 };
    let workload =
        guard_common::audit::v1::Workload { remote_address: "10.0.0.9".to_owned(), ..Default::default() };
    let request = ApprovalRequest {
        needs: Some(needs),
        db_user: "app".to_owned(),
        workload: Some(workload),
        binding: vec![7; 32],
        ..ApprovalRequest::default()
    };
    Ask { request, exacts: Vec::new(), cancel: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_at_the_control_plane_decide_where_the_agent_lets_them() {
    for lets in [false, true] {
        let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let plane = Control::start(data.path(), ANY).await;
        let journal = JournalConfig { sync: Sync::Os, sign_seconds: 0, ..JournalConfig::default() };
        let (log, journal) = AuditLog::open(&journal, dir.path()).unwrap();
        let config = ApprovalsConfig { from_control: lets, ..ApprovalsConfig::default() };
        let approvals = Approvals::in_memory(&config, log.clone());
        // One before it is connected, one after.
        let Answer::Retry(first) = approvals.ask(ask()).await.unwrap() else { panic!("it was not approved") };
        let endpoint = control(&format!("http://{}", plane.address));
        let uplink = uplink::start_with(
            &endpoint,
            identity(),
            log.clone(),
            Doors { approvals: Some(approvals.clone()), ..Doors::default() },
        )
        .unwrap();
        eventually(|| uplink.status().connected, || format!("{:?}", uplink.status())).await;
        let mut other = ask();
        other.request.binding = vec![8; 32];
        approvals.ask(other).await.unwrap();

        let console = plane.fleet.waiting.clone();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let listed = console.list(None);
            if listed.len() == 2 {
                assert!(listed.iter().all(|one| one.host == "db1"));
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{listed:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let decide = |user: &str, groups: &[&str]| DecideApprovalRequest {
            agent_id: log.agent_id().to_string(),
            request_id: first.id.clone(),
            approve: true,
            reason: "looked at it".to_owned(),
            person: Some(Person {
                user: user.to_owned(),
                groups: groups.iter().map(|group| (*group).to_owned()).collect(),
                ..Person::default()
            }),
        };
        let own = console.decide(decide("app", &["dba"])).await.unwrap();
        assert!(!own.counted, "whoever asks does not decide");
        let stranger = console.decide(decide("ann", &["sales"])).await.unwrap();
        assert!(!stranger.counted);
        let answer = console.decide(decide("ann", &["dba"])).await.unwrap();
        assert_eq!(answer.counted, lets, "{}", answer.problem);
        let state = approvals.show(&first.id).unwrap().0.state();
        assert_eq!(state, if lets { State::Approved } else { State::Waiting });
        journal.close().await.unwrap();
        uplink.close(Duration::from_secs(1)).await;
        plane.stop().await;
    }
}
