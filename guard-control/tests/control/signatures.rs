//! Checkpoints, keys and copies: what the control plane makes of signatures in the chains that it takes.

use guard_common::{
    api::control::{Hello, agent_message::Message as FromAgent, control_message::Message as ToAgent},
    audit::{
        checkpoint::{PublicKey, checkpoint_message, key_change_message},
        v1::{Checkpoint, KeyChange, record::Body},
    },
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tonic::Code;
use uuid::Uuid;

use super::{
    Control,
    agent::{Chain, Stream},
    mutual_tls::events,
};

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey::from_bytes(key.public_key().as_ref()).unwrap()
}

fn announcement(key: &Ed25519KeyPair) -> Body {
    let public = public(key);
    let change =
        KeyChange { public_key: public.as_bytes().to_vec(), key_id: public.id(), ..KeyChange::default() };
    Body::KeyChange(change)
}

fn handover(from: &Ed25519KeyPair, to: &Ed25519KeyPair, agent: &str) -> Body {
    let next = public(to);
    let signature = from.sign(&key_change_message(agent, next.as_bytes())).as_ref().to_vec();
    Body::KeyChange(KeyChange {
        public_key: next.as_bytes().to_vec(),
        key_id: next.id(),
        previous_key_id: public(from).id(),
        signature,
        reason: "age".to_owned(),
    })
}

fn checkpoint(chain: &Chain, key: &Ed25519KeyPair) -> Body {
    let signature = key.sign(&checkpoint_message(&chain.id, &chain.head, 7)).as_ref().to_vec();
    Body::Checkpoint(Checkpoint {
        sequence: chain.head.sequence,
        hash: chain.head.hash.to_vec(),
        agent_id: chain.id.clone(),
        key_id: public(key).id(),
        signed_at: 7,
        signature,
    })
}

#[tokio::test]
async fn signatures_are_followed_from_key_to_key() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let signed = async || control.store.agents().await.unwrap().remove(0).signed_sequence;
    let mut chain = Chain::new();
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    let (first, second) = (key(1), key(2));
    let mut batch = vec![chain.seal(announcement(&first))];
    batch.extend(chain.next(3));
    batch.push(chain.seal(checkpoint(&chain, &first)));
    stream.store(batch).await;
    assert_eq!(signed().await, 4);
    // In batches of their own.
    let change = handover(&first, &second, &chain.id);
    stream.store(vec![chain.seal(change)]).await;
    stream.store(vec![chain.seal(checkpoint(&chain, &second))]).await;
    assert_eq!(signed().await, 6);
    // An agent that starts again says which key signs.
    stream.store(vec![chain.seal(announcement(&second))]).await;
    stream.store(vec![chain.seal(checkpoint(&chain, &second))]).await;
    assert_eq!(signed().await, 8);
    assert!(events(&control.store).await.is_empty());
    drop(stream);
    control.stop().await;
}

#[tokio::test]
async fn a_signature_that_does_not_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut chain = Chain::new();
    let key = key(1);
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    stream.store(vec![chain.seal(announcement(&key))]).await;
    let end = chain.head;
    let Body::Checkpoint(good) = checkpoint(&chain, &key) else { panic!() };
    let mut signature = good.signature.clone();
    signature[9] ^= 1;
    for bad in [
        Checkpoint { signature, ..good.clone() },
        Checkpoint { hash: vec![1; 32], ..good.clone() },
        Checkpoint { agent_id: Uuid::new_v4().to_string(), ..good.clone() },
        Checkpoint { sequence: 7, ..good.clone() },
        Checkpoint { signed_at: 8, ..good.clone() },
    ] {
        let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
        chain.head = end;
        let (sequence, reason) = stream.reject(vec![chain.seal(Body::Checkpoint(bad))]).await;
        assert!(sequence == 2 && reason.contains("signature"), "{reason}");
    }
    // The same alarm is told once.
    assert_eq!(events(&control.store).await, ["signature-wrong"]);
    chain.head = end;
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    stream.store(vec![chain.seal(Body::Checkpoint(good))]).await;
    drop(stream);
    control.stop().await;
}

#[tokio::test]
async fn a_key_out_of_nowhere_alarms_until_somebody_trusts_it() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let agent = async || control.store.agents().await.unwrap().remove(0);
    let mut chain = Chain::new();
    let (first, lost) = (key(1), key(3));
    let (mut stream, _) = Stream::open(control.address, &chain.id, 1).await.unwrap();
    stream.store(vec![chain.seal(announcement(&first)), chain.seal(announcement(&lost))]).await;
    // The records are kept: the chain is whole. What the new key signs counts for nothing.
    stream.store(vec![chain.seal(checkpoint(&chain, &lost))]).await;
    stream.store(vec![chain.seal(announcement(&lost))]).await;
    assert!(agent().await.alarm.contains("has not handed over"), "{:?}", agent().await);
    assert_eq!((agent().await.stored_sequence, agent().await.signed_sequence), (4, 0));
    let id = Uuid::try_parse(&chain.id).unwrap();
    assert!(guard_control::enrol::trust_key(&control.store, id, &public(&lost)).await.unwrap());
    stream.store(vec![chain.seal(checkpoint(&chain, &lost))]).await;
    assert_eq!((agent().await.alarm, agent().await.signed_sequence), (String::new(), 4));
    assert_eq!(events(&control.store).await, ["key-unknown", "key-trusted"]);
    drop(stream);
    control.stop().await;
}

#[tokio::test]
async fn a_copied_journal_is_refused_while_the_first_one_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let chain = Chain::new();
    let hello = |instance: &str| {
        FromAgent::Hello(Hello {
            agent_id: chain.id.clone(),
            oldest_sequence: 1,
            instance: instance.to_owned(),
            ..Hello::default()
        })
    };
    let open = async |instance: &str| {
        let mut stream = Stream::raw(control.address).await.unwrap();
        stream.send(hello(instance)).await;
        let answer = stream.answer().await;
        answer.map(|answer| (stream, answer))
    };
    let (first, answer) = open("one").await.unwrap();
    assert!(matches!(answer, ToAgent::Resume(_)));
    let Err(status) = open("two").await else { panic!("a copy was let in") };
    assert_eq!(status.code(), Code::AlreadyExists);
    // The same process after a cut cable.
    let (again, _) = open("one").await.unwrap();
    drop((first, again));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(open("two").await.is_ok(), "the first one has gone");
    assert_eq!(events(&control.store).await, ["duplicate-agent"]);
    control.stop().await;
}
