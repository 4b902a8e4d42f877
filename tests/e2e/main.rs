//! End to end: real servers, real clients, the real kernel. One module per scenario.

mod approvals;
mod approvals_protocol;
mod approvals_races;
mod bad_input;
mod bad_input_flow;
mod bad_input_limits;
mod bad_input_states;
mod entry;
mod faults;
mod harness;
mod least_privilege;
mod masking;
mod monitor_mode;
mod non_proxied;
mod ordinary_work;
mod policy_modes;
mod policy_rates;
mod policy_reload;
mod policy_replay;
mod policy_roles;
mod records;
mod refused_statements;
mod tls;
mod tls_upstream;
mod without_bpf;
mod workloads;
