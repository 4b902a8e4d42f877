//! Holding without a proxy, by the agent as its unit runs it: what policy refuses leaves no trace in the guest's own
//! PostgreSQL, and an agent that is killed while a backend is held leaves nobody stopped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{
    Work,
    agent::{self, Clients, LIMIT},
    check, run, succeed,
};

const CONFIG: &str = "hold = true\n\n[paths]\npolicies = \"/etc/guard/hold\"\n\n[approvals.groups]\nnobodies = [\"user:nobody\"]\n";

/// What is not forbidden may run; what needs people waits for them, in the server.
const POLICIES: &str = "\
@id(\"all\") permit (principal, action, resource);
@id(\"no-write-off\") @reason(\"rows stay\") forbid (principal, action == Guard::Action::\"delete\", resource);
@id(\"no-truncate\") @reason(\"rows stay\") forbid (principal, action == Guard::Action::\"truncate\", resource);
@id(\"no-grant\") @reason(\"rights stay\") forbid (principal, action in Guard::Action::\"grant\", resource);
@id(\"no-role\") @reason(\"roles stay\") forbid (principal, action == Guard::Action::\"change_role\", resource);
@id(\"updates-wait\") @reason(\"somebody has to look at it\") @approval(\"nobodies\")
forbid (principal, action == Guard::Action::\"update\", resource);
";

/// Before anybody is held.
const PREPARED: &str = "\
CREATE TABLE kept AS SELECT id FROM generate_series(1, 20) AS id;
CREATE ROLE spare;
CREATE FUNCTION gone(n int) RETURNS int LANGUAGE plpgsql AS $$BEGIN DELETE FROM kept WHERE id = n; RETURN n; END$$;
";

/// All that may be different after a statement that was to leave no trace.
const TRACES: &str = "SELECT concat_ws('/', (SELECT sum(id) FROM kept), (SELECT count(*) FROM kept), (SELECT relacl FROM \
                      pg_class WHERE relname = 'kept'), (SELECT rolsuper FROM pg_roles WHERE rolname = 'spare'))";

/// One for each way in which a statement can come.
const DENIED: [(&str, &str); 7] = [
    ("simple", "DELETE FROM kept WHERE id = 1"),
    ("among others", "SELECT 1; DELETE FROM kept WHERE id = 2; SELECT 2"),
    ("prepared", "PREPARE p AS DELETE FROM kept WHERE id = 3; EXECUTE p"),
    ("function", "SELECT gone(4)"),
    ("DO", "DO $$BEGIN EXECUTE 'DEL' || 'ETE FROM kept WHERE id = 5'; END$$"),
    ("GRANT", "GRANT ALL ON kept TO PUBLIC"),
    ("ALTER ROLE", "ALTER ROLE spare SUPERUSER"),
];

/// How long a backend may be stopped after its agent's end.
const NOBODY_AFTER: Duration = Duration::from_secs(2);

/// Installs the configuration over that of the checks before, and holds what comes round the proxy.
pub fn run_all(_: &Work) -> Result<()> {
    let held = Held { psql: Clients::new()?.psql };
    for line in PREPARED.lines() {
        let (ok, said) = held.ask(line)?;
        ensure!(ok, "{line}: {said}");
    }
    let before = held.ask(TRACES)?.1;
    let folder = Path::new("/etc/guard/hold/only");
    fs::create_dir_all(folder)?;
    fs::write(folder.join("policy.cedar"), POLICIES)?;
    agent::start_with(CONFIG)?;
    held.wait_until_held()?;
    for (name, statement) in DENIED {
        let (ok, said) = held.ask(statement)?;
        check(&format!("held: {name} is cancelled"), !ok && said.contains("57014"), &said);
    }
    let (_, after) = held.ask(TRACES)?;
    check("held: what was cancelled leaves no trace", after == before, &format!("{before} became {after}"));
    held.killed(&before)?;
    succeed(Command::new("systemctl").args(["stop", "guard-agent"]))?;
    check("held: nobody is stopped in the end", held.stopped().is_empty(), "");
    Ok(())
}

struct Held {
    psql: PathBuf,
}

impl Held {
    /// The server's own superuser on its unix socket.
    fn command(&self, sql: &str) -> Command {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(&self.psql);
        command.args(["-X", "-v", "VERBOSITY=verbose", "-Atc", sql]).current_dir("/");
        command
    }

    fn ask(&self, sql: &str) -> Result<(bool, String)> {
        run(&mut self.command(sql))
    }

    fn wait_until_held(&self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            // What is forbidden tells, without a trace where it is not held yet.
            if self.ask("DELETE FROM kept WHERE false")?.1.contains("57014") {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = ["-q", "--no-pager", "-o", "cat", "-u", "guard-agent", "-n", "20"];
                bail!("nothing is held. {}", run(Command::new("journalctl").args(log))?.1);
            }
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// While one waits for people and others come and go, the agent is killed.
    fn killed(&self, before: &str) -> Result<()> {
        let mut waiting = self.waiting()?;
        let killed = Instant::now();
        succeed(Command::new("systemctl").args(["kill", "--signal=KILL", "--kill-who=main", "guard-agent"]))?;
        let mut freed = None;
        while killed.elapsed() < LIMIT {
            if self.stopped().is_empty() {
                freed = Some(killed.elapsed());
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let said = format!("{freed:?} after the kill; still stopped: {:?}", self.stopped());
        check(
            "held: an agent that is killed leaves nobody stopped after 2 s",
            freed.is_some_and(|after| after < NOBODY_AFTER),
            &said,
        );
        let ended = waiting.wait()?;
        check("held: what waited when the agent was killed is cancelled", !ended.success(), "it ran");
        // The unit starts it again.
        agent::wait_for_agent()?;
        self.wait_until_held()?;
        let (_, after) = self.ask(TRACES)?;
        check("held: it leaves no trace", after == before, &format!("{before} became {after}"));
        Ok(())
    }

    /// A client whose backend is stopped, until somebody decides.
    fn waiting(&self) -> Result<Child> {
        let mut command = self.command("UPDATE kept SET id = id + 1000");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let deadline = Instant::now() + LIMIT;
        while self.stopped().is_empty() {
            ensure!(Instant::now() < deadline, "no backend is stopped for a statement that waits for people");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(child)
    }

    /// Backends that are stopped.
    fn stopped(&self) -> Vec<String> {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let of = |entry: fs::DirEntry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            let is = name.contains("(postgres") && rest.trim_start().starts_with('T');
            is.then(|| entry.file_name().to_string_lossy().into_owned())
        };
        all.filter_map(of).collect()
    }
}
