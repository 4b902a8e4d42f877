use clap::CommandFactory;
use guard_common::audit::{
    chain::Head,
    checkpoint::{PublicKey, checkpoint_message},
    export::{FORM, Header},
    v1::{AgentStopped, Checkpoint, KeyChange, Record, record::Body},
};
use prost::Message;
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};

use super::*;

const AGENT: &str = "0197-agent";

/// An export of seven records, the sixth of which signs those before it; and its key.
fn export() -> (Vec<String>, PublicKey) {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let key = PublicKey::from_bytes(pair.public_key().as_ref()).unwrap();
    let header = Header { guard_audit_export: FORM, agent_id: AGENT.to_owned(), public_key: None };
    let mut lines = vec![serde_json::to_string(&header).unwrap()];
    let mut head = Head::default();
    let mut add = |head: &mut Head, body: Body| {
        let sealed = head.seal(Record::now(body).encode_to_vec().into());
        lines.push(serde_json::to_string(&Line::of(&sealed)).unwrap());
    };
    let stopped = |reason: u32| Body::AgentStopped(AgentStopped { reason: format!("reason {reason}") });
    let announced =
        KeyChange { public_key: key.as_bytes().to_vec(), key_id: key.id(), ..KeyChange::default() };
    add(&mut head, Body::KeyChange(announced));
    (2..6).for_each(|number| add(&mut head, stopped(number)));
    let signature = pair.sign(&checkpoint_message(AGENT, &head, 7));
    let checkpoint = Checkpoint {
        sequence: head.sequence,
        hash: head.hash.to_vec(),
        agent_id: AGENT.to_owned(),
        key_id: key.id(),
        signed_at: 7,
        signature: signature.as_ref().to_vec(),
    };
    add(&mut head, Body::Checkpoint(checkpoint));
    add(&mut head, stopped(7));
    (lines, key)
}

fn verified(lines: &[String], keys: &[String]) -> Result<Verdict, VerifyError> {
    verify((lines.join("\n") + "\n").as_bytes(), keys)
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn an_export_holds_with_the_key_and_names_its_end() {
    let (lines, key) = export();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{key}\n")).unwrap();
    for key in [key.to_string(), file.path().display().to_string()] {
        let verdict = verified(&lines, &[key]).unwrap();
        assert_eq!((verdict.first, verdict.head.sequence), (1, 7));
        assert_eq!(verdict.signed.as_ref().map(|signed| signed.sequence), Some(5));
        assert!(told(&verdict, false).contains("the last 2 not yet"), "{}", told(&verdict, false));
        assert!(told(&verdict, true).contains("\"by_given_key\":true"));
    }
    assert!(told(&verified(&lines, &[]).unwrap(), false).contains("--key"));
    // Only the last records.
    let part = [&lines[..1], &lines[4..]].concat();
    assert_eq!(verified(&part, &[key.to_string()]).unwrap().first, 4);
}

#[test]
fn any_changed_letter_is_found() {
    let (lines, key) = export();
    let keys = [key.to_string()];
    for victim in 1..lines.len() {
        for at in 0..lines[victim].len() {
            let mut bytes = lines[victim].clone().into_bytes();
            // Another letter or digit, so that the line stays JSON where it can.
            bytes[at] = match bytes[at] {
                b'a'..=b'y' | b'A'..=b'Y' | b'0'..=b'8' => bytes[at] + 1,
                _ => continue,
            };
            let mut changed = lines.clone();
            changed[victim] = String::from_utf8(bytes).unwrap();
            assert!(
                verified(&changed, &keys).is_err(),
                "line {} letter {at}: {}",
                victim + 1,
                changed[victim]
            );
        }
    }
}

#[test]
fn records_that_are_missing_are_found() {
    let (lines, key) = export();
    let keys = [key.to_string()];
    for victim in 2..lines.len() - 1 {
        let mut dropped = lines.clone();
        dropped.remove(victim);
        let error = verified(&dropped, &keys).unwrap_err().to_string();
        assert_eq!(error, format!("line {}: expected record {victim}, found {}", victim + 1, victim + 1));
        let mut swapped = lines.clone();
        swapped.swap(victim, victim + 1);
        assert!(verified(&swapped, &keys).is_err());
    }
}

#[test]
fn another_agents_export_is_told_apart() {
    let (mut lines, key) = export();
    lines[0] = lines[0].replace(AGENT, "another");
    assert!(matches!(verified(&lines, &[key.to_string()]), Err(VerifyError::Agent { .. })));
}

#[test]
fn what_is_no_export_is_told() {
    assert!(matches!(verify(&b""[..], &[]), Err(VerifyError::Empty)));
    assert!(matches!(verify(&b"hello\n"[..], &[]), Err(VerifyError::Line { line: 1, .. })));
    assert!(matches!(verify(&b"{}"[..], &["nonsense".to_owned()]), Err(VerifyError::Key { .. })));
    assert!(matches!(verify(&b"\xff\xfe\n"[..], &[]), Err(VerifyError::Read(_))));
}
