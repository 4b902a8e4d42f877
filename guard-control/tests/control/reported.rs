//! Two agents tell of one connection: the one where the server is, and the one where the client is. On both stores.

use std::net::SocketAddr;

use guard_common::{
    api::control::{
        DecisionsRequest, Hello, HostFacts, StoredDecision, agent_message::Message as FromAgent,
        control_message::Message as ToAgent, remote_client::Known,
    },
    audit::v1::{
        ClientConnected, ConnectionOpened, Decision, Record, SealedRecord, Workload,
        connection_opened::{Access, Transport},
        decision::Verdict,
        record::Body,
        workload::Evidence,
    },
};
use guard_control::{
    server::Server,
    store::{Store, sql::Sql},
};
use prost::Message;
use tokio::sync::oneshot;

use super::{
    agent::{Chain, Stream},
    contract::each,
};

const CLIENT: &str = "192.0.2.9:40000";
const DATABASE: &str = "192.0.2.1:5432";

/// A control plane on `store`, until it is dropped.
struct Site {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Site {
    async fn start(store: &Store) -> Self {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), false, store.clone()).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let address = server.address();
        tokio::spawn(server.serve(async { _ = stopped.await }));
        Self { address, _stop: stop }
    }
}

/// An agent whose host's clock is `ahead` by so many seconds.
struct Agent {
    chain: Chain,
    stream: Stream,
    ahead: i64,
}

impl Agent {
    async fn new(site: &Site, host: &str, ahead: i64, reports: bool) -> Self {
        let chain = Chain::new();
        let mut stream = Stream::raw(site.address).await.unwrap();
        let clock = moved(Record::now(Body::AgentStopped(Default::default())), ahead).at;
        stream
            .send(FromAgent::Hello(Hello {
                agent_id: chain.id.clone(),
                host: host.to_owned(),
                oldest_sequence: 1,
                reports_clients: reports,
                clock,
                ..Hello::default()
            }))
            .await;
        let Ok(ToAgent::Resume(resume)) = stream.answer().await else { panic!("no Resume") };
        assert!(resume.takes_host_facts);
        Self { chain, stream, ahead }
    }

    async fn says(&self, addresses: &[&str], databases: &[&str]) {
        let all = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        let facts = HostFacts { addresses: all(addresses), databases: all(databases) };
        self.stream.send(FromAgent::HostFacts(facts)).await;
    }

    async fn tells(&mut self, body: Body) {
        let record = moved(Record::now(body), self.ahead);
        let sealed: SealedRecord = self.chain.head.seal(record.encode_to_vec().into());
        self.stream.batch(vec![sealed]).await;
        loop {
            match self.stream.answer().await.unwrap() {
                ToAgent::Ack(_) => return,
                ToAgent::KnownDatabases(_) => {}
                other => panic!("{other:?} instead of Ack"),
            }
        }
    }
}

fn moved(mut record: Record, seconds: i64) -> Record {
    if let Some(at) = &mut record.at {
        at.seconds += seconds;
    }
    record
}

fn accepted(client: &str) -> Body {
    let workload = Workload {
        evidence: Evidence::Address.into(),
        remote_address: "192.0.2.9".to_owned(),
        ..Workload::default()
    };
    Body::ConnectionOpened(ConnectionOpened {
        access: Access::NonProxied.into(),
        transport: Transport::Tcp.into(),
        client_address: client.to_owned(),
        server_address: DATABASE.to_owned(),
        workload: Some(workload),
        decision: Some(Decision { verdict: Verdict::Allowed.into(), ..Decision::default() }),
        ..ConnectionOpened::default()
    })
}

fn reported(client: &str, executable: &str) -> Body {
    let workload = Workload { pid: 7, executable: executable.to_owned(), ..Workload::default() };
    Body::ClientConnected(ClientConnected {
        client_address: client.to_owned(),
        server_address: DATABASE.to_owned(),
        workload: Some(workload),
        preexisting: false,
    })
}

async fn found(store: &Store, contains: &str) -> Vec<StoredDecision> {
    let request = DecisionsRequest { contains: contains.to_owned(), ..DecisionsRequest::default() };
    store.decisions(request).await.unwrap().decisions
}

fn known(one: &StoredDecision) -> (Known, Vec<String>) {
    let remote = one.remote.clone().unwrap();
    let hosts = remote.claims.iter().map(|claim| claim.host.clone()).collect();
    (remote.known(), hosts)
}

async fn events(store: &Store) -> Vec<String> {
    let select = "SELECT r.payload FROM records r WHERE r.kind = 71 ORDER BY r.id";
    let lines = store.look_up(Sql::new(select, [])).await.unwrap();
    let event = |bytes: &[u8]| match Record::decode(bytes).unwrap().body {
        Some(Body::ControlEvent(event)) => event.event,
        _ => panic!("another record"),
    };
    lines.iter().map(|line| event(line.bytes(0))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_named_as_its_own_hosts_agent_reports_whoever_is_first() {
    each(async |store| {
        let site = Site::start(store).await;
        let mut server = Agent::new(&site, "db1", 0, false).await;
        server.tells(accepted(CLIENT)).await;
        assert_eq!(known(&found(store, "").await[0]), (Known::Nobody, Vec::new()));
        // An hour ahead: its greeting has told.
        let mut client = Agent::new(&site, "app7", 3_600, true).await;
        client.says(&["192.0.2.9", "192.0.2.10"], &[]).await;
        client.tells(reported(CLIENT, "/usr/bin/late")).await;
        client.tells(reported("192.0.2.10:40001", "/usr/bin/early")).await;
        server.tells(accepted("192.0.2.10:40001")).await;
        for (part, ends) in [("/usr/bin/late", CLIENT), ("bin/early", "192.0.2.10:40001"), (CLIENT, CLIENT)] {
            let found = found(store, part).await;
            assert_eq!(found.len(), 1, "{part}: {found:?}");
            assert_eq!(known(&found[0]), (Known::Reported, vec!["app7".to_owned()]), "{part}");
            let claim = &found[0].remote.as_ref().unwrap().claims[0];
            assert!(claim.own_address && !claim.uncertain);
            assert_eq!(client.chain.id, claim.agent_id);
            let body = serde_json::to_string(&found[0]).unwrap();
            assert!(body.contains(ends) && body.contains("\"REPORTED\""), "{body}");
        }
        // A translated address meets nothing.
        server.tells(accepted("198.51.100.1:50000")).await;
        client.tells(reported("192.0.2.9:50000", "/usr/bin/behind")).await;
        assert!(found(store, "/usr/bin/behind").await.is_empty());
        assert_eq!(known(&found(store, "198.51.100.1").await[0]).0, Known::Nobody);
        assert!(events(store).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_two_agents_and_of_addresses_of_others_are_shown_and_raise_an_alarm() {
    each(async |store| {
        let site = Site::start(store).await;
        let mut server = Agent::new(&site, "db1", 0, false).await;
        let mut liar = Agent::new(&site, "liar", 0, true).await;
        liar.says(&["192.0.2.66"], &[]).await;
        server.tells(accepted(CLIENT)).await;
        liar.tells(reported(CLIENT, "/usr/bin/liar")).await;
        assert_eq!(known(&found(store, "").await[0]), (Known::Unbelievable, vec!["liar".to_owned()]));
        assert_eq!(events(store).await, ["client-unbelievable"]);
        let mut client = Agent::new(&site, "app7", 0, true).await;
        client.says(&["192.0.2.9"], &[]).await;
        client.tells(reported(CLIENT, "/usr/bin/honest")).await;
        let (state, mut hosts) = known(&found(store, "").await[0]);
        hosts.sort();
        assert_eq!((state, hosts), (Known::Conflict, vec!["app7".to_owned(), "liar".to_owned()]));
        // Told once, however often it comes.
        liar.tells(reported(CLIENT, "/usr/bin/liar")).await;
        let mut events = events(store).await;
        events.sort();
        assert_eq!(events, ["client-claimed-twice", "client-claimed-twice", "client-unbelievable"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_report_are_told_where_the_databases_are() {
    each(async |store| {
        let site = Site::start(store).await;
        let server = Agent::new(&site, "db1", 0, false).await;
        let mut client = Agent::new(&site, "app7", 0, true).await;
        server.says(&["192.0.2.1"], &[DATABASE, "no address"]).await;
        loop {
            match client.stream.answer().await.unwrap() {
                ToAgent::KnownDatabases(known) if known.addresses.is_empty() => {}
                ToAgent::KnownDatabases(known) => {
                    assert_eq!((known.addresses, known.cut), (vec![DATABASE.to_owned()], false));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}
