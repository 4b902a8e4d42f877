//! Where records of the control plane go: rsyslog over TLS, NATS with JetStream, DuckDB on files.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::{Account, Authority, Folder, Server, ports};

/// Daemons lie where the path of ordinary users does not lead.
fn daemon(name: &str) -> PathBuf {
    let installed = Path::new("/usr/sbin").join(name);
    if installed.exists() { installed } else { PathBuf::from(name) }
}

fn answers(program: PathBuf, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

/// Whether rsyslog is there, with TLS.
pub fn rsyslog_is_there() -> bool {
    let driver = "lmnsd_gtls.so";
    let folders =
        fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path().join("rsyslog"));
    answers(daemon("rsyslogd"), "-v") && folders.into_iter().any(|folder| folder.join(driver).exists())
}

/// Whether the NATS server is there.
pub fn nats_is_there() -> bool {
    answers(daemon("nats-server"), "--version")
}

/// Whether DuckDB is there, where the setup puts it.
pub fn duckdb_is_there() -> bool {
    Command::new(python()).args(["-c", "import duckdb"]).output().is_ok_and(|output| output.status.success())
}

fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python/bin/python")
}

/// Runs a query and gives what it leads to: a line for each row, its values as JSON.
pub fn duckdb(query: &str) -> Result<Vec<String>> {
    let program = "import sys, json, duckdb\n\
                   for row in duckdb.sql(sys.argv[1]).fetchall(): print(json.dumps(row, default=str))";
    let output = Command::new(python()).args(["-c", program, query]).output().context("cannot run python")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

/// A running rsyslog that takes messages over TLS and writes one JSON object for each. Dropping it ends it.
#[derive(Debug)]
pub struct Rsyslog {
    // INVARIANT: dropped in this order, the server before the folder under it.
    server: Server,
    folder: Folder,
    address: SocketAddr,
}

impl Rsyslog {
    /// Starts one whose certificate is of `authority`.
    pub fn start(authority: &Authority) -> Result<Self> {
        let account = Account::unprivileged()?;
        let folder = Folder::new("rsyslog")?;
        account.own(folder.path())?;
        let signed = authority.server("rsyslog")?;
        let (certificate, key) = (folder.join("own.crt"), folder.join("own.key"));
        signed.install(&certificate, &key, &account)?;
        let address = ports::free()?;
        let fields =
            ["pri", "timestamp", "hostname", "app-name", "msgid", "structured-data", "msg"].map(|name| {
                let date = if name == "timestamp" { " dateFormat=\"rfc3339\"" } else { "" };
                format!("property(name=\"{name}\"{date} format=\"jsonf\")")
            });
        let config = format!(
            "global(workDirectory=\"{folder}\" maxMessageSize=\"64k\" defaultNetstreamDriver=\"gtls\"\n\
             defaultNetstreamDriverCAFile=\"{ca}\" defaultNetstreamDriverCertFile=\"{certificate}\"\n\
             defaultNetstreamDriverKeyFile=\"{key}\" parser.escapeControlCharactersOnReceive=\"off\")\n\
             module(load=\"imtcp\" StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\")\n\
             template(name=\"fields\" type=\"list\") {{ constant(value=\"{{\") {} constant(value=\"}}\\n\") }}\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{}\")\n\
             action(type=\"omfile\" file=\"{folder}/messages\" template=\"fields\" fileCreateMode=\"0644\")\n",
            fields.join(" constant(value=\",\") "),
            address.port(),
            folder = folder.path().display(),
            ca = authority.certificate().display(),
            certificate = certificate.display(),
            key = key.display(),
        );
        folder.write("rsyslog.conf", &config)?;
        let server = Self::launch(&folder, &account, address)?;
        Ok(Self { server, folder, address })
    }

    fn launch(folder: &Folder, account: &Account, address: SocketAddr) -> Result<Server> {
        let mut command = Command::new(daemon("rsyslogd"));
        command.args(["-n", "-f"]).arg(folder.join("rsyslog.conf")).arg("-i").arg(folder.join("pid"));
        command.current_dir(folder.path());
        account.apply(&mut command);
        let mut server = Server::start("rsyslog", command, &folder.join("log"), Signal::SIGTERM)?;
        server.wait_until(|_| ports::accepts(address))?;
        Ok(server)
    }

    /// Ends it, as a crash would, and starts it again.
    pub fn crash(&mut self) -> Result<()> {
        self.server.kill()?;
        self.server = Self::launch(&self.folder, &Account::unprivileged()?, self.address)?;
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that it has written, one JSON object for each message.
    pub fn messages(&self) -> Vec<String> {
        let written = fs::read_to_string(self.folder.join("messages")).unwrap_or_default();
        written.lines().map(str::to_owned).collect()
    }
}

/// A running NATS server with JetStream. Dropping it ends it.
#[derive(Debug)]
pub struct NatsServer {
    // INVARIANT: dropped in this order, the server before the folder under it.
    server: Server,
    folder: Folder,
    address: SocketAddr,
}

impl NatsServer {
    /// Starts one; with TLS, where there is an authority, and then for those alone who give `token`.
    pub fn start(tls: Option<(&Authority, &str)>) -> Result<Self> {
        let account = Account::unprivileged()?;
        let folder = Folder::new("nats")?;
        account.own(folder.path())?;
        let address = ports::free()?;
        let mut config =
            format!("listen: \"{address}\"\njetstream {{ store_dir: \"{}\" }}\n", folder.path().display());
        if let Some((authority, token)) = tls {
            let (certificate, key) = (folder.join("own.crt"), folder.join("own.key"));
            authority.server("nats")?.install(&certificate, &key, &account)?;
            config.push_str(&format!(
                "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\nauthorization {{ token: \"{token}\" }}\n",
                certificate.display(),
                key.display()
            ));
        }
        folder.write("nats.conf", &config)?;
        let server = Self::launch(&folder, &account, address)?;
        Ok(Self { server, folder, address })
    }

    fn launch(folder: &Folder, account: &Account, address: SocketAddr) -> Result<Server> {
        let mut command = Command::new(daemon("nats-server"));
        command.arg("-c").arg(folder.join("nats.conf")).current_dir(folder.path());
        account.apply(&mut command);
        let mut server = Server::start("NATS", command, &folder.join("log"), Signal::SIGINT)?;
        server.wait_until(|_| ports::accepts(address))?;
        Ok(server)
    }

    /// Ends it, as a crash would.
    pub fn crash(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.server = Self::launch(&self.folder, &Account::unprivileged()?, self.address)?;
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
