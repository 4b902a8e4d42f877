//! `guard-agent status`.

use std::{fmt::Write as _, io::Write as _, process::ExitCode};

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use guard_common::api::agent::{ServerStatus, StatusResponse};

use super::{fail, print};
use crate::{agent, config::Config};

/// Show what a running agent protects, and how well.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs `guard-agent status`.
pub(super) fn run(args: &StatusArgs, config: &Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(agent::status(&config.paths.run)) {
        Ok(status) if args.json => print(|out| writeln!(out, "{}", serde_json::to_string(&status)?)),
        Ok(status) => print(|out| out.write_all(describe(&status).as_bytes())),
        Err(error) => fail(error),
    }
}

fn describe(status: &StatusResponse) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{label:<10} {value}");
    };
    line("mode", status.mode.clone());
    let hash = status.policy_hash.get(..12).unwrap_or_default();
    line("policies", format!("{} ({hash})", status.policy_source));
    if !status.policy_error.is_empty() {
        line("", format!("NEWER FILES ARE NOT IN FORCE: {}", status.policy_error));
    }
    if let Some(sensor) = &status.sensor {
        line("evidence", sensor.rung.clone());
        sensor.missing.iter().for_each(|missing| line("", format!("missing: {missing}")));
    }
    if let Some(journal) = &status.journal {
        let size = journal.bytes / 1024;
        line("journal", format!("{} records, {size} KiB in {}", journal.last_sequence, journal.directory));
        if journal.lost > 0 {
            line("", format!("{} RECORDS LOST: see the gap records", journal.lost));
        }
        if !journal.error.is_empty() {
            line("", format!("NOT WRITABLE: {}", journal.error));
        }
    }
    match &status.uplink {
        Some(uplink) if !uplink.endpoint.is_empty() => {
            let state = if uplink.connected { "connected" } else { "NOT CONNECTED" };
            line(
                "control",
                format!("{} {state}, {} acknowledged", uplink.endpoint, uplink.acknowledged_sequence),
            );
            if !uplink.error.is_empty() {
                line("", uplink.error.clone());
            }
        }
        _ => line("control", "none configured".to_owned()),
    }
    if let Some(approvals) = &status.approvals {
        let (waiting, approved) = (approvals.waiting, approvals.approved);
        line("approvals", format!("{waiting} waiting, {approved} approved and not yet sent again"));
        if !approvals.error.is_empty() {
            line("", format!("NOT KEPT: {}", approvals.error));
        }
    }
    if status.servers.is_empty() {
        text.push_str("\nno database server found on this host\n");
        return text;
    }
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "server",
        "at",
        "proxy",
        "through the proxy",
        "round it",
        "statements",
        "refused",
        "seen in the server",
        "since",
    ]);
    status.servers.iter().for_each(|server| {
        table.add_row(row(server));
    });
    let _ = writeln!(text, "\n{table}");
    for server in status.servers.iter().filter(|server| !server.observe_error.is_empty()) {
        let name = server.server.as_ref().map(|server| server.name.as_str()).unwrap_or_default();
        let _ = writeln!(text, "statements of {name} round the proxy are not seen: {}", server.observe_error);
    }
    for server in status.servers.iter().filter(|server| !server.hold.is_empty()) {
        let name = server.server.as_ref().map(|server| server.name.as_str()).unwrap_or_default();
        let _ = match server.hold.as_str() {
            "held" => writeln!(
                text,
                "statements of {name} round the proxy are held until policy has decided on them"
            ),
            error => writeln!(text, "statements of {name} round the proxy are NOT held: {error}"),
        };
    }
    for error in status.servers.iter().map(|server| &server.proxy_error).filter(|error| !error.is_empty()) {
        let _ = writeln!(text, "{error}");
    }
    text
}

fn row(server: &ServerStatus) -> [String; 9] {
    let name = server.server.as_ref().map(|server| format!("{}\n{}", server.name, server.environment));
    let proxy = match (server.proxy.as_str(), server.proxy_error.as_str()) {
        ("", "") => "none",
        ("", _) => "NONE, see below",
        (proxy, _) => proxy,
    };
    let seen = match (server.observed_by.is_empty(), server.observe_error.is_empty()) {
        (true, true) => "not wanted".to_owned(),
        (true, false) => "NOT, see below".to_owned(),
        (false, _) if server.observed_lost > 0 => format!(
            "{}, {} would be refused, {} LOST",
            server.observed, server.observed_refused, server.observed_lost
        ),
        (false, _) => format!("{}, {} would be refused", server.observed, server.observed_refused),
    };
    let since = server.since.as_ref().and_then(|since| jiff::Timestamp::from_second(since.seconds).ok());
    [
        name.unwrap_or_default(),
        server.addresses.join("\n"),
        proxy.to_owned(),
        format!("{} open, {} in all", server.proxied_open, server.proxied_total),
        format!("{} open, {} in all", server.non_proxied_open, server.non_proxied_total),
        server.statements.to_string(),
        server.refused.to_string(),
        seen,
        since.map(|since| since.to_string()).unwrap_or_default(),
    ]
}
