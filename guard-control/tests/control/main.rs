//! The control plane with a real store, over real sockets: batches in every order, crashes, nonsense.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something fails")]

mod agent;
mod command_line;
mod command_line_errors;
mod contract;
mod days;
mod full_disk;
mod ingest;
mod killed;
mod metrics;
mod mutual_tls;
mod nonsense;
mod outlets;
mod reported;
mod search;
mod signatures;
mod sizes;
mod slow;
mod tls_client;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use guard_control::{
    ca::Authority,
    enrol::Registrar,
    server::Server,
    store::{Store, StoreHandle},
};
use tokio::sync::oneshot;

/// A control plane in this process.
struct Control {
    address: SocketAddr,
    /// Where it listens over TLS; as `address` where it does not.
    tls: SocketAddr,
    store: Store,
    stop: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<()>,
    writer: StoreHandle,
}

const ANY: &str = "127.0.0.1:0";

impl Control {
    async fn start(data: &Path) -> Self {
        Self::launch(data, None).await
    }

    /// With TLS; certificates are good for `lifetime`.
    async fn start_tls(data: &Path, lifetime: Duration) -> Self {
        Self::launch(data, Some(lifetime)).await
    }

    async fn launch(data: &Path, lifetime: Option<Duration>) -> Self {
        let (store, writer) = Store::open(data).expect("the store opens");
        let mut server = Server::bind(ANY.parse().unwrap(), false, store.clone()).await.expect("it listens");
        if let Some(lifetime) = lifetime {
            let registrar = Registrar::new(authority(data), lifetime);
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            server =
                server.with_tls(ANY.parse().unwrap(), names, Arc::new(registrar)).await.expect("with TLS");
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let address = server.address();
        let tls = server.tls_address().unwrap_or(address);
        let serving = tokio::spawn(async move {
            server.serve(async { _ = stopped.await }).await.expect("it serves");
        });
        Self { address, tls, store, stop: Some(stop), serving, writer }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.await.expect("it ends in order");
        drop(self.store);
        tokio::task::spawn_blocking(|| self.writer.close()).await.expect("so does its writer");
    }
}

/// The authority of the control plane with this data folder.
fn authority(data: &Path) -> Authority {
    Authority::open(&data.join("keys")).expect("the authority opens")
}
