//! The beginning of a connection on in-memory sockets: whole, in single bytes, broken off, and in nobody's protocol.

use guard_tests::{Authority, tls};
use tokio::{io::duplex, net::TcpListener};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{
    config::TlsConfig,
    session::startup::{negotiate, route},
    tls::Offer,
};

const TLS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// A PROXY protocol header for a client at 192.0.2.7, with an additional field.
const HEADER: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x07\x7f\0\0\x01\x30\x39\x15\x38\x04\0\x01\0";

/// A startup packet of protocol 3.2 with an option of the protocol.
fn packet() -> Vec<u8> {
    let body = b"\0\x03\0\x02user\0ana\0_pq_.some_option\0on\0\0";
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
}

fn client_tls(authority: &Authority) -> Arc<ClientTls> {
    let own = authority.server("server").unwrap();
    let config = TlsConfig { certificate: Some(own.certificate), key: Some(own.key), ..TlsConfig::default() };
    let tls = ClientTls::new(config);
    tls.refresh(None).unwrap();
    Arc::new(tls)
}

fn offer(authority: &Authority) -> Arc<Offer> {
    client_tls(authority).offer().unwrap()
}

async fn handshake(authority: &Authority, alpn: Option<&[u8]>, stream: DuplexStream) -> impl AsyncWriteExt {
    let config = authority.client_config(None, alpn).unwrap();
    TlsConnector::from(config).connect(tls::server_name(), stream).await.unwrap()
}

/// Hands on one byte at a time, each way, and lets the other side read it by itself.
async fn in_single_bytes(one: DuplexStream, other: DuplexStream) {
    let ((mut one_reads, mut one_writes), (mut other_reads, mut other_writes)) =
        (tokio::io::split(one), tokio::io::split(other));
    let there = async {
        while let Ok(byte) = one_reads.read_u8().await {
            other_writes.write_u8(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let back = async {
        while let Ok(byte) = other_reads.read_u8().await {
            one_writes.write_u8(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(there, back);
}

#[tokio::test]
async fn a_handshake_in_single_bytes_is_as_good_as_a_whole_one() {
    let authority = Authority::new().unwrap();
    let offer = offer(&authority);
    for direct in [true, false] {
        let (mut client, near) = duplex(1 << 16);
        let (far, server) = duplex(1 << 16);
        let mut server = Stream::Memory(server);
        let mut secured = None;
        let speaks = async {
            if !direct {
                client.write_all(TLS_REQUEST).await.unwrap();
                assert_eq!(client.read_u8().await.unwrap(), b'S');
            }
            let mut client = handshake(&authority, Some(tls::ALPN), client).await;
            client.write_all(&packet()).await.unwrap();
            client.flush().await.unwrap();
            client
        };
        let both = async { tokio::join!(speaks, negotiate(&mut server, Some(&offer), &mut secured)).1 };
        let opening = tokio::select! {
            opening = both => opening.unwrap().unwrap(),
            () = in_single_bytes(near, far) => panic!("the handshake was broken off"),
        };
        assert_eq!(opening.bytes, packet());
        let StartupPacket::Start(startup) = opening.packet else { panic!("a startup message") };
        assert_eq!((startup.minor, startup.parameter("_pq_.some_option")), (2, Some("on")));
        assert_eq!(secured.map(|secured| secured.version), Some("TLSv1.3"));
    }
}

#[tokio::test]
async fn direct_tls_without_the_protocols_name_is_refused_under_tls() {
    let authority = Authority::new().unwrap();
    let offer = offer(&authority);
    let (client, server) = duplex(1 << 16);
    let (mut server, mut secured) = (Stream::Memory(server), None);
    let (_client, opening) =
        tokio::join!(handshake(&authority, None, client), negotiate(&mut server, Some(&offer), &mut secured));
    assert!(matches!(opening, Err(SessionError::Client(_))), "{opening:?}");
    assert!(secured.is_some() && matches!(server, Stream::Tls(_)), "the refusal is said under TLS");
}

#[tokio::test]
async fn garbage_behind_a_request_for_tls_is_never_taken_up() {
    let authority = Authority::new().unwrap();
    let offer = offer(&authority);
    for offer in [Some(&*offer), None] {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], TLS_REQUEST] {
            let (mut client, server) = duplex(1 << 16);
            let (mut server, mut secured) = (Stream::Memory(server), None);
            client.write_all(&[TLS_REQUEST, garbage].concat()).await.unwrap();
            let opening = negotiate(&mut server, offer, &mut secured).await;
            assert!(matches!(opening, Err(SessionError::Client(_))), "{garbage:?}: {opening:?}");
            assert!(secured.is_none());
        }
    }
}

#[test]
fn a_client_that_stops_in_its_handshake_is_not_waited_for() {
    local(async {
        let authority = Authority::new().unwrap();
        let (audit, _entries) = AuditLog::to_queue(10);
        let (mut proxy, _stop) = proxy(Mode::Enforce, audit);
        proxy.tls = client_tls(&authority);
        for bytes in [&b"\x16\x03\x01\x02\0\x01"[..], TLS_REQUEST, b"\0\0\0\x30\0\x03", b""] {
            let (mut client, server) = duplex(1 << 16);
            client.write_all(bytes).await.unwrap();
            let address = "127.0.0.1:1".parse().unwrap();
            let peer = Peer::Tcp { client: address, local: address };
            let deadline = Instant::now() + Duration::from_secs(60);
            let (_, arrived) = arrive(&proxy, &mut Stream::Memory(server), (peer, false), deadline).await;
            assert!(matches!(arrived, Err(SessionError::LoginTimeout)), "{arrived:?}");
            assert!(Instant::now() >= deadline);
        }
    });
}

#[tokio::test]
async fn a_load_balancers_header_may_be_split_anywhere() {
    for at in 1..HEADER.len() {
        let (mut client, server) = duplex(1 << 10);
        let mut server = Stream::Memory(server);
        let sends = async {
            client.write_all(&HEADER[..at]).await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(&HEADER[at..]).await.unwrap();
            client.write_all(&packet()).await.unwrap();
        };
        let ((), read) = tokio::join!(sends, route(&mut server));
        let Ok(Some(Route::Relayed { client: address, .. })) = read else { panic!("{at}: {read:?}") };
        assert_eq!(address, "192.0.2.7:12345".parse().unwrap(), "{at}");
        let opening = negotiate(&mut server, None, &mut None).await.unwrap().unwrap();
        assert_eq!(opening.bytes, packet(), "nothing behind the header is taken with it");
        // And cut off there.
        let (mut client, server) = duplex(1 << 10);
        client.write_all(&HEADER[..at]).await.unwrap();
        drop(client);
        let read = route(&mut Stream::Memory(server)).await;
        assert!(matches!(read, Err(SessionError::ClientVanished)), "{at}: {read:?}");
    }
}

#[tokio::test]
async fn a_load_balancers_header_has_a_longest_length() {
    let (mut client, server) = duplex(1 << 17);
    client.write_all(&[&HEADER[..14], b"\xff\xff", &[0; 65_535]].concat()).await.unwrap();
    let read = route(&mut Stream::Memory(server)).await;
    assert!(matches!(read, Err(SessionError::Header(_))), "{read:?}");
}

#[test]
fn what_a_server_negotiates_and_a_key_of_256_bytes_reach_the_client_as_they_are() {
    let key = |length: usize| message(b'K', &[&[0, 0, 1, 2][..], &vec![0xa5; length]].concat());
    local(async {
        let mut session = Session::logging_in(Mode::Enforce, Ok(())).await;
        let version = message(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.some_option\0");
        let hello = [version, message(b'R', &[0; 4]), key(256), ready()];
        session.answer(&hello).await;
        let mut got = vec![0; hello.concat().len()];
        session.client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, hello.concat());
    });
    local(async {
        let mut session = Session::logging_in(Mode::Enforce, Ok(())).await;
        session.answer(&[message(b'R', &[0; 4]), key(257), ready()]).await;
        let mut got = Vec::new();
        session.client.read_to_end(&mut got).await.unwrap();
        assert!(!got.windows(257).any(|bytes| bytes == [0xa5; 257]), "a key that no client can send back");
    });
}

#[tokio::test]
async fn a_request_to_cancel_reaches_the_server_as_it_came() {
    for (length, passes) in [(4, true), (32, true), (256, true), (257, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (audit, _entries) = AuditLog::to_queue(10);
        let (proxy, _stop) = proxy(Mode::Enforce, audit);
        let known = Server::clone(&proxy.server.get());
        proxy.server.set(Server { addresses: vec![listener.local_addr().unwrap()], ..known });
        let worker = Rc::new(Worker::new(&proxy.limits, Arc::clone(&proxy.decider)));
        let body = [b"\x04\xd2\x16\x2e\0\0\x01\x02", &vec![0xa5; length][..]].concat();
        let request = [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat();
        let (mut client, server) = duplex(1 << 10);
        client.write_all(&request).await.unwrap();
        let peer = Peer::Unix { pid: 1, uid: 0, gid: 0, path: "/run/x".into() };
        // A request to cancel is served even where there is no place left.
        let served = serve(
            Arc::new(proxy),
            worker,
            Client { stream: Stream::Memory(server), peer, surplus: true, steered: false },
        );
        let received = async {
            let mut bytes = Vec::new();
            if passes {
                let (mut stream, _) = listener.accept().await.unwrap();
                bytes.resize(request.len(), 0);
                stream.read_exact(&mut bytes).await.unwrap();
            }
            bytes
        };
        let ((), received) = tokio::join!(served, received);
        assert_eq!(received, if passes { request } else { Vec::new() }, "{length}");
    }
}
