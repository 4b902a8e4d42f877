//! Who is let in over TLS, and as whom.

use std::{net::SocketAddr, time::Duration};

use guard_common::{
    api::control::{
        AgentsRequest, RenewRequest, enrolment_client::EnrolmentClient, query_client::QueryClient,
    },
    audit::v1::SealedRecord,
};
use guard_control::{
    enrol,
    store::{Store, sql::Sql},
};
use rcgen::KeyPair;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{
    Control,
    agent::{Chain, Stream},
    authority,
    tls_client::{self, Identity, channel, token},
};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);

struct Site {
    dir: tempfile::TempDir,
    control: Control,
}

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::start_tls(dir.path(), DAY).await;
        Self { dir, control }
    }

    async fn enrol(&self, agent: &str) -> Result<Identity, Status> {
        let token = token(&self.control.store, HOUR).await;
        self.enrol_with(&token, agent).await
    }

    async fn enrol_with(&self, token: &str, agent: &str) -> Result<Identity, Status> {
        let authority = authority(self.dir.path());
        tls_client::enrol(self.control.tls, &authority, token, agent).await.map(|(identity, _)| identity)
    }

    async fn stream(&self, identity: &Identity, agent: &str) -> Result<(Stream, u64), Status> {
        open(self.control.tls, self.dir.path(), Some(identity), agent).await
    }

    /// What the control plane's own chain says.
    async fn events(&self) -> Vec<String> {
        events(&self.control.store).await
    }
}

async fn open(
    address: SocketAddr,
    data: &std::path::Path,
    identity: Option<&Identity>,
    agent: &str,
) -> Result<(Stream, u64), Status> {
    let channel = channel(address, &authority(data), identity).await?;
    Stream::over(channel).await?.greet(agent, 1).await
}

pub async fn events(store: &Store) -> Vec<String> {
    use guard_common::audit::v1::{Record, record::Body};
    use prost::Message;
    let lines =
        store.query(Sql::new("SELECT payload FROM records WHERE kind = 71 ORDER BY id", [])).await.unwrap();
    let event = |bytes: &[u8]| match Record::decode(bytes).unwrap().body {
        Some(Body::ControlEvent(event)) => event.event,
        other => panic!("{other:?}"),
    };
    lines.iter().map(|line| event(line.bytes(0))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_leads_to_a_certificate_and_the_certificate_to_a_stream() {
    let site = Site::new().await;
    let mut chain = Chain::new();
    let identity = site.enrol(&chain.id).await.unwrap();
    let (mut stream, stored) = site.stream(&identity, &chain.id).await.unwrap();
    assert_eq!(stored, 0);
    assert_eq!(stream.store(chain.next(10)).await, 10);
    let agent = site.control.store.agents().await.unwrap().remove(0);
    assert!(agent.certificate_expires.is_some() && !agent.revoked, "{agent:?}");
    assert_eq!(site.events().await, ["enrolled"]);
    drop(stream);
    site.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once_and_in_its_time() {
    let site = Site::new().await;
    let store = &site.control.store;
    let once = token(store, HOUR).await;
    site.enrol_with(&once, &Chain::new().id).await.unwrap();
    let late = token(store, Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (cut, mut longer) = (&once[..once.len() - 1], once.clone());
    longer.push('x');
    let mut answers = std::collections::BTreeSet::new();
    for bad in [&once, &late, cut, &longer, "", "guard-join-", &"x".repeat(60_000)] {
        let Err(status) = site.enrol_with(bad, &Chain::new().id).await else { panic!("{bad} was taken") };
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        answers.insert(status.message().to_owned());
    }
    assert_eq!(answers.len(), 1, "nobody learns which tokens there are: {answers:?}");
    // Of several at once, one.
    let contested = token(store, HOUR).await;
    let tries: Vec<_> = (0..8).map(|_| Chain::new().id).collect();
    let tries = tries.iter().map(|agent| site.enrol_with(&contested, agent));
    let mut taken = 0;
    for result in futures(tries).await {
        taken += usize::from(result.is_ok());
    }
    assert_eq!(taken, 1);
    // One that was taken back.
    let back = token(store, HOUR).await;
    let id = enrol::tokens(store)
        .await
        .unwrap()
        .into_iter()
        .find(|token| token.used.is_none() && token.expires - token.created > 60_000_000)
        .unwrap()
        .id;
    assert!(enrol::delete_token(store, &id).await.unwrap());
    assert!(site.enrol_with(&back, &Chain::new().id).await.is_err());
    site.control.stop().await;
}

/// All at the same time.
async fn futures<T>(tasks: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut tasks: Vec<_> = tasks.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = tasks.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (task, done) in tasks.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = task.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_others_expired_ones_and_old_tls_are_refused_in_the_handshake() {
    let site = Site::new().await;
    let id = Chain::new().id;
    let uuid = Uuid::try_parse(&id).unwrap();
    let own = authority(site.dir.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = guard_control::ca::Authority::open(elsewhere.path()).unwrap();
    let signed = |authority: &guard_control::ca::Authority, lifetime| {
        let key = KeyPair::generate().unwrap();
        let issued = authority.issue(&tls_client::request(&key), uuid, lifetime).unwrap();
        Identity { key, certificate: issued.certificate }
    };
    let expired = signed(&own, Duration::from_millis(1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (bad, says) in [(signed(&foreign, DAY), "UnknownCA"), (expired, "CertificateExpired")] {
        // The alert comes behind the handshake's end, where a request may be on its way: then that is what fails.
        let mut said = String::new();
        for _ in 0..20 {
            let result = open(site.control.tls, site.dir.path(), Some(&bad), &id).await;
            let Err(status) = result else { panic!("{says}: it was let in") };
            said = format!("{status:?}");
            if said.contains(says) {
                break;
            }
        }
        assert!(said.contains(says), "{says}: {said}");
    }
    let old = tls_client::config(&own, None, &rustls::version::TLS12);
    let refused = tls_client::connect(site.control.tls, old).await.unwrap_err();
    assert!(refused.message().contains("ProtocolVersion"), "{refused:?}");
    // A control plane of another authority is not the one that the agent knows.
    let wrong = channel(site.control.tls, &foreign, None).await.unwrap_err();
    assert!(
        wrong.message().contains("UnknownIssuer") || wrong.message().contains("BadSignature"),
        "{wrong:?}"
    );
    // Signed by the authority, and yet never given to anybody here.
    let unknown = signed(&own, DAY);
    let result = open(site.control.tls, site.dir.path(), Some(&unknown), &id).await;
    let Err(status) = result else { panic!("it was let in") };
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    // Plaintext, where TLS is spoken.
    assert!(Stream::raw(site.control.tls).await.is_err());
    site.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_speaks_for_itself_alone() {
    let site = Site::new().await;
    let (mine, other) = (Chain::new().id, Chain::new().id);
    let identity = site.enrol(&mine).await.unwrap();
    site.enrol(&other).await.unwrap();
    for stranger in [&other, &Chain::new().id] {
        let Err(status) = site.stream(&identity, stranger).await else { panic!("it speaks for {stranger}") };
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    // Nor does anybody without TLS for an agent that has a certificate.
    let Err(status) = Stream::open(site.control.address, &mine, 1).await else { panic!("in plaintext") };
    assert_eq!(status.code(), Code::PermissionDenied);
    // Nor without a certificate at all.
    let Err(status) = open(site.control.tls, site.dir.path(), None, &mine).await else { panic!("as nobody") };
    assert_eq!(status.code(), Code::Unauthenticated);
    let events = site.events().await;
    assert_eq!(events[2..], ["wrong-agent", "wrong-agent", "duplicate-agent"], "{events:?}");
    site.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_do_not_ask_what_people_ask() {
    let site = Site::new().await;
    let agent = Chain::new().id;
    let identity = site.enrol(&agent).await.unwrap();
    for identity in [Some(&identity), None] {
        let channel = channel(site.control.tls, &authority(site.dir.path()), identity).await.unwrap();
        let refused = QueryClient::new(channel).agents(AgentsRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    site.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_is_cut_off_and_may_join_again() {
    let site = Site::new().await;
    let mut chain = Chain::new();
    let identity = site.enrol(&chain.id).await.unwrap();
    let (mut stream, _) = site.stream(&identity, &chain.id).await.unwrap();
    stream.store(chain.next(3)).await;
    let agent = Uuid::try_parse(&chain.id).unwrap();
    // A copy of the host that has a token of its own.
    let Err(status) = site.enrol(&chain.id).await else { panic!("the id was given twice") };
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(enrol::revoke(&site.control.store, agent, "stolen").await.unwrap(), 1);
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.answer()).await.expect("it is cut off");
    assert_eq!(ended.unwrap_err().code(), Code::PermissionDenied);
    // It tries again and again, and that is on record once.
    for _ in 0..4 {
        let Err(status) = site.stream(&identity, &chain.id).await else { panic!("revoked and let in") };
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    let mut client = EnrolmentClient::new(
        channel(site.control.tls, &authority(site.dir.path()), Some(&identity)).await.unwrap(),
    );
    let request = RenewRequest { request: tls_client::request(&KeyPair::generate().unwrap()) };
    assert_eq!(client.renew(request).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(site.control.store.agents().await.unwrap().remove(0).revoked);
    let again = site.enrol(&chain.id).await.unwrap();
    let (mut stream, stored) = site.stream(&again, &chain.id).await.unwrap();
    assert_eq!(stored, 3);
    stream.store(chain.next(1)).await;
    assert!(!site.control.store.agents().await.unwrap().remove(0).revoked);
    assert_eq!(
        site.events().await,
        ["enrolled", "duplicate-agent", "revoked", "revoked-connects", "enrolled"]
    );
    site.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_by_who_shows_it_and_a_stream_ends_with_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_tls(dir.path(), Duration::from_secs(4)).await;
    let site = Site { dir, control };
    let chain = Chain::new();
    let identity = site.enrol(&chain.id).await.unwrap();
    let (mut stream, _) = site.stream(&identity, &chain.id).await.unwrap();
    let over = channel(site.control.tls, &authority(site.dir.path()), Some(&identity)).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let answer = EnrolmentClient::new(over).renew(RenewRequest { request: tls_client::request(&key) }).await;
    let next = Identity { key, certificate: answer.unwrap().into_inner().certificate.into() };
    let ended =
        tokio::time::timeout(Duration::from_secs(10), stream.answer()).await.expect("it ends in time");
    assert_eq!(ended.unwrap_err().code(), Code::Unauthenticated);
    // Nobody renews without one.
    let nobody = channel(site.control.tls, &authority(site.dir.path()), None).await.unwrap();
    let request = RenewRequest { request: tls_client::request(&next.key) };
    assert_eq!(EnrolmentClient::new(nobody).renew(request).await.unwrap_err().code(), Code::Unauthenticated);
    site.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_do_not_finish_their_handshake_hold_up_nobody() {
    let site = Site::new().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(tokio::net::TcpStream::connect(site.control.tls).await.unwrap());
    }
    let agent = Chain::new().id;
    let joined = tokio::time::timeout(Duration::from_secs(8), site.enrol(&agent)).await.expect("at once");
    joined.unwrap();
    site.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_packed_small_and_is_large_is_refused() {
    let site = Site::new().await;
    let mut chain = Chain::new();
    let identity = site.enrol(&chain.id).await.unwrap();
    let id = chain.id.clone();
    let open = async || {
        let channel = channel(site.control.tls, &authority(site.dir.path()), Some(&identity)).await.unwrap();
        Stream::packed(channel).await.unwrap().greet(&id, 1).await.unwrap().0
    };
    let mut stream = open().await;
    let zeros = SealedRecord { payload: vec![0; 64 * 1024 * 1024].into(), ..SealedRecord::default() };
    stream.batch(vec![zeros]).await;
    let refused = stream.answer().await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused:?}");
    let mut stream = open().await;
    assert_eq!(stream.store(chain.next(5_000)).await, 5_000);
    site.control.stop().await;
}
