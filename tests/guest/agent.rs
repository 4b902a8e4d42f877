//! The agent as its unit runs it, before the guest's PostgreSQL, and clients in units of their own: who they are taken for,
//! and what becomes of them where policy forbids their way.

use std::{
    fs,
    path::{Path, PathBuf},
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

/// Everything takes long on an emulated machine, and longer where others share its host.
pub const LIMIT: Duration = Duration::from_secs(240);

/// Who connects faster than a busy machine decides is cut: whether the kernel refuses at all, one of these tells.
const ATTEMPTS: u32 = 8;

/// Ways round the proxy, and a name for each.
const WAYS: [(&str, &str); 3] =
    [("tcp", "-h 127.0.0.1"), ("tcp6", "-h ::1"), ("unix", "-h /var/run/postgresql")];

/// A client's program and what it says to be let through the proxy.
pub struct Clients {
    pub psql: PathBuf,
}

impl Clients {
    /// The program itself: what is called `psql` on Debian is a script that looks for it.
    pub fn new() -> Result<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql")?.flatten();
        let found = versions.map(|version| version.path().join("bin/psql")).find(|path| path.exists());
        Ok(Self { psql: found.context("no psql in the guest")? })
    }

    /// Runs a statement in a service of its own, which is gone when it ends.
    fn query(&self, unit: &str, way: &str, sql: &str) -> Result<(bool, String)> {
        let psql = self.psql.display();
        let command = format!("exec {psql} {way} -U postgres -v VERBOSITY=verbose -Atc '{sql}'");
        let mut systemd = Command::new("systemd-run");
        systemd.args(["--quiet", "--wait", "--pipe", "--collect", "--unit", unit, "--uid", "postgres"]);
        run(systemd.args(["/bin/sh", "-c", &command]))
    }

    fn proxied(&self, unit: &str, sql: &str) -> Result<(bool, String)> {
        self.query(unit, "-h 127.0.0.1 -p 6432", sql)
    }
}

/// Installs it, starts it, and sees what it records of clients and does about them.
pub fn run_all(work: &Work) -> Result<()> {
    install(work)?;
    let clients = Clients::new()?;
    let status = succeed(Command::new("/usr/bin/guard-agent").args(["status", "--json"]))?;
    let status: Value = serde_json::from_str(&status).context("the status")?;
    say(&json!({ "line": "agent", "rung": status["sensor"]["rung"], "sensor": status["sensor"] }));
    permitted(&clients)?;
    forbidden(work, &clients)?;
    succeed(Command::new("systemctl").args(["stop", "guard-agent"]))?;
    Ok(())
}

/// Everybody is known, by whatever way.
fn permitted(clients: &Clients) -> Result<()> {
    for (name, way) in WAYS {
        let unit = format!("permitted-{name}");
        let (ok, output) = clients.query(&unit, way, "SELECT 7")?;
        check(&format!("{unit}: a client round the proxy is served"), ok && output.contains('7'), &output);
    }
    let (ok, output) = clients.proxied("shop", "SELECT 8")?;
    check("a client through the proxy is served", ok && output.contains('8'), &output);
    let (ok, output) = clients.proxied("shop", "DROP DATABASE template1")?;
    check("what policy forbids is refused", !ok && output.contains("42501"), &output);
    for (name, _) in WAYS {
        let unit = format!("permitted-{name}");
        let found = opened(&format!("of {unit}"), |opened| of_unit(opened, &unit))?;
        let right = is_psql(&found)
            && found["access"] == "NON_PROXIED"
            && found["transport"] == if name == "unix" { "UNIX" } else { "TCP" };
        check(&format!("{unit}: recorded as it was, and attested"), right, &found.to_string());
    }
    let found = opened("of shop", |opened| of_unit(opened, "shop"))?;
    let right = found["access"] == "PROXIED" && found["workload"]["evidence"] == "ATTESTED";
    check("shop: recorded as it was, and attested", right, &found.to_string());
    Ok(())
}

/// Nobody gets round the proxy but who is listed, and what stops them is told to the outside.
fn forbidden(work: &Work, clients: &Clients) -> Result<()> {
    let policies = Path::new("/etc/guard/policies");
    for name in ["baseline", "only-through-the-proxy"] {
        fs::create_dir_all(policies.join(name))?;
        let policy = format!("{name}/policy.cedar");
        fs::copy(work.path("policies/examples").join(&policy), policies.join(&policy))?;
    }
    start_with(&format!("\n[paths]\npolicies = \"{}\"\n", policies.display()))?;
    let mut stopped = json!({ "line": "stopped" });
    for (name, way) in WAYS {
        for attempt in 1..=ATTEMPTS {
            let unit = format!("forbidden-{name}-{attempt}");
            // It would go on for long if nobody stopped it.
            let (ok, output) = clients.query(&unit, way, "SELECT pg_sleep(100)")?;
            check(&format!("{unit}: a client round the proxy is stopped"), !ok, &output);
            let found = opened(&format!("of {unit}"), |opened| of_unit(opened, &unit))?;
            let verdict = found["decision"]["verdict"] == "REFUSED" && is_psql(&found);
            check(&format!("{unit}: recorded as refused, and attested"), verdict, &found.to_string());
            stopped[name] = found["enforcement"]["action"].clone();
            if stopped[name] == "REFUSED_IN_KERNEL" {
                break;
            }
        }
    }
    say(&stopped);
    let (ok, output) = clients.query("pg-backup", WAYS[0].1, "SELECT 9")?;
    check("who is listed goes round the proxy", ok && output.contains('9'), &output);
    let (ok, output) = clients.proxied("shop", "SELECT 10")?;
    check("who comes through the proxy is served", ok && output.contains("10"), &output);
    Ok(())
}

fn is_psql(opened: &Value) -> bool {
    let workload = &opened["workload"];
    workload["executable"].as_str().is_some_and(|path| path.ends_with("/psql"))
        && workload["evidence"] == "ATTESTED"
}

fn install(work: &Work) -> Result<()> {
    fs::copy(work.path("guard-agent"), "/usr/bin/guard-agent")?;
    fs::copy(work.path("guard-agent.service"), "/etc/systemd/system/guard-agent.service")?;
    fs::create_dir_all("/etc/guard")?;
    fs::write("/etc/guard/guard.toml", CONFIG)?;
    succeed(Command::new("systemctl").arg("daemon-reload"))?;
    succeed(Command::new("systemctl").args(["start", "guard-agent"]))?;
    wait_for_agent()
}

/// Starts it anew, with more in its configuration; the end of that is what concerns the server.
pub fn start_with(more: &str) -> Result<()> {
    fs::write("/etc/guard/guard.toml", format!("{CONFIG}{more}"))?;
    succeed(Command::new("systemctl").args(["restart", "guard-agent"]))?;
    wait_for_agent()
}

/// Waits until it answers.
pub fn wait_for_agent() -> Result<()> {
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

fn of_unit(opened: &Value, unit: &str) -> bool {
    opened["workload"]["unit"] == format!("{unit}.service").as_str()
}

/// The newest connection in the journal that is `wanted`.
fn opened(what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
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
            // The newest first: only so much of a line is kept.
            let all: Vec<String> = all.iter().rev().map(ToString::to_string).collect();
            let shell =
                |command: &str| run(Command::new("/bin/sh").args(["-c", command])).map(|(_, said)| said);
            let shown =
                shell("grep PGSQL /proc/net/unix; journalctl -q --no-pager -o cat -u guard-agent -n 12")?;
            bail!("no connection {what} in the journal. {shown}{}", all.join("\n"));
        }
        thread::sleep(Duration::from_millis(300));
    }
}
