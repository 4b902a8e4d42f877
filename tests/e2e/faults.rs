//! Something that guard needs is missing or broken: one clear error, and everything else goes on.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use guard_tests::{
    Agent, AgentConfig, Finished, Folder, Postgres, Site, binaries,
    records::{self, text},
    run::{self, CLIENT_LIMIT},
    site::{self, EVENT_LIMIT},
    skip::{self, Need},
};
use nix::sys::signal::Signal;

#[test]
fn clients_are_told_when_postgresql_is_away() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let mut site = Site::start()?;
    site.postgres.stop()?;
    let away = site.proxied().query("SELECT 1")?;
    assert!(!away.ok() && away.stderr.contains("FATAL"), "{}", away.stderr);
    assert!(site.agent.alive());
    site.postgres.restart()?;
    run::eventually("service again", EVENT_LIMIT, || Ok(site.proxied().query("SELECT 1")?.ok()))
}

#[test]
fn a_taken_port_is_named() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let postgres = Postgres::start()?;
    let config = AgentConfig { listen: Some(address), ..AgentConfig::default() };
    // Either it does not start, or it watches without a proxy and says so.
    let said = match Agent::start(&config, &postgres) {
        Err(error) => format!("{error:#}"),
        Ok(agent) => {
            let status = agent.status()?;
            let server = records::objects(&status, "servers").first().context("no server in the status")?;
            text(server, "proxy_error").to_owned()
        }
    };
    assert!(said.contains(&address.to_string()), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    Ok(())
}

fn config_check(toml: &str) -> Result<Finished> {
    let folder = Folder::new("config")?;
    let path = folder.write("guard.toml", toml)?;
    let mut command = Command::new(binaries::path("guard-agent")?);
    command.args(["config", "check", "--config"]).arg(path);
    run::run(command, "", CLIENT_LIMIT)
}

#[test]
fn a_typo_in_the_configuration_is_named_with_the_nearest_key() -> Result<()> {
    for (toml, wrong, right) in [
        ("mdoe = \"enforce\"\n", "mdoe", "mode"),
        ("[journal]\nmax_mb = 3\n", "max_mb", "max_mib"),
        ("[[servers]]\nname = \"a\"\nadress = \"127.0.0.1:5432\"\n", "adress", "address"),
        ("[snesor]\n", "snesor", "sensor"),
    ] {
        let checked = config_check(toml)?;
        assert!(!checked.ok(), "{toml}");
        assert!(
            checked.stderr.contains(wrong) && checked.stderr.contains(right),
            "{toml}: {}",
            checked.stderr
        );
    }
    let value = config_check("mode = \"enforced\"\n")?;
    assert!(!value.ok() && value.stderr.contains("enforced"), "{}", value.stderr);
    config_check("mode = \"enforce\"\n")?.expect_ok("a good configuration")?;
    Ok(())
}

#[test]
fn a_broken_policy_is_named_with_its_file() -> Result<()> {
    let folder = copy_of_policies()?;
    let broken = break_one(folder.path())?;
    let mut command = Command::new(binaries::path("guard-agent")?);
    command.args(["policy", "check"]).arg(folder.path());
    let checked = run::run(command, "", CLIENT_LIMIT)?;
    assert!(!checked.ok(), "{}", checked.stdout);
    let name = broken.parent().and_then(Path::file_name).context("no folder")?.to_string_lossy().into_owned();
    assert!(format!("{}{}", checked.stdout, checked.stderr).contains(&name), "{}", checked.stderr);
    Ok(())
}

#[test]
fn a_policy_that_breaks_while_the_agent_runs_leaves_the_last_good_set_in_force() -> Result<()> {
    if skip::without(&[Need::Postgres]) {
        return Ok(());
    }
    let folder = copy_of_policies()?;
    let site =
        Site::with(AgentConfig { policies: Some(folder.path().to_owned()), ..AgentConfig::default() })?;
    let good = text(&site.agent.status()?, "policy_hash").to_owned();
    break_one(folder.path())?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(site.agent.pid())?), Signal::SIGHUP)?;
    run::eventually("the status telling of it", EVENT_LIMIT, || {
        Ok(!text(&site.agent.status()?, "policy_error").is_empty())
    })?;
    assert_eq!(text(&site.agent.status()?, "policy_hash"), good);
    let refused = site.proxied().query("DROP TABLE customers")?;
    assert!(refused.has_sqlstate("42501"), "{}", refused.stderr);
    assert_eq!(site.rows("customers")?, Some(site::CUSTOMERS));
    Ok(())
}

/// The policies of this repository, in a folder that a test may change.
fn copy_of_policies() -> Result<Folder> {
    let folder = Folder::new("policies")?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("policies");
    copy(&source, folder.path())?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Appends something that is no policy to the first policy file found; gives its path.
fn break_one(folder: &Path) -> Result<PathBuf> {
    let path = first_policy(folder)?.context("no policy.cedar in policies/")?;
    let text = fs::read_to_string(&path)? + "\nforbid (principal, action, resource) when { 1 + };\n";
    fs::write(&path, text)?;
    Ok(path)
}

fn first_policy(folder: &Path) -> Result<Option<PathBuf>> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if let Some(found) = first_policy(&path)? {
                return Ok(Some(found));
            }
        } else if path.extension().is_some_and(|extension| extension == "cedar") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
