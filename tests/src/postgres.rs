//! A private PostgreSQL: its own folder, port, socket and account.
//!
//! It listens on 127.0.0.1 and on a unix socket. Everybody logs in by trust, but the role [`SCRAM_ROLE`], which
//! has to give its password. Its programs are this machine's, or those of another version (see [`crate::versions`]).

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::{
    Account, Authority, Folder, Hosts, Psql, Server,
    hosts::enter,
    ports,
    run::{self, CLIENT_LIMIT},
    versions,
};

/// The role of the cluster's owner.
pub const OWNER: &str = "postgres";
/// The one role that logs in by SCRAM-SHA-256, with [`SCRAM_PASSWORD`].
pub const SCRAM_ROLE: &str = "clerk";
/// Its password.
pub const SCRAM_PASSWORD: &str = "not-a-secret";

const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("shared_buffers", "64MB"),
    // A pooler keeps as many again as it was asked for.
    ("max_connections", "300"),
    ("log_min_messages", "warning"),
    ("max_prepared_transactions", "4"),
];

const HBA: &str = "\
# type database user address method
local all clerk scram-sha-256
host all clerk 127.0.0.1/32 scram-sha-256
local all all trust
host all all 127.0.0.1/32 trust
host all all samehost trust
host all all samenet trust
";

/// A running PostgreSQL. Dropping it ends the server and removes its folder.
#[derive(Debug)]
pub struct Postgres {
    // INVARIANT: dropped in this order, the server before the folder under it.
    server: Server,
    address: SocketAddr,
    also: Also,
    account: Account,
    folder: Folder,
    network: Option<PathBuf>,
    programs: Programs,
}

/// Which server it is.
#[derive(Clone, Debug)]
struct Programs {
    /// Their folder, as they see it.
    bin: PathBuf,
    /// What they take for the root of the system, where that is another one.
    root: Option<PathBuf>,
    /// As old as the oldest that is known.
    oldest: bool,
}

impl Programs {
    fn of_this_machine() -> Result<Self> {
        Ok(Self { bin: programs()?, root: None, oldest: false })
    }

    /// A path of this machine, as they see it.
    fn seen(&self, path: &Path) -> PathBuf {
        let inside = self.root.as_ref().and_then(|root| path.strip_prefix(root).ok());
        inside.map_or_else(|| path.to_owned(), |path| Path::new("/").join(path))
    }

    /// One of them, which runs as `account`; its arguments go last.
    fn command(&self, name: &str, account: &Account) -> Command {
        let program = self.bin.join(name);
        let Some(root) = &self.root else { return Command::new(program) };
        let mut command = Command::new("chroot");
        command.arg(format!("--userspec={}", account.ids())).arg(root).arg(program);
        command
    }

    /// Lets a command of theirs run as `account`, where it does not see to that itself.
    fn apply(&self, account: &Account, command: &mut Command) {
        if self.root.is_none() {
            account.apply(command);
        }
    }
}

/// Where it listens beside 127.0.0.1 and its unix socket.
#[derive(Clone, Debug, Default)]
struct Also {
    addresses: Vec<IpAddr>,
    /// An abstract unix socket.
    abstract_socket: bool,
}

impl Postgres {
    /// Starts one with the server programs that are installed.
    pub fn start() -> Result<Self> {
        Self::begin(None, None, HBA, Also::default())
    }

    /// Starts one of another version, whose packages [`versions::is_there`] finds. Its unix socket has another name for
    /// itself than for this machine.
    pub fn of_version(major: u32) -> Result<Self> {
        let root = versions::root_of(major).canonicalize().context("no such version is unpacked")?;
        let oldest = versions::POSTGRES.iter().all(|(other, _)| *other >= major);
        let programs = Programs { bin: versions::programs(major), root: Some(root.clone()), oldest };
        Self::of(programs, Folder::within(&root.join("tmp"), "pg")?, (None, None), HBA, Also::default())
    }

    /// Starts one that speaks TLS with a certificate of `authority` and takes clients' certificates of the same.
    pub fn with_tls(authority: &Authority) -> Result<Self> {
        Self::begin(Some(authority), None, HBA, Also::default())
    }

    /// Starts one on the server's host of `network`, on every address, with these rules of `pg_hba.conf`. It is reached by
    /// its unix socket from everywhere on this machine.
    pub fn in_network(network: &Hosts, authority: Option<&Authority>, hba: &str) -> Result<Self> {
        Self::begin(authority, Some(network.server().path()), hba, Also::default())
    }

    /// Starts one that listens on these addresses too, and on an abstract unix socket.
    pub fn everywhere(addresses: &[IpAddr]) -> Result<Self> {
        Self::begin(None, None, HBA, Also { addresses: addresses.to_vec(), abstract_socket: true })
    }

    fn begin(authority: Option<&Authority>, network: Option<PathBuf>, hba: &str, also: Also) -> Result<Self> {
        Self::of(Programs::of_this_machine()?, Folder::new("pg")?, (authority, network), hba, also)
    }

    fn of(
        programs: Programs,
        folder: Folder,
        (authority, network): (Option<&Authority>, Option<PathBuf>),
        hba: &str,
        also: Also,
    ) -> Result<Self> {
        let account = Account::unprivileged()?;
        // initdb makes `data` itself, in a folder that it may write to.
        let home = folder.subfolder("server", &account)?;
        initdb(&programs, &home, &account)?;
        fs::write(home.join("data/pg_hba.conf"), hba)?;
        if let Some(authority) = authority {
            secure(&home.join("data"), authority, &account)?;
        }
        let address = ports::free()?;
        let server = launch(&programs, &home, &account, (address, &also), network.as_deref())?;
        let mut postgres = Self { server, address, also, account, folder, network, programs };
        postgres.wait()?;
        postgres
            .psql_unix(OWNER, "postgres")
            .query(&format!("CREATE ROLE {SCRAM_ROLE} LOGIN PASSWORD '{SCRAM_PASSWORD}'"))?
            .expect_ok("creating the SCRAM role")?;
        Ok(postgres)
    }

    fn wait(&mut self) -> Result<()> {
        let ready = {
            let socket = self.socket();
            let address = self.address;
            let elsewhere = self.network.is_some();
            move || socket.exists() && (elsewhere || ports::accepts(address))
        };
        self.server.wait_until(|_| ready())?;
        // It accepts connections before it answers them: "the database system is starting up".
        let psql = self.psql_unix(OWNER, "postgres");
        run::eventually("PostgreSQL answering", Duration::from_secs(30), || Ok(psql.query("SELECT 1")?.ok()))
    }

    /// Ends the server and keeps its folder.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) -> Result<()> {
        self.server.stop()?;
        let at = (self.address, &self.also);
        let network = self.network.as_deref();
        self.server = launch(&self.programs, &self.folder.join("server"), &self.account, at, network)?;
        self.wait()
    }

    /// The folder of its data and settings.
    pub fn data(&self) -> PathBuf {
        self.folder.join("server/data")
    }

    /// Lets it read its settings, rules and certificates again.
    pub fn reload(&self) -> Result<()> {
        self.server.signal(Signal::SIGHUP)
    }

    /// Where it listens on TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder of its unix socket, as `PGHOST` takes it.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.join("server")
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.socket_folder().join(format!(".s.PGSQL.{}", self.address.port()))
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The account that it runs as.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// What stands for the folder of its abstract unix socket, as `PGHOST` takes it.
    pub fn abstract_folder(&self) -> String {
        abstract_folder(self.address)
    }

    /// psql straight to it over TCP.
    pub fn psql(&self, user: &str, database: &str) -> Psql {
        Psql::tcp(self.address, user, database)
    }

    /// psql straight to it over the unix socket.
    pub fn psql_unix(&self, user: &str, database: &str) -> Psql {
        Psql::unix(&self.socket_folder(), self.address.port(), user, database)
    }
}

fn abstract_folder(address: SocketAddr) -> String {
    format!("@guard-test-{}", address.port())
}

/// Switches TLS on, by the settings file: that is where administrators do it.
fn secure(data: &Path, authority: &Authority, account: &Account) -> Result<()> {
    authority.server("server")?.install(&data.join("server.crt"), &data.join("server.key"), account)?;
    let settings = data.join("postgresql.conf");
    let ca = authority.certificate().display().to_string();
    let text = fs::read_to_string(&settings)? + &format!("\nssl = on\nssl_ca_file = '{ca}'\n");
    fs::write(&settings, text)?;
    Ok(())
}

fn initdb(programs: &Programs, home: &Path, account: &Account) -> Result<()> {
    let mut command = programs.command("initdb", account);
    command.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", OWNER]);
    // Later ones than 13 tell what to do next.
    command.args((!programs.oldest).then_some("--no-instructions"));
    command.arg("--pgdata").arg(programs.seen(home).join("data")).env("TZ", "UTC").current_dir(home);
    programs.apply(account, &mut command);
    run::run(command, "", CLIENT_LIMIT * 4)?.expect_ok("initdb")?;
    Ok(())
}

fn launch(
    programs: &Programs,
    home: &Path,
    account: &Account,
    at: (SocketAddr, &Also),
    network: Option<&Path>,
) -> Result<Server> {
    let (address, also) = at;
    let listen = std::iter::once(address.ip()).chain(also.addresses.iter().copied());
    let listen: Vec<String> = listen.map(|ip| ip.to_string()).collect();
    let listen = network.map_or_else(|| listen.join(","), |_| "*".to_owned());
    let seen = programs.seen(home);
    let mut sockets = seen.as_os_str().to_owned();
    if also.abstract_socket {
        sockets.push(",");
        sockets.push(abstract_folder(address));
    }
    let mut command = programs.command("postgres", account);
    command
        .arg("-D")
        .arg(seen.join("data"))
        .args(["-h", &listen, "-p", &address.port().to_string(), "-k"])
        .arg(sockets)
        .current_dir(home);
    for (key, value) in SETTINGS {
        command.arg("-c").arg(format!("{key}={value}"));
    }
    match network {
        // Who enters it has to be root still.
        Some(network) => command = enter(network, &account.confine(&command)),
        None => programs.apply(account, &mut command),
    }
    let log = home.with_file_name("postgres.log");
    // SIGINT: sessions are ended and the server stops; SIGTERM would wait for its clients.
    Server::start("PostgreSQL", command, &log, Signal::SIGINT)
}

/// The folder of the newest PostgreSQL server programs of this host.
pub fn programs() -> Result<PathBuf> {
    find_programs().context("no PostgreSQL server is installed; `cargo xtask setup` mends it")
}

fn find_programs() -> Option<PathBuf> {
    // Debian and Ubuntu keep one folder per major version; others put the programs on the path.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists())
        .max_by_key(|(version, _)| *version);
    if let Some((_, bin)) = newest {
        return Some(bin);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
}
