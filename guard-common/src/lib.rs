//! What more than one part of guard must agree on.
//!
//! [`kernel`] is shared with the eBPF programs and needs no std; `audit` is the typed record and its hash chain;
//! `api` is the gRPC contract. Nothing here does I/O.
#![cfg_attr(not(feature = "audit"), no_std)]

/// Where generated code of one package looks for that of another.
#[cfg(feature = "api")]
mod agent {
    pub(crate) mod v1 {
        pub use crate::api::agent::*;
    }
}
#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "audit")]
pub mod audit;
pub mod kernel;
