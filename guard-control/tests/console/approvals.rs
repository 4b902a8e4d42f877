//! People decide here; the agent has the last word.

use guard_common::{
    api::{
        agent::{ApprovalRequest, approval_request::State},
        control::{
            ApprovalAnswer, ApprovalUpdate, agent_message::Message as FromAgent,
            control_message::Message as ToAgent,
        },
    },
    audit::v1::{ApprovalNeeds, ApprovalRequirement, Workload},
};

use super::{agent::Stream, site::Site};

pub fn request(id: &str, user: &str) -> ApprovalRequest {
    let requirement = ApprovalRequirement {
        policy: "deletes-wait".to_owned(),
        groups: vec!["dba".to_owned()],
        approvers: 1,
    };
    ApprovalRequest {
        id: id.to_owned(),
        state: State::Waiting.into(),
        text: "delete from orders where note = '<i>'".to_owned(),
        needs: Some(ApprovalNeeds { requirements: vec![requirement], ..ApprovalNeeds::default() }),
        workload: Some(Workload {
            user: user.to_owned(),
            executable: "/usr/bin/psql".to_owned(),
            ..Workload::default()
        }),
        ..ApprovalRequest::default()
    }
}

pub async fn tell(stream: &Stream, request: ApprovalRequest) {
    stream.send(FromAgent::Approval(ApprovalUpdate { request: Some(request) })).await;
}

/// The agent's side of one verdict.
pub async fn answer(stream: &mut Stream, problem: &str) -> (String, Vec<String>, bool) {
    let Ok(ToAgent::ApprovalVerdict(verdict)) = stream.answer().await else { panic!("no verdict came") };
    let counted = problem.is_empty();
    let answer = ApprovalAnswer {
        verdict_id: verdict.verdict_id,
        counted,
        problem: problem.to_owned(),
        request: None,
    };
    stream.send(FromAgent::ApprovalAnswer(answer)).await;
    let person = verdict.person.unwrap();
    (person.user, person.groups, verdict.approve)
}

pub async fn until_waiting(site: &Site, number: usize) {
    for _ in 0..500 {
        if site.app.fleet.waiting.list(None).len() == number {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{number} requests do not come to wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approver_decides_by_name_and_groups_and_the_requester_does_not() {
    let site = Site::start().await;
    site.add("ann", "approver", &["dba", "oncall"]).await;
    site.add("bob", "approver", &["dba"]).await;
    let (chain, mut stream) = site.agent_with(Vec::new()).await;
    tell(&stream, request("k3m9x2pa", "bob")).await;
    until_waiting(&site, 1).await;
    let path = format!("/approvals/{}/k3m9x2pa", chain.id);

    let mut bob = site.browser_of("bob").await;
    let page = bob.get(&path).await.body;
    assert!(
        page.contains("somebody else decides") && !page.contains("name=\"word\""),
        "no form for the requester"
    );
    assert_eq!(bob.post(&path, &[("word", "approve")]).await.status, 400);

    let mut ann = site.browser_of("ann").await;
    let inbox = ann.get("/approvals").await.body;
    assert!(inbox.contains("&lt;i&gt;") && inbox.contains("one person of dba"), "{inbox}");
    assert_eq!(ann.post(&path, &[("word", "perhaps")]).await.status, 400);
    let said = [("word", "approve"), ("reason", "looked at it")];
    let (decided, told) = tokio::join!(ann.post(&path, &said), answer(&mut stream, ""));
    assert_eq!(decided.location(), "/approvals");
    assert_eq!(told, ("ann".to_owned(), vec!["dba".to_owned(), "oncall".to_owned()], true));

    let denied = [("word", "deny")];
    let (decided, told) = tokio::join!(ann.post(&path, &denied), answer(&mut stream, "it is over"));
    assert!(decided.body.contains("did not count") && decided.body.contains("it is over"));
    assert!(!told.2);

    tell(&stream, ApprovalRequest { state: State::Ran.into(), ..request("k3m9x2pa", "bob") }).await;
    until_waiting(&site, 0).await;
    assert!(ann.get(&path).await.body.contains("does not wait any more"));
    let actions = site.actions().await;
    let what: Vec<_> = actions
        .iter()
        .filter(|one| matches!(one.action.as_str(), "approve" | "deny"))
        .map(|one| (one.person.as_str(), one.action.as_str(), one.outcome))
        .collect();
    assert_eq!(what, [("ann", "deny", 2), ("ann", "deny", 1), ("ann", "approve", 1), ("bob", "approve", 2)]);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_decide_with_a_persons_token_and_never_with_a_machines() {
    let site = Site::start().await;
    site.add("ann", "approver", &["dba"]).await;
    let (chain, mut stream) = site.agent_with(Vec::new()).await;
    tell(&stream, request("k3m9x2pa", "bob")).await;
    until_waiting(&site, 1).await;
    let (token, machine) = site
        .people
        .with(|book| {
            let ann = book.named("ann")?;
            let own = book.make_token("cli", Some(&ann), &ann.roles, ("ann", 1))?;
            Ok((own, book.make_token("robot", None, &"viewer".parse().unwrap(), ("ann", 1))?))
        })
        .await
        .unwrap();
    let path = format!("/api/v1/approvals/{}/k3m9x2pa/decision", chain.id);
    let mut program = super::browser::Browser::new(site.console);
    let post = axum::http::Method::POST;
    let bearer = format!("Bearer {machine}");
    let refused =
        program.send(post.clone(), &path, &[("authorization", &bearer)], "{\"approve\": true}").await;
    assert_eq!(refused.status, 403, "{}", refused.body);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let nonsense = program.send(post.clone(), &path, &headers, "{\"approve\": \"yes\"}").await;
    assert_eq!(nonsense.status, 400);
    let (decided, told) =
        tokio::join!(program.send(post, &path, &headers, "{\"approve\": false}"), answer(&mut stream, ""));
    assert_eq!(decided.status, 200, "{}", decided.body);
    assert_eq!((told.0.as_str(), told.2), ("ann", false));
    let actions = site.actions().await;
    assert!(actions.iter().any(|one| one.action == "deny" && one.token == "cli" && one.by == "token"));
    site.stop().await;
}
