//! The host agent, in the order in which a statement travels through it.
//!
//! Kernel events become connections ([`sensor`], [`identity`], [`servers`], [`connections`]), and those that policy
//! refuses are acted on ([`enforce`]); the proxy reads
//! statements ([`listen`], [`wire`], [`session`], [`sql`]), decides ([`decide`]) and records ([`audit`], [`uplink`]).
//! What processes here connect to on other hosts is reported ([`clients`]).

pub mod agent;
pub mod approval;
pub mod audit;
pub mod catalog;
pub mod cli;
pub mod clients;
pub mod config;
pub mod connections;
pub mod decide;
pub mod enforce;
pub mod hold;
pub mod identity;
pub mod listen;
pub mod mask;
pub mod observe;
pub mod probes;
pub mod sensor;
pub mod servers;
pub mod session;
pub mod sql;
pub mod steering;
pub mod tls;
pub mod uplink;
pub mod wire;
