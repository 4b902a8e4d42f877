//! The harness: real servers on free ports, real clients, guard in front of them.
//!
//! Everything that a value of this crate starts ends with that value, by process id; every folder goes with it.
//! The harness never touches a server, a folder or a cgroup that it did not make.

mod account;
pub mod agent;
pub mod approvals;
pub mod binaries;
pub mod browser;
pub mod cgroup;
pub mod container;
pub mod control;
pub mod drivers;
mod folder;
pub mod hosts;
pub mod network;
pub mod pgbouncer;
pub mod ports;
pub mod postgres;
pub mod psql;
pub mod receivers;
pub mod records;
pub mod regress;
pub mod run;
pub mod server;
pub mod site;
pub mod skip;
pub mod tls;
pub mod tmpfs;
pub mod versions;
pub mod wire;
pub mod workload;

pub use account::Account;
pub use agent::{Agent, AgentConfig};
pub use browser::Browser;
pub use cgroup::Cgroup;
pub use container::Container;
pub use control::Control;
pub use folder::Folder;
pub use hosts::Hosts;
pub use network::Network;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use psql::Psql;
pub use run::Finished;
pub use server::Server;
pub use site::Site;
pub use tls::Authority;
