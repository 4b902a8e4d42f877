//! `guard-control serve`: runs the control plane until SIGTERM or SIGINT.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

use crate::{
    http::{
        Http, HttpError,
        app::App,
        config::{File, Settings},
    },
    people::book::BOOTSTRAP,
    server::Server,
    store::Store,
    webhooks,
};

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
    /// Where people's console listens, or `none`
    #[arg(long, value_name = "ADDRESS", env = "GUARD_CONTROL_CONSOLE", value_parser = console_address)]
    console: Option<ConsoleAddress>,
    /// The console's settings: certificate, single sign-on, webhooks (docs/console.md)
    #[arg(long, value_name = "FILE", env = "GUARD_CONTROL_CONSOLE_SETTINGS")]
    console_settings: Option<PathBuf>,
    /// The console without TLS, on a loopback address: behind a proxy that has it
    #[arg(long, env = "GUARD_CONTROL_CONSOLE_PLAINTEXT")]
    console_plaintext: bool,
}

/// Where the console listens, where it is not said.
const CONSOLE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7443);

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
            .map_err(|error| format!("{error}: name an address such as 127.0.0.1:7443, or `none`")),
    }
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
    let (stopping, stopped) = watch::channel(false);
    let console = open_console(args, &server, stopped.clone()).await?;
    let mut ready = format!(
        "guard-control {} listens on {}, store in {}\n",
        env!("CARGO_PKG_VERSION"),
        server.address(),
        args.data.display()
    );
    if let Some(console) = &console {
        ready.push_str(&console.greeting);
    }
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
    if let Some(console) = console {
        let _ = console.await;
    }
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
    let http = match Http::bind(&settings, &args.data).await {
        Err(error @ HttpError::Listen { .. }) if args.console.is_none() => {
            tracing::warn!("no console: {error}. Name another address with --console, or `none`");
            return Ok(None);
        }
        http => http?,
    };
    let app = App::open(&settings, (&args.data, &http.url()), server.fleet(), stopped)?;
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
