//! A running sensor that keeps what it said, and clients for it.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use guard_agent::{
    config::{IdentityConfig, SensorConfig},
    identity::Workload,
    sensor::{self, Accepted, Closed, Lost, SensorEvent, SensorHandle, Watch},
};
use guard_common::audit::v1::workload::Evidence;
use guard_tests::skip::{self, Need};
use tokio::sync::mpsc;

pub struct Sensor {
    pub handle: SensorHandle,
    events: mpsc::Receiver<SensorEvent>,
    pub accepted: Vec<Accepted>,
    pub closed: Vec<Closed>,
    pub lost: Vec<Lost>,
}

impl Sensor {
    pub fn watching(watch: Watch) -> Option<Self> {
        Self::with(watch, &SensorConfig { ring_kib: 8192, ..SensorConfig::default() })
    }

    pub fn with(watch: Watch, config: &SensorConfig) -> Option<Self> {
        if skip::without(&[Need::Ebpf]) {
            return None;
        }
        let (handle, events) = sensor::start(config, &IdentityConfig::default()).unwrap();
        let state = handle.state();
        assert!(state.missing.is_empty(), "{:?}", state.missing);
        handle.watch(watch);
        Some(Self { handle, events, accepted: Vec::new(), closed: Vec::new(), lost: Vec::new() })
    }

    pub fn watching_port(port: u16) -> Option<Self> {
        Self::watching(Watch { database_ports: BTreeSet::from([port]), ..Watch::default() })
    }

    /// Takes what there is.
    pub fn take(&mut self) -> usize {
        let mut count = 0;
        while let Ok(event) = self.events.try_recv() {
            count += 1;
            match event {
                SensorEvent::Accepted(accepted) => self.accepted.push(accepted),
                SensorEvent::Closed(closed) => self.closed.push(closed),
                SensorEvent::Lost(lost) => self.lost.push(lost),
                SensorEvent::Refused(_) | SensorEvent::Connected(_) | SensorEvent::State(_) => {}
            }
        }
        count
    }

    /// Takes events until `enough`.
    pub fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let taken = self.take();
            if enough(self) {
                return;
            }
            let (accepted, closed) = (self.accepted.len(), self.closed.len());
            assert!(
                Instant::now() < deadline,
                "no {what}: {accepted} accepted, {closed} closed, lost {:?}",
                self.lost
            );
            if taken == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
    }

    pub fn one(&mut self) -> Accepted {
        self.until("connection", |sensor| !sensor.accepted.is_empty());
        self.accepted[0].clone()
    }

    pub fn ending(&mut self) -> Closed {
        self.until("end of a connection", |sensor| !sensor.closed.is_empty());
        self.closed[0].clone()
    }
}

/// Accepts and reads to the end, for as long as the test runs.
pub fn serve(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = std::io::copy(&mut &stream, &mut std::io::sink());
            });
        }
    });
}

/// The same on a unix socket.
pub fn serve_unix(listener: UnixListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = std::io::copy(&mut &stream, &mut std::io::sink());
            });
        }
    });
}

pub fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A client in bash that connects and is gone at once.
pub fn dial(address: SocketAddr) -> String {
    format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port())
}

pub fn python(script: &str, arguments: &[&str]) -> Child {
    Command::new("python3").arg("-c").arg(script).args(arguments).stdin(Stdio::null()).spawn().unwrap()
}

pub fn finish(mut child: Child) {
    assert!(child.wait().unwrap().success());
}

pub fn assert_attested(workload: &Workload) {
    assert_eq!(workload.evidence(), Evidence::Attested, "{workload:?}");
}
