//! What a test needs of its machine, and how it says that it was not there.
//!
//! A skip is written to the file that `GUARD_SKIPS` names, one line each: `can` or `cannot`, test, reason. The task
//! runner counts them; on CI a `can` (something that this machine could do once it is set up) is a failure.

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use nix::unistd::Uid;

use crate::{browser, cgroup, postgres, receivers, versions};

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A PostgreSQL server and psql.
    Postgres,
    /// PgBouncer.
    PgBouncer,
    /// A kernel and rights that let eBPF programs load.
    Ebpf,
    /// A cgroup v2 hierarchy in which cgroups can be made.
    Cgroups,
    /// The right to mount.
    Mounts,
    /// Network namespaces, and the programs that make them.
    Networks,
    /// socat.
    Socat,
    /// runc.
    Runc,
    /// nft.
    Nftables,
    /// Chromium, node and what drives the one by the other.
    Browser,
    /// rsyslog with TLS.
    Rsyslog,
    /// The NATS server.
    Nats,
    /// DuckDB, for Python.
    DuckDb,
    /// A PostgreSQL server of this major version.
    PostgresVersion(u32),
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Postgres => postgres::programs().is_ok() && runs("psql"),
            Self::PgBouncer => runs("pgbouncer"),
            Self::Ebpf => ebpf_possible(),
            Self::Cgroups => Uid::effective().is_root() && cgroup::root().is_ok(),
            Self::Mounts => Uid::effective().is_root(),
            Self::Networks => Uid::effective().is_root() && succeeds("ip", "-V") && runs("nsenter"),
            Self::Socat => succeeds("socat", "-V"),
            Self::Runc => runs("runc"),
            Self::Nftables => runs("nft"),
            Self::Browser => browser::is_there(),
            Self::Rsyslog => receivers::rsyslog_is_there(),
            Self::Nats => receivers::nats_is_there(),
            Self::DuckDb => receivers::duckdb_is_there(),
            Self::PostgresVersion(major) => versions::is_there(major),
        }
    }

    /// Whether `cargo xtask setup` can mend it.
    fn can_be_installed(self) -> bool {
        matches!(
            self,
            Self::Postgres
                | Self::PgBouncer
                | Self::Socat
                | Self::Runc
                | Self::Nftables
                | Self::Browser
                | Self::Rsyslog
                | Self::Nats
                | Self::DuckDb
        )
    }

    fn describe(self) -> String {
        let fixed = match self {
            Self::PostgresVersion(major) => {
                return format!(
                    "no PostgreSQL {major} in target/tools: `cargo xtask setup test` gets it where Debian's archive has it"
                );
            }
            Self::Postgres => "PostgreSQL is not installed: `cargo xtask setup`",
            Self::PgBouncer => "PgBouncer is not installed: `cargo xtask setup`",
            Self::Ebpf => "eBPF programs cannot be loaded here (root, CAP_BPF and kernel BTF are needed)",
            Self::Nftables => "nftables is not installed: `cargo xtask setup`",
            Self::Networks => "network namespaces cannot be made (root, iproute2 and util-linux are needed)",
            Self::Mounts => "a small file system cannot be mounted (root is needed)",
            Self::Socat => "socat is not installed: `cargo xtask setup`",
            Self::Runc => "runc is not installed: `cargo xtask setup`",
            Self::Browser => {
                "Chromium, node or what drives them is not installed: `cargo xtask setup console`"
            }
            Self::Rsyslog => "rsyslog with TLS is not installed: `cargo xtask setup`",
            Self::Nats => "the NATS server is not installed: `cargo xtask setup`",
            Self::DuckDb => "DuckDB is not installed: `cargo xtask setup`",
            Self::Cgroups => "no cgroup v2 hierarchy to make cgroups in (root is needed)",
        };
        fixed.to_owned()
    }
}

/// Whether the running test has to end at once because something that it needs is not there. Says so, loudly.
#[must_use]
pub fn without(needs: &[Need]) -> bool {
    let Some(missing) = needs.iter().find(|need| !need.is_met()) else { return false };
    let test = thread::current().name().unwrap_or("?").to_owned();
    let kind = if missing.can_be_installed() { "can" } else { "cannot" };
    eprintln!("SKIPPED {test}: {}", missing.describe());
    if let Some(path) = env::var_os("GUARD_SKIPS")
        && let Ok(mut file) = fs::File::options().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{kind}\t{test}\t{}", missing.describe());
    }
    true
}

/// Whether eBPF programs should load here: rights, and the kernel's type information. Whether they do is what the
/// tests find out.
pub fn ebpf_possible() -> bool {
    const CAP_BPF: u32 = 39;
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let allowed = capabilities & (1 << CAP_BPF) != 0 || capabilities & (1 << CAP_SYS_ADMIN) != 0;
    allowed && Path::new("/sys/kernel/btf/vmlinux").exists()
}

fn runs(program: &str) -> bool {
    succeeds(program, "--version")
}

fn succeeds(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
