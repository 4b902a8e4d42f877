//! `guard-control serve`: runs the control plane until SIGTERM or SIGINT.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{server::Server, store::Store};

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one line on stdout when it is ready, and logs to stderr (GUARD_CONTROL_LOG=debug for more).\n\
    SIGTERM and SIGINT stop it in order; kill -9 loses nothing that an agent was told is stored."
)]
pub struct ServeArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "GUARD_CONTROL_LISTEN", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// Folder of the store
    #[arg(long, value_name = "DIR", env = "GUARD_CONTROL_DATA", default_value = "/var/lib/guard-control")]
    data: PathBuf,
    /// Listen without TLS on an address that other hosts can reach: whoever is on the way can read and forge records
    #[arg(long, env = "GUARD_CONTROL_INSECURE_PLAINTEXT")]
    insecure_plaintext: bool,
}

/// Serves until a signal comes.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("GUARD_CONTROL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (store, writer) = Store::open(&args.data)?;
    runtime.block_on(serve(args, store))?;
    drop(runtime);
    writer.close();
    Ok(())
}

async fn serve(args: &ServeArgs, store: Store) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let server = Server::bind(args.listen, args.insecure_plaintext, store).await?;
    let ready = format!(
        "guard-control {} listens on {}, store in {}\n",
        env!("CARGO_PKG_VERSION"),
        server.address(),
        args.data.display()
    );
    // Nobody may be reading it.
    let mut out = std::io::stdout();
    let _ = out.write_all(ready.as_bytes()).and_then(|()| out.flush());
    if args.insecure_plaintext && !server.address().ip().is_loopback() {
        tracing::warn!(address = %server.address(), "listening without TLS, as asked for");
    }
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
        }
    };
    Ok(server.serve(stop).await?)
}
