//! `guard-control serve`: runs the control plane until SIGTERM or SIGINT.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::Args;
use guard_common::audit::v1::ControlEvent;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

use super::{place::Place, token::duration};
use crate::{
    ca::Authority,
    enrol::Registrar,
    http::{
        Http, HttpError,
        app::{App, Parts},
        config::{File, Settings},
        watched::Watched,
    },
    keys::SigningKey,
    outlets,
    people::{People, book::BOOTSTRAP},
    policy::dry_run::Tool,
    proof,
    server::Server,
    store::{Store, micros},
    webhooks,
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
    /// Where people's console listens, or `none`
    #[arg(long, value_name = "ADDRESS", env = "GUARD_CONTROL_CONSOLE", value_parser = console_address)]
    console: Option<ConsoleAddress>,
    /// Where counts for Prometheus and the program's health are served without TLS and without signing in, such as
    /// 127.0.0.1:9480; they name no host and no person
    #[arg(long, value_name = "ADDRESS", env = "GUARD_CONTROL_METRICS")]
    metrics: Option<SocketAddr>,
    /// The console's settings: certificate, single sign-on, webhooks (docs/console.md)
    #[arg(long, value_name = "FILE", env = "GUARD_CONTROL_CONSOLE_SETTINGS")]
    console_settings: Option<PathBuf>,
    /// Where acknowledged records go on to: syslog, files of columns, streams (docs/outlets.md)
    #[arg(long, value_name = "FILE", env = "GUARD_CONTROL_OUTLETS")]
    outlets: Option<PathBuf>,
    #[command(flatten)]
    tool: Tool,
    /// The console without TLS, on a loopback address: behind a proxy that has it
    #[arg(long, env = "GUARD_CONTROL_CONSOLE_PLAINTEXT")]
    console_plaintext: bool,
}

/// Where the console listens, where it is not said.
const CONSOLE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7480);

#[derive(Clone, Copy, Debug)]
enum ConsoleAddress {
    At(SocketAddr),
    Nowhere,
}

fn console_address(text: &str) -> Result<ConsoleAddress, String> {
    match text {
        "none" => Ok(ConsoleAddress::Nowhere),
        address => address
            .parse()
            .map(ConsoleAddress::At)
            .map_err(|error| format!("{error}: name an address such as 127.0.0.1:7480, or `none`")),
    }
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
    take_descriptors();
    let opened = runtime.block_on(args.place.open())?;
    let served = runtime.block_on(serve(args, opened.store.clone()));
    drop(runtime);
    opened.close();
    served
}

/// Every agent takes a descriptor: as many as the system lets this process have.
fn take_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
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
    let outlets = args.outlets.as_deref().map(outlets::config::File::read).transpose()?;
    let mut server = Server::bind(args.listen, args.insecure_plaintext, store.clone()).await?;
    if let Some(listen) = args.listen_tls {
        anyhow::ensure!(args.certificate_ttl >= SHORTEST, "--certificate-ttl must be at least a second");
        let authority = Authority::open(&args.place.keys())?;
        tracing::info!(fingerprint = authority.fingerprint(), "certificate authority");
        let registrar = Arc::new(Registrar::new(authority, args.certificate_ttl).with_policy_key(policy_key));
        server = server.with_tls(listen, names(args, listen), registrar).await?;
    }
    let tls = server.tls_address().map(|address| format!(", over TLS on {address}")).unwrap_or_default();
    let (stopping, stopped) = watch::channel(false);
    let console = open_console(args, &server, stopped.clone()).await?;
    let outlets = outlets.unwrap_or_default();
    let mut outlets = outlets::start(&outlets, &store, args.place.is_shared(), &stopped)?;
    let mut ready = format!(
        "guard-control {} listens on {}, store in {}{tls}\n",
        env!("CARGO_PKG_VERSION"),
        server.address(),
        args.place.shown()
    );
    if let Some(console) = &console {
        ready.push_str(&console.greeting);
    }
    let watching = match args.metrics {
        Some(listen) => {
            let http = Http::bind_watched(listen).await?;
            ready.push_str(&format!("metrics at {}/metrics\n", http.url()));
            let app = console.as_ref().map(|console| console.app.clone());
            let watched = Watched { fleet: server.fleet(), console: app, stopping: stopped.clone() };
            Some(tokio::spawn(http.serve_watched(watched)))
        }
        None => None,
    };
    // Nobody may be reading it.
    let mut out = std::io::stdout();
    let _ = out.write_all(ready.as_bytes()).and_then(|()| out.flush());
    if args.insecure_plaintext && !server.address().ip().is_loopback() {
        tracing::warn!(address = %server.address(), "listening without TLS, as asked for");
    }
    if let Some(console) = &console {
        webhooks::start(&console.app)?;
        let app = &console.app;
        tokio::spawn(app.recorder.clone().take_over(app.people.clone(), stopped.clone()));
    }
    let console = console.map(|console| tokio::spawn(console.http.serve(console.app, stopped)));
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
        }
        let _ = stopping.send(true);
    };
    server.serve(stop).await?;
    for serving in [console, watching].into_iter().flatten() {
        let _ = serving.await;
    }
    // Each ends by itself within its time.
    while outlets.join_next().await.is_some() {}
    Ok(())
}

struct Console {
    http: Http,
    app: App,
    greeting: String,
}

/// The console, unless it is not wanted. Without an address of one's own it gives way: agents must not wait for it.
async fn open_console(
    args: &ServeArgs,
    server: &Server,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Option<Console>> {
    let listen = match args.console {
        Some(ConsoleAddress::Nowhere) => return Ok(None),
        Some(ConsoleAddress::At(address)) => address,
        None => CONSOLE,
    };
    let file = args.console_settings.as_deref().map(File::read).transpose()?.unwrap_or_default();
    let settings = Settings { listen, plaintext: args.console_plaintext, file };
    let http = match Http::bind(&settings, &args.place.data).await {
        // With a store elsewhere there may be no folder to keep a certificate in.
        Err(error)
            if args.console.is_none()
                && (matches!(error, HttpError::Listen { .. }) || args.place.is_shared()) =>
        {
            tracing::warn!("no console: {error}. Name another address with --console, or `none`");
            return Ok(None);
        }
        http => http?,
    };
    let fleet = server.fleet();
    let people = match args.place.is_shared() {
        true => People::shared(fleet.store.clone(), tokio::runtime::Handle::current()),
        false => People::open(&args.place.data)?,
    };
    let parts = Parts { people, key: SigningKey::open(&args.place.keys())?, tool: args.tool.clone() };
    let app = App::open(&settings, parts, &http.url(), fleet, stopped).await?;
    let mut greeting = format!("console at {}\n", http.url());
    if let Some(fingerprint) = http.fingerprint() {
        greeting.push_str(&format!("  its own certificate, SHA-256 {fingerprint}\n"));
    }
    if let Some(password) = app.people.with(|book| book.bootstrap()).await? {
        greeting.push_str(&format!(
            "  sign in as {BOOTSTRAP} with the password {password}, for the first time\n"
        ));
    }
    Ok(Some(Console { http, app, greeting }))
}
