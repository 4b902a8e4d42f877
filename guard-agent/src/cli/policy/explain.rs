//! How a statement is read, and what would be decided about it.

use std::{io::Write, process::ExitCode};

use clap::Args;
use guard_common::audit::v1::{Decision, Workload, decision::Verdict};
use guard_policy::{
    Column, Outcome, PolicySet, Principal, Rates, Target, Use,
    cases::CaseWorkload,
    vocabulary::{Effect, MaskRule},
};
use serde_json::json;

use super::{
    super::{fail, print},
    who::{self, Who},
};
use crate::{
    catalog::Catalog,
    config::Config,
    decide::{AppliedMode, Decider, Session, subject},
    mask::{detector::ColumnNames, plan::unplaced},
    servers::Engine,
    sql::{
        Classifier, Limits, Modes, Roles, SearchPath, Statement,
        lineage::{self, Outputs, World},
    },
};

const AFTER_HELP: &str = "\
Examples:
  guard-agent policy explain \"DELETE FROM orders\" --as unit=orders.service
  guard-agent policy explain \"SELECT 1; DROP TABLE t\" --as exe=/usr/bin/psql,agent=claude --server main
  guard-agent policy explain \"SELECT * FROM t\" --as @workload.json --rows-per-minute 100000 --json

Exit codes: 0 it was decided, either way; 1 the policies do not load; 2 the command line is wrong.";

/// Show how a statement is read and what would be decided.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ExplainArgs {
    /// The statement, or several in one string
    sql: String,
    /// Who asks: pairs such as `exe=/usr/bin/psql,unit=orders.service` (exe, unit, agent, user, uid, login-user,
    /// container, pod, address, parent), or `@FILE` with a workload as in cases.toml or as in a record
    #[arg(long = "as", value_name = "WORKLOAD")]
    who: Vec<Who>,
    /// Short for `--as exe=..` [default: /usr/bin/psql, where --as says nothing]
    #[arg(long)]
    executable: Option<String>,
    /// Short for `--as unit=..`
    #[arg(long)]
    unit: Option<String>,
    /// Short for `--as agent=..`
    #[arg(long)]
    ai_agent: Option<String>,
    /// Short for `--as user=..`
    #[arg(long)]
    user: Option<String>,
    /// Policy folder [default: the one in force]
    #[arg(long, value_name = "FOLDER")]
    pub(super) policies: Option<std::path::PathBuf>,
    /// Database user
    #[arg(long, default_value = "app")]
    db_user: String,
    /// Database
    #[arg(long, default_value = "app")]
    database: String,
    /// What the client calls itself
    #[arg(long, default_value = "")]
    application_name: String,
    /// Name of the server, as in the configuration
    #[arg(long, default_value = "main")]
    server: String,
    /// Environment of the server [default: the server's, else the agent's]
    #[arg(long)]
    environment: Option<String>,
    /// Statements of this principal in the last minute, this one included
    #[arg(long, default_value_t = 1)]
    statements_per_minute: u64,
    /// Rows of this principal in the last minute
    #[arg(long, default_value_t = 0)]
    rows_per_minute: u64,
    /// A reason is given, in the statement or by the client's name
    #[arg(long)]
    justified: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl ExplainArgs {
    fn workload(&self) -> Workload {
        let short = [
            ("exe", &self.executable),
            ("unit", &self.unit),
            ("agent", &self.ai_agent),
            ("user", &self.user),
        ];
        let mut parts = self.who.clone();
        parts.extend(
            short.into_iter().filter_map(|(key, value)| Some(Who::Pairs(vec![(key, value.clone()?)]))),
        );
        if parts.is_empty() || (self.who.is_empty() && self.executable.is_none()) {
            parts.insert(
                0,
                Who::Whole(Box::new(Workload::from(&CaseWorkload {
                    executable: "/usr/bin/psql".to_owned(),
                    ..CaseWorkload::default()
                }))),
            );
        }
        who::workload(&parts)
    }

    fn session(&self, decider: &Decider, config: &Config) -> Session {
        let principal = Principal::new(&self.workload());
        let configured = config.servers.iter().find(|server| server.name == self.server);
        let environment =
            self.environment.clone().or_else(|| configured.and_then(|server| server.environment.clone()));
        let environment = environment.unwrap_or_else(|| config.environment.0.clone());
        // What enforce mode would do is the question, whatever the mode is now.
        let AppliedMode { mode, from: mode_from } = AppliedMode::ENFORCED;
        Session {
            meter: decider.meter(&principal, &self.server),
            principal,
            target: Target::new(&environment, &self.server, Engine::Postgresql.as_str(), &self.database),
            mode,
            mode_from,
            proxied: true,
            transport: "tcp",
            db_user: self.db_user.clone(),
            application_name: self.application_name.clone(),
            search_path: SearchPath::default(),
            roles: Roles::of(&self.db_user),
        }
    }
}

/// What is to be shown.
struct Explained {
    statement: std::sync::Arc<Statement>,
    principal: std::sync::Arc<str>,
    /// What it does, and what is decided on each of that.
    outcomes: Vec<(Effect, Outcome)>,
    decision: Decision,
    /// The mode that is configured for this database.
    configured: AppliedMode,
    /// Sensitive columns that it shows or uses.
    columns: Vec<Seen>,
}

/// How a sensitive column is seen, or what is decided on its use.
struct Seen {
    /// Its place in the result and its name; `None` where it is only used.
    result: Option<usize>,
    column: Column,
    /// `in clear`, `masked (full)`, `where: allowed`, ..
    how: String,
    policy: String,
}

/// What `statement` shows and uses, as its names tell: no catalog is at hand here.
fn columns(decider: &Decider, session: &Session, statement: &Statement) -> Vec<Seen> {
    let catalog = Catalog::empty(std::sync::Arc::new(ColumnNames));
    let world = World { catalog: &catalog, path: &session.search_path, user: &session.db_user };
    let lineage = lineage::of(statement, &world);
    let mut seen = Vec::new();
    for part in &lineage.parts {
        let outputs = match &part.outputs {
            Outputs::Columns(outputs) => outputs.as_slice(),
            _ => &[],
        };
        for (at, output) in outputs.iter().enumerate() {
            for source in output.sources.iter().filter(|source| !source.is_any()) {
                let column = named(source);
                let sight = decider.reveal(session, &column);
                let how = match &sight.mask {
                    None => "in clear".to_owned(),
                    Some(mask) if mask.rule == MaskRule::Partial && !output.same => {
                        "masked (full)".to_owned()
                    }
                    Some(mask) => format!("masked ({mask})"),
                };
                seen.push(Seen { result: Some(at + 1), column, how, policy: sight.policy });
            }
        }
        for used in part.uses.iter().filter(|used| !used.column.is_any()) {
            let column = named(&used.column);
            if decider.reveal(session, &column).mask.is_none() {
                continue;
            }
            let word = used.usage.as_str();
            let decision =
                decider.infer(session, &column, &Use { words: vec![word], equality: used.equality });
            let verdict = if decision.verdict() == Verdict::Allowed { "allowed" } else { "refused" };
            seen.push(Seen {
                result: None,
                column,
                how: format!("{word}: {verdict}"),
                policy: decision.policy,
            });
        }
    }
    seen
}

fn named(source: &lineage::Column) -> Column {
    Column {
        schema: source.schema.to_string(),
        table: source.table.to_string(),
        ..unplaced(&source.column, source.kind, "column name")
    }
}

/// Runs `guard-agent policy explain`.
pub(super) fn run(args: &ExplainArgs, policies: PolicySet, config: &Config) -> ExitCode {
    if args.sql.trim().is_empty() {
        return fail("there is no statement to explain: give its text as the first argument");
    }
    let explained = explain(args, policies, config);
    if args.json {
        return print(|out| writeln!(out, "{}", explained.as_json()));
    }
    print(|out| out.write_all(explained.describe().as_bytes()))
}

fn explain(args: &ExplainArgs, policies: PolicySet, config: &Config) -> Explained {
    let decider = Decider::new(policies, config);
    let session = args.session(&decider, config);
    let statement = Classifier::new(Limits::default()).classify(args.sql.as_bytes(), &Modes::default());
    let rates = Rates { statements: args.statements_per_minute, rows: args.rows_per_minute };
    Explained {
        outcomes: decider.effects(&session, &statement, rates),
        decision: decider.with_reason(&session, &statement, rates, args.justified),
        configured: decider.mode(&args.server, &args.database),
        columns: columns(&decider, &session, &statement),
        principal: std::sync::Arc::clone(session.principal.name()),
        statement,
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match (outcome.allowed, outcome.would_refuse, outcome.needs.is_some()) {
        (true, false, _) => "allowed",
        (true, true, false) => "allowed, would be refused",
        (true, true, true) => "allowed, would wait for an approval",
        (false, _, true) => "waits for an approval",
        (false, _, false) => "refused",
    }
}

impl Explained {
    fn as_json(&self) -> serde_json::Value {
        let Self { statement, decision, outcomes, configured, principal, columns } = self;
        let columns = columns.iter().map(|seen| {
            json!({
                "result": seen.result,
                "column": seen.column.to_string(),
                "kind": seen.column.kind.as_str(),
                "seen": seen.how,
                "policy": seen.policy,
            })
        });
        let columns: Vec<_> = columns.collect();
        let effects = outcomes.iter().map(|(effect, outcome)| {
            json!({
                "effect": subject(effect),
                "action": effect.action.as_str(),
                "object": effect.object.to_string(),
                "object_kind": effect.object.kind.as_str(),
                "has_where": effect.has_where,
                "outcome": word(outcome),
                "policy": outcome.policy,
                "reason": outcome.reason,
                "hint": outcome.hint,
                "errors": outcome.errors,
            })
        });
        json!({
            "text": statement.text,
            "fingerprint": statement.fingerprint,
            "parse": statement.parse.as_str(),
            "parts": statement.parts,
            "workload": &**principal,
            "effects": effects.collect::<Vec<_>>(),
            "columns": columns,
            "decision": decision,
            "configured_mode": configured.mode.as_str(),
            "configured_mode_from": configured.from.as_str(),
        })
    }

    fn describe(&self) -> String {
        let Self { statement, decision, outcomes, configured, principal, columns } = self;
        let mut text = String::new();
        let mut line = |label: &str, value: &str| text.push_str(&format!("{label:<10} {value}\n"));
        line("statement", &statement.text);
        line("asked by", principal);
        line("read as", &format!("{} ({} statements)", statement.parse.as_str(), statement.parts));
        for (number, (effect, outcome)) in outcomes.iter().enumerate() {
            let label = if number == 0 { "effects" } else { "" };
            line(label, &format!("{}: {} by \"{}\"", subject(effect), word(outcome), outcome.policy));
        }
        for (number, Seen { result, column, how, policy }) in columns.iter().enumerate() {
            let label = if number == 0 { "columns" } else { "" };
            let place = result.map_or_else(String::new, |at| format!("result {at}: "));
            line(label, &format!("{place}{column} ({}) {how} by \"{policy}\"", column.kind));
        }
        let verdict = match decision.verdict() {
            Verdict::Allowed => "allowed",
            Verdict::WouldRefuse => "allowed, and recorded as one that would be refused",
            Verdict::WouldHold => "allowed, and recorded as one that would wait for an approval",
            Verdict::Held => "waits for an approval",
            Verdict::Refused | Verdict::Unspecified => "refused",
        };
        line("decision", &format!("{verdict}, policy \"{}\"", decision.policy));
        let told = [("about", &decision.subject), ("reason", &decision.reason), ("hint", &decision.hint)];
        told.into_iter().filter(|(_, value)| !value.is_empty()).for_each(|(label, value)| line(label, value));
        for needed in decision.needs.iter().flat_map(|needs| &needs.requirements) {
            let people = if needed.approvers == 1 {
                "one person".to_owned()
            } else {
                format!("{} people", needed.approvers)
            };
            line(
                "approval",
                &format!("{people} of {}, for \"{}\"", needed.groups.join(" or "), needed.policy),
            );
        }
        if let Some(glass) = &decision.break_glass {
            line("", &format!("or a reason given, by the policy \"{}\"", glass.policy));
        }
        decision.errors.iter().for_each(|error| line("error", error));
        if configured.mode == crate::config::Mode::Monitor {
            let from = configured.from.as_str();
            line("mode", &format!("monitor, set for the {from}: now it would only be recorded"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn explained(arguments: &[&str]) -> Explained {
        let arguments = [&["explain"], arguments].concat();
        let args = CommandLine::try_parse_from(arguments).unwrap().args;
        explain(&args, PolicySet::built_in().unwrap(), &Config::default())
    }

    #[test]
    fn each_effect_is_told_with_the_policy_that_decides_on_it() {
        let told = explained(&["SELECT * FROM a; DELETE FROM b", "--as", "exe=/usr/bin/psql,agent=claude"]);
        let json = told.as_json();
        assert_eq!(json["workload"], "psql via claude");
        let of = |action: &str| {
            let effects = json["effects"].as_array().unwrap();
            let effect = effects.iter().find(|effect| effect["action"] == action).unwrap();
            (effect["outcome"].as_str().unwrap().to_owned(), effect["policy"].as_str().unwrap().to_owned())
        };
        assert_eq!(of("select"), ("allowed".to_owned(), "baseline".to_owned()));
        assert_eq!(of("delete"), ("refused".to_owned(), "ai-agents-read-only".to_owned()));
        assert_eq!(json["decision"]["verdict"], "REFUSED");
        let text = told.describe();
        assert!(
            text.contains("delete of table b without WHERE: refused") && text.contains("monitor, set"),
            "{text}"
        );
    }

    #[test]
    fn how_columns_are_seen_is_told() {
        let told = explained(&["SELECT email, upper(phone), id FROM customers WHERE email = 'a'"]);
        let json = told.as_json();
        let columns = json["columns"].as_array().unwrap();
        let of =
            |result: serde_json::Value| columns.iter().find(|column| column["result"] == result).unwrap();
        assert_eq!(
            (&of(1.into())["kind"], &of(1.into())["seen"]),
            (&"email".into(), &"masked (full)".into())
        );
        assert_eq!(of(2.into())["policy"], "not-revealed");
        assert_eq!(of(serde_json::Value::Null)["seen"], "where: allowed");
        assert!(
            told.describe().contains("result 1: customers.email (email) masked (full)"),
            "{}",
            told.describe()
        );
        let backup = explained(&["SELECT email FROM customers", "--unit", "pg-backup.service"]);
        assert_eq!(backup.as_json()["columns"][0]["seen"], "in clear");
    }

    #[test]
    fn flags_and_as_describe_the_same_workload() {
        let sql = "UPDATE t SET a = 1 WHERE b = 2";
        for who in [
            &["--as", "unit=a.service"][..],
            &["--unit", "a.service"],
            &["--as", "unit=b", "--unit", "a.service"],
        ] {
            let told = explained(&[&[sql], who].concat());
            assert_eq!(&*told.principal, "a.service", "{who:?}");
        }
        assert_eq!(&*explained(&[sql]).principal, "psql");
    }
}
