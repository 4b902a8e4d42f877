//! Policies come down to the hosts that they are for, and the control plane knows what each host runs.

use guard_agent::uplink::{Doors, Policies};
use guard_common::api::control::{PolicyBundle, PolicyStatus, SignedPolicy};
use guard_control::{
    keys::SigningKey,
    policy::{self, Labels},
};
use prost::Message;
use tokio::sync::mpsc;

use super::*;

const POLICY: &str = "@id(\"all\")\npermit (principal, action, resource);";

fn files(text: &str) -> std::collections::BTreeMap<String, String> {
    [("topic/policy.cedar".to_owned(), text.to_owned())].into()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

async fn offered(offers: &mut mpsc::Receiver<SignedPolicy>) -> Option<u64> {
    let offer = tokio::time::timeout(Duration::from_secs(6), offers.recv()).await.ok()??;
    Some(PolicyBundle::decode(&*offer.bundle).unwrap().version)
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_come_to_the_hosts_that_they_are_for() {
    let data = tempfile::tempdir().unwrap();
    let control_plane = Control::start(data.path(), ANY).await;
    let (store, handle) = Store::open_beside(data.path()).unwrap();
    let key = SigningKey::open(&data.path().join("keys")).unwrap();
    let journal = tempfile::tempdir().unwrap();
    let config = JournalConfig { sync: Sync::Os, sign_seconds: 0, ..JournalConfig::default() };
    let (log, writer) = AuditLog::open(&config, journal.path()).unwrap();
    let (door, mut offers) = Policies::new(true);
    let doors = Doors { policies: Some(door.clone()), ..Doors::default() };
    let endpoint = control(&format!("http://{}", control_plane.address));
    let uplink = uplink::start_with(&endpoint, identity(), log.clone(), doors).unwrap();

    let publish = async |text: &str| policy::publish(&store, &key, files(text), ("somebody", "note")).await;
    assert_eq!(publish(POLICY).await.unwrap().number, 1);
    assert!(publish(POLICY).await.is_err(), "nothing has changed");
    assert!(publish("permit (").await.is_err(), "it is no policy");
    assert!(policy::stage(&store, 7, &Labels::new(), "somebody").await.is_err());
    // The host of this test has the label team=x.
    policy::stage(&store, 1, &labels(&[("team", "x")]), "somebody").await.unwrap();
    assert_eq!(offered(&mut offers).await, Some(1));
    door.tell(PolicyStatus { version: 1, hash: "abc".to_owned(), ..PolicyStatus::default() });
    let mut runs = (0, String::new());
    for _ in 0..100 {
        let agent = store.agents().await.unwrap().remove(0);
        runs = (agent.policy_version, agent.policy_hash);
        if runs.0 == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(runs, (1, "abc".to_owned()));
    // A canary that this host is not.
    publish(&format!("{POLICY}\n")).await.unwrap();
    policy::stage(&store, 2, &labels(&[("team", "x"), ("canary", "yes")]), "somebody").await.unwrap();
    assert_eq!(offered(&mut offers).await, None);
    policy::stage(&store, 2, &Labels::new(), "somebody").await.unwrap();
    assert_eq!(offered(&mut offers).await, Some(2));
    // An older one does not come again.
    policy::stage(&store, 1, &Labels::new(), "somebody").await.unwrap();
    assert_eq!(offered(&mut offers).await, None);
    writer.close().await.unwrap();
    uplink.close(Duration::from_secs(1)).await;
    drop(store);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
    control_plane.stop().await;
}
