//! The control plane with a real store, over real sockets: batches in every order, crashes, nonsense.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something fails")]

mod agent;
mod command_line;
mod full_disk;
mod ingest;
mod killed;
mod nonsense;
mod search;

use std::{net::SocketAddr, path::Path};

use guard_control::{
    server::Server,
    store::{Store, StoreHandle},
};
use tokio::sync::oneshot;

/// A control plane in this process.
struct Control {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<()>,
    writer: StoreHandle,
}

impl Control {
    async fn start(data: &Path) -> Self {
        let (store, writer) = Store::open(data).expect("the store opens");
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), false, store).await.expect("it listens");
        let (stop, stopped) = oneshot::channel::<()>();
        let address = server.address();
        let serving = tokio::spawn(async move {
            server.serve(async { _ = stopped.await }).await.expect("it serves");
        });
        Self { address, stop: Some(stop), serving, writer }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.await.expect("it ends in order");
        tokio::task::spawn_blocking(|| self.writer.close()).await.expect("so does its writer");
    }
}
