//! Steering connections to the proxy, and what of it outlives the agent.

use serde::{Deserialize, Serialize};

use super::Config;

/// Whether connections to a server's own address are led to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Steer {
    /// They reach the server.
    #[default]
    Off,
    /// They reach the proxy.
    On,
}

/// What becomes of connections to a steered server when no agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenProxyGone {
    /// They are refused.
    Refuse,
    /// They reach the server.
    Pass,
}

/// What stays in the kernel when the agent is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// Nothing.
    #[default]
    Remove,
    /// Everything: `when_proxy_gone` says what becomes of connections, until an agent runs again.
    Keep,
}

/// How connections are led.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SteeringMeans {
    /// By sk_lookup where the kernel has it, else by nftables.
    #[default]
    Auto,
    /// By an sk_lookup program (Linux 5.9).
    SkLookup,
    /// By a table of nftables.
    Nftables,
}

/// What outlives the agent in the kernel.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PinsConfig {
    /// This agent's name on its host: what it pins is in `/sys/fs/bpf/guard/<instance>`.
    pub instance: String,
    /// What stays when the agent is stopped.
    pub on_stop: OnStop,
}

impl Default for PinsConfig {
    fn default() -> Self {
        Self { instance: "agent".to_owned(), on_stop: OnStop::Remove }
    }
}

/// What all steered servers share.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SteeringConfig {
    /// How connections are led.
    pub means: SteeringMeans,
    /// Mark of the proxy's connections to steered servers, and number of the routing table that goes with it.
    pub mark: u32,
}

impl Default for SteeringConfig {
    fn default() -> Self {
        Self { means: SteeringMeans::Auto, mark: 0x0067_0001 }
    }
}

/// The key and what is wrong with it.
pub(super) fn check(config: &Config) -> Result<(), (String, String)> {
    let wrong = |key: String, problem: &str| Err((key, problem.to_owned()));
    let (steering, instance) = (&config.steering, &config.pins.instance);
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if instance.is_empty() || instance.len() > 64 || !instance.chars().all(fits) {
        return wrong("pins.instance".to_owned(), "write up to 64 letters, digits, `-` and `_`");
    }
    // The tables below 256 have meanings of their own.
    if steering.mark < 256 {
        return wrong(
            "steering.mark".to_owned(),
            "choose 256 or more: the routing table has the same number",
        );
    }
    for server in &config.servers {
        if server.steer == Steer::On && server.when_proxy_gone.is_none() {
            return wrong(
                format!("servers.{}.when_proxy_gone", server.name),
                "say what becomes of connections when no agent runs: \"refuse\" (nobody reaches the server) or \"pass\" \
                 (everybody does, unseen)",
            );
        }
        if server.steer == Steer::On && server.address.port() == 0 {
            return wrong(format!("servers.{}.address", server.name), "a steered server needs its port");
        }
    }
    Ok(())
}
