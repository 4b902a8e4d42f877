//! The server that drivers are tried on: its roles, its tables, TLS where openssl can make a certificate.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{Postgres, postgres, run};

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
    /// The server.
    pub postgres: Postgres,
}

impl Shop {
    /// Starts one. Programs may do everything in it but drop the table `guarded`.
    pub fn open() -> Result<Self> {
        let postgres = Postgres::start()?;
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
        let shop = Self { postgres };
        fs::write(shop.data().join("pg_hba.conf"), HBA)?;
        owner.query("SELECT pg_reload_conf()")?.expect_ok("reloading pg_hba.conf")?;
        Ok(shop)
    }

    fn data(&self) -> PathBuf {
        self.postgres.socket_folder().join("data")
    }

    /// Lets the server speak TLS with a certificate of its own for `localhost` and 127.0.0.1; gives the certificate.
    pub fn speak_tls(&self) -> Result<PathBuf> {
        let (certificate, key) = (self.data().join("server.crt"), self.data().join("server.key"));
        make_certificate(&certificate, &key)?;
        for path in [&certificate, &key] {
            self.postgres.account().own(path)?;
        }
        let owner = self.postgres.psql(postgres::OWNER, "postgres");
        owner.query("ALTER SYSTEM SET ssl = on")?.expect_ok("turning TLS on")?;
        owner.query("SELECT pg_reload_conf()")?.expect_ok("reloading the configuration")?;
        // For the programs, which may run as somebody else than the server.
        let public = self.postgres.socket_folder().join("ca.crt");
        fs::copy(&certificate, &public)?;
        Ok(public)
    }
}

fn make_certificate(certificate: &Path, key: &Path) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-sha256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate);
    run::run(openssl, "", run::CLIENT_LIMIT)?.expect_ok("making a certificate")?;
    Ok(())
}
