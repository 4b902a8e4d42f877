//! The control plane: agents' sealed records enter, a verified and searchable store of a fleet's decisions leaves.
//!
//! [`server`] speaks gRPC, [`enrol`] says who may be an agent and [`ca`] signs it, [`store`] verifies and keeps, [`proof`]
//! proves what it holds, [`policy`] hands out what hosts decide by, [`cli`] is the command line. Nothing is acknowledged that is not on disk, and nothing is stored that does not follow from the
//! agent's chain.

pub mod ca;
pub mod cli;
pub mod enrol;
pub mod keys;
pub mod policy;
pub mod proof;
pub mod server;
pub mod store;
