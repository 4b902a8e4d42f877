//! Running the cases of `cases.toml`.

use std::{collections::BTreeMap, fs, io::Write, path::Path, process::ExitCode, sync::Arc};

use guard_common::audit::v1::{Decision, Workload, decision::Verdict};
use guard_policy::{
    PolicySet, Principal, Rates, Target, built_in_cases,
    cases::{self, Case, Expect},
};

use super::super::{fail, print};
use crate::{
    config::{Config, Mode},
    decide::{AppliedMode, ConnectRequest, Decider, Session},
    servers::{Engine, Server},
    sql::{Classifier, Limits, Modes, Roles, SearchPath},
};

/// Runs the cases in `folder`, or those built in, against `policies`.
pub(super) fn run(policies: PolicySet, folder: Option<&Path>) -> ExitCode {
    let files = match folder {
        Some(folder) => match case_files(folder) {
            Ok(files) => files,
            Err(error) => return fail(format!("cannot read the cases in `{}`: {error}", folder.display())),
        },
        None => built_in_cases(),
    };
    let config = Config { mode: Mode::Enforce, ..Config::default() };
    let mut bench = Bench {
        decider: Arc::new(Decider::new(policies, &config)),
        classifier: Classifier::new(Limits::default()),
    };
    let (mut passed, mut failures) = (0, Vec::new());
    for (file, text) in &files {
        match cases::parse(text) {
            Ok(cases) => {
                for case in cases {
                    match bench.check(&case) {
                        Ok(()) => passed += 1,
                        Err(problem) => failures.push(format!("{file}: {}: {problem}", case.name)),
                    }
                }
            }
            Err(problem) => failures.push(format!("{file}: {problem}")),
        }
    }
    if passed == 0 && failures.is_empty() {
        return fail("no cases found: write `cases.toml` beside the policies");
    }
    print(|out| {
        failures.iter().try_for_each(|failure| writeln!(out, "FAILED {failure}"))?;
        writeln!(out, "{passed} passed, {} failed", failures.len())
    });
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn case_files(folder: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let own = folder.join("cases.toml");
    let topics = fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path().join("cases.toml"));
    for path in topics.chain([own]).filter(|path| path.is_file()) {
        files.insert(
            path.strip_prefix(folder).unwrap_or(&path).display().to_string(),
            fs::read_to_string(&path)?,
        );
    }
    Ok(files)
}

struct Bench {
    decider: Arc<Decider>,
    classifier: Classifier,
}

impl Bench {
    fn check(&mut self, case: &Case) -> Result<(), String> {
        let decision = self.decide(case);
        let got = match decision.verdict() {
            Verdict::Allowed => Expect::Allow,
            Verdict::WouldRefuse => Expect::WouldRefuse,
            Verdict::WouldHold => Expect::WouldHold,
            Verdict::Held if decision.break_glass.is_some() => Expect::BreakGlass,
            Verdict::Held => Expect::Hold,
            Verdict::Refused | Verdict::Unspecified => Expect::Refuse,
        };
        // Round the proxy a refusal can only be recorded; a case means what the policy says.
        let expected = match (case.expect, case.connect.as_ref().is_some_and(|connect| !connect.proxied)) {
            (Expect::Refuse, true) => Expect::WouldRefuse,
            (expected, _) => expected,
        };
        if got != expected {
            return Err(format!("expected {expected:?}, got {got:?} by `{}`", decision.policy));
        }
        if let Some(policy) = case.policy.as_ref().filter(|policy| **policy != decision.policy) {
            return Err(format!("expected a decision by `{policy}`, got one by `{}`", decision.policy));
        }
        if decision.errors.len() != case.errors {
            return Err(format!("expected {} errors, got {:?}", case.errors, decision.errors));
        }
        Ok(())
    }

    fn decide(&mut self, case: &Case) -> Decision {
        let workload = Workload::from(&case.workload);
        if let Some(connect) = &case.connect {
            let server = server(case);
            let transport = if connect.transport == "tcp" { "tcp" } else { "unix" };
            let request =
                ConnectRequest { workload: &workload, server: &server, proxied: connect.proxied, transport };
            return (*self.decider.connect(&request)).clone();
        }
        let principal = Principal::new(&workload);
        let AppliedMode { mode, from: mode_from } = AppliedMode::ENFORCED;
        let session = Session {
            meter: self.decider.meter(&principal, &case.server),
            principal,
            target: Target::new(&case.environment, &case.server, Engine::Postgresql.as_str(), &case.database),
            mode,
            mode_from,
            transport: "tcp",
            db_user: case.db_user.clone(),
            application_name: String::new(),
            search_path: SearchPath::default(),
            roles: Roles::of(&case.db_user),
        };
        let text = case.sql.as_deref().unwrap_or_default();
        let statement = self.classifier.classify(text.as_bytes(), &Modes::default());
        let rates = Rates { statements: case.statements_per_minute, rows: case.rows_per_minute };
        self.decider.with_reason(&session, &statement, rates, case.justified)
    }
}

fn server(case: &Case) -> Server {
    Server {
        name: case.server.clone(),
        environment: case.environment.clone(),
        engine: Engine::Postgresql,
        addresses: Vec::new(),
        unix_sockets: Vec::new(),
        pid: None,
    }
}
