//! Clients connect to the server's own address and meet the proxy; the server goes on knowing who came.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use guard_tests::{
    Agent, AgentConfig, Finished, Folder, Hosts, Postgres, Psql,
    hosts::{self, Namespace},
    records::{self, non_proxied, text},
    run::{self, CLIENT_LIMIT},
    site::{self, EVENT_LIMIT},
    skip::{self, Need},
};
use serde_json::Value;

use crate::least_privilege::capabilities_of_the_unit;

const NEEDS: &[Need] = &[Need::Postgres, Need::Ebpf, Need::Networks];

/// Everybody is let in, but for what the tests are about.
const HBA: &str = "\
local all all trust
host all locals 127.0.0.1/32 trust
host all locals all reject
host all remotes 10.77.0.2/32 trust
host all remotes fd77::2/128 trust
host all remotes all reject
host all clerk 10.77.0.2/32 scram-sha-256
host all all 10.77.0.3/32 reject
host all all all trust
";

const WHO: &str = "SELECT host(client_addr), host(inet_client_addr()) FROM pg_stat_activity \
                   WHERE pid = pg_backend_pid()";

/// Names and marks of the agents that run at the same time.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// PostgreSQL on one host, clients on it and on another one, and an agent that steers.
struct Site {
    // INVARIANT: dropped in this order, the agent first and the network last.
    agent: Option<Agent>,
    postgres: Postgres,
    network: Hosts,
    instance: String,
}

/// How a site is set up.
#[derive(Clone, Copy)]
struct Setup {
    /// The agent is on the server's host, as a service is; else it reaches into the server's network namespace.
    on_the_host: bool,
    when_proxy_gone: &'static str,
    on_stop: &'static str,
    means: &'static str,
    /// Only what the systemd unit gives.
    confined: bool,
}

const USUAL: Setup = Setup {
    on_the_host: true,
    when_proxy_gone: "refuse",
    on_stop: "remove",
    means: "sk_lookup",
    confined: false,
};

impl Site {
    fn start(setup: Setup) -> Result<Self> {
        let network = Hosts::new()?;
        let postgres = Postgres::in_network(&network, None, HBA)?;
        let owner = postgres.psql_unix(guard_tests::postgres::OWNER, "postgres");
        let roles = "CREATE ROLE app LOGIN; CREATE ROLE locals LOGIN; CREATE ROLE remotes LOGIN";
        owner.query(roles)?.expect_ok("creating roles")?;
        owner.query("CREATE DATABASE shop OWNER app")?.expect_ok("creating the database")?;
        let tables = "CREATE TABLE customers AS SELECT generate_series(1, 5) AS id";
        postgres.psql_unix(site::USER, site::DATABASE).query(tables)?.expect_ok("creating a table")?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let instance = format!("guard-test-{}-{number}", std::process::id());
        let mark = 0x0067_0000 + std::process::id() % 0x3fff * 4 + number % 4;
        let extra = format!(
            "steer = \"on\"\nwhen_proxy_gone = \"{}\"\n\n[pins]\ninstance = \"{instance}\"\non_stop = \"{}\"\n\n\
             [steering]\nmark = {mark}\nmeans = \"{}\"\n\n[masking]\nenabled = false\n",
            setup.when_proxy_gone, setup.on_stop, setup.means
        );
        let config = AgentConfig {
            upstream: Some(format!("{}:{}", hosts::SERVER, postgres.address().port()).parse()?),
            network: setup.on_the_host.then(|| network.server().path()),
            unix_socket: false,
            capabilities: setup.confined.then(capabilities_of_the_unit).transpose()?,
            extra,
            ..AgentConfig::default()
        };
        let agent = Agent::start(&config, &postgres)?;
        Ok(Self { agent: Some(agent), postgres, network, instance })
    }

    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("it is taken in `drop` alone")
    }

    /// A client on the server's host.
    fn local(&self, address: &str, user: &str, sql: &str) -> Result<Finished> {
        self.query(self.network.server(), &self.psql(address, user), sql)
    }

    /// A client on the other host.
    fn remote(&self, address: &str, user: &str, sql: &str) -> Result<Finished> {
        self.query(self.network.client(), &self.psql(address, user), sql)
    }

    fn psql(&self, address: &str, user: &str) -> Psql {
        let ip: std::net::IpAddr = address.parse().expect("an address");
        Psql::tcp((ip, self.postgres.address().port()).into(), user, site::DATABASE)
    }

    fn query(&self, from: &Namespace, psql: &Psql, sql: &str) -> Result<Finished> {
        let mut command = psql.command();
        command.args(["-A", "-t", "-q", "-c", sql]);
        run::run(from.enter(&command), "", CLIENT_LIMIT)
    }

    /// One client from everywhere: where it is, the address that it asks for, and the one that it comes from.
    fn everybody(&self) -> [(&Namespace, &'static str, &'static str); 6] {
        let (server, client) = (self.network.server(), self.network.client());
        [
            (server, "127.0.0.1", "127.0.0.1"),
            (server, "::1", "::1"),
            (server, hosts::SERVER, hosts::SERVER),
            (server, hosts::SERVER_V6, hosts::SERVER_V6),
            (client, hosts::SERVER, hosts::CLIENT),
            (client, hosts::SERVER_V6, hosts::CLIENT_V6),
        ]
    }

    fn detach(&mut self) -> Result<Value> {
        let finished = self.agent().run(&["detach", "--json"])?.expect_ok("guard-agent detach")?;
        serde_json::from_str(&finished.stdout).context("`guard-agent detach --json` is not JSON")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.stop();
            // What a test leaves attached would be in the way of others.
            let _ = agent.run(&["detach"]);
        }
    }
}

fn refused_by_the_network(finished: &Finished) -> bool {
    !finished.ok() && finished.stderr.contains("Connection refused")
}

fn clients_from_everywhere_meet_the_proxy(setup: Setup) -> Result<()> {
    let mut site = Site::start(setup)?;
    for (from, address, own) in site.everybody() {
        let psql = site.psql(address, site::USER);
        let who = site.query(from, &psql, WHO)?.expect_ok(address)?;
        assert_eq!(who.stdout, format!("{own}|{own}\n"), "{address}");
        let refused = site.query(from, &psql, "DROP TABLE customers")?;
        assert!(refused.has_sqlstate("42501"), "{address}: {}", refused.stderr);
    }
    // Whatever would be taken for a way round has had its time.
    std::thread::sleep(Duration::from_secs(1));
    let records = site.agent().records()?;
    let opened = records::bodies(&records, "connection_opened");
    assert!(!opened.iter().any(|body| non_proxied(body)), "{opened:?}");
    let seen: BTreeSet<_> = opened
        .iter()
        .filter(|body| text(&body["workload"], "executable").ends_with("/psql"))
        .map(|body| text(body, "client_address").rsplit_once(':').map_or("", |(ip, _)| ip).to_owned())
        .collect();
    let expected = ["127.0.0.1", "[::1]", "10.77.0.1", "[fd77::1]", "10.77.0.2", "[fd77::2]"];
    assert_eq!(seen, expected.map(str::to_owned).into(), "{opened:?}");
    Ok(())
}

#[test]
fn clients_from_everywhere_meet_the_proxy_beside_the_server() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    clients_from_everywhere_meet_the_proxy(USUAL)
}

#[test]
fn the_units_capabilities_are_enough_to_steer() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    clients_from_everywhere_meet_the_proxy(Setup { confined: true, ..USUAL })
}

#[test]
fn clients_from_everywhere_meet_the_proxy_outside_of_the_servers_namespace() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    clients_from_everywhere_meet_the_proxy(Setup { on_the_host: false, ..USUAL })
}

#[test]
fn clients_from_everywhere_meet_the_proxy_by_nftables() -> Result<()> {
    if skip::without(NEEDS) || skip::without(&[Need::Nftables]) {
        return Ok(());
    }
    clients_from_everywhere_meet_the_proxy(Setup { means: "nftables", ..USUAL })
}

#[test]
fn nftables_refuses_when_the_proxy_is_gone_and_goes_with_detach() -> Result<()> {
    if skip::without(NEEDS) || skip::without(&[Need::Nftables]) {
        return Ok(());
    }
    let mut site = Site::start(Setup { means: "nftables", ..USUAL })?;
    site.agent().kill()?;
    for (from, address, _) in site.everybody() {
        let finished = site.query(from, &site.psql(address, site::USER), "SELECT 1")?;
        assert!(refused_by_the_network(&finished), "{address}: {finished:?}");
    }
    let done = site.detach()?;
    assert!(records::objects(&done, "removed").iter().any(|item| text(item, "kind") == "table"), "{done}");
    for (from, address, own) in site.everybody() {
        let who = site.query(from, &site.psql(address, site::USER), WHO)?.expect_ok(address)?;
        assert_eq!(who.stdout, format!("{own}|{own}\n"));
    }
    Ok(())
}

#[test]
fn what_nftables_cannot_keep_is_not_promised() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let mut site = Site::start(Setup { means: "nftables", when_proxy_gone: "pass", ..USUAL })?;
    let status = site.agent().status()?;
    let server = records::objects(&status, "servers").first().map(|server| (*server).clone());
    let server = server.context("no server")?;
    assert!(text(&server, "steering_error").contains("when_proxy_gone"), "{server}");
    site.remote(hosts::SERVER, site::USER, WHO)?.expect_ok("straight to the server")?;
    Ok(())
}

#[test]
fn rules_by_address_keep_their_meaning() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let site = Site::start(USUAL)?;
    assert!(site.local("127.0.0.1", "locals", "SELECT 1")?.ok());
    for (what, finished) in [
        ("local role, own address", site.local(hosts::SERVER, "locals", "SELECT 1")?),
        ("local role, IPv6", site.local("::1", "locals", "SELECT 1")?),
        ("local role from elsewhere", site.remote(hosts::SERVER, "locals", "SELECT 1")?),
        ("remote role on the host", site.local("127.0.0.1", "remotes", "SELECT 1")?),
        ("password from elsewhere", site.remote(hosts::SERVER, "clerk", "SELECT 1")?),
    ] {
        assert!(!finished.ok(), "{what}: {}", finished.stdout);
    }
    assert!(site.remote(hosts::SERVER, "remotes", "SELECT 1")?.ok());
    assert!(site.remote(hosts::SERVER_V6, "remotes", "SELECT 1")?.ok());
    let clerk = site.psql(hosts::SERVER, "clerk").password(guard_tests::postgres::SCRAM_PASSWORD);
    site.query(site.network.client(), &clerk, "SELECT 1")?.expect_ok("the password counts")?;

    // The same host by an address that is not let in.
    let mut command = site.psql(hosts::SERVER, site::USER).command();
    command.args(["-c", "SELECT 1"]);
    site.network.client().ip(&[
        "route",
        "add",
        "10.77.0.1/32",
        "dev",
        "cable",
        "src",
        hosts::OTHER_CLIENT,
    ])?;
    let other = run::run(site.network.client().enter(&command), "", CLIENT_LIMIT)?;
    assert!(!other.ok() && other.stderr.contains("10.77.0.3"), "{}", other.stderr);
    Ok(())
}

#[test]
fn without_the_proxy_nobody_reaches_the_server_where_that_is_the_choice() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let mut site = Site::start(USUAL)?;
    site.agent().kill()?;
    for (from, address, _) in site.everybody() {
        let finished = site.query(from, &site.psql(address, site::USER), "SELECT 1")?;
        assert!(refused_by_the_network(&finished), "{address}: {finished:?}");
    }
    site.agent().restart()?;
    for (from, address, own) in site.everybody() {
        let who = site.query(from, &site.psql(address, site::USER), WHO)?.expect_ok(address)?;
        assert_eq!(who.stdout, format!("{own}|{own}\n"));
    }
    let records = site.agent().records()?;
    let gaps = records::bodies(&records, "gap");
    let gap = gaps.iter().find(|gap| text(gap, "source") == "steering").context("no gap record")?;
    assert!(text(gap, "detail").contains("refused"), "{gap}");
    assert!(records::number(gap, "lost") >= 6, "{gap}");
    Ok(())
}

#[test]
fn without_the_proxy_everybody_reaches_the_server_where_that_is_the_choice() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let mut site = Site::start(Setup { when_proxy_gone: "pass", ..USUAL })?;
    site.agent().kill()?;
    for (from, address, own) in site.everybody() {
        let who = site.query(from, &site.psql(address, site::USER), WHO)?.expect_ok(address)?;
        assert_eq!(who.stdout, format!("{own}|{own}\n"));
    }
    let dropped = site.remote(hosts::SERVER, site::USER, "DROP TABLE customers")?;
    dropped.expect_ok("nobody refuses it")?;
    site.agent().restart()?;
    let refused = site.remote(hosts::SERVER, site::USER, "DROP TABLE orders")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn a_restart_leaves_no_moment_in_which_the_server_is_open() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let mut site = Site::start(Setup { on_stop: "keep", ..USUAL })?;
    let mut statement = 0;
    for _ in 0..3 {
        let folder = Folder::new("clients")?;
        // Whoever gets through to the server drops the table.
        let one = site.psql(hosts::SERVER, site::USER).arguments().join(" ");
        let many = format!("for i in $(seq 150); do psql -q {one} -c 'DROP TABLE customers'; done");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &many]);
        let command = site.network.client().enter(&command);
        let mut clients = guard_tests::Server::start(
            "clients",
            command,
            &folder.join("log"),
            nix::sys::signal::Signal::SIGTERM,
        )?;
        std::thread::sleep(Duration::from_millis(300));
        site.agent().restart()?;
        let limit = Instant::now() + CLIENT_LIMIT * 2;
        while clients.alive() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = clients.log();
        statement += log.matches("refused by guard").count();
        let away = log.matches("Connection refused").count();
        assert!(away > 0, "nobody came while the agent was away:\n{log}");
    }
    assert!(statement > 0);
    let count =
        site.postgres.psql_unix(site::USER, site::DATABASE).query("SELECT count(*) FROM customers")?;
    assert_eq!(count.expect_ok("the table is still there")?.stdout, "5\n");
    Ok(())
}

#[test]
fn a_stopped_agent_leaves_nothing_where_that_is_the_choice() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let mut site = Site::start(USUAL)?;
    site.remote(hosts::SERVER, site::USER, "SELECT 1")?.expect_ok("steered")?;
    site.agent().stop()?;
    assert_eq!(site.detach()?["removed"], serde_json::json!([]));
    site.remote(hosts::SERVER, site::USER, "DROP TABLE customers")?.expect_ok("straight to the server")?;
    assert_eq!(site.network.server().sysctl("ipv4/tcp_fwmark_accept")?, "0");
    Ok(())
}

#[test]
fn detach_takes_away_everything_and_names_it() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let mut site = Site::start(USUAL)?;
    let running = site.agent().run(&["detach"])?;
    assert!(!running.ok() && running.stderr.contains("stop it first"), "{running:?}");
    site.agent().kill()?;
    assert_eq!(site.network.server().sysctl("ipv4/tcp_fwmark_accept")?, "1");
    let done = site.detach()?;
    let kinds: BTreeSet<_> =
        records::objects(&done, "removed").iter().map(|item| text(item, "kind")).collect();
    assert_eq!(kinds, ["pin", "route", "rule", "setting"].into(), "{done}");
    assert_eq!(done["failed"], serde_json::json!([]));
    assert_eq!(site.detach()?["removed"], serde_json::json!([]), "a second time");
    for family in ["-4", "-6"] {
        let rules = site.network.server().ip(&[family, "rule"])?;
        assert!(!rules.contains("fwmark"), "{rules}");
    }
    assert_eq!(site.network.server().sysctl("ipv4/tcp_fwmark_accept")?, "0");
    assert!(!std::path::Path::new("/sys/fs/bpf/guard").join(&site.instance).exists());
    for (from, address, own) in site.everybody() {
        let who = site.query(from, &site.psql(address, site::USER), WHO)?.expect_ok(address)?;
        assert_eq!(who.stdout, format!("{own}|{own}\n"));
    }
    Ok(())
}

#[test]
fn the_server_comes_back_while_sessions_are_open() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let mut site = Site::start(USUAL)?;
    let folder = Folder::new("client")?;
    let mut command = site.psql(hosts::SERVER, site::USER).command();
    command.args(["-c", "SELECT pg_sleep(60)"]);
    let _client = guard_tests::Server::start(
        "psql",
        site.network.client().enter(&command),
        &folder.join("log"),
        nix::sys::signal::Signal::SIGTERM,
    )?;
    let owner = site.postgres.psql_unix(guard_tests::postgres::OWNER, "postgres");
    run::eventually("the session", EVENT_LIMIT, || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
        Ok(owner.query(sql)?.stdout.trim() == "1")
    })?;
    // It takes its port again, although the proxy's sockets have it too.
    site.postgres.restart()?;
    for (from, address, _) in site.everybody() {
        let early = site.query(from, &site.psql(address, site::USER), "DROP TABLE customers")?;
        assert!(!early.ok(), "{address}: nobody reaches it before guard has found it again");
    }
    run::eventually("service again", EVENT_LIMIT, || {
        Ok(site.remote(hosts::SERVER, site::USER, "SELECT 1")?.ok())
    })
}

#[test]
fn an_address_of_another_host_is_not_steered_and_that_is_said() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let network = Hosts::new()?;
    let postgres = Postgres::start()?;
    let config = AgentConfig {
        upstream: Some("10.77.0.9:5432".parse()?),
        network: Some(network.server().path()),
        unix_socket: false,
        extra: format!(
            "steer = \"on\"\nwhen_proxy_gone = \"refuse\"\n[pins]\ninstance = \"guard-test-{}-elsewhere\"\n",
            std::process::id()
        ),
        ..AgentConfig::default()
    };
    let mut agent = Agent::start(&config, &postgres)?;
    let status = agent.status()?;
    let server =
        records::objects(&status, "servers").first().map(|server| (*server).clone()).context("no server")?;
    assert!(text(&server, "steering_error").contains("10.77.0.9"), "{server}");
    agent.kill()?;
    agent.run(&["detach"])?.expect_ok("detach")?;
    Ok(())
}
