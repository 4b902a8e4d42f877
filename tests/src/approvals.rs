//! Statements that wait, and people who decide on them.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    Account, AgentConfig, Finished, Folder, Server, Site,
    records::{self, text},
    run::{self, CLIENT_LIMIT},
};

/// Deleting waits for a dba, whom this host's accounts name; truncating for two; changing is to be sent again.
pub const POLICIES: &str = r#"
@id("all") permit (principal, action, resource);

@id("deletes-wait") @reason("rows are lost for good") @approval("guard-dba")
forbid (principal, action == Guard::Action::"delete", resource);

@id("inserts-wait-shortly") @reason("somebody has to look at it") @approval("guard-dba") @within("2s")
forbid (principal, action == Guard::Action::"insert", resource);

@id("loads-wait") @reason("nobody sees what comes") @approval("guard-dba")
forbid (principal, action == Guard::Action::"copy_in", resource);

@id("truncates-need-two") @reason("a table is emptied") @approval("guard-dba") @approvers("2")
forbid (principal, action == Guard::Action::"truncate", resource);

@id("updates-again") @reason("values are overwritten") @approval("guard-dba") @wait("retry")
forbid (principal, action == Guard::Action::"update", resource);

@id("oncall") @reason("the one on call may change names at once") @break_glass("*")
permit (principal, action == Guard::Action::"update", resource) when { context.justified };
"#;

/// A site where statements wait. The requester is not the one who runs the tests; an approver is.
#[derive(Debug)]
pub struct Desk {
    /// Everything that runs.
    pub site: Site,
    /// For logs and programs.
    pub folder: Folder,
    /// Who asks.
    pub requester: Account,
    /// Somebody else who may decide.
    pub colleague: Account,
}

impl Desk {
    /// Starts one; `None` where the caller cannot be several people.
    pub fn start() -> Result<Option<Self>> {
        Self::with(AgentConfig::default())
    }

    /// Starts one with this agent.
    pub fn with(config: AgentConfig) -> Result<Option<Self>> {
        let (Some(requester), Some(colleague)) = (Account::named("nobody")?, Account::named("daemon")?)
        else {
            return Ok(None);
        };
        let folder = Folder::new("approvals")?;
        std::fs::create_dir_all(folder.join("policies/a"))?;
        folder.write("policies/a/policy.cedar", POLICIES)?;
        let groups = "\n[approvals.groups]\nguard-dba = [\"user:root\", \"user:daemon\"]\n";
        let config = AgentConfig {
            policies: Some(folder.join("policies")),
            extra: format!("{}{groups}", config.extra),
            ..config
        };
        Ok(Some(Self { site: Site::with(config)?, folder, requester, colleague }))
    }

    /// A file for a log.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The requester's psql with one statement, which is not waited for.
    pub fn ask(&self, sql: &str, log: &str) -> Result<Server> {
        self.site.proxied().start_as(&self.requester, sql, &self.log(log))
    }

    /// `guard-agent approvals <arguments>`, by whom `account` names, else by the caller.
    pub fn approvals(&self, account: Option<&Account>, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.command(arguments)?;
        if let Some(account) = account {
            command = account.in_person(&command);
        }
        run::run(command, "", CLIENT_LIMIT)
    }

    /// The same, not yet run.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        self.site.agent.command(&[&["approvals"], arguments].concat())
    }

    /// What waits, as `approvals list --json` says.
    pub fn waiting(&self) -> Result<Vec<Value>> {
        let listed = self.approvals(None, &["list", "--json"])?.expect_ok("approvals list")?;
        records::parse(&listed.stdout)
    }

    /// Waits until just one statement waits, and gives its request.
    pub fn one(&self) -> Result<Value> {
        let mut found = Vec::new();
        run::eventually("one statement that waits", CLIENT_LIMIT, || {
            found = self.waiting()?;
            Ok(found.len() == 1)
        })?;
        found.pop().context("nothing waits")
    }

    /// Its id.
    pub fn one_id(&self) -> Result<String> {
        Ok(text(&self.one()?, "id").to_owned())
    }

    /// All of one request, over or not.
    pub fn show(&self, id: &str) -> Result<Value> {
        let shown = self.approvals(None, &["show", id, "--full", "--json"])?.expect_ok("approvals show")?;
        serde_json::from_str(&shown.stdout).context("`approvals show --json` is not JSON")
    }

    /// The caller decides, and it has to count.
    pub fn decide(&self, word: &str, id: &str) -> Result<Finished> {
        self.approvals(None, &[word, id, "--reason", "as agreed"])?.expect_ok(word)
    }

    /// Rows of a table.
    pub fn rows(&self, table: &str) -> Result<u64> {
        self.site.rows(table)?.context("the table is gone")
    }

    /// Waits until `client` has ended, and gives what it printed.
    pub fn ended(&self, client: &mut Server) -> Result<String> {
        run::eventually("the client ending", Duration::from_secs(15), || Ok(!client.alive()))?;
        Ok(client.log())
    }

    /// The events of one request, from the journal, in order.
    pub fn events(&self, id: &str) -> Result<Vec<String>> {
        let records = self.site.agent.records()?;
        let own = records::bodies(&records, "approval").into_iter();
        Ok(own
            .filter(|body| text(body, "request_id") == id)
            .map(|body| text(body, "event").to_owned())
            .collect())
    }

    /// Checks that the journal's chain holds.
    pub fn verify(&self) -> Result<()> {
        let verified = self.site.agent.run(&["audit", "verify"])?;
        ensure!(verified.ok(), "{}", verified.stderr);
        Ok(())
    }
}
