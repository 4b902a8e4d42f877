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
        line("rung", sensor.rung.clone());
        sensor.missing.iter().for_each(|missing| line("", format!("missing: {missing}")));
        for program in sensor.programs.iter().filter(|program| program.runs > 0) {
            let each = program.run_ns / program.runs;
            line("", format!("{}: {} runs of {each} ns", program.name, program.runs));
        }
        if status.lost > 0 {
            line("", format!("{} EVENTS LOST: see the gap records", status.lost));
            let mut by_program = std::collections::BTreeMap::<&str, u64>::new();
            status.losses.iter().for_each(|loss| *by_program.entry(&loss.program).or_default() += loss.lost);
            by_program.iter().for_each(|(program, lost)| line("", format!("{program}: {lost}")));
        }
        for program in sensor.programs.iter().filter(|program| program.runs > 0) {
            let each = program.run_ns / program.runs;
            line("", format!("{} ran {} times, {each} ns each", program.name, program.runs));
        }
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
    if let Some(clients) = status.clients.as_ref().filter(|clients| clients.report) {
        let (configured, told, count) = (clients.configured, clients.from_control, clients.reported);
        let places = format!("{configured} places configured, {told} by the control plane");
        line("clients", format!("connections to other hosts are reported: {count} so far; {places}"));
        if clients.cut {
            line("", "THE FLEET HAS MORE DATABASES: list networks in `clients.servers`".to_owned());
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
        "protection",
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
    for server in &status.servers {
        let name = server.server.as_ref().map(|server| server.name.as_str()).unwrap_or_default();
        let error = Some(&server.proxy_error).filter(|error| !error.is_empty());
        for says in server.coverage.iter().chain(error) {
            let _ = writeln!(text, "{name}: {says}");
        }
    }
    status.servers.iter().for_each(|server| steering(&mut text, server));
    text
}

/// What becomes of connections to the server's own address, where that is configured.
fn steering(text: &mut String, server: &ServerStatus) {
    let name = server.server.as_ref().map(|server| server.name.as_str()).unwrap_or_default();
    // Writing to a string does not fail.
    if !server.steering.is_empty() {
        let count = server.steered_total;
        let _ = writeln!(text, "{name}: steered to the proxy by {}; {count} so far", server.steering);
    }
    if !server.steering_error.is_empty() {
        let _ = writeln!(text, "{name}: NOT STEERED: {}", server.steering_error);
    }
}

fn row(server: &ServerStatus) -> [String; 10] {
    let name = server.server.as_ref().map(|server| format!("{}\n{}", server.name, server.environment));
    let proxy = match (server.proxy.as_str(), server.proxy_error.as_str()) {
        ("", "") if !server.steering.is_empty() => "at its own address",
        ("", "") => "none",
        ("", _) => "NONE, see below",
        (proxy, _) => proxy,
    };
    let time = |at: &pbjson_types::Timestamp| {
        jiff::Timestamp::from_second(at.seconds).map(|at| at.to_string()).unwrap_or_default()
    };
    let last = server.last_non_proxied.as_ref().map(|at| format!("\nlast {}", time(at))).unwrap_or_default();
    let place = if server.place.is_empty() { String::new() } else { format!("\nin {}", server.place) };
    let seen = match (server.observed_by.is_empty(), server.observe_error.is_empty()) {
        (true, true) => "not wanted".to_owned(),
        (true, false) => "NOT, see below".to_owned(),
        (false, _) if server.observed_lost > 0 => format!(
            "{}, {} would be refused, {} LOST",
            server.observed, server.observed_refused, server.observed_lost
        ),
        (false, _) => format!("{}, {} would be refused", server.observed, server.observed_refused),
    };
    [
        name.unwrap_or_default(),
        server.protection.clone(),
        server.addresses.join("\n") + &place,
        proxy.to_owned(),
        format!("{} open, {} in all", server.proxied_open, server.proxied_total),
        round_it(server) + &last,
        server.statements.to_string(),
        server.refused.to_string(),
        seen,
        server.since.as_ref().map(time).unwrap_or_default(),
    ]
}

fn round_it(server: &ServerStatus) -> String {
    let mut text = format!("{} open, {} in all", server.non_proxied_open, server.non_proxied_total);
    let acted = [
        (server.non_proxied_refused, "refused in the kernel"),
        (server.non_proxied_cut, "cut"),
        (server.non_proxied_not_stopped, "NOT STOPPED"),
    ];
    for (count, what) in acted.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, "\n{count} {what}");
    }
    text
}
