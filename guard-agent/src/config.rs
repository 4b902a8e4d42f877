//! The agent's configuration: one TOML file, every key optional, overridden by `GUARD_` environment variables.
//!
//! Enters: a file and the environment. Leaves: a checked [`Config`], or an error that names the key and the fix.

mod clients;
mod hold;
mod load;
mod masking;
mod network;
mod steering;
mod tls;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    clients::{ClientsConfig, Place},
    hold::HoldChoice,
    load::{ConfigError, DEFAULT_PATH, ENV_PREFIX, Loaded},
    masking::{MaskingConfig, TaggedColumn},
    network::Network,
    steering::{OnStop, PinsConfig, Steer, SteeringConfig, SteeringMeans, WhenProxyGone},
    tls::{ClientCertificateMode, TlsConfig, TlsMode, TlsVersion, UpstreamTlsMode},
};
use crate::{
    approval::Groups,
    audit::LiteralsKey,
    sensor::{Feature, Rung},
    servers::Engine,
};

/// Everything that can be configured. `Config::default()` is what runs with no file at all.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `monitor` records what would have been refused; `enforce` refuses.
    pub mode: Mode,
    /// The environment of servers that do not name their own.
    pub environment: Environment,
    /// Where things are kept.
    pub paths: Paths,
    /// How policies are taken.
    pub policy: PolicyConfig,
    /// The kernel side.
    pub sensor: SensorConfig,
    /// Recognising who connects.
    pub identity: IdentityConfig,
    /// Finding database servers that are not listed.
    pub discovery: DiscoveryConfig,
    /// Database servers.
    pub servers: Vec<ServerConfig>,
    /// The proxy's limits.
    pub proxy: ProxyConfig,
    /// What outlives the agent in the kernel.
    pub pins: PinsConfig,
    /// Leading connections to servers' own addresses to the proxy.
    pub steering: SteeringConfig,
    /// Masking of sensitive data in results.
    pub masking: MaskingConfig,
    /// The audit journal on this host.
    pub journal: JournalConfig,
    /// The control plane.
    pub control: ControlConfig,
    /// Statements that wait for people.
    pub approvals: ApprovalsConfig,
    /// Reporting what processes of this host connect to on other hosts.
    pub clients: ClientsConfig,
}

/// What a refusal by policy does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Recorded, and the statement runs.
    #[default]
    Monitor,
    /// The statement does not run.
    Enforce,
}

impl Mode {
    /// Its word in the configuration and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Enforce => "enforce",
        }
    }
}

/// Name of an environment, the top of the policy's resource hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Environment(pub String);

impl Default for Environment {
    fn default() -> Self {
        Self("production".to_owned())
    }
}

/// Folders and files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// Agent id, journal and uplink position. Mode 0700.
    pub state: PathBuf,
    /// The socket of the command line.
    pub run: PathBuf,
    /// Policy folder; the policies built into the agent where it does not exist and is not configured.
    pub policies: Option<PathBuf>,
}

impl Default for Paths {
    fn default() -> Self {
        Self { state: "/var/lib/guard".into(), run: "/run/guard".into(), policies: None }
    }
}

/// How policies are taken.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Seconds between two looks at the policy folder; 0: only SIGHUP takes it anew.
    pub watch_seconds: u64,
    /// Run the policies that the control plane hands down, once it has, instead of the folder's. They count only if they are
    /// signed by the key that this agent was given when it joined.
    pub from_control: bool,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self { watch_seconds: 2, from_control: false }
    }
}

/// The kernel side.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SensorConfig {
    /// Load the eBPF programs. Without them connections come from the kernel's tables of sockets and identity from /proc.
    pub ebpf: bool,
    /// Refuse to start where the eBPF programs cannot be loaded.
    pub required: bool,
    /// Refuse to start below this rung of the ladder (`guard-agent doctor` names that of this host).
    pub lowest_rung: Option<Rung>,
    /// Size of the kernel's event ring buffer in KiB: a power of two.
    pub ring_kib: u32,
    /// Size of the ring buffer for the statements of observed servers in KiB: a power of two.
    pub statement_ring_kib: u32,
    /// Count the runs of each kernel program and their time: `guard-agent status` shows what each costs. It costs a little
    /// itself, for all eBPF programs of the host.
    pub measure_cost: bool,
    /// Log what the kernel programs log (for debugging).
    pub kernel_log: bool,
    /// Do without these, as if this host lacked them: `ring-buffer`, `btf`, `bpf-link`, `cgroup-v2`, `bpf`. To try a rung of
    /// the ladder, or to step round a kernel's fault.
    pub without: Vec<Feature>,
    /// Before Linux 6.7: refuse connects to unix sockets at the kernel's security checks. Nobody has shown yet that it works
    /// on such a kernel; without it these connections are cut.
    pub security_hooks: bool,
}

impl Default for SensorConfig {
    fn default() -> Self {
        Self {
            ebpf: true,
            required: false,
            lowest_rung: None,
            ring_kib: 4096,
            statement_ring_kib: 8192,
            measure_cost: false,
            kernel_log: false,
            without: Vec::new(),
            security_hooks: false,
        }
    }
}

/// Recognising who connects.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// Executable names of AI agents beside the built-in list: `name` or `name=executable`; `-name` takes a built-in one
    /// out, `-*` all of them.
    pub ai_agents: Vec<String>,
    /// The same for CI runners.
    pub ci_runners: Vec<String>,
    /// Processes that are remembered.
    pub max_processes: usize,
    /// Largest program file of which the SHA-256 is recorded, in MiB; 0: of none.
    pub hash_max_mib: u64,
    /// Where kubelet listens, for labels, service accounts and owners of pods; asked only where there are pods. Empty: it
    /// is never asked.
    pub kubelet: String,
    /// The file of the token for kubelet.
    pub kubelet_token: PathBuf,
    /// The certificate that kubelet presents, PEM; by default what it keeps under /var/lib/kubelet/pki.
    pub kubelet_certificate: Option<PathBuf>,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            ai_agents: Vec::new(),
            ci_runners: Vec::new(),
            max_processes: 65_536,
            hash_max_mib: 512,
            kubelet: "https://127.0.0.1:10250".to_owned(),
            kubelet_token: "/var/run/secrets/kubernetes.io/serviceaccount/token".into(),
            kubelet_certificate: None,
        }
    }
}

/// Finding database servers by process and port.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoveryConfig {
    /// Look for local database servers.
    pub enabled: bool,
    /// Seconds between two looks.
    pub interval_seconds: u64,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { enabled: true, interval_seconds: 5 }
    }
}

/// One database server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Unique name, used in policies and records.
    pub name: String,
    /// The protocol that it speaks.
    #[serde(default)]
    pub engine: Engine,
    /// Environment, where it is not the agent's own.
    #[serde(default)]
    pub environment: Option<String>,
    /// Where the server listens on TCP.
    pub address: SocketAddr,
    /// Its unix socket (the file, as in `/var/run/postgresql/.s.PGSQL.5432`). The proxy then reaches the server by it
    /// alone, for clients from the network too, and the `local` lines of `pg_hba.conf` decide about them.
    #[serde(default)]
    pub unix_socket: Option<PathBuf>,
    /// In enforce mode, take everybody's way to the folder of `unix_socket` but its owner's and root's: for kernels
    /// that cannot refuse a connect there. The folder has to be the server's own; it is given back at the end.
    #[serde(default)]
    pub close_socket_folder: bool,
    /// Where the proxy for it listens; no proxy without it.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// A unix socket on which the proxy listens too.
    #[serde(default)]
    pub listen_unix: Option<PathBuf>,
    /// Let clients of other hosts talk to the proxy in clear: needed for a `listen` that is not on loopback, unless TLS is
    /// required.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// TLS towards its clients, where it differs from `proxy.tls`.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// TLS towards the server, where it differs from `proxy.upstream_tls`.
    #[serde(default)]
    pub upstream_tls: Option<UpstreamTlsMode>,
    /// Authorities that have signed the server's certificate, PEM.
    #[serde(default)]
    pub upstream_ca: Option<PathBuf>,
    /// The name in the server's certificate, where it is not the address.
    #[serde(default)]
    pub upstream_name: Option<String>,
    /// Lead connections to the server's own address to the proxy.
    #[serde(default)]
    pub steer: Steer,
    /// What becomes of them when the proxy is gone: to be chosen where `steer` is on.
    #[serde(default)]
    pub when_proxy_gone: Option<WhenProxyGone>,
    /// Mode, where it is not the agent's own.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Hold statements that do not come through the proxy, in the server's own processes, until policy has decided on
    /// them. It governs everybody, superusers on the unix socket as well. It takes eBPF and PostgreSQL 13 to 18.
    #[serde(default)]
    pub hold: bool,
    /// What happens to statements that are being held when guard-agent dies or hangs: `cancel` or `run`.
    #[serde(default = "HoldChoice::cancel")]
    pub hold_orphans: HoldChoice,
    /// What happens to statements that come while nobody can decide on them: `run` or `cancel`.
    #[serde(default = "HoldChoice::run")]
    pub hold_unattended: HoldChoice,
    /// See the statements that it runs by probes in the server itself: those that go round the proxy, and those inside of
    /// functions. `false`: the proxy's word alone.
    #[serde(default = "observed")]
    pub observe: bool,
    /// What differs for databases of this server, by their names.
    #[serde(default)]
    pub databases: BTreeMap<String, DatabaseConfig>,
}

fn observed() -> bool {
    true
}

/// One database of a server.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// Mode, where it is not the server's.
    pub mode: Option<Mode>,
}

/// The proxy's limits.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// Open client connections; more are refused with SQLSTATE 53300.
    pub max_connections: usize,
    /// Seconds that a client may take to log in.
    pub login_timeout_seconds: u64,
    /// Seconds that the server may take to accept a connection.
    pub connect_timeout_seconds: u64,
    /// Longest statement text that is classified, in bytes; longer ones are refused by policy as unreadable.
    pub max_statement_bytes: usize,
    /// Prepared statements per session.
    pub max_prepared_statements: usize,
    /// Threads that serve sessions; 0 means as many as there are cores.
    pub threads: usize,
    /// Niceness of these threads, and of the session that the agent leads: from -20, the largest share of the processors, to
    /// 19. 0 leaves both as they are.
    pub nice: i8,
    /// Where discovered servers get a proxy: on this address, at the server's port plus 1000. Empty: none.
    pub discovered_listen: String,
    /// TLS towards clients.
    pub tls: TlsConfig,
    /// TLS towards servers.
    pub upstream_tls: UpstreamTlsMode,
    /// Load balancers that put a PROXY protocol version 2 header in front of each connection. From nobody else is it taken.
    pub proxy_protocol_from: Vec<Network>,
    /// Clients of one address that may be logging in at the same time; 0: any number.
    pub max_logins_per_address: usize,
    /// Seconds after which a session that is idle outside of a transaction is ended; 0: never.
    pub idle_timeout_seconds: u64,
    /// Seconds that sessions in the middle of something may go on when the agent stops.
    pub drain_seconds: u64,
    /// Add the workload's name to `application_name`, for the server's log and `pg_stat_activity`.
    pub name_workload: bool,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            max_connections: 5_000,
            login_timeout_seconds: 60,
            connect_timeout_seconds: 10,
            max_statement_bytes: 16 * 1024 * 1024,
            max_prepared_statements: 10_000,
            threads: 0,
            nice: -7,
            discovered_listen: "127.0.0.1".to_owned(),
            tls: TlsConfig::default(),
            upstream_tls: UpstreamTlsMode::default(),
            proxy_protocol_from: Vec::new(),
            max_logins_per_address: 1_000,
            idle_timeout_seconds: 0,
            drain_seconds: 5,
            name_workload: false,
        }
    }
}

/// The audit journal on this host.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Disk that the journal may take, in MiB; the oldest acknowledged segments go first.
    pub max_mib: u64,
    /// Size of one segment in MiB.
    pub segment_mib: u64,
    /// `disk`: a committed record has reached the disk; `os`: it has been handed to the operating system.
    pub sync: Sync,
    /// Records that may wait for the journal.
    pub queue: usize,
    /// How long a record may stand unsigned, in seconds; 0: nothing is signed.
    pub sign_seconds: u64,
    /// Days after which a new key signs; 0: only when asked.
    pub key_days: u32,
    /// Days that records are kept; 0: for as long as there is room.
    pub keep_days: u32,
    /// How literals and parameters of statements stand in records. Passwords never do.
    pub literals: LiteralForm,
    /// The public key that they are sealed for, where that is `encrypted`.
    pub literals_key: Option<LiteralsKey>,
}

/// How literals and parameters of statements stand in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LiteralForm {
    /// As placeholders.
    #[default]
    Redacted,
    /// Sealed for the holder of a private key.
    Encrypted,
    /// In clear.
    Full,
}

impl LiteralForm {
    /// Its word in the configuration and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redacted => "redacted",
            Self::Encrypted => "encrypted",
            Self::Full => "full",
        }
    }
}

/// When a record counts as committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// After fdatasync: it survives a power cut.
    #[default]
    Disk,
    /// After write: it survives the agent's death, not the host's.
    Os,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            max_mib: 1024,
            segment_mib: 16,
            sync: Sync::Disk,
            queue: 65_536,
            sign_seconds: 60,
            key_days: 90,
            keep_days: 0,
            literals: LiteralForm::default(),
            literals_key: None,
        }
    }
}

/// Statements that wait for people.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalsConfig {
    /// Seconds that a request is open, where its policy says nothing by `@within`.
    pub within_seconds: u64,
    /// Statements that may wait at the same time; more are refused.
    pub max_waiting: usize,
    /// Seconds between two notices to a client that waits; 0: only the first one.
    pub remind_seconds: u64,
    /// Ask the server what a waiting statement would touch, by EXPLAIN on its own connection.
    pub estimates: bool,
    /// Take approvals that the control plane hands down. Without it people decide on this host alone.
    pub from_control: bool,
    /// Who is in the groups that policies name: `user:alice`, `uid:1001`, `group:dba`. A group that is not here is the
    /// unix group of its name; where the host has none, root decides.
    pub groups: Groups,
}

impl Default for ApprovalsConfig {
    fn default() -> Self {
        Self {
            within_seconds: 900,
            max_waiting: 200,
            remind_seconds: 60,
            estimates: true,
            from_control: false,
            groups: Groups::default(),
        }
    }
}

/// The control plane.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Such as `http://127.0.0.1:7400`; no control plane where it is not set.
    pub endpoint: Option<String>,
    /// Labels of this host, shown in the control plane.
    pub labels: BTreeMap<String, String>,
}
