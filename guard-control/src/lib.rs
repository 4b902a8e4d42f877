//! The control plane: agents' sealed records enter, a verified and searchable store of a fleet's decisions leaves.
//!
//! [`server`] speaks gRPC, [`store`] verifies and keeps, [`cli`] is the command line. Nothing is acknowledged that is
//! not on disk, and nothing is stored that does not follow from the agent's chain.

pub mod cli;
pub mod server;
pub mod store;
