//! The agent as its unit runs it, before the guest's PostgreSQL, and clients in units of their own.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Work, check, run, say, succeed};

const CONFIG: &str = "mode = \"enforce\"

[[servers]]
name = \"guest\"
address = \"127.0.0.1:5432\"
unix_socket = \"/var/run/postgresql/.s.PGSQL.5432\"
listen = \"127.0.0.1:6432\"
";

const LIMIT: Duration = Duration::from_secs(60);

/// Installs it, starts it, and sees what it records of clients.
pub fn run_all(work: &Work) -> Result<()> {
    install(work)?;
    let psql = psql()?;
    let mut clients = Vec::new();
    for (unit, way) in
        [("orders", "-h 127.0.0.1"), ("reports", "-h ::1"), ("backup", "-h /var/run/postgresql")]
    {
        let command = format!("exec {} {way} -U postgres -Atc 'SELECT 7'", psql.display());
        let (ok, output) = in_unit(unit, &command)?;
        check(&format!("{unit}: a client round the proxy is served"), ok && output.contains('7'), &output);
        clients.push((unit, way.contains('/')));
    }
    let proxied = format!("exec {} -h 127.0.0.1 -p 6432 -U postgres -v VERBOSITY=verbose", psql.display());
    let (ok, output) = in_unit("shop", &format!("{proxied} -Atc 'SELECT 8'"))?;
    check("a client through the proxy is served", ok && output.contains('8'), &output);
    let (ok, output) = in_unit("shop", &format!("{proxied} -c 'DROP DATABASE template1'"))?;
    check("what policy forbids is refused", !ok && output.contains("42501"), &output);
    for (unit, by_socket) in clients {
        let found = opened(|opened| of_unit(opened, unit))?;
        let workload = &found["workload"];
        let right = workload["executable"].as_str().is_some_and(|path| path.ends_with("/psql"))
            && workload["evidence"] == "ATTESTED"
            && found["access"] == "NON_PROXIED"
            && found["transport"] == if by_socket { "UNIX" } else { "TCP" };
        check(&format!("{unit}: recorded as it was, and attested"), right, &found.to_string());
    }
    let found = opened(|opened| of_unit(opened, "shop"))?;
    let right = found["access"] == "PROXIED" && found["workload"]["evidence"] == "ATTESTED";
    check("shop: recorded as it was, and attested", right, &found.to_string());
    let status = succeed(Command::new("/usr/bin/guard-agent").args(["status", "--json"]))?;
    let status: Value = serde_json::from_str(&status).context("the status")?;
    say(&json!({ "line": "agent", "rung": status["sensor"]["rung"] }));
    succeed(Command::new("systemctl").args(["stop", "guard-agent"]))?;
    Ok(())
}

fn install(work: &Work) -> Result<()> {
    fs::copy(work.path("guard-agent"), "/usr/bin/guard-agent")?;
    fs::copy(work.path("guard-agent.service"), "/etc/systemd/system/guard-agent.service")?;
    fs::create_dir_all("/etc/guard")?;
    fs::write("/etc/guard/guard.toml", CONFIG)?;
    succeed(Command::new("systemctl").arg("daemon-reload"))?;
    succeed(Command::new("systemctl").args(["start", "guard-agent"]))?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let (ready, output) = run(Command::new("/usr/bin/guard-agent").arg("status"))?;
        if ready {
            return Ok(());
        }
        if Instant::now() > deadline {
            let log =
                run(Command::new("journalctl").args(["-u", "guard-agent", "--no-pager", "-n", "40"]))?.1;
            bail!("the agent does not answer: {output}\n{log}");
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// The program itself: what is called `psql` on Debian is a script that looks for it.
fn psql() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")?.flatten();
    let found = versions.map(|version| version.path().join("bin/psql")).find(|path| path.exists());
    found.context("no psql in the guest")
}

/// Runs a command in a service of its own, which is gone when it ends.
fn in_unit(unit: &str, command: &str) -> Result<(bool, String)> {
    let mut systemd = Command::new("systemd-run");
    systemd.args(["--quiet", "--wait", "--pipe", "--collect", "--unit", unit, "--uid", "postgres"]);
    run(systemd.args(["/bin/sh", "-c", command]))
}

fn of_unit(opened: &Value, unit: &str) -> bool {
    opened["workload"]["unit"] == format!("{unit}.service").as_str()
}

/// The newest connection in the journal that is `wanted`.
fn opened(wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = succeed(Command::new("/usr/bin/guard-agent").args(["audit", "search", "--json"]))?;
        let records = guard_tests::records::parse(&text)?;
        let bodies = guard_tests::records::bodies(&records, "connection_opened");
        if let Some(found) = bodies.into_iter().rev().find(|opened| wanted(opened)) {
            return Ok(found.clone());
        }
        if Instant::now() > deadline {
            let all = guard_tests::records::bodies(&records, "connection_opened");
            bail!("no such connection in the journal: {all:?}");
        }
        thread::sleep(Duration::from_millis(300));
    }
}
