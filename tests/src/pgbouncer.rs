//! PgBouncer in session mode before a private PostgreSQL: the yardstick of the proxy bench.

use std::{net::SocketAddr, process::Command};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::{Account, Folder, Postgres, Server, ports, postgres::OWNER};

/// How PgBouncer reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// `host=127.0.0.1`, as its manual's examples do.
    Tcp,
    /// By the server's unix socket.
    Unix,
}

/// A running PgBouncer. Dropping it ends it.
#[derive(Debug)]
pub struct PgBouncer {
    // INVARIANT: dropped in this order, the server before the folder under it.
    _server: Server,
    _folder: Folder,
    address: SocketAddr,
}

impl PgBouncer {
    /// Starts one that takes everybody and reaches `postgres` in this way.
    pub fn start(postgres: &Postgres, upstream: Upstream) -> Result<Self> {
        let account = Account::unprivileged()?;
        let folder = Folder::new("bouncer")?;
        let address = ports::free()?;
        let port = postgres.address().port();
        let host = match upstream {
            Upstream::Tcp => postgres.address().ip().to_string(),
            Upstream::Unix => postgres.socket_folder().display().to_string(),
        };
        // `auth_type = any` logs everybody in as the user that the database line names.
        let config = format!(
            "[databases]\n* = host={host} port={port} user={OWNER}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = session\nmax_client_conn = 300\n\
             default_pool_size = 100\nlog_connections = 0\nlog_disconnections = 0\n\
             ignore_startup_parameters = extra_float_digits\n",
            address.port()
        );
        let path = folder.write("pgbouncer.ini", &config)?;
        let log = folder.join("pgbouncer.log");
        let mut command = Command::new("pgbouncer");
        command.arg(path).current_dir(folder.path());
        account.apply(&mut command);
        let mut server = Server::start("PgBouncer", command, &log, Signal::SIGINT)?;
        server.wait_until(|_| ports::accepts(address))?;
        Ok(Self { _server: server, _folder: folder, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
