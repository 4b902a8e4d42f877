//! An agent joins a control plane, renews its certificate, and ships over TLS; with and without trouble.

use std::{path::Path, sync::Arc, time::Duration};

use guard_agent::uplink::{
    Credentials,
    enrol::{EnrolError, Invitation, enrol},
};
use guard_control::{
    ca::Authority,
    enrol::{Registrar, create_token, revoke},
};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// A control plane with TLS.
struct Site {
    data: tempfile::TempDir,
    state: tempfile::TempDir,
    control: Control,
    tls: SocketAddr,
    store: Store,
    fingerprint: String,
}

impl Site {
    async fn new(lifetime: Duration) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(data.path()).unwrap();
        let authority = Authority::open(&data.path().join("keys")).unwrap();
        let fingerprint = authority.fingerprint();
        let registrar = Arc::new(Registrar::new(authority, lifetime));
        let names = vec!["127.0.0.1".to_owned()];
        let server = Server::bind(ANY.parse().unwrap(), false, store.clone()).await.unwrap();
        let server = server.with_tls(ANY.parse().unwrap(), names, registrar).await.unwrap();
        let (address, fleet) = (server.address(), server.fleet());
        let tls = server.tls_address().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move { server.serve(async { _ = stopped.await }).await.unwrap() });
        let control = Control { address, fleet, stop, serving, writer };
        Self { data, state: tempfile::tempdir().unwrap(), control, tls, store, fingerprint }
    }

    async fn invitation(&self) -> Invitation {
        Invitation {
            control: format!("https://{}", self.tls),
            token: create_token(&self.store, "test", HOUR).await.unwrap(),
            fingerprint: self.fingerprint.parse().unwrap(),
            again: false,
        }
    }

    fn agent(&self, endpoint: Option<String>) -> Agent {
        agent(self.state.path(), endpoint)
    }

    async fn stop(self) {
        drop(self.store);
        self.control.stop().await;
    }
}

fn agent(state: &Path, endpoint: Option<String>) -> Agent {
    let config = JournalConfig { sync: Sync::Os, ..JournalConfig::default() };
    let (log, journal) = AuditLog::open(&config, &state.join("journal")).unwrap();
    let identity = Identity { credentials: Credentials::in_state(state), ..identity() };
    let control = ControlConfig { endpoint, ..ControlConfig::default() };
    let uplink = uplink::start(&control, identity, log.clone()).unwrap();
    Agent { log, journal, uplink }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_has_joined_ships_over_tls_and_needs_no_configuration() {
    let site = Site::new(HOUR).await;
    let named = enrol(&site.invitation().await, "db1", site.state.path()).await.unwrap();
    let agent = site.agent(None);
    assert_eq!(agent.log.agent_id(), named.agent_id);
    agent.record(100);
    agent.arrived(100).await;
    assert!(agent.uplink.status().certificate_expires.is_some());
    agent.stop().await;
    let known = site.store.agents().await.unwrap().remove(0);
    assert!(known.signed_sequence > 0 && known.certificate_expires.is_some(), "{known:?}");
    // Twice is once too often, unless it is asked for.
    let again = enrol(&site.invitation().await, "db1", site.state.path()).await.unwrap_err();
    assert!(matches!(again, EnrolError::Already { .. }), "{again}");
    let insisting = Invitation { again: true, ..site.invitation().await };
    let refused = enrol(&insisting, "db1", site.state.path()).await.unwrap_err();
    assert!(refused.to_string().contains("agents revoke"), "{refused}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_sent_to_nobody_but_the_control_plane() {
    let site = Site::new(HOUR).await;
    let wrong = Invitation { fingerprint: "00".repeat(32).parse().unwrap(), ..site.invitation().await };
    let error = enrol(&wrong, "db1", site.state.path()).await.unwrap_err();
    assert!(error.to_string().contains("the token was not sent"), "{error}");
    // It still works.
    let right = Invitation { fingerprint: site.fingerprint.parse().unwrap(), ..wrong };
    enrol(&right, "db1", site.state.path()).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let used = enrol(&right, "db2", elsewhere.path()).await.unwrap_err();
    assert!(matches!(used, EnrolError::Refused(_)), "{used}");
    assert!(Credentials::in_state(elsewhere.path()).load().unwrap().is_none());
    let plain = Invitation { control: format!("http://{}", site.control.address), ..site.invitation().await };
    assert!(matches!(enrol(&plain, "db2", elsewhere.path()).await, Err(EnrolError::Plaintext)));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_before_they_expire_and_records_go_on() {
    let site = Site::new(Duration::from_secs(6)).await;
    let first = enrol(&site.invitation().await, "db1", site.state.path()).await.unwrap();
    let agent = site.agent(None);
    for round in 1..=12 {
        agent.record(10);
        agent.arrived(round * 10).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let now = Credentials::in_state(site.state.path()).load().unwrap().unwrap().named;
    assert!(now.expires > first.expires + Duration::from_secs(4), "{first:?} {now:?}");
    agent.stop().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_certificate_records_wait_in_the_journal() {
    let site = Site::new(HOUR).await;
    let endpoint = format!("https://{}", site.tls);
    let agent = site.agent(Some(endpoint.clone()));
    agent.record(10);
    let says = async |agent: &Agent, part: &str| {
        let error = || agent.uplink.status().error;
        eventually(|| error().contains(part), || format!("`{part}` in {}", error())).await;
    };
    says(&agent, "has no certificate").await;
    agent.stop().await;
    enrol(&site.invitation().await, "db1", site.state.path()).await.unwrap();
    let agent = site.agent(Some(endpoint.clone()));
    agent.arrived(10).await;
    revoke(&site.store, agent.log.agent_id(), "test").await.unwrap();
    says(&agent, "revoked").await;
    agent.record(10);
    agent.stop().await;
    // Joined again, nothing is lost and nothing is there twice.
    let again = Invitation { again: true, ..site.invitation().await };
    enrol(&again, "db1", site.state.path()).await.unwrap();
    let agent = site.agent(Some(endpoint));
    agent.arrived(20).await;
    agent.stop().await;
    assert_eq!(stored(site.data.path()).len(), 20);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_journal_is_of_no_use() {
    let site = Site::new(HOUR).await;
    enrol(&site.invitation().await, "db1", site.state.path()).await.unwrap();
    std::fs::remove_dir_all(site.state.path().join("journal")).unwrap();
    let agent = site.agent(None);
    agent.record(1);
    let error = || agent.uplink.status().error;
    eventually(|| error().contains("another journal"), error).await;
    agent.stop().await;
    site.stop().await;
}
