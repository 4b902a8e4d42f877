//! psql against one address: real client, exit code, output, SQLSTATE.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::{
    Account, Authority, Server,
    run::{self, CLIENT_LIMIT, Finished},
    tls::Signed,
};

/// How to reach a server with psql.
#[derive(Clone, Debug)]
pub struct Psql {
    host: String,
    port: u16,
    user: String,
    database: String,
    password: Option<String>,
    variables: Vec<(&'static str, String)>,
}

impl Psql {
    /// Over TCP.
    pub fn tcp(address: SocketAddr, user: &str, database: &str) -> Self {
        Self::new(address.ip().to_string(), address.port(), user, database)
    }

    /// Over the unix socket `.s.PGSQL.<port>` in `folder`.
    pub fn unix(folder: &Path, port: u16, user: &str, database: &str) -> Self {
        Self::new(folder.display().to_string(), port, user, database)
    }

    fn new(host: String, port: u16, user: &str, database: &str) -> Self {
        Self {
            host,
            port,
            user: user.to_owned(),
            database: database.to_owned(),
            password: None,
            variables: Vec::new(),
        }
    }

    /// The same with a password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// The same with a variable of libpq, such as `PGSSLMODE`.
    pub fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// The same with TLS by `sslmode`, trusting `authority`.
    pub fn tls(self, sslmode: &str, authority: &Authority) -> Self {
        let root = authority.certificate().display().to_string();
        self.variable("PGSSLMODE", sslmode).variable("PGSSLROOTCERT", root)
    }

    /// The same, presenting a certificate.
    pub fn certificate(self, own: &Signed) -> Self {
        self.variable("PGSSLCERT", own.certificate.display().to_string())
            .variable("PGSSLKEY", own.key.display().to_string())
    }

    /// Its arguments, without a statement.
    pub fn arguments(&self) -> Vec<String> {
        let port = self.port.to_string();
        ["-X", "-w", "-h", &self.host, "-p", &port, "-U", &self.user, "-d", &self.database]
            .map(str::to_owned)
            .to_vec()
    }

    /// What any of PostgreSQL's own clients needs to connect, without the database.
    pub fn connection_arguments(&self) -> Vec<String> {
        let port = self.port.to_string();
        ["-h", &self.host, "-p", &port, "-U", &self.user].map(str::to_owned).to_vec()
    }

    /// The command as a person would type it.
    pub fn shown(&self) -> String {
        format!("psql -h {} -p {} -U {} {}", self.host, self.port, self.user, self.database)
    }

    /// The command: errors show their SQLSTATE, nothing of the caller's settings leaks in.
    pub fn command(&self) -> Command {
        let mut command = Command::new("psql");
        command.args(self.arguments()).args(["-v", "VERBOSITY=verbose", "-P", "pager=off"]);
        self.environment(&mut command);
        command
    }

    /// Gives `command` the environment that a client of this server gets.
    pub fn environment(&self, command: &mut Command) {
        for name in ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGOPTIONS", "PGSERVICE", "PGSSLMODE"] {
            command.env_remove(name);
        }
        command.env("PGCONNECT_TIMEOUT", "10").env("PSQL_HISTORY", "/dev/null").env("LC_ALL", "C.UTF-8");
        match &self.password {
            Some(password) => command.env("PGPASSWORD", password),
            None => command.env_remove("PGPASSWORD"),
        };
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// Runs one string with `-c`, unaligned and without headers.
    pub fn query(&self, sql: &str) -> Result<Finished> {
        let mut command = self.command();
        command.args(["-A", "-t", "-q", "-c", sql]);
        run::run(command, "", CLIENT_LIMIT)
    }

    /// Runs a script in one session, as from a keyboard: after an error it goes on.
    pub fn script(&self, lines: &str) -> Result<Finished> {
        let mut command = self.command();
        command.args(["-A", "-t", "-q"]);
        run::run(command, lines, CLIENT_LIMIT)
    }

    /// Starts one statement and does not wait for it: a client that is still there. `log` takes its output.
    pub fn start(&self, sql: &str, log: &Path) -> Result<Server> {
        let mut command = self.command();
        command.args(["-A", "-t", "-q", "-c", sql]);
        Server::start("psql", command, log, Signal::SIGTERM)
    }

    /// The same by another account of this host.
    pub fn start_as(&self, account: &Account, sql: &str, log: &Path) -> Result<Server> {
        let mut command = self.command();
        command.args(["-A", "-t", "-q", "-c", sql]);
        Server::start("psql", account.in_person(&command), log, Signal::SIGTERM)
    }

    /// Runs a script in one session by another account of this host.
    pub fn script_as(&self, account: &Account, lines: &str) -> Result<Finished> {
        let mut command = self.command();
        command.args(["-A", "-t", "-q"]);
        run::run(account.in_person(&command), lines, CLIENT_LIMIT)
    }

    /// Runs a script with the output that a person sees, and errors of ordinary length.
    pub fn display(&self, lines: &str) -> Result<Finished> {
        run::run(self.displaying(), lines, CLIENT_LIMIT)
    }

    /// The same by another account of this host.
    pub fn display_as(&self, account: &Account, lines: &str) -> Result<Finished> {
        run::run(account.in_person(&self.displaying()), lines, CLIENT_LIMIT)
    }

    fn displaying(&self) -> Command {
        let mut command = Command::new("psql");
        command.args(self.arguments()).args(["-P", "pager=off"]);
        self.environment(&mut command);
        command
    }
}
