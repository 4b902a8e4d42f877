//! What an agent on a client's host reports names the client of a connection that the server's host knows by an address.
//!
//! Two hosts: on one PostgreSQL, its agent and the control plane, on the other psql and an agent without any database. Both
//! share one kernel here: the server's agent goes without eBPF, or it would attest the other host's processes as its own.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use guard_tests::{
    Agent, AgentConfig, Finished, Folder, Hosts, Postgres, Psql, Server, binaries,
    hosts::{self, Namespace},
    records::{self, text},
    run::{self, CLIENT_LIMIT},
    site,
    skip::{self, Need},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const NEEDS: &[Need] = &[Need::Postgres, Need::Ebpf, Need::Networks];

const HBA: &str = "\
local all all trust
host all all all trust
";

/// How long something may take from the kernel of one host to the control plane.
const LIMIT: Duration = Duration::from_secs(40);
/// Where the control plane listens, on the server's host.
const PLAIN: &str = "127.0.0.1:7400";
const TLS: &str = "10.77.0.1:7443";

/// Both hosts with everything on them but the client's agent.
struct Site {
    // INVARIANT: dropped in this order, so that each ends while what it talks to is still there.
    agent: Agent,
    control: Server,
    postgres: Postgres,
    folder: Folder,
    network: Hosts,
    store: Vec<String>,
}

impl Site {
    fn start(shared: bool) -> Result<Self> {
        let network = Hosts::new()?;
        let folder = Folder::new("fleet")?;
        let postgres = Postgres::in_network(&network, None, HBA)?;
        let owner = postgres.psql_unix(guard_tests::postgres::OWNER, "postgres");
        for sql in ["CREATE ROLE app LOGIN", "CREATE DATABASE shop OWNER app", "CREATE DATABASE guard"] {
            owner.query(sql)?.expect_ok(sql)?;
        }
        let store = match shared {
            true => {
                let url = format!("postgresql://postgres@127.0.0.1:{}/guard", postgres.address().port());
                vec!["--store".to_owned(), url]
            }
            false => Vec::new(),
        };
        let mut serve = Command::new(binaries::path("guard-control")?);
        serve.args(["serve", "--listen", PLAIN, "--listen-tls", TLS, "--tls-name", hosts::SERVER]);
        serve.args(["--console", "none", "--data"]).arg(folder.join("data")).args(&store);
        let log = folder.join("control.log");
        let command = network.server().enter(&serve);
        let mut control = Server::start("guard-control", command, &log, Signal::SIGTERM)?;
        let probe = || {
            let mut ask = Command::new(binaries::path("guard-control")?);
            ask.args(["agents", "--json", "--server", &format!("http://{PLAIN}")]);
            Ok::<_, anyhow::Error>(run::run(network.server().enter(&ask), "", CLIENT_LIMIT)?.ok())
        };
        control.wait_until(|_| probe().unwrap_or(false))?;
        let config = AgentConfig {
            mode: "monitor",
            ebpf: false,
            required: false,
            control: Some(format!("http://{PLAIN}")),
            upstream: Some(format!("{}:{}", hosts::SERVER, postgres.address().port()).parse()?),
            unix_socket: false,
            network: Some(network.server().path()),
            extra: "observe = false\n\n[masking]\nenabled = false\n".to_owned(),
            ..AgentConfig::default()
        };
        let agent = Agent::start(&config, &postgres)?;
        Ok(Self { agent, control, postgres, folder, network, store })
    }

    fn ask(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new(binaries::path("guard-control")?);
        command.args(arguments);
        run::run(self.network.server().enter(&command), "", CLIENT_LIMIT)
    }

    /// psql on the client's host, straight to the server; its process id.
    fn psql(&self) -> Result<u32> {
        let server = format!("{}:{}", hosts::SERVER, self.postgres.address().port()).parse()?;
        let mut command = Psql::tcp(server, site::USER, site::DATABASE).command();
        // Long enough for a look at the kernel's tables.
        command.args(["-A", "-t", "-q", "-c", "SELECT pg_sleep(1)"]);
        Ok(run::run(self.network.client().enter(&command), "", CLIENT_LIMIT)?.expect_ok("psql")?.pid)
    }

    /// Connections from the client's host, the newest first, as the command line has them.
    fn connections(&self, more: &[&str]) -> Result<Vec<Value>> {
        let server = format!("http://{PLAIN}");
        let ask = ["decisions", "--json", "--kind", "connection", "--limit", "1000", "--server", &server];
        let finished = self.ask(&[&ask, more].concat())?.expect_ok("guard-control decisions")?;
        let mut all = records::parse(&finished.stdout)?;
        all.retain(|one| text(&one["connection"], "client_address").starts_with(hosts::CLIENT));
        Ok(all)
    }

    /// Waits until the newest connection from the client's host is known to be so.
    fn wait_for(&self, known: &str, count: usize) -> Result<Value> {
        let mut newest = Value::Null;
        let outcome = run::eventually(&format!("{known} at the control plane"), LIMIT, || {
            let all = self.connections(&[])?;
            newest = all.first().cloned().unwrap_or_default();
            Ok(all.len() == count && text(&newest["remote"], "known") == known)
        });
        outcome.with_context(|| newest.to_string())?;
        Ok(newest)
    }
}

/// An agent on a host without any database.
struct Reporter {
    // INVARIANT: dropped in this order, the agent before the folder under it.
    _server: Server,
    folder: Folder,
}

impl Reporter {
    fn start(site: &Site) -> Result<Self> {
        let folder = Folder::new("reporter")?;
        let path = |name| folder.join(name).display().to_string();
        let config = format!(
            "mode = \"monitor\"\n\n[paths]\nstate = \"{}\"\nrun = \"{}\"\n\n[sensor]\nrequired = true\n\n\
             [discovery]\nenabled = false\n\n[clients]\nreport = true\n",
            path("state"),
            path("run")
        );
        folder.write("guard.toml", &config)?;
        let data = site.folder.join("data").display().to_string();
        let place = [&["--data".to_owned(), data], site.store.as_slice()].concat();
        let place: Vec<&str> = place.iter().map(String::as_str).collect();
        let made = site.ask(&[&["token", "create", "--json"], place.as_slice()].concat())?;
        let token: Value = serde_json::from_str(made.expect_ok("guard-control token create")?.stdout.trim())?;
        let client = site.network.client();
        let run = |arguments: &[&str]| Self::run(&folder, client, arguments);
        let control = format!("https://{TLS}");
        let fingerprint = text(&token, "ca_fingerprint");
        let join = [
            "enroll",
            "--control",
            &control,
            "--token",
            text(&token, "token"),
            "--ca-fingerprint",
            fingerprint,
        ];
        run(&join)?.expect_ok("guard-agent enroll")?;
        let log = folder.join("agent.log");
        let mut command = Command::new(binaries::path("guard-agent")?);
        command.args(["run", "--config"]).arg(folder.join("guard.toml"));
        let mut server = Server::start("guard-agent", client.enter(&command), &log, Signal::SIGTERM)?;
        server.wait_until(|server| server.log().contains("guard-agent ready"))?;
        let reporter = Self { _server: server, folder };
        run::eventually("the control plane naming the database", LIMIT, || {
            Ok(records::number(&reporter.status(client)?["clients"], "from_control") > 0)
        })?;
        // From then on the kernel side is told; what it has not seen begin would be found, and be uncertain.
        std::thread::sleep(Duration::from_secs(3));
        Ok(reporter)
    }

    fn run(folder: &Folder, at: &Namespace, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new(binaries::path("guard-agent")?);
        command.args(arguments).arg("--config").arg(folder.join("guard.toml"));
        run::run(at.enter(&command), "", CLIENT_LIMIT)
    }

    fn status(&self, at: &Namespace) -> Result<Value> {
        let finished = Self::run(&self.folder, at, &["status", "--json"])?.expect_ok("guard-agent status")?;
        Ok(serde_json::from_str(&finished.stdout)?)
    }
}

fn names_the_process_of_the_other_host(shared: bool) -> Result<()> {
    let site = Site::start(shared)?;
    site.psql()?;
    let before = site.wait_for("NOBODY", 1)?;
    assert_eq!(text(&before["connection"]["workload"], "evidence"), "ADDRESS", "{before}");
    let reporter = Reporter::start(&site)?;
    let pid = site.psql()?;
    let named = site.wait_for("REPORTED", 2)?;
    let claims = records::objects(&named["remote"], "claims");
    let workload = &claims[0]["workload"];
    assert_eq!(records::number(workload, "pid"), u64::from(pid), "{named}");
    assert!(text(workload, "executable").ends_with("/psql"), "{named}");
    assert_eq!(text(workload, "evidence"), "ATTESTED", "by its own host's kernel: {named}");
    assert_eq!((claims.len(), claims[0]["own_address"].as_bool()), (1, Some(true)), "{named}");
    assert_ne!(text(&claims[0], "agent_id"), text(&named, "agent_id"));
    assert_eq!(text(&named["connection"]["workload"], "evidence"), "ADDRESS", "the record stays as it was");
    // It is found by what is reported of it, and by its address.
    for part in ["/psql", hosts::CLIENT] {
        let found = site.connections(&["--contains", part])?;
        assert!(found.iter().any(|one| one["sequence"] == named["sequence"]), "{part}: {found:?}");
    }
    let table = site.ask(&["decisions", "--kind", "connection", "--server", &format!("http://{PLAIN}")])?;
    assert!(table.stdout.contains("reported by"), "{}", table.stdout);
    // A second agent that claims the same: both are shown, none is believed.
    let second = Reporter::start(&site)?;
    site.psql()?;
    let both = site.wait_for("CONFLICT", 3)?;
    assert_eq!(records::objects(&both["remote"], "claims").len(), 2, "{both}");
    let begun = Instant::now();
    while !site.control.log().contains("client-claimed-twice") {
        assert!(begun.elapsed() < LIMIT, "no alarm");
        std::thread::sleep(Duration::from_millis(500));
    }
    drop((second, reporter));
    assert!(site.agent.status()?["clients"].is_object());
    Ok(())
}

#[test]
fn psql_of_another_host_is_named_as_reported() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    names_the_process_of_the_other_host(false)
}

#[test]
fn psql_of_another_host_is_named_as_reported_with_the_shared_store() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    names_the_process_of_the_other_host(true)
}
