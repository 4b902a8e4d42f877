//! The server that drivers are tried on: its roles, its tables, its TLS.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::{Authority, Postgres, postgres};

/// The database.
pub(super) const DATABASE: &str = "shop";
/// The role of all programs: SCRAM-SHA-256.
pub(super) const USER: &str = "tester";
/// A role that logs in by md5.
pub(super) const MD5_USER: &str = "oldtimer";
/// The password of both.
pub(super) const PASSWORD: &str = "not-a-secret \u{fc}";

const HBA: &str = "\
local all tester scram-sha-256
host all tester 127.0.0.1/32 scram-sha-256
local all oldtimer md5
host all oldtimer 127.0.0.1/32 md5
local all all trust
host all all 127.0.0.1/32 trust
";

const SCHEMA: &str = "
CREATE TABLE items (id int PRIMARY KEY, name varchar(1000) NOT NULL);
INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 1000) n;
CREATE TABLE guarded (id int);
GRANT SELECT, INSERT, UPDATE, DELETE ON items TO tester;
GRANT SELECT ON guarded TO tester;
GRANT pg_signal_backend TO tester;
";

/// A server that is ready for the programs.
#[derive(Debug)]
pub struct Shop {
    // INVARIANT: dropped in this order, the server before the folder of its certificates.
    /// The server.
    pub postgres: Postgres,
    authority: Authority,
}

impl Shop {
    /// Starts one. Programs may do everything in it but drop the table `guarded`.
    pub fn open() -> Result<Self> {
        let authority = Authority::new()?;
        let postgres = Postgres::with_tls(&authority)?;
        let owner = postgres.psql(postgres::OWNER, "postgres");
        for statement in [
            format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'"),
            "SET password_encryption = 'md5'".to_owned()
                + &format!("\\; CREATE ROLE {MD5_USER} LOGIN PASSWORD '{PASSWORD}'"),
            format!("CREATE DATABASE {DATABASE}"),
        ] {
            owner.script(&(statement + ";"))?.expect_ok("making the roles")?;
        }
        postgres.psql(postgres::OWNER, DATABASE).query(SCHEMA)?.expect_ok("making the tables")?;
        fs::write(postgres.data().join("pg_hba.conf"), HBA)?;
        owner.query("SELECT pg_reload_conf()")?.expect_ok("reloading pg_hba.conf")?;
        Ok(Self { postgres, authority })
    }

    /// The certificate that signed the server's, and guard's where guard shows the server's own.
    pub fn ca(&self) -> PathBuf {
        self.authority.certificate()
    }
}
