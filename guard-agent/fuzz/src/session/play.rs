//! One session, step by step: what the input says, client and server do.
//!
//! An input is a byte of flags (bit 0: guard monitors; bit 1: no honest login first) and steps: a number, a length, as
//! many bytes. After each step guard has time to do all that it can.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use guard_agent::{
    session::{Client, Peer, Stream, serve},
    wire::postgres::parse_message,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    task::yield_now,
};

use super::{Honest, World, world::Guard};
use crate::{frontend::message, input::Input};

/// A session that has not ended by then, though both sides are gone, hangs.
const HANG: Duration = Duration::from_secs(20);

/// Turns that guard gets after every step: enough for bytes to go through both ways.
const TURNS: usize = 4;

/// Turns within which guard has connected to the server, or never will.
const CONNECT_TURNS: usize = 64;

/// What went in and what came out, after the login.
#[derive(Debug, Default)]
pub struct Seen {
    pub enforcing: bool,
    pub logged_in: bool,
    pub from_client: Vec<u8>,
    pub to_server: Vec<u8>,
    pub from_server: Vec<u8>,
    pub to_client: Vec<u8>,
}

/// One end of a connection, which never waits.
#[derive(Debug)]
struct End {
    stream: UnixStream,
    unsent: Vec<u8>,
    sent: Vec<u8>,
    got: Vec<u8>,
    reads: bool,
    closes: bool,
    ended: bool,
}

impl End {
    fn new(stream: UnixStream) -> Self {
        let (unsent, sent, got) = (Vec::new(), Vec::new(), Vec::new());
        Self { stream, unsent, sent, got, reads: true, closes: false, ended: false }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        self.sent.extend_from_slice(bytes);
    }

    /// Sends and takes what goes without waiting.
    async fn pump(&mut self) {
        poll_fn(|cx| {
            while !self.unsent.is_empty() {
                match Pin::new(&mut self.stream).poll_write(cx, &self.unsent) {
                    Poll::Ready(Ok(written)) => drop(self.unsent.drain(..written)),
                    Poll::Ready(Err(_)) => self.unsent.clear(),
                    Poll::Pending => break,
                }
            }
            if self.closes && self.unsent.is_empty() {
                self.closes = Pin::new(&mut self.stream).poll_shutdown(cx).is_pending();
            }
            let mut room = [0; 16 * 1024];
            while self.reads && !self.ended {
                let mut room = ReadBuf::new(&mut room);
                match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
                    Poll::Ready(Ok(())) if !room.filled().is_empty() => {
                        self.got.extend_from_slice(room.filled())
                    }
                    Poll::Ready(_) => self.ended = true,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// Both ends of guard's session; the server's is there once guard has connected.
pub struct Peers<'a> {
    listener: &'a UnixListener,
    client: End,
    server: Option<End>,
    honest: Honest,
}

impl Peers<'_> {
    /// Gives guard the time for everything that it can do now.
    pub async fn settle(&mut self) {
        self.wait(TURNS).await;
    }

    /// The same for what takes so many turns.
    pub async fn wait(&mut self, turns: usize) {
        for _ in 0..turns {
            self.turn().await;
        }
    }

    async fn turn(&mut self) {
        self.client.pump().await;
        if let Some(server) = &mut self.server {
            server.pump().await;
        } else {
            let accepted = poll_fn(|cx| Poll::Ready(self.listener.poll_accept(cx))).await;
            if let Poll::Ready(Ok((stream, _))) = accepted {
                self.server = Some(End::new(stream));
            }
        }
        yield_now().await;
    }

    /// The client sends these bytes.
    pub fn say(&mut self, bytes: &[u8]) {
        self.client.send(bytes);
    }

    /// What the server has been sent.
    pub fn to_server(&self) -> &[u8] {
        self.server.as_ref().map_or(&[], |server| &server.got)
    }

    /// The server answers everything that it has been sent.
    pub fn answer(&mut self) {
        if let Some(server) = &mut self.server {
            let answers = self.honest.answer(&server.got);
            server.send(&answers);
        }
    }

    async fn log_in(&mut self) -> bool {
        self.client.send(b"\0\0\0\x12\0\x03\0\0user\0app\0\0");
        for _ in 0..CONNECT_TURNS {
            self.turn().await;
            if self.server.as_ref().is_some_and(|server| !server.got.is_empty()) {
                break;
            }
        }
        let Some(server) = &mut self.server else { return false };
        let hello = [
            message(b'R', &[0; 4]),
            message(b'S', b"client_encoding\0UTF8\0"),
            message(b'S', b"standard_conforming_strings\0on\0"),
            message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]),
            message(b'Z', b"I"),
        ];
        server.send(&hello.concat());
        self.settle().await;
        let ready = self.client.got.ends_with(&message(b'Z', b"I"));
        for end in [Some(&mut self.client), self.server.as_mut()].into_iter().flatten() {
            end.got.clear();
            end.sent.clear();
        }
        ready
    }

    /// Both sides leave; guard has to come to an end.
    async fn leave(&mut self) {
        self.client.reads = true;
        self.client.closes = true;
        self.settle().await;
        while !self.client.ended {
            if let Some(server) = &mut self.server {
                server.closes = true;
            }
            self.turn().await;
        }
        self.settle().await;
    }

    async fn step(&mut self, number: u8, piece: &[u8]) {
        match number % 10 {
            0 => self.client.send(piece),
            1 => self.client.send(&lying(piece)),
            2 => self.client.send(&message(b'Q', &[piece, b"\0"].concat())),
            3 => {
                let text = String::from_utf8_lossy(piece);
                let (name, text) = text.split_once('\0').unwrap_or(("", &text));
                self.client.send(&parse_message(name, text));
            }
            4 => {
                let name: Vec<u8> = piece.iter().copied().filter(|byte| *byte != 0).take(8).collect();
                self.client.send(&message(b'B', &[&name[..], b"\0", &name, b"\0\0\0\0\0\0\0"].concat()));
                self.client.send(&message(b'E', &[&name[..], b"\0\0\0\0\0"].concat()));
            }
            7 => self.answer(),
            8 if piece.is_empty() => self.client.closes = true,
            9 => self.client.reads = !self.client.reads,
            number => {
                if let Some(server) = &mut self.server {
                    match number {
                        5 => server.send(piece),
                        6 => server.send(&lying(piece)),
                        _ => server.closes = true,
                    }
                }
            }
        }
        self.settle().await;
    }
}

/// A message of the tag and the body in `piece`; the byte between them falsifies the length.
fn lying(piece: &[u8]) -> Vec<u8> {
    let [tag, lie, body @ ..] = piece else { return Vec::new() };
    let length = i32::try_from(body.len() + 4).unwrap_or(i32::MAX);
    let length = length.wrapping_add(i32::from(i8::from_ne_bytes([*lie])));
    [&[*tag][..], &length.to_be_bytes(), body].concat()
}

/// A step as it stands in an input.
pub fn op(number: u8, piece: &[u8]) -> Vec<u8> {
    let length = u8::try_from(piece.len()).unwrap_or(u8::MAX);
    [&[number, length][..], &piece[..usize::from(length)]].concat()
}

/// Plays an input.
pub fn play(world: &World, data: &[u8]) -> Seen {
    let mut input = Input::new(data);
    let flags = input.byte().unwrap_or(0);
    let guard = if flags & 1 == 0 { &world.enforcing } else { &world.monitoring };
    let mut seen = converse(world, guard, flags & 2 == 0, async |peers: &mut Peers<'_>| {
        while let Some(number) = input.byte() {
            let piece = input.piece();
            peers.step(number, piece).await;
        }
    });
    seen.enforcing = flags & 1 == 0;
    seen
}

/// An honest login, then what `act` does, then the end.
pub fn honest_login(world: &World, act: impl AsyncFnMut(&mut Peers<'_>)) -> Seen {
    converse(world, &world.enforcing, true, act)
}

fn converse(world: &World, guard: &Guard, honest: bool, mut act: impl AsyncFnMut(&mut Peers<'_>)) -> Seen {
    world.runtime.block_on(async {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut peers = Peers {
            listener: &world.listener,
            client: End::new(ours),
            server: None,
            honest: Honest::default(),
        };
        let peer = Peer::Unix { pid: 1, uid: 0, gid: 0, path: "/run/guard/fuzz".into() };
        let client = Client { stream: Stream::Unix(theirs), peer, surplus: false, steered: false };
        let serving = serve(guard.proxy.clone(), guard.worker.clone(), client);
        let script = async {
            let logged_in = honest && peers.log_in().await;
            assert_eq!(logged_in, honest, "guard gets in the way of an honest login");
            act(&mut peers).await;
            peers.leave().await;
            logged_in
        };
        let journal = async {
            while let Some(entry) = poll_fn(|cx| guard.records.borrow_mut().poll_recv(cx)).await {
                // Nobody waits for some of them.
                let _ = entry.durable.map(|durable| durable.send(Ok(())));
            }
            std::future::pending::<()>().await;
        };
        let both = async { tokio::join!(serving, script).1 };
        let logged_in = tokio::select! {
            ended = tokio::time::timeout(HANG, both) => ended.expect("the session hangs"),
            () = journal => false,
        };
        let Peers { client, server, .. } = peers;
        let (from_server, to_server) = server.map(|server| (server.sent, server.got)).unwrap_or_default();
        Seen {
            enforcing: true,
            logged_in,
            from_client: client.sent,
            to_client: client.got,
            from_server,
            to_server,
        }
    })
}
