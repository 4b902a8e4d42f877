//! The control plane: agents' sealed records enter, a verified and searchable store of a fleet's decisions leaves.
//!
//! [`server`] speaks gRPC to agents, [`store`] verifies and keeps, [`http`] serves people: pages by [`console`], JSON by
//! [`api`], for whom [`people`] knows. [`cli`] is the command line. Nothing is acknowledged that is not on disk, and
//! nothing is stored that does not follow from the agent's chain.

pub mod api;
pub mod cli;
pub mod console;
pub mod http;
pub mod people;
pub mod reading;
pub mod server;
pub mod store;
pub mod webhooks;
