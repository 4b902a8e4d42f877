//! The audit record: one typed message per thing that happened, and the hash chain over them.
//!
//! Enters: what happened, as [`v1`] messages. Leaves: sealed records, signed checkpoints, and the verdict on a chain.
//! Does no I/O.

pub mod chain;
pub mod checkpoint;
#[cfg(feature = "columns")]
pub mod columns;
pub mod display;
pub mod export;
pub mod flat;
mod literals;
pub mod merkle;
pub mod policy;
pub mod proof;
pub mod verifier;
mod workload;

/// Records as messages, generated from `proto/guard/audit/v1/record.proto`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/guard.audit.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/guard.audit.v1.serde.rs"));
}

/// The schema version that this build writes.
pub const RECORD_VERSION: u32 = 1;

/// Longest encoded [`v1::SealedRecord`] in bytes: nobody writes, sends or takes a longer one.
pub const MAX_SEALED_LEN: usize = 4 * 1024 * 1024;

impl v1::Record {
    /// A record of `body`, stamped with the host's wall clock.
    pub fn now(body: v1::record::Body) -> Self {
        Self { version: RECORD_VERSION, at: Some(timestamp(std::time::SystemTime::now())), body: Some(body) }
    }
}

/// `time` as a protobuf timestamp; times before 1970 become 1970.
pub fn timestamp(time: std::time::SystemTime) -> pbjson_types::Timestamp {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    pbjson_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().cast_signed(),
    }
}
