//! Every way round the proxy: reported with the right process; in enforce mode refused or cut, while proxied sessions
//! beside it feel nothing; in monitor mode nothing changes.

mod beside;
mod ways;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    AgentConfig, Folder, Network, Postgres, Site,
    records::{self, non_proxied, number, text, verdict},
    run,
    site::{self, EVENT_LIMIT},
    skip::{self, Need},
};
use serde_json::Value;

use beside::Beside;
use ways::{Attempt, Ways};

const NEEDS: &[Need] = &[Need::Postgres, Need::Ebpf, Need::Cgroups, Need::Networks, Need::Socat, Need::Runc];

/// What guard says that it did, where it has stopped a connection.
const STOPPED: [&str; 3] = ["REFUSED_IN_KERNEL", "DROPPED", "CUT"];
/// Goes on for long enough to be cut, wherever the verdict comes late.
const LASTING: &str = "SELECT pg_sleep(1.5)";

/// The shipped example that forbids it, and what makes it a set.
fn policies() -> Result<Folder> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("policies").join("examples");
    let folder = Folder::new("policies")?;
    for name in ["baseline", "only-through-the-proxy"] {
        let policy = fs::read_to_string(examples.join(name).join("policy.cedar"))?;
        fs::create_dir(folder.join(name))?;
        folder.write(&format!("{name}/policy.cedar"), &policy)?;
    }
    Ok(folder)
}

struct Scene {
    // INVARIANT: dropped in this order.
    site: Site,
    network: Network,
    policies: Folder,
}

impl Scene {
    fn new(mode: &'static str) -> Result<Self> {
        Self::with(AgentConfig { mode, ..AgentConfig::default() })
    }

    fn with(config: AgentConfig) -> Result<Self> {
        let (network, policies) = (Network::new()?, policies()?);
        let postgres = Postgres::everywhere(&["::1".parse()?, network.host()])?;
        let config = AgentConfig { policies: Some(policies.path().to_owned()), ..config };
        Ok(Self { site: Site::before(postgres, config)?, network, policies })
    }

    /// The record of an attempt, whoever guard takes the client for.
    fn record(&self, attempt: &Attempt) -> Result<Value> {
        self.site.wait_for("connection_opened", attempt.way, |opened| {
            non_proxied(opened) && attempt.is_by(&opened["workload"])
        })
    }
}

impl Scene {
    /// What shows which connection has not ended.
    fn still_open(&self) -> String {
        let records = self.site.agent.records().unwrap_or_default();
        let closed = records::bodies(&records, "connection_closed");
        let closed: Vec<_> = closed.iter().map(|closed| text(closed, "connection_id")).collect();
        let mut open = records::bodies(&records, "connection_opened");
        open.retain(|opened| non_proxied(opened) && !closed.contains(&text(opened, "connection_id")));
        let backends = "SELECT pid, state, wait_event, client_addr, query FROM pg_stat_activity";
        let backends = self.site.proxied().query(backends).map(|found| found.stdout);
        format!("{open:#?}\n{}", backends.unwrap_or_default())
    }
}

/// What was done about a connection.
fn action(opened: &Value) -> &str {
    text(&opened["enforcement"], "action")
}

#[test]
fn in_monitor_mode_every_way_is_reported_and_goes_on() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let scene = Scene::new("monitor")?;
    let ways = Ways::new(&scene.site, &scene.network, "SELECT 'round'")?;
    for way in ways.all() {
        let attempt = way(&ways)?;
        ensure!(attempt.got_through, "{}: it was stopped: {}", attempt.way, attempt.said);
        let opened = scene.record(&attempt)?;
        assert_eq!(verdict(&opened), "WOULD_REFUSE", "{}: {opened}", attempt.way);
        assert_eq!(text(&opened["decision"], "policy"), "only-through-the-proxy");
        assert_eq!(action(&opened), "", "{}: {opened}", attempt.way);
        attempt.check_workload(&opened["workload"])?;
    }
    Ok(())
}

#[test]
fn in_enforce_mode_every_way_is_stopped_and_proxied_sessions_feel_nothing() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let scene = Scene::new("enforce")?;
    let beside = Beside::start(&scene.site)?;
    // It would go on for long after it has been let in.
    let ways = Ways::new(&scene.site, &scene.network, "SELECT pg_sleep(100)")?;
    let mut done = Vec::new();
    for way in ways.all() {
        let attempt = way(&ways)?;
        ensure!(!attempt.got_through, "{}: it got through: {}", attempt.way, attempt.said);
        let opened = scene.record(&attempt)?;
        assert_eq!(verdict(&opened), "REFUSED", "{}: {opened}", attempt.way);
        assert!(STOPPED.contains(&action(&opened)), "{}: {opened}", attempt.way);
        attempt.check_workload(&opened["workload"])?;
        done.push(format!("{}: {}", attempt.way, action(&opened)));
    }
    println!("{}", done.join("\n"));
    let statements = beside.stop()?;
    assert!(statements > 100, "{statements} statements of proxied sessions");
    let own = scene.site.agent.records()?;
    let own = records::bodies(&own, "connection_opened").into_iter().find(|opened| {
        non_proxied(opened) && records::workload_pid(opened) == u64::from(scene.site.agent.pid())
    });
    assert!(own.is_none(), "guard's own connection: {own:?}");
    // A backend holds its end of what was cut until it has done its statement.
    let asleep =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(100)'";
    scene.site.proxied().query(asleep)?.expect_ok("the end of the statements that were cut")?;
    let ended = run::eventually("the end of all that was cut", EVENT_LIMIT, || {
        let status = scene.site.agent.status()?;
        Ok(number(&records::objects(&status, "servers")[0], "non_proxied_open") == 0)
    });
    ended.with_context(|| scene.still_open())?;
    let status = scene.site.agent.status()?;
    let server = &records::objects(&status, "servers")[0];
    assert!(number(server, "non_proxied_refused") >= 5, "{server}");
    assert_eq!(number(server, "non_proxied_not_stopped"), 0, "{server}");
    Ok(())
}

#[test]
fn a_client_that_was_decided_on_before_is_refused_with_eperm() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let scene = Scene::new("enforce")?;
    for psql in [scene.site.direct(), scene.site.direct_unix()] {
        let mut pid = 0;
        // Debian's psql starts as a script: there is time to decide on it before it connects, on a machine that is not
        // overloaded.
        run::eventually("a client that is refused in the kernel", EVENT_LIMIT, || {
            let client = psql.query("SELECT 1")?;
            pid = u64::from(client.pid);
            Ok(!client.ok() && client.stderr.contains("Operation not permitted"))
        })?;
        let opened = scene.site.wait_for("connection_opened", "the refused client", |opened| {
            records::workload_pid(opened) == pid
        })?;
        assert_eq!(action(&opened), "REFUSED_IN_KERNEL", "{opened}");
        let executable = text(&opened["workload"], "executable");
        assert!(executable.ends_with("/psql"), "{opened}");
    }
    Ok(())
}

#[test]
fn the_units_capabilities_are_enough_to_refuse_and_to_cut() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let capabilities = Some(crate::least_privilege::capabilities_of_the_unit()?);
    let scene = Scene::with(AgentConfig { capabilities, ..AgentConfig::default() })?;
    let ways = Ways::new(&scene.site, &scene.network, "SELECT pg_sleep(20)")?;
    let done = |attempt: Attempt| -> Result<String> {
        ensure!(!attempt.got_through, "{}: it got through: {}", attempt.way, attempt.said);
        Ok(action(&scene.record(&attempt)?).to_owned())
    };
    for way in [Ways::localhost_v4, Ways::forked_child] {
        let action = done(way(&ways)?)?;
        assert!(STOPPED.contains(&action.as_str()), "{action}");
    }
    assert_eq!(done(ways.unix_socket_by_a_link()?)?, "CUT");
    Ok(())
}

#[test]
fn a_policy_that_changes_is_followed_at_once() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let scene = Scene::new("enforce")?;
    // Where the verdict comes late, a short statement may be over already.
    let lasts = || Ok::<_, anyhow::Error>(scene.site.direct().query(LASTING)?.ok());
    assert!(!lasts()?);
    let file = scene.policies.join("only-through-the-proxy/policy.cedar");
    let strict = fs::read_to_string(&file)?;
    fs::write(&file, "@id(\"nothing\") permit (principal, action == Guard::Action::\"connect\", resource);")?;
    let reload = |what: &str, wanted: bool| {
        scene.site.agent.signal(nix::sys::signal::Signal::SIGHUP)?;
        run::eventually(what, Duration::from_secs(12), || {
            Ok(lasts()? == wanted && scene.site.direct_unix().query(LASTING)?.ok() == wanted)
        })
    };
    reload("connections that are permitted now", true)?;
    fs::write(&file, strict)?;
    reload("connections that are refused again", false)
}

#[test]
fn who_may_go_round_does() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let scene = Scene::new("enforce")?;
    let file = scene.policies.join("only-through-the-proxy/policy.cedar");
    let unit = format!("guard-backup-{}.service", std::process::id());
    fs::write(&file, fs::read_to_string(&file)?.replace("pg-backup.service", &unit))?;
    let mut agent = scene.site.agent;
    agent.restart()?;
    let cgroup = guard_tests::Cgroup::service(&unit)?;
    for psql in [
        scene.site.postgres.psql(site::USER, site::DATABASE),
        scene.site.postgres.psql_unix(site::USER, site::DATABASE),
    ] {
        for _ in 0..5 {
            guard_tests::workload::as_service(&cgroup, &psql, "SELECT 1")?.expect_ok("the backup")?;
        }
    }
    let beside = scene.site.postgres.psql(site::USER, site::DATABASE).query(LASTING)?;
    assert!(!beside.ok(), "{}", beside.stdout);
    Ok(())
}

#[test]
fn a_peer_known_by_its_address_alone_is_cut_and_then_refused() -> Result<()> {
    if skip::without(NEEDS) || skip::without(&[Need::Nftables]) {
        return Ok(());
    }
    let scene = Scene::new("enforce")?;
    scene.network.hide_clients()?;
    let ways = Ways::new(&scene.site, &scene.network, "SELECT pg_sleep(20)")?;
    let inside = scene.network.inside().to_string();
    let attempt = ways.another_network_namespace()?;
    ensure!(!attempt.got_through, "it got through: {}", attempt.said);
    let by_address = |wanted: &'static str| {
        scene.site.wait_for("connection_opened", wanted, |opened| {
            text(&opened["workload"], "remote_address") == inside && action(opened) == wanted
        })
    };
    assert_eq!(text(&by_address("CUT")?["workload"], "evidence"), "ADDRESS");
    let attempt = ways.another_network_namespace()?;
    ensure!(attempt.said.contains("Connection refused"), "not refused: {}", attempt.said);
    assert_eq!(verdict(&by_address("DROPPED")?), "REFUSED");
    Ok(())
}

#[test]
fn a_socket_folder_is_closed_and_given_back() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let mut scene = Scene::with(AgentConfig {
        extra: "\nclose_socket_folder = true\n".to_owned(),
        ..AgentConfig::default()
    })?;
    let folder = scene.site.postgres.socket_folder();
    let mode = || -> Result<u32> { Ok(fs::metadata(&folder)?.permissions().mode() & 0o777) };
    assert_eq!(mode()?, 0o700);
    scene.site.proxied().query("SELECT 1")?.expect_ok("a proxied session")?;
    scene.site.agent.kill()?;
    assert_eq!(mode()?, 0o700, "it stays closed when the agent is killed");
    let given = scene.site.agent.run(&["restore"])?.expect_ok("guard-agent restore")?;
    assert!(given.stdout.contains(&folder.display().to_string()), "{}", given.stdout);
    assert_eq!(mode()?, 0o755);
    scene.site.agent.restart()?;
    assert_eq!(mode()?, 0o700);
    scene.site.agent.stop()?;
    assert_eq!(mode()?, 0o755);
    Ok(())
}

#[test]
fn without_the_kernel_side_connections_are_cut_all_the_same() -> Result<()> {
    if skip::without(NEEDS) {
        return Ok(());
    }
    let scene = Scene::with(AgentConfig { ebpf: false, required: false, ..AgentConfig::default() })?;
    let client = scene.site.direct().query("SELECT pg_sleep(20)")?;
    assert!(!client.ok(), "{}", client.stdout);
    let opened = scene.site.wait_for("connection_opened", "the client that was cut", |opened| {
        non_proxied(opened) && action(opened) == "CUT"
    })?;
    scene
        .site
        .wait_for("connection_closed", "its end", |closed| closed["connection_id"] == opened["connection_id"])
        .context("the end of what was cut")?;
    Ok(())
}
