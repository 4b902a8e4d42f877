use std::time::Duration;

use guard_common::{
    api::agent::approval_request::State,
    audit::v1::{ApprovalNeeds, ApprovalRequirement, Workload, record::Body, workload::Evidence},
};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::audit::Entry;

const REQUESTER: u32 = 100;

fn requester() -> Workload {
    let mut workload =
        Workload { uid: REQUESTER, euid: REQUESTER, user: "svc".to_owned(), ..Workload::default() };
    workload.set_evidence(Evidence::Attested);
    workload
}

fn ask(wait: &str, approvers: u32) -> Ask {
    let requirement =
        ApprovalRequirement { policy: "bulk".to_owned(), groups: vec!["dba".to_owned()], approvers };
    let needs = ApprovalNeeds { requirements: vec![requirement], wait: wait.to_owned(), within_seconds: 60 };
    let request = ApprovalRequest {
        needs: Some(needs),
        workload: Some(requester()),
        db_user: "app".to_owned(),
        binding: vec![7; 32],
        ..ApprovalRequest::default()
    };
    Ask { request, exacts: Vec::new(), cancel: Some([9; 32]) }
}

fn voter(uid: u32, groups: &[&str]) -> Voter {
    let person = Person { uid, user: format!("u{uid}"), via: LOCAL.to_owned(), ..Person::default() };
    Voter::known(person, groups.iter().map(|group| (*group).to_owned()))
}

/// Records are durable at once, and kept.
fn audit() -> (AuditLog, Arc<Mutex<Vec<Event>>>) {
    let (audit, mut entries): (AuditLog, Receiver<Entry>) = AuditLog::to_queue(10_000);
    let events = Arc::<Mutex<Vec<Event>>>::default();
    let kept = Arc::clone(&events);
    tokio::spawn(async move {
        while let Some(entry) = entries.recv().await {
            if let Some(Body::Approval(approval)) = &entry.record.body {
                kept.lock().unwrap().push(approval.event());
            }
            entry.durable.map(|durable| durable.send(Ok(())));
        }
    });
    (audit, events)
}

fn approvals() -> (Approvals, Arc<Mutex<Vec<Event>>>) {
    let (audit, events) = audit();
    (Approvals::in_memory(&ApprovalsConfig::default(), audit), events)
}

async fn held(approvals: &Approvals, approvers: u32) -> Hold {
    match approvals.ask(ask("hold", approvers)).await.unwrap() {
        Answer::Wait(hold) => hold,
        other => panic!("{other:?}"),
    }
}

async fn word(hold: &mut Hold) -> Word {
    std::future::poll_fn(|cx| hold.poll_word(cx)).await
}

fn state(approvals: &Approvals, id: &str) -> State {
    approvals.show(id).unwrap().0.state()
}

#[tokio::test]
async fn an_approved_statement_is_claimed_once() {
    let (approvals, events) = approvals();
    let mut hold = held(&approvals, 1).await;
    let id = hold.id().to_owned();
    assert!(matches!(hold.claim().await, Err(ClaimError::Over(_))), "nobody has approved it");
    approvals.vote(&id, &voter(1, &["dba"]), true, "ok").await.unwrap();
    assert_eq!(word(&mut hold).await, Word::Settled);
    assert_eq!(hold.claim().await.unwrap().into_request(), id);
    assert!(hold.claim().await.is_err(), "once");
    drop(hold);
    assert_eq!(state(&approvals, &id), State::Ran);
    tokio::task::yield_now().await;
    assert_eq!(*events.lock().unwrap(), [Event::Requested, Event::Approved, Event::Ran]);
}

#[tokio::test]
async fn whose_word_does_not_count_is_told_why() {
    let (approvals, _) = approvals();
    let hold = held(&approvals, 2).await;
    let id = hold.id().to_owned();
    let vote = async |voter: Voter| approvals.vote(&id, &voter, true, "").await.map(|_| ());
    assert_eq!(vote(voter(REQUESTER, &["dba"])).await, Err(VoteError::Own));
    assert!(matches!(vote(voter(1, &["other"])).await, Err(VoteError::NotInGroup(_))));
    let mut robot = voter(1, &["dba"]);
    robot.ai_agent = "claude".to_owned();
    assert!(matches!(vote(robot).await, Err(VoteError::NotAPerson(_))));
    assert_eq!(vote(voter(1, &["dba"])).await, Ok(()));
    assert_eq!(vote(voter(1, &["dba"])).await, Err(VoteError::Twice));
    assert_eq!(state(&approvals, &id), State::Waiting, "it takes two");
    assert_eq!(vote(voter(2, &["dba"])).await, Ok(()));
    assert_eq!(vote(voter(3, &["dba"])).await, Err(VoteError::Approved(id.clone())));
    let _claim = hold.claim().await.unwrap();
    assert!(matches!(vote(voter(3, &["dba"])).await, Err(VoteError::Over { .. })));
    assert!(matches!(
        approvals.vote("nothere1", &voter(1, &["dba"]), true, "").await,
        Err(VoteError::Unknown(_))
    ));
}

#[tokio::test]
async fn what_is_denied_cancelled_late_or_left_never_runs() {
    let (approvals, _) = approvals();
    let dba = voter(1, &["dba"]);

    let mut hold = held(&approvals, 1).await;
    approvals.vote(hold.id(), &dba, false, "no").await.unwrap();
    assert_eq!(word(&mut hold).await, Word::Settled);
    let Err(ClaimError::Over(over)) = hold.claim().await else { panic!("it was denied") };
    assert_eq!((over.state(), over.note.as_str()), (State::Denied, "denied by u1: no"));
    drop(hold);

    let mut hold = held(&approvals, 1).await;
    assert!(!approvals.cancel(&[8; 32]), "another session's key");
    assert!(approvals.cancel(&[9; 32]));
    assert_eq!(word(&mut hold).await, Word::Cancelled);
    assert!(approvals.vote(hold.id(), &dba, true, "").await.is_err() && hold.claim().await.is_err());
    assert!(!approvals.cancel(&[9; 32]), "it does not wait any more");
    drop(hold);

    let mut hold = held(&approvals, 1).await;
    approvals.look(Instant::now() + Duration::from_secs(61));
    assert_eq!(word(&mut hold).await, Word::Settled);
    assert_eq!(state(&approvals, hold.id()), State::Expired);
    assert!(approvals.vote(hold.id(), &dba, true, "").await.is_err() && hold.claim().await.is_err());

    let hold = held(&approvals, 1).await;
    let id = hold.id().to_owned();
    drop(hold);
    assert_eq!(state(&approvals, &id), State::Withdrawn);
    assert!(matches!(approvals.vote(&id, &dba, true, "").await, Err(VoteError::Over { .. })));
}

#[tokio::test]
async fn an_approval_that_comes_before_the_cancel_does_not_outlive_it() {
    let (approvals, _) = approvals();
    let hold = held(&approvals, 1).await;
    approvals.vote(hold.id(), &voter(1, &["dba"]), true, "").await.unwrap();
    // Nothing has run yet: the client's word is the last one.
    assert!(approvals.cancel(&[9; 32]));
    assert!(hold.claim().await.is_err());
}

#[tokio::test]
async fn what_is_sent_again_runs_once_for_each_approval() {
    let (approvals, _) = approvals();
    let again = async || approvals.ask(ask("retry", 1)).await.unwrap();
    let Answer::Retry(first) = again().await else { panic!("it is not approved") };
    let Answer::Retry(second) = again().await else { panic!("it is not approved") };
    assert_eq!(first.id, second.id, "the same is asked once");
    approvals.vote(&first.id, &voter(1, &["dba"]), true, "").await.unwrap();
    let mut other = ask("retry", 1);
    other.request.binding = vec![8; 32];
    assert!(matches!(approvals.ask(other).await.unwrap(), Answer::Retry(_)), "other parameters");
    let mut stricter = ask("retry", 2);
    stricter.request.policy_hash = "other".to_owned();
    assert!(matches!(approvals.ask(stricter).await.unwrap(), Answer::Retry(_)), "policies ask for more now");
    assert!(matches!(again().await, Answer::Run(_)));
    let Answer::Retry(third) = again().await else { panic!("it has run") };
    assert_ne!(third.id, first.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_at_once_run_it_once() {
    for _ in 0..5 {
        let (approvals, _) = approvals();
        let Answer::Retry(first) = approvals.ask(ask("retry", 1)).await.unwrap() else {
            panic!("not approved")
        };
        let votes = (0..100).map(|uid| {
            let (approvals, id) = (approvals.clone(), first.id.clone());
            tokio::spawn(
                async move { approvals.vote(&id, &voter(1_000 + uid, &["dba"]), true, "").await.is_ok() },
            )
        });
        let runs = (0..100).map(|_| {
            let approvals = approvals.clone();
            tokio::spawn(async move { matches!(approvals.ask(ask("retry", 1)).await, Ok(Answer::Run(_))) })
        });
        let (mut voted, mut ran) = (0, 0);
        let (votes, runs): (Vec<_>, Vec<_>) = (votes.collect(), runs.collect());
        for vote in votes {
            voted += u32::from(vote.await.unwrap());
        }
        for run in runs {
            ran += u32::from(run.await.unwrap());
        }
        while let Ok(Answer::Run(_)) = approvals.ask(ask("retry", 1)).await {
            ran += 1;
        }
        // A session that came too late has asked anew, and that may have been approved as well.
        let approved = approvals.list(true).iter().filter(|request| request.state() == State::Ran).count();
        assert_eq!(ran as usize, approved);
        assert_eq!(state(&approvals, &first.id), State::Ran);
        assert_eq!(voted, 1, "one approval was needed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_an_approval_a_cancellation_and_the_end_of_its_time_one_wins() {
    let mut outcomes = std::collections::BTreeSet::new();
    for round in 0..200 {
        let (approvals, events) = approvals();
        let hold = held(&approvals, 1).await;
        let id = hold.id().to_owned();
        let one = {
            let (a, id) = (approvals.clone(), id.clone());
            tokio::spawn(async move { a.vote(&id, &voter(1, &["dba"]), true, "").await.is_ok() })
        };
        let two = {
            let a = approvals.clone();
            tokio::spawn(async move { a.cancel(&[9; 32]) })
        };
        let three = {
            let a = approvals.clone();
            tokio::spawn(async move {
                if round % 2 == 0 {
                    a.look(Instant::now() + Duration::from_secs(61))
                }
            })
        };
        let claimed = loop {
            match hold.claim().await {
                Ok(_) => break true,
                Err(ClaimError::Over(over)) if matches!(over.state(), State::Waiting | State::Approved) => {
                    tokio::task::yield_now().await;
                }
                Err(_) => break false,
            }
        };
        let (_, cancelled, ()) = (one.await.unwrap(), two.await.unwrap(), three.await.unwrap());
        let end = state(&approvals, &id);
        assert_eq!(claimed, end == State::Ran);
        assert!(!(claimed && cancelled), "what is cancelled does not run");
        drop(hold);
        assert_eq!(state(&approvals, &id), end, "what is over stays so");
        tokio::task::yield_now().await;
        let ends = [Event::Ran, Event::Expired, Event::Withdrawn, Event::Refused];
        let ended = events.lock().unwrap().iter().filter(|event| ends.contains(event)).count();
        assert!(ended <= 1, "{:?}", events.lock().unwrap());
        outcomes.insert(end.as_str_name());
    }
    assert!(outcomes.len() > 1, "nothing raced: {outcomes:?}");
}

#[tokio::test]
async fn the_number_that_waits_is_bounded() {
    let (audit, _) = audit();
    let config = ApprovalsConfig { max_waiting: 25, ..ApprovalsConfig::default() };
    let approvals = Approvals::in_memory(&config, audit);
    let mut holds = Vec::new();
    for _ in 0..20 {
        holds.push(held(&approvals, 1).await);
    }
    assert!(matches!(approvals.ask(ask("hold", 1)).await, Err(AskError::TooManyOfOne(20))));
    let other = |user: &str| {
        let mut ask = ask("hold", 1);
        user.clone_into(&mut ask.request.db_user);
        ask
    };
    for _ in 0..5 {
        let Answer::Wait(hold) = approvals.ask(other("b")).await.unwrap() else { panic!() };
        holds.push(hold);
    }
    assert!(matches!(approvals.ask(other("c")).await, Err(AskError::TooMany(25))));
    holds.clear();
    assert!(approvals.ask(other("c")).await.is_ok());
}

#[tokio::test]
async fn after_a_restart_what_was_held_is_over_and_what_is_to_be_sent_again_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let (audit, events) = audit();
        (Approvals::open(&ApprovalsConfig::default(), folder.path(), audit).unwrap(), events)
    };
    let (first, _) = open();
    let hold = held(&first, 1).await;
    let Answer::Retry(approved) = first.ask(ask("retry", 1)).await.unwrap() else { panic!() };
    first.vote(&approved.id, &voter(1, &["dba"]), true, "").await.unwrap();
    let held_id = hold.id().to_owned();
    // As after a crash: nobody withdraws it.
    std::mem::forget(hold);

    let (second, _) = open();
    assert_eq!(state(&second, &held_id), State::Withdrawn);
    assert!(second.vote(&held_id, &voter(1, &["dba"]), true, "").await.is_err());
    assert!(matches!(second.ask(ask("retry", 1)).await.unwrap(), Answer::Run(_)));

    // It has run: another crash does not let it run again.
    let (third, _) = open();
    assert_eq!(state(&third, &approved.id), State::Ran);
    assert!(matches!(third.ask(ask("retry", 1)).await.unwrap(), Answer::Retry(_)));
}

#[tokio::test]
async fn a_damaged_file_approves_nothing() {
    for damage in ["cut", "flip", "head"] {
        let folder = tempfile::tempdir().unwrap();
        let (one, _) = audit();
        let first = Approvals::open(&ApprovalsConfig::default(), folder.path(), one).unwrap();
        let Answer::Retry(approved) = first.ask(ask("retry", 1)).await.unwrap() else { panic!() };
        first.vote(&approved.id, &voter(1, &["dba"]), true, "").await.unwrap();
        let mut other = ask("retry", 1);
        other.request.binding = vec![8; 32];
        first.ask(other).await.unwrap();
        let path = folder.path().join("requests");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        match damage {
            "cut" => bytes.truncate(bytes.len() - 3),
            "flip" => bytes[middle] ^= 0xff,
            _ => bytes[0] ^= 0xff,
        }
        std::fs::write(&path, bytes).unwrap();
        let (two, _) = audit();
        let second = Approvals::open(&ApprovalsConfig::default(), folder.path(), two).unwrap();
        assert!(matches!(second.ask(ask("retry", 1)).await.unwrap(), Answer::Retry(_)), "{damage}");
        let aside = std::fs::read_dir(folder.path()).unwrap().count() > 1;
        assert_eq!(aside, damage != "cut", "{damage}: what is damaged is kept aside");
    }
}
