//! The control plane: agents' sealed records enter, a verified and searchable store of a fleet's decisions leaves.
//!
//! [`server`] speaks gRPC to agents, [`enrol`] says who may be one and [`ca`] signs it, [`store`] verifies and keeps,
//! [`proof`] proves what it holds, [`policy`] hands out what hosts decide by, [`outlets`] give on what is stored. [`http`]
//! serves people: pages by [`console`], JSON by [`api`], for whom [`people`] knows. [`cli`] is the command line. Nothing is
//! acknowledged that is not on disk, and nothing is stored that does not follow from the agent's chain.

pub mod api;
pub mod ca;
pub mod cli;
pub mod console;
pub mod enrol;
pub mod http;
pub mod keys;
pub mod moment;
pub mod outlets;
pub mod people;
pub mod policy;
pub mod proof;
pub mod reading;
pub mod server;
mod settings;
pub mod store;
pub mod webhooks;
