//! Statements that wait for people: what the server sees of them, and what the client is told.

use std::time::Instant;

use guard_common::{
    api::agent::{ApprovalRequest, approval_request::State},
    audit::v1::{Person, approval::Event},
};

use super::*;
use crate::approval::{LOCAL, Voter};

const HOLDING: &str = r#"
    @id("all") permit (principal, action, resource);
    @id("bulk") @reason("it changes every row") @approval("dba")
    forbid (principal, action in [Guard::Action::"delete", Guard::Action::"write_object"], resource);
"#;

const DELETE: &str = "DELETE FROM t WHERE id = 7";

fn policies(text: &str) -> PolicySet {
    let files = [("a/policy.cedar".to_owned(), text.to_owned())].into();
    PolicySet::from_files(files, guard_policy::Origin::BuiltIn).unwrap()
}

async fn under(text: &str, mode: Mode) -> Session {
    Session::logging_in_under(mode, Ok(()), policies(text)).await.logged_in().await
}

async fn holding() -> Session {
    under(HOLDING, Mode::Enforce).await
}

/// A server that is not asked what statements would touch.
async fn unasked() -> Session {
    within_a_transaction(under(HOLDING, Mode::Enforce).await).await
}

async fn within_a_transaction(mut session: Session) -> Session {
    // Inside of a transaction nobody asks.
    session.send(&[query("BEGIN")]).await;
    assert_eq!(read_message(&mut session.server).await.unwrap().1, b"BEGIN\0");
    session.answer(&[message(b'C', b"BEGIN\0"), message(b'Z', b"T")]).await;
    assert_eq!(read_tags(&mut session.client, 2).await, "CZ");
    session
}

fn dba() -> Voter {
    let person = Person { uid: 1, user: "ann".to_owned(), via: LOCAL.to_owned(), ..Person::default() };
    Voter::known(person, ["dba".to_owned()])
}

fn field(body: &[u8], kind: u8) -> String {
    let found = body.split(|byte| *byte == 0).find(|part| part.first() == Some(&kind));
    found.map(|part| String::from_utf8_lossy(&part[1..]).into_owned()).unwrap_or_default()
}

impl Session {
    /// The notice that a statement waits, and its request.
    async fn notified(&mut self) -> ApprovalRequest {
        let (tag, body) = read_message(&mut self.client).await.unwrap();
        assert_eq!((char::from(tag), field(&body, b'C').as_str()), ('N', "ZG001"), "{}", field(&body, b'M'));
        let requests = self.approvals.list(false);
        let request = requests.last().expect("a request").clone();
        assert!(field(&body, b'M').contains(&request.id));
        assert!(
            field(&body, b'D').contains("one of dba") && field(&body, b'H').contains("approvals approve")
        );
        request
    }

    async fn vote(&self, request: &ApprovalRequest, approve: bool) {
        self.approvals.vote(&request.id, &dba(), approve, "so").await.unwrap();
    }

    /// The server has been sent nothing.
    async fn nothing_sent(&mut self) {
        let read = read_message(&mut self.server);
        let message = tokio::time::timeout(Duration::from_secs(1), read).await;
        assert!(message.is_err(), "the server was sent {message:?}");
    }

    fn state(&self, request: &ApprovalRequest) -> State {
        self.approvals.show(&request.id).unwrap().0.state()
    }

    /// The statement in whose place the server fails is refused with this SQLSTATE.
    async fn refused_query(&mut self) -> String {
        let word = self.replacement(b'Q').await;
        self.answer(&[syntax_error(&word), message(b'Z', b"T")]).await;
        let (tag, error) = read_message(&mut self.client).await.unwrap();
        assert_eq!(tag, b'E');
        assert_eq!(read_tags(&mut self.client, 1).await, "Z");
        code(&error)
    }
}

fn events(bodies: &[Body]) -> Vec<Event> {
    let event = |body: &Body| match body {
        Body::Approval(approval) => Some(approval.event()),
        _ => None,
    };
    bodies.iter().filter_map(event).collect()
}

#[test]
fn what_is_approved_is_sent_as_it_came_and_what_follows_waits() {
    local(async {
        let mut session = unasked().await;
        session.send(&[query(DELETE), query("SELECT 1")]).await;
        let request = session.notified().await;
        session.nothing_sent().await;
        session.vote(&request, true).await;
        assert_eq!(read_message(&mut session.server).await.unwrap().1, format!("{DELETE}\0").as_bytes());
        assert_eq!(read_message(&mut session.server).await.unwrap().1, b"SELECT 1\0");
        session.answer(&[message(b'C', b"DELETE 1\0"), ready(), message(b'C', b"SELECT 1\0"), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 4).await, "CZCZ");
        assert_eq!(session.state(&request), State::Ran);
        // The same once more is another statement.
        session.send(&[query(DELETE)]).await;
        assert_ne!(session.notified().await.id, request.id);
        let (_, bodies) = session.end().await;
        let kinds = [Event::Requested, Event::Approved, Event::Ran, Event::Requested, Event::Withdrawn];
        assert_eq!(events(&bodies), kinds);
        let ran = bodies.iter().find_map(|body| match body {
            Body::Statement(statement) if statement.text.contains("delete") => statement.decision.clone(),
            _ => None,
        });
        let decision = ran.unwrap();
        assert_eq!((decision.verdict(), decision.approval_request), (Verdict::Allowed, request.id));
    });
}

#[test]
fn what_is_denied_cancelled_or_late_is_refused_in_its_place() {
    local(async {
        let mut session = unasked().await;
        session.send(&[query(DELETE)]).await;
        let request = session.notified().await;
        session.vote(&request, false).await;
        assert_eq!(session.refused_query().await, "42501");

        // The session's key is not known here: BackendKeyData did not come. Cancelling goes by what names it.
        session.send(&[query(DELETE)]).await;
        let request = session.notified().await;
        session.approvals.look(Instant::now() + Duration::from_secs(901));
        assert_eq!(session.refused_query().await, "42501");
        assert_eq!(session.state(&request), State::Expired);

        session.send(&[query("SELECT 1")]).await;
        assert_eq!(read_message(&mut session.server).await.unwrap().1, b"SELECT 1\0");
        let (_, bodies) = session.end().await;
        let verdicts: Vec<Verdict> = statements(&bodies).into_iter().map(|(_, verdict)| verdict).collect();
        assert_eq!(verdicts[1..], [Verdict::Refused, Verdict::Refused, Verdict::Allowed]);
    });
}

#[test]
fn the_sessions_own_key_cancels_what_waits() {
    local(async {
        let mut session = Session::logging_in_under(Mode::Enforce, Ok(()), policies(HOLDING)).await;
        let key = b"\0\0\0\x2a\x01\x02\x03\x04";
        session.answer(&[message(b'R', &[0; 4]), message(b'K', key), message(b'Z', b"T")]).await;
        assert_eq!(read_tags(&mut session.client, 3).await, "RKZ");
        session.send(&[query(DELETE)]).await;
        let request = session.notified().await;
        assert!(session.approvals.cancel(&cancel_digest(key)));
        assert_eq!(session.refused_query().await, "57014");
        assert_eq!(session.state(&request), State::Withdrawn);
        assert!(!session.approvals.cancel(&cancel_digest(key)), "the server may be asked again");
    });
}

#[test]
fn a_client_that_leaves_takes_its_statement_along() {
    local(async {
        let mut session = unasked().await;
        session.send(&[query(DELETE)]).await;
        let request = session.notified().await;
        session.client.shutdown().await.unwrap();
        // The server is told that nothing more comes, and nothing else.
        assert_eq!(read_message(&mut session.server).await, None);
        assert_eq!(session.state(&request), State::Withdrawn);
        assert!(session.approvals.vote(&request.id, &dba(), true, "").await.is_err());
    });
}

#[test]
fn a_session_that_has_to_stop_refuses_what_waits() {
    local(async {
        let mut session = unasked().await;
        session.send(&[query(DELETE)]).await;
        let request = session.notified().await;
        session.stop.send(true).unwrap();
        session.replacement(b'Q').await;
        assert_eq!(session.state(&request), State::Withdrawn);
    });
}

fn bind(value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    message(b'B', &[b"\0s\0\0\0\0\x01", &length[..], value, b"\0\0"].concat())
}

fn execute() -> Vec<u8> {
    message(b'E', b"\0\0\0\0\0")
}

#[test]
fn in_the_extended_protocol_execute_waits_and_what_was_sent_before_is_answered() {
    local(async {
        let mut session = unasked().await;
        let parse = parse_message("s", "DELETE FROM t WHERE id = $1");
        session.send(&[parse, bind(b"secret-7"), execute(), sync()]).await;
        assert_eq!(read_tags(&mut session.server, 3).await, "PBH", "the server is asked to answer them");
        let request = session.notified().await;
        session.nothing_sent().await;
        session.answer(&[message(b'1', b""), message(b'2', b"")]).await;
        assert_eq!(read_tags(&mut session.client, 2).await, "12");
        assert_eq!((request.parameters, request.protocol.as_str()), (1, "extended"));
        assert!(!format!("{request:?}").contains("secret-7"));
        let exacts = session.approvals.show(&request.id).unwrap().1;
        assert_eq!(&*exacts[0].parameters()[0], "secret-7");
        session.vote(&request, true).await;
        assert_eq!(read_tags(&mut session.server, 2).await, "ES");
        session.answer(&[message(b'C', b"DELETE 1\0"), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 2).await, "CZ");

        // Run again, it waits again; denied, the rest of its pipeline is skipped.
        session.send(&[bind(b"8"), execute(), execute(), sync()]).await;
        let request = session.notified().await;
        session.vote(&request, false).await;
        assert_eq!(read_tags(&mut session.server, 2).await, "BH");
        let word = session.replacement(b'P').await;
        assert_eq!(read_tags(&mut session.server, 1).await, "S");
        session.answer(&[message(b'2', b""), syntax_error(&word), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 1).await, "2");
        assert_eq!(code(&read_message(&mut session.client).await.unwrap().1), "42501");
        assert_eq!(read_tags(&mut session.client, 1).await, "Z");
    });
}

#[test]
fn what_an_earlier_failure_would_skip_does_not_wait() {
    local(async {
        let mut session = unasked().await;
        let broken = [parse_message("", "SELECT broken"), bind_execute()].concat();
        session.send(&[broken, parse_message("s", DELETE), message(b'B', b"\0s\0\0\0\0\0\0\0")]).await;
        session.send(&[execute(), sync()]).await;
        let request = session.notified().await;
        assert_eq!(read_tags(&mut session.server, 6).await, "PBEPBH");
        session.answer(&[message(b'E', b"SERROR\0VERROR\0C42703\0Mno such column\0\0")]).await;
        assert_eq!(code(&read_message(&mut session.client).await.unwrap().1), "42703");
        assert_eq!(read_tags(&mut session.server, 1).await, "S");
        assert_eq!(session.state(&request), State::Withdrawn);
    });
}

#[test]
fn a_notice_does_not_come_into_the_middle_of_an_answer() {
    local(async {
        let mut session = unasked().await;
        session.send(&[query("SELECT 1")]).await;
        assert_eq!(read_message(&mut session.server).await.unwrap().0, b'Q');
        let row = message(b'D', &[7; 100]);
        session.answer(&[row[..50].to_vec()]).await;
        let mut half = [0; 50];
        session.client.read_exact(&mut half).await.unwrap();
        session.send(&[query(DELETE)]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        session.answer(&[row[50..].to_vec()]).await;
        let mut rest = [0; 55];
        session.client.read_exact(&mut rest).await.unwrap();
        assert_eq!([&half[..], &rest].concat(), row);
        session.notified().await;
    });
}

const RETRYING: &str = r#"
    @id("all") permit (principal, action, resource);
    @id("bulk") @reason("r") @approval("dba") @wait("retry")
    forbid (principal, action == Guard::Action::"delete", resource);
"#;

#[test]
fn what_is_to_be_sent_again_runs_once_with_the_same_parameters() {
    local(async {
        let mut session = under(RETRYING, Mode::Enforce).await;
        session.send(&[query(DELETE)]).await;
        assert_eq!(session.refused_query().await, "42501");
        let request = session.approvals.list(false).remove(0);
        session.vote(&request, true).await;
        session.send(&[query("DELETE FROM t WHERE id = 8")]).await;
        assert_eq!(session.refused_query().await, "42501");
        session.send(&[query(DELETE)]).await;
        assert_eq!(read_message(&mut session.server).await.unwrap().1, format!("{DELETE}\0").as_bytes());
        session.answer(&[message(b'C', b"DELETE 1\0"), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 2).await, "CZ");
        session.send(&[query(DELETE)]).await;
        assert_eq!(session.refused_query().await, "42501");

        // Parameters count as well.
        let parse = parse_message("s", "DELETE FROM t WHERE id = $1");
        session.send(&[parse, bind(b"7"), execute(), sync()]).await;
        assert_eq!(read_tags(&mut session.server, 2).await, "PB");
        let word = session.replacement(b'P').await;
        assert_eq!(read_tags(&mut session.server, 1).await, "S");
        session.answer(&[message(b'1', b""), message(b'2', b""), syntax_error(&word), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 4).await, "12EZ");
        let request = session.approvals.list(false).pop().unwrap();
        session.vote(&request, true).await;
        session.send(&[bind(b"8"), execute(), sync()]).await;
        assert_eq!(read_tags(&mut session.server, 1).await, "B");
        let word = session.replacement(b'P').await;
        session.answer(&[message(b'2', b""), syntax_error(&word), ready()]).await;
        assert_eq!(read_tags(&mut session.server, 1).await, "S");
        session.send(&[bind(b"7"), execute(), sync()]).await;
        assert_eq!(read_tags(&mut session.server, 3).await, "BES", "the parameters that were approved");
    });
}

#[test]
fn a_name_that_could_stand_for_two_texts_shows_both() {
    local(async {
        let mut session = unasked().await;
        session.send(&[parse_message("s", "DELETE FROM t WHERE id = 1"), sync()]).await;
        assert_eq!(read_tags(&mut session.server, 2).await, "PS");
        session.answer(&[message(b'1', b""), ready()]).await;
        // The server will refuse the second: the name is taken. What runs is the first.
        session.send(&[parse_message("s", "DELETE FROM other WHERE id = 2"), sync()]).await;
        session.send(&[message(b'B', b"\0s\0\0\0\0\0\0\0"), execute(), sync()]).await;
        let request = session.notified().await.text;
        assert!(!request.is_empty());
        assert_eq!(read_tags(&mut session.client, 2).await, "1Z");
        let shown = session.approvals.list(false).remove(0);
        assert!(shown.text.contains("from t") && shown.text.contains("from other"), "{}", shown.text);
    });
}

#[test]
fn policies_that_refuse_by_now_have_the_last_word() {
    local(async {
        let mut session = unasked().await;
        session.send(&[query(DELETE)]).await;
        let request = session.notified().await;
        let refusing = HOLDING.replace("@approval(\"dba\")", "");
        session.decider.replace(policies(&refusing));
        session.vote(&request, true).await;
        assert_eq!(session.refused_query().await, "42501");
        assert_eq!(session.state(&request), State::Refused);

        session.decider.replace(policies(HOLDING));
        session.send(&[query(DELETE)]).await;
        let request = session.notified().await;
        session.decider.replace(policies(&HOLDING.replace("\"dba\"", "\"security\"")));
        session.vote(&request, true).await;
        assert_eq!(session.refused_query().await, "42501", "the dba's word does not count any more");
    });
}

#[test]
fn in_monitor_mode_nothing_waits() {
    local(async {
        let mut session = under(HOLDING, Mode::Monitor).await;
        session.send(&[query(DELETE)]).await;
        assert_eq!(read_message(&mut session.server).await.unwrap().1, format!("{DELETE}\0").as_bytes());
        let (_, bodies) = session.end().await;
        assert_eq!(statements(&bodies)[0].1, Verdict::WouldHold);
        assert!(events(&bodies).is_empty());
    });
}

#[test]
fn a_function_call_waits_until_all_of_it_is_there() {
    local(async {
        let mut session = unasked().await;
        let call = message(b'F', &[&[0, 0, 3, 196][..], &[0, 0, 0, 0, 0, 0], &[0; 30]].concat());
        session.send(&[call[..20].to_vec()]).await;
        session.nothing_sent().await;
        assert!(session.approvals.list(true).is_empty(), "nobody is asked about half of it");
        session.send(&[call[20..].to_vec()]).await;
        let request = session.notified().await;
        session.vote(&request, true).await;
        assert_eq!(read_message(&mut session.server).await.unwrap().0, b'F');
    });
}

#[test]
fn glass_is_broken_with_a_reason_and_loudly() {
    let glass = r#"@id("glass") @reason("on call") @break_glass("*")
        permit (principal, action in Guard::Action::"write", resource);"#;
    local(async {
        let session = under(&format!("{HOLDING}{glass}"), Mode::Enforce).await;
        let mut session = within_a_transaction(session).await;
        session.send(&[query(DELETE)]).await;
        let request = session.notified().await;
        session.vote(&request, false).await;
        assert_eq!(session.refused_query().await, "42501");
        let reasoned = format!("/* reason: ticket 4711 */ {DELETE}");
        session.send(&[query(&reasoned)]).await;
        assert_eq!(read_message(&mut session.server).await.unwrap().1, format!("{reasoned}\0").as_bytes());
        let (tag, body) = read_message(&mut session.client).await.unwrap();
        assert_eq!((tag, field(&body, b'C').as_str()), (b'N', "ZG002"));
        let (_, bodies) = session.end().await;
        let broken = bodies.iter().find_map(|body| match body {
            Body::Approval(approval) if approval.event() == Event::BreakGlass => Some(approval.clone()),
            _ => None,
        });
        let broken = broken.unwrap();
        assert_eq!((broken.policy.as_str(), broken.justification.as_str()), ("glass", "ticket 4711"));
    });
}

#[test]
fn what_cannot_be_recorded_does_not_wait_and_does_not_run() {
    local(async {
        let failing = Err(AuditError::Closed);
        let mut session =
            Session::logging_in_under(Mode::Enforce, failing, policies(HOLDING)).await.logged_in().await;
        session.send(&[query(DELETE)]).await;
        assert_eq!(session.refused_query().await, "42501");
        assert!(session.approvals.list(false).is_empty());
    });
}

#[test]
fn the_server_is_asked_what_it_would_touch_and_the_client_hears_none_of_it() {
    local(async {
        let mut session = holding().await;
        session.send(&[query(DELETE)]).await;
        let request = session.notified().await;
        for begins in ["BEGIN READ ONLY", "EXPLAIN (FORMAT JSON) DELETE", "ROLLBACK"] {
            let (tag, body) = read_message(&mut session.server).await.unwrap();
            assert_eq!(tag, b'Q');
            assert!(body.starts_with(begins.as_bytes()), "{:?}", String::from_utf8_lossy(&body));
        }
        let plan = r#"[{"Plan":{"Node Type":"ModifyTable","Operation":"Delete","Relation Name":"t",
            "Plans":[{"Parent Relationship":"Outer","Plan Rows":3}]}}]"#;
        let length = u32::try_from(plan.len()).unwrap().to_be_bytes();
        let row = message(b'D', &[&[0, 1], &length[..], plan.as_bytes()].concat());
        session.answer(&[message(b'C', b"BEGIN\0"), message(b'C', b"SET\0"), message(b'Z', b"T")]).await;
        session.answer(&[message(b'T', b"\0\0"), row, message(b'C', b"EXPLAIN\0")]).await;
        // Approved before the answers are through: they are guard's all the same.
        session.vote(&request, true).await;
        assert_eq!(read_message(&mut session.server).await.unwrap().1, format!("{DELETE}\0").as_bytes());
        session.answer(&[message(b'Z', b"T"), message(b'N', b"SWARNING\0\0")]).await;
        session.answer(&[message(b'C', b"ROLLBACK\0"), ready(), message(b'C', b"DELETE 3\0"), ready()]).await;
        assert_eq!(read_tags(&mut session.client, 2).await, "CZ");
        let shown = session.approvals.show(&request.id).unwrap().0;
        assert_eq!((shown.state(), shown.estimate.as_str()), (State::Ran, "about 3 rows of t (delete)"));
    });
}

#[test]
fn what_cannot_be_asked_about_says_so() {
    local(async {
        let mut session = holding().await;
        session.send(&[query("DELETE FROM t; SELECT 1")]).await;
        let request = session.notified().await;
        session.nothing_sent().await;
        let shown = session.approvals.show(&request.id).unwrap().0;
        assert!(shown.estimate.is_empty() && shown.estimate_missing.contains("not one plain"));
    });
}

#[test]
fn a_portal_whose_run_was_refused_waits_again() {
    local(async {
        let mut session = unasked().await;
        let parse = message(b'P', format!("d\0{DELETE}\0\0\0").as_bytes());
        session.send(&[parse, message(b'B', b"p\0d\0\0\0\0\0\0\0"), sync()]).await;
        for _ in 0..3 {
            read_message(&mut session.server).await.unwrap();
        }
        session.answer(&[message(b'1', b""), message(b'2', b""), message(b'Z', b"T")]).await;
        assert_eq!(read_tags(&mut session.client, 3).await, "12Z");
        for turn in 0..2 {
            session.send(&[message(b'E', b"p\0\0\0\0\0"), sync()]).await;
            let request = session.notified().await;
            assert_eq!(read_message(&mut session.server).await.unwrap().0, b'H', "turn {turn}");
            session.vote(&request, false).await;
            let word = session.replacement(b'P').await;
            assert_eq!(read_message(&mut session.server).await.unwrap().0, b'S', "turn {turn}");
            session.answer(&[syntax_error(&word), message(b'Z', b"E")]).await;
            assert_eq!(read_tags(&mut session.client, 2).await, "EZ");
            // The portal is older than the savepoint: it is still there.
            session.send(&[query("ROLLBACK TO SAVEPOINT a")]).await;
            read_message(&mut session.server).await.unwrap();
            session.answer(&[message(b'C', b"ROLLBACK\0"), message(b'Z', b"T")]).await;
            assert_eq!(read_tags(&mut session.client, 2).await, "CZ");
        }
        let (_, bodies) = session.end().await;
        assert_eq!(events(&bodies).iter().filter(|event| **event == Event::Requested).count(), 2);
    });
}
