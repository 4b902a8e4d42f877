//! Which mode applies where: the database's, else its server's, else the agent's.
//!
//! The configuration enters; for a server and a database the mode leaves, with what set it: records say both.

use std::collections::HashMap;

use crate::config::{Config, Mode};

/// What set a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeFrom {
    /// The configuration of the agent.
    Agent,
    /// That of the server.
    Server,
    /// That of the database.
    Database,
    /// A connection round the proxy could not be stopped.
    NonProxied,
    /// It was seen when nothing could stop it any more.
    Probe,
    /// Every policy that refused is in `@mode("monitor")`.
    Policy,
}

impl ModeFrom {
    /// Its word in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Server => "server",
            Self::Database => "database",
            Self::NonProxied => "non-proxied",
            Self::Probe => "probe",
            Self::Policy => "policy",
        }
    }
}

/// The mode of something, and what set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedMode {
    /// The mode.
    pub mode: Mode,
    /// What set it.
    pub from: ModeFrom,
}

impl AppliedMode {
    /// What would happen in enforce mode: for questions from the command line.
    pub const ENFORCED: Self = Self { mode: Mode::Enforce, from: ModeFrom::Agent };

    /// Of what probes see.
    pub const PROBED: Self = Self { mode: Mode::Monitor, from: ModeFrom::Probe };

    /// Of a connection round the proxy that could not be stopped.
    pub const NON_PROXIED: Self = Self { mode: Mode::Monitor, from: ModeFrom::NonProxied };
}

/// The modes that the configuration names.
#[derive(Debug)]
pub struct Modes {
    agent: Mode,
    servers: HashMap<String, OfServer>,
}

#[derive(Debug)]
struct OfServer {
    mode: Option<Mode>,
    databases: HashMap<String, Mode>,
}

impl Modes {
    /// As `config` says.
    pub fn new(config: &Config) -> Self {
        let of_server = |server: &crate::config::ServerConfig| {
            let databases = &server.databases;
            let named = databases.iter().filter_map(|(name, database)| Some((name.clone(), database.mode?)));
            (server.name.clone(), OfServer { mode: server.mode, databases: named.collect() })
        };
        Self { agent: config.mode, servers: config.servers.iter().map(of_server).collect() }
    }

    /// The mode of `database` on `server`; an empty `database` is the server as a whole.
    pub fn of(&self, server: &str, database: &str) -> AppliedMode {
        let server = self.servers.get(server);
        let of_database = server.and_then(|server| server.databases.get(database));
        if let Some(mode) = of_database {
            return AppliedMode { mode: *mode, from: ModeFrom::Database };
        }
        match server.and_then(|server| server.mode) {
            Some(mode) => AppliedMode { mode, from: ModeFrom::Server },
            None => AppliedMode { mode: self.agent, from: ModeFrom::Agent },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mode_applies() {
        let config = "mode = \"enforce\"\n\
             [[servers]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\nmode = \"monitor\"\n\
             [servers.databases.x]\nmode = \"enforce\"\n[servers.databases.y]\n\
             [[servers]]\nname = \"b\"\naddress = \"127.0.0.1:2\"\n";
        let modes = Modes::new(&toml::from_str(config).unwrap());
        let of = |server, database| {
            let AppliedMode { mode, from } = modes.of(server, database);
            (mode, from)
        };
        assert_eq!(of("a", "x"), (Mode::Enforce, ModeFrom::Database));
        assert_eq!(of("a", "y"), (Mode::Monitor, ModeFrom::Server));
        assert_eq!(of("a", ""), (Mode::Monitor, ModeFrom::Server));
        assert_eq!(of("b", "x"), (Mode::Enforce, ModeFrom::Agent));
        assert_eq!(of("discovered", "x"), (Mode::Enforce, ModeFrom::Agent));
    }
}
