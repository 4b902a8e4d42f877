use prost::{Message, bytes::Bytes};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};

use super::*;
use crate::audit::{
    chain::digest,
    checkpoint::{checkpoint_message, key_change_message, tombstone_message},
    v1::{AgentStopped, Gap},
};

const AGENT: &str = "0197-agent";

/// A chain under construction, with its key.
struct Chain {
    head: Head,
    records: Vec<SealedRecord>,
    key: Ed25519KeyPair,
}

fn key() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey::from_bytes(key.public_key().as_ref()).unwrap()
}

impl Chain {
    fn new() -> Self {
        let mut chain = Self { head: Head::default(), records: Vec::new(), key: key() };
        chain.change(None, "first");
        chain
    }

    fn add(&mut self, body: Body) {
        let record = Record { body: Some(body), ..Record::default() };
        self.records.push(self.head.seal(Bytes::from(record.encode_to_vec())));
    }

    fn things(&mut self, count: usize) {
        for number in 0..count {
            self.add(Body::AgentStopped(AgentStopped { reason: format!("reason {number}") }));
        }
    }

    fn change(&mut self, previous: Option<&Ed25519KeyPair>, reason: &str) {
        let new = public(&self.key);
        let message = key_change_message(AGENT, new.as_bytes());
        self.add(Body::KeyChange(KeyChange {
            public_key: new.as_bytes().to_vec(),
            key_id: new.id(),
            previous_key_id: previous.map(|key| public(key).id()).unwrap_or_default(),
            signature: previous.map(|key| key.sign(&message).as_ref().to_vec()).unwrap_or_default(),
            reason: reason.to_owned(),
        }));
    }

    fn rotate(&mut self) {
        let old = std::mem::replace(&mut self.key, key());
        self.change(Some(&old), "age");
    }

    fn sign(&mut self) {
        let message = checkpoint_message(AGENT, &self.head, 1_000);
        self.add(Body::Checkpoint(Checkpoint {
            sequence: self.head.sequence,
            hash: self.head.hash.to_vec(),
            agent_id: AGENT.to_owned(),
            key_id: public(&self.key).id(),
            signed_at: 1_000,
            signature: self.key.sign(&message).as_ref().to_vec(),
        }));
    }
}

fn verify(records: &[SealedRecord], keys: &[PublicKey]) -> Result<Verdict, Fault> {
    let mut verifier = Verifier::new(keys.to_vec());
    records.iter().try_for_each(|record| verifier.accept(record).map(drop))?;
    verifier.verdict()
}

/// The same records with new hashes: what somebody can make who has the journal and no key.
fn rehashed(
    records: &[SealedRecord],
    mut change: impl FnMut(u64, Record) -> Option<Record>,
) -> Vec<SealedRecord> {
    let mut head = Head::default();
    let mut made = Vec::new();
    for sealed in records {
        let record = Record::decode(sealed.payload.clone()).unwrap();
        if let Some(record) = change(sealed.sequence, record) {
            made.push(head.seal(Bytes::from(record.encode_to_vec())));
        }
    }
    made
}

#[test]
fn a_signed_chain_holds_with_its_key_and_by_its_own_word() {
    let mut chain = Chain::new();
    chain.things(5);
    chain.sign();
    chain.things(2);
    for keys in [&[][..], &[public(&chain.key)]] {
        let verdict = verify(&chain.records, keys).unwrap();
        assert_eq!((verdict.first, verdict.head, verdict.checkpoints), (1, chain.head, 1));
        assert_eq!(verdict.signed.map(|signed| signed.sequence), Some(6));
        assert_eq!(verdict.agent_id.as_deref(), Some(AGENT));
        assert_eq!(verdict.by_given_key, !keys.is_empty());
    }
}

#[test]
fn a_chain_made_anew_without_the_key_is_found() {
    let mut chain = Chain::new();
    chain.things(5);
    chain.sign();
    chain.things(1);
    let key = public(&chain.key);
    for victim in 2..=6 {
        let forged = rehashed(&chain.records, |sequence, record| {
            if sequence == victim {
                return Some(Record { body: Some(Body::Gap(Gap::default())), ..record });
            }
            Some(record)
        });
        assert_eq!(verify(&forged, &[key]), Err(Fault::Signature(7)), "record {victim}");
        assert_eq!(verify(&forged, &[]), Err(Fault::Signature(7)), "record {victim}, by the chain's own key");
        let dropped = rehashed(&chain.records, |sequence, record| (sequence != victim).then_some(record));
        assert_eq!(verify(&dropped, &[key]), Err(Fault::Signature(6)), "record {victim} left out");
    }
}

#[test]
fn a_chain_signed_by_a_strangers_key_is_not_believed() {
    let mut forged = Chain::new();
    forged.things(3);
    forged.sign();
    let known = public(&key());
    assert_eq!(verify(&forged.records, &[known]), Err(Fault::Unsigned));
    assert!(!verify(&forged.records, &[]).unwrap().by_given_key);
}

#[test]
fn keys_hand_over() {
    let mut chain = Chain::new();
    let first = public(&chain.key);
    chain.things(2);
    chain.sign();
    chain.rotate();
    chain.things(2);
    chain.sign();
    let second = public(&chain.key);
    for keys in [&[][..], &[first], &[second], &[first, second]] {
        let verdict = verify(&chain.records, keys).unwrap();
        assert_eq!(verdict.signed.unwrap().key, second, "{keys:?}");
    }
}

#[test]
fn a_key_that_nobody_hands_over_to_needs_a_word() {
    let mut chain = Chain::new();
    let first = public(&chain.key);
    chain.things(2);
    chain.sign();
    chain.key = key();
    let second = public(&chain.key);
    chain.change(None, "lost");
    chain.sign();
    let handover = Fault::Handover { sequence: 5, key_id: second.id() };
    assert_eq!(verify(&chain.records, &[]), Err(handover.clone()));
    assert_eq!(verify(&chain.records, &[first]), Err(handover));
    assert!(verify(&chain.records, &[first, second]).is_ok());
    assert_eq!(verify(&chain.records, &[second]).unwrap().signed.unwrap().key, second);
}

#[test]
fn a_handover_to_another_chains_key_is_none() {
    let mut chain = Chain::new();
    chain.things(1);
    chain.sign();
    let stolen = {
        // Signed by the right key, for another agent's chain.
        let new = public(&key());
        let message = key_change_message("another agent", new.as_bytes());
        KeyChange {
            public_key: new.as_bytes().to_vec(),
            key_id: new.id(),
            previous_key_id: public(&chain.key).id(),
            signature: chain.key.sign(&message).as_ref().to_vec(),
            reason: "age".to_owned(),
        }
    };
    chain.add(Body::KeyChange(stolen.clone()));
    assert_eq!(verify(&chain.records, &[]), Err(Fault::Handover { sequence: 4, key_id: stolen.key_id }));
}

#[test]
fn a_part_of_a_chain_holds_from_its_first_record_on() {
    let mut chain = Chain::new();
    chain.things(4);
    chain.sign();
    chain.things(2);
    chain.sign();
    let part = &chain.records[3..];
    let verdict = verify(part, &[public(&chain.key)]).unwrap();
    assert_eq!((verdict.first, verdict.checkpoints), (4, 2));
    // No key is named in this part, and none was given: chained, and not proved.
    let verdict = verify(part, &[]).unwrap();
    assert_eq!((verdict.signed, verdict.checkpoints), (None, 0));
}

#[test]
fn the_first_record_follows_nothing() {
    let mut chain = Chain::new();
    chain.things(1);
    let mut forged = chain.records.clone();
    forged[0].previous = Bytes::from_static(&[9; 32]);
    forged[0].hash = Bytes::copy_from_slice(&digest(1, &[9; 32], &forged[0].payload));
    assert_eq!(verify(&forged, &[]), Err(Fault::Chain(ChainError::Broken { sequence: 1, before: 0 })));
}

#[test]
fn what_is_no_record_is_named() {
    let mut head = Head::default();
    let record = head.seal(Bytes::from_static(b"\xff\xff\xff"));
    assert_eq!(verify(&[record], &[]), Err(Fault::Unreadable(1)));
}

#[test]
fn public_keys_are_read_as_they_are_shown() {
    let key = public(&key());
    assert_eq!(key.to_string().parse(), Ok(key));
    assert_eq!(format!("{key}\n").parse(), Ok(key));
    for text in ["", "12", "zz", &"0".repeat(63), &"0".repeat(66)] {
        assert_eq!(text.parse::<PublicKey>(), Err(NoKey), "{text}");
    }
}

/// A signed tombstone of the records up to `last` of a chain.
fn tombstone(chain: &Chain, last: u64) -> Tombstone {
    let mut tombstone = Tombstone {
        first: 1,
        last,
        hash: chain.records[last as usize - 1].hash.to_vec(),
        reason: "size".to_owned(),
        agent_id: AGENT.to_owned(),
        key_id: public(&chain.key).id(),
        signed_at: 1_000,
        ..Tombstone::default()
    };
    tombstone.signature = chain.key.sign(&tombstone_message(&tombstone)).as_ref().to_vec();
    tombstone
}

#[test]
fn a_chain_that_begins_later_says_why() {
    let mut chain = Chain::new();
    chain.things(5);
    chain.sign();
    let unknown = verify(&chain.records[3..], &[]).unwrap();
    assert_eq!(unknown.before, Before::Unknown);
    assert!(unknown.before_first().unwrap().contains("1 to 3"));
    let buried = tombstone(&chain, 3);
    chain.add(Body::Tombstone(buried.clone()));
    chain.sign();
    let keys = [public(&chain.key)];
    assert_eq!(verify(&chain.records, &keys).unwrap().before, Before::Nothing);
    let verdict = verify(&chain.records[3..], &keys).unwrap();
    assert_eq!(verdict.before, Before::Deleted(Box::new(buried)));
    // More is missing than it says.
    assert_eq!(verify(&chain.records[4..], &keys).unwrap().before, Before::Unknown);
    // Less is: the agent was stopped while it deleted.
    assert!(matches!(verify(&chain.records[2..], &keys).unwrap().before, Before::Deleted(_)));
}

#[test]
fn a_tombstone_that_is_not_the_agents_is_found() {
    let changes: [fn(&mut Tombstone); 6] = [
        |tombstone| tombstone.first = 2,
        |tombstone| tombstone.last = 4,
        |tombstone| tombstone.hash[0] ^= 1,
        |tombstone| tombstone.reason = "age".to_owned(),
        |tombstone| tombstone.agent_id.push('x'),
        |tombstone| tombstone.signed_at += 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut chain = Chain::new();
        chain.things(5);
        chain.sign();
        let mut forged = tombstone(&chain, 3);
        change(&mut forged);
        let sequence = chain.head.sequence + 1;
        chain.add(Body::Tombstone(forged));
        let keys = [public(&chain.key)];
        assert_eq!(verify(&chain.records[3..], &keys), Err(Fault::Tombstone(sequence)), "{number}");
    }
    let mut chain = Chain::new();
    chain.things(5);
    chain.sign();
    let unsigned = Tombstone { hash: vec![7; 32], key_id: String::new(), ..tombstone(&chain, 3) };
    chain.add(Body::Tombstone(unsigned));
    let sequence = chain.head.sequence;
    assert_eq!(verify(&chain.records[3..], &[]), Err(Fault::Replaced { sequence, first: 4 }));
}
