//! How a statement is read, and what would be decided about it.

use std::{io::Write, process::ExitCode, sync::Arc};

use clap::Args;
use guard_common::audit::v1::{Decision, Workload, decision::Verdict};
use guard_policy::{PolicySet, Principal, Target, cases::CaseWorkload};
use serde_json::json;

use super::super::print;
use crate::{
    config::{Config, Mode},
    decide::{Decider, Session},
    servers::Engine,
    sql::{Classifier, Limits, Modes, SearchPath, Statement},
};

/// Show how a statement is read and what would be decided.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The statement, or several in one string
    sql: String,
    /// Full path of the client's executable
    #[arg(long, default_value = "/usr/bin/psql")]
    executable: String,
    /// systemd unit of the client
    #[arg(long, default_value = "")]
    unit: String,
    /// AI agent that started the client, such as claude
    #[arg(long, default_value = "")]
    ai_agent: String,
    /// Operating system user of the client
    #[arg(long, default_value = "")]
    user: String,
    /// Database user
    #[arg(long, default_value = "app")]
    db_user: String,
    /// Database
    #[arg(long, default_value = "app")]
    database: String,
    /// Name of the server, as in the configuration
    #[arg(long, default_value = "main")]
    server: String,
    /// Environment of the server [default: the server's, else the agent's]
    #[arg(long)]
    environment: Option<String>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs `guard-agent policy explain`.
pub(super) fn run(args: &ExplainArgs, policies: PolicySet, config: &Config) -> ExitCode {
    let workload = Workload::from(&CaseWorkload {
        executable: args.executable.clone(),
        unit: args.unit.clone(),
        ai_agent: args.ai_agent.clone(),
        user: args.user.clone(),
        ..CaseWorkload::default()
    });
    let configured = config.servers.iter().find(|server| server.name == args.server);
    let environment =
        args.environment.clone().or_else(|| configured.and_then(|server| server.environment.clone()));
    let environment = environment.unwrap_or_else(|| config.environment.0.clone());
    let session = Session {
        principal: Principal::new(&workload),
        target: Target::new(&environment, &args.server, Engine::Postgresql.as_str(), &args.database),
        // What enforce mode would do is the question, whatever the mode is now.
        mode: Mode::Enforce,
        transport: "tcp",
        db_user: args.db_user.clone(),
        application_name: String::new(),
        search_path: SearchPath::default(),
    };
    let statement = Classifier::new(Limits::default()).classify(args.sql.as_bytes(), &Modes::default());
    let decision = Arc::new(Decider::new(policies, config)).statement(&session, &statement);
    if args.json {
        return print(|out| writeln!(out, "{}", as_json(&statement, &decision)));
    }
    print(|out| out.write_all(describe(&statement, &decision).as_bytes()))
}

fn effects(statement: &Statement) -> impl Iterator<Item = String> {
    statement.effects.iter().map(crate::decide::subject)
}

fn as_json(statement: &Statement, decision: &Decision) -> serde_json::Value {
    json!({
        "text": statement.text,
        "fingerprint": statement.fingerprint,
        "parse": statement.parse.as_str(),
        "parts": statement.parts,
        "effects": effects(statement).collect::<Vec<_>>(),
        "decision": decision,
    })
}

fn describe(statement: &Statement, decision: &Decision) -> String {
    let effects: Vec<String> = effects(statement).map(|effect| format!("           {effect}\n")).collect();
    let verdict = match decision.verdict() {
        Verdict::Allowed => "allowed",
        Verdict::WouldRefuse => "allowed, and recorded as one that would be refused",
        Verdict::Refused | Verdict::Unspecified => "refused",
    };
    let mut text = format!(
        "statement  {}\nread as    {} ({} statements)\n",
        statement.text,
        statement.parse.as_str(),
        statement.parts
    );
    text.push_str(&effects.concat().replacen("           ", "effects    ", 1));
    text.push_str(&format!("decision   {verdict}, policy \"{}\"\n", decision.policy));
    for (label, value) in
        [("about", &decision.subject), ("reason", &decision.reason), ("hint", &decision.hint)]
    {
        if !value.is_empty() {
            text.push_str(&format!("{label:<10} {value}\n"));
        }
    }
    decision.errors.iter().for_each(|error| text.push_str(&format!("error      {error}\n")));
    text
}
