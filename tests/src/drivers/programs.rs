//! The programs of `tests/drivers`: how each is started.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::binaries;

/// Where the drivers themselves are installed.
#[derive(Clone, Debug)]
pub struct Tools {
    /// A Python with its drivers.
    pub python: PathBuf,
    /// The folder of node's packages.
    pub node_modules: PathBuf,
    /// The archive of the JDBC driver.
    pub jdbc: PathBuf,
}

/// A driver.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// What tables call it, and its folder.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Python,
    Node,
    Java,
    Rust,
}

/// All drivers.
pub const DRIVERS: &[Driver] = &[
    Driver { name: "psql", kind: Kind::Python },
    Driver { name: "pgbench", kind: Kind::Python },
    Driver { name: "psycopg", kind: Kind::Python },
    Driver { name: "psycopg2", kind: Kind::Python },
    Driver { name: "asyncpg", kind: Kind::Python },
    Driver { name: "sqlalchemy", kind: Kind::Python },
    Driver { name: "node", kind: Kind::Node },
    Driver { name: "jdbc", kind: Kind::Java },
    Driver { name: "tokio-postgres", kind: Kind::Rust },
];

impl Driver {
    /// Its program, without a way to a server.
    pub(super) fn command(&self, tools: &Tools) -> Result<Command> {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers");
        let own = programs.join(self.name);
        Ok(match self.kind {
            Kind::Python => {
                let mut command = Command::new(&tools.python);
                command.arg("-B").arg(own.join("main.py")).env("PYTHONPATH", &programs);
                command.env("PYTHONWARNINGS", "ignore");
                command
            }
            Kind::Node => {
                let mut command = Command::new("node");
                command.arg(own.join("main.js")).env("NODE_PATH", &tools.node_modules);
                command
            }
            Kind::Java => {
                let mut command = Command::new("java");
                // A short-lived program: compiling it thoroughly costs more than it saves.
                command.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(&tools.jdbc).arg(own.join("Main.java"));
                command
            }
            Kind::Rust => Command::new(binaries::path("guard-driver-tokio-postgres")?),
        })
    }
}
