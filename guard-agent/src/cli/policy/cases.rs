//! Running the cases of `cases.toml`.

use std::{collections::BTreeMap, fs, io::Write, path::Path, process::ExitCode, sync::Arc};

use guard_common::audit::v1::{Decision, Workload, decision::Verdict};
use guard_policy::{
    Column, PolicySet, Principal, Rates, Target, built_in_cases,
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
        if let Some(column) = &case.reveal {
            return self.check_sight(case, &column.to_column()?);
        }
        let used = case.infer.as_ref().map(|infer| Ok::<_, String>((infer.of.to_column()?, infer.to_use()?)));
        let decision = match used.transpose()? {
            Some((column, used)) => self.decider.infer(&self.session(case), &column, &used),
            None => self.decide(case),
        };
        check_decision(case, &decision)
    }

    fn check_sight(&self, case: &Case, column: &Column) -> Result<(), String> {
        let sight = self.decider.reveal(&self.session(case), column);
        let got = if sight.mask.is_some() { Expect::Masked } else { Expect::Clear };
        if got != case.expect {
            return Err(format!("expected {:?}, got {got:?} by `{}`", case.expect, sight.policy));
        }
        let rule = sight.mask.map(|mask| mask.to_string()).unwrap_or_default();
        if let Some(expected) = case.mask.as_ref().filter(|expected| **expected != rule) {
            return Err(format!("expected the rule `{expected}`, got `{rule}` by `{}`", sight.policy));
        }
        check_policy(case, &sight.policy, &sight.errors)
    }

    fn session(&self, case: &Case) -> Session {
        let principal = Principal::new(&Workload::from(&case.workload));
        let AppliedMode { mode, from: mode_from } = AppliedMode::ENFORCED;
        Session {
            meter: self.decider.meter(&principal, &case.server),
            principal,
            target: Target::new(&case.environment, &case.server, Engine::Postgresql.as_str(), &case.database),
            mode,
            mode_from,
            proxied: true,
            transport: "tcp",
            db_user: case.db_user.clone(),
            application_name: String::new(),
            search_path: SearchPath::default(),
            roles: Roles::of(&case.db_user),
        }
    }

    fn decide(&mut self, case: &Case) -> Decision {
        if let Some(connect) = &case.connect {
            let workload = Workload::from(&case.workload);
            let server = server(case);
            let transport = if connect.transport == "tcp" { "tcp" } else { "unix" };
            let request =
                ConnectRequest { workload: &workload, server: &server, proxied: connect.proxied, transport };
            return (*self.decider.connect(&request)).clone();
        }
        let session = self.session(case);
        let text = case.sql.as_deref().unwrap_or_default();
        let statement = self.classifier.classify(text.as_bytes(), &Modes::default());
        let rates = Rates { statements: case.statements_per_minute, rows: case.rows_per_minute };
        self.decider.with_reason(&session, &statement, rates, case.justified)
    }
}

fn check_decision(case: &Case, decision: &Decision) -> Result<(), String> {
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
    check_policy(case, &decision.policy, &decision.errors)
}

fn check_policy(case: &Case, decided: &str, errors: &[String]) -> Result<(), String> {
    if let Some(policy) = case.policy.as_ref().filter(|policy| *policy != decided) {
        return Err(format!("expected a decision by `{policy}`, got one by `{decided}`"));
    }
    if errors.len() != case.errors {
        return Err(format!("expected {} errors, got {errors:?}", case.errors));
    }
    Ok(())
}

fn server(case: &Case) -> Server {
    Server {
        name: case.server.clone(),
        environment: case.environment.clone(),
        engine: Engine::Postgresql,
        addresses: Vec::new(),
        unix_sockets: Vec::new(),
        pid: None,
        elsewhere: None,
    }
}
