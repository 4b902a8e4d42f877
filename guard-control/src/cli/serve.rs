//! `guard-control serve`: runs the control plane until SIGTERM or SIGINT.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::Args;
use guard_common::audit::v1::ControlEvent;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{place::Place, token::duration};
use crate::{
    ca::Authority,
    enrol::Registrar,
    keys::SigningKey,
    proof,
    server::Server,
    store::{Store, micros},
};

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints one line on stdout when it is ready, and logs to stderr (GUARD_CONTROL_LOG=debug for more).\n\
    SIGTERM and SIGINT stop it in order; kill -9 loses nothing that an agent was told is stored."
)]
pub struct ServeArgs {
    /// Where to listen in plaintext, for agents and people of this host; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "GUARD_CONTROL_LISTEN", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// Where to listen over mutual TLS, for agents of other hosts, such as 0.0.0.0:7443
    #[arg(long, value_name = "ADDRESS", env = "GUARD_CONTROL_LISTEN_TLS")]
    listen_tls: Option<SocketAddr>,
    /// What agents call this control plane: a host name or an address; may be given several times [default: this host's
    /// name, localhost, and the address of --listen-tls]
    #[arg(long, value_name = "NAME", env = "GUARD_CONTROL_TLS_NAMES", value_delimiter = ',')]
    tls_name: Vec<String>,
    /// How long an agent's certificate is good for; agents renew it when a third of that is left
    #[arg(long, value_name = "TIME", env = "GUARD_CONTROL_CERTIFICATE_TTL", default_value = "30d", value_parser = duration)]
    certificate_ttl: Duration,
    /// Seconds between two signed heads of the tree over everything that is stored; 0: none
    #[arg(long, value_name = "SECONDS", env = "GUARD_CONTROL_PROVE_SECONDS", default_value_t = 60)]
    prove_seconds: u64,
    /// Delete records after so many days; 0: never
    #[arg(long, value_name = "DAYS", env = "GUARD_CONTROL_KEEP_DAYS", default_value_t = 0)]
    keep_days: u32,
    #[command(flatten)]
    place: Place,
    /// Listen without TLS on an address that other hosts can reach: whoever is on the way can read and forge records
    #[arg(long, env = "GUARD_CONTROL_INSECURE_PLAINTEXT")]
    insecure_plaintext: bool,
}

/// How often old records are looked for.
const FORGET: Duration = Duration::from_secs(3_600);

/// Deletes records after their time, and says so in the control plane's own chain.
async fn keep_forgetting(store: Store, days: u32) {
    loop {
        let oldest = SystemTime::now() - Duration::from_secs(u64::from(days) * 86_400);
        match store.forget(micros(oldest)).await {
            Ok(0) => {}
            Ok(deleted) => {
                tracing::info!(deleted, days, "deleted what was older than its time");
                let event = ControlEvent {
                    event: "records-deleted".to_owned(),
                    detail: format!("older than {days} days, by --keep-days"),
                    ..ControlEvent::default()
                };
                if let Err(error) = store.note_event(event).await {
                    tracing::error!(%error, "this could not be recorded");
                }
            }
            Err(error) => tracing::warn!(%error, "old records could not be deleted"),
        }
        tokio::time::sleep(FORGET).await;
    }
}

/// Shortest life of a certificate.
const SHORTEST: Duration = Duration::from_secs(1);

/// What agents may call this control plane.
fn names(args: &ServeArgs, listen: SocketAddr) -> Vec<String> {
    if !args.tls_name.is_empty() {
        return args.tls_name.clone();
    }
    let mut names = vec!["localhost".to_owned()];
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    names.extend(Some(host.trim().to_owned()).filter(|host| !host.is_empty() && host != "localhost"));
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    names
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
    let opened = runtime.block_on(args.place.open())?;
    let served = runtime.block_on(serve(args, opened.store.clone()));
    drop(runtime);
    opened.close();
    served
}

async fn serve(args: &ServeArgs, store: Store) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let key = SigningKey::open(&args.place.keys())?;
    let policy_key = key.public();
    if args.prove_seconds > 0 {
        tokio::spawn(proof::keep_gathering(store.clone(), key, Duration::from_secs(args.prove_seconds)));
    }
    if args.keep_days > 0 {
        tokio::spawn(keep_forgetting(store.clone(), args.keep_days));
    }
    let mut server = Server::bind(args.listen, args.insecure_plaintext, store).await?;
    if let Some(listen) = args.listen_tls {
        anyhow::ensure!(args.certificate_ttl >= SHORTEST, "--certificate-ttl must be at least a second");
        let authority = Authority::open(&args.place.keys())?;
        tracing::info!(fingerprint = authority.fingerprint(), "certificate authority");
        let registrar = Arc::new(Registrar::new(authority, args.certificate_ttl).with_policy_key(policy_key));
        server = server.with_tls(listen, names(args, listen), registrar).await?;
    }
    let tls = server.tls_address().map(|address| format!(", over TLS on {address}")).unwrap_or_default();
    let ready = format!(
        "guard-control {} listens on {}, store in {}{tls}\n",
        env!("CARGO_PKG_VERSION"),
        server.address(),
        args.place.shown()
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
