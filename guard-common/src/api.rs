//! The gRPC contract, generated from `proto/`: agent to control plane, command line to agent.

/// Between an agent and the control plane, and between people and the control plane.
pub mod control {
    #![allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
    tonic::include_proto!("guard.control.v1");
    include!(concat!(env!("OUT_DIR"), "/guard.control.v1.serde.rs"));
}

/// Between the command line and a running agent.
pub mod agent {
    #![allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
    tonic::include_proto!("guard.agent.v1");
    include!(concat!(env!("OUT_DIR"), "/guard.agent.v1.serde.rs"));
}
