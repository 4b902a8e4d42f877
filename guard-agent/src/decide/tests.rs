use guard_policy::{
    Rates,
    vocabulary::{Action, Effect, Object, ObjectKind, Parse},
};

use super::*;
use crate::sql::{Classifier, Limits, Modes, Roles, SearchPath, Statement};

fn statement(effects: Vec<Effect>) -> Arc<Statement> {
    Arc::new(Statement {
        text: String::new(),
        fingerprint: String::new(),
        parse: Parse::Full,
        parts: 1,
        effects,
        prepared: Vec::new(),
        changes: Vec::new(),
        origin: Default::default(),
        sent: None,
    })
}

fn drop_table() -> Effect {
    Effect::new(Action::Drop, Object::named(ObjectKind::Table, Some("public"), "customers"))
}

fn select() -> Effect {
    Effect::new(Action::Select, Object::named(ObjectKind::Table, None, "customers"))
}

fn session(mode: Mode, workload: &Workload) -> Session {
    Session {
        principal: Principal::new(workload),
        target: Target::new("production", "main", "postgresql", "app"),
        mode,
        mode_from: ModeFrom::Agent,
        meter: Meters::default().of(&Principal::new(workload), "main"),
        proxied: true,
        transport: "tcp",
        db_user: "app".to_owned(),
        application_name: "psql".to_owned(),
        search_path: SearchPath::default(),
        roles: Roles::of("app"),
    }
}

fn decider(mode: Mode) -> Arc<Decider> {
    let config = Config { mode, ..Config::default() };
    Arc::new(Decider::new(PolicySet::built_in().unwrap(), &config))
}

#[test]
fn one_refused_effect_refuses_the_statement() {
    let decider = decider(Mode::Enforce);
    let session = session(Mode::Enforce, &Workload::default());
    let decision = decider.statement(&session, &statement(vec![select(), drop_table()]), Rates::default());
    assert_eq!(decision.verdict(), Verdict::Refused);
    assert_eq!(decision.policy, "no-drop");
    assert_eq!(decision.subject, "drop of table public.customers");
    assert_eq!(
        decider.statement(&session, &statement(vec![select()]), Rates::default()).verdict(),
        Verdict::Allowed
    );
}

#[test]
fn monitor_mode_records_and_lets_it_run() {
    let decider = decider(Mode::Monitor);
    let mut cache = DecisionCache::new(Arc::clone(&decider));
    let session = session(Mode::Monitor, &Workload::default());
    let ruling = cache.rule(&session, session.scope(), &statement(vec![drop_table()]));
    assert_eq!(ruling.decision().verdict(), Verdict::WouldRefuse);
    assert!(matches!(ruling, Ruling::Permitted(_)));
}

#[test]
fn a_cached_decision_is_the_same_for_the_same_scope_only() {
    let decider = decider(Mode::Enforce);
    let mut cache = DecisionCache::new(Arc::clone(&decider));
    let update =
        statement(vec![Effect { has_where: Some(true), ..Effect::new(Action::Update, select().object) }]);
    let person = session(Mode::Enforce, &Workload::default());
    let agent = session(Mode::Enforce, &Workload { ai_agent: "claude".to_owned(), ..Workload::default() });
    assert_ne!(person.scope(), agent.scope());
    assert!(!cache.rule(&person, person.scope(), &update).decision().cached);
    assert!(cache.rule(&person, person.scope(), &update).decision().cached);
    assert!(matches!(cache.rule(&agent, agent.scope(), &update), Ruling::Refused(_)));
    assert!(matches!(cache.rule(&agent, agent.scope(), &update), Ruling::Refused(_)));
}

#[test]
fn a_new_policy_set_reaches_cached_statements() {
    let decider = decider(Mode::Enforce);
    let mut cache = DecisionCache::new(Arc::clone(&decider));
    let session = session(Mode::Enforce, &Workload::default());
    let drop = statement(vec![drop_table()]);
    assert!(matches!(cache.rule(&session, session.scope(), &drop), Ruling::Refused(_)));
    let open = r#"@id("all") permit (principal, action, resource);"#.to_owned();
    let open = PolicySet::from_files([("all.cedar".to_owned(), open)].into(), guard_policy::Origin::BuiltIn)
        .unwrap();
    let before = decider.replace(open);
    assert_ne!(before.hash(), decider.policies().hash());
    assert!(matches!(cache.rule(&session, session.scope(), &drop), Ruling::Permitted(_)));
}

#[test]
fn round_the_proxy_a_refusal_can_only_be_recorded() {
    let decider = decider(Mode::Enforce);
    let server = Server {
        name: "main".to_owned(),
        engine: crate::servers::Engine::Postgresql,
        environment: "production".to_owned(),
        addresses: Vec::new(),
        unix_sockets: Vec::new(),
        pid: None,
        elsewhere: None,
    };
    let connect = |proxied, unit: &str| {
        let workload = Workload { unit: unit.to_owned(), ..Workload::default() };
        let request = ConnectRequest { workload: &workload, server: &server, proxied, transport: "unix" };
        decider.connect(&request).verdict()
    };
    assert_eq!(connect(false, ""), Verdict::WouldRefuse);
    assert_eq!(connect(false, "pg-backup.service"), Verdict::Allowed);
    assert_eq!(connect(true, ""), Verdict::Allowed);
}

fn set(text: &str) -> PolicySet {
    let files = [("a/policy.cedar".to_owned(), text.to_owned())].into();
    PolicySet::from_files(files, guard_policy::Origin::BuiltIn).unwrap()
}

#[test]
fn a_decision_says_which_mode_applied_and_why() {
    let decider = decider(Mode::Monitor);
    let mut session = session(Mode::Monitor, &Workload::default());
    session.mode_from = ModeFrom::Database;
    let decision = decider.statement(&session, &statement(vec![drop_table()]), Rates::default());
    assert_eq!((decision.mode.as_str(), decision.mode_from.as_str()), ("monitor", "database"));

    decider.replace(set(r#"@id("all") permit (principal, action, resource);
        @id("trial") @reason("on trial") @mode("monitor")
        forbid (principal, action == Guard::Action::"drop", resource);"#));
    session.mode = Mode::Enforce;
    let decision = decider.statement(&session, &statement(vec![drop_table()]), Rates::default());
    assert_eq!(decision.verdict(), Verdict::WouldRefuse);
    assert_eq!((decision.mode.as_str(), decision.mode_from.as_str()), ("monitor", "policy"));
    let allowed = decider.statement(&session, &statement(vec![select()]), Rates::default());
    assert_eq!((allowed.mode.as_str(), allowed.mode_from.as_str()), ("enforce", "database"));
}

#[test]
fn cached_decisions_follow_the_rates_that_policies_read() {
    let decider = decider(Mode::Enforce);
    decider.replace(set(r#"@id("all") permit (principal, action, resource);
        @id("busy") @reason("too many") forbid (principal, action in Guard::Action::"read", resource)
        when { context.statements_per_minute > 3 };"#));
    let mut cache = DecisionCache::new(Arc::clone(&decider));
    let workload = Workload { uid: 4711, ..Workload::default() };
    let mut session = session(Mode::Enforce, &workload);
    session.meter = decider.meter(&session.principal, "main");
    let read = statement(vec![select()]);
    let mut ask = || {
        session.meter.statement();
        let ruling = cache.rule(&session, session.scope(), &read);
        (ruling.decision().cached, ruling.decision().verdict())
    };
    assert_eq!(ask(), (false, Verdict::Allowed));
    assert_eq!(ask(), (true, Verdict::Allowed));
    assert_eq!(ask().1, Verdict::Allowed);
    assert_eq!(ask().1, Verdict::Refused);
    assert_eq!(ask(), (true, Verdict::Refused));
    // With policies that read no rates nothing is counted and nothing depends on them.
    decider.replace(PolicySet::built_in().unwrap());
    assert_eq!(ask().1, Verdict::Allowed);
}

#[test]
fn a_role_that_may_be_in_force_counts_also_within_the_text_that_takes_it() {
    let text = r#"
        @id("all") permit (principal, action, resource);
        @id("not-as-dba") @reason("people only") forbid (principal, action == Guard::Action::"delete", resource)
        when { context.roles.containsAny(["dba", "*"]) };
        "#;
    let files = std::collections::BTreeMap::from([("a/policy.cedar".to_owned(), text.to_owned())]);
    let policies = PolicySet::from_files(files, guard_policy::Origin::BuiltIn).unwrap();
    let decider = Arc::new(Decider::new(policies, &Config::default()));
    let refused = |roles: Roles, text: &str| {
        let session = Session { roles, ..session(Mode::Enforce, &Workload::default()) };
        let statement = Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default());
        decider.statement(&session, &statement, Rates::default()).verdict() == Verdict::Refused
    };
    let delete = "DELETE FROM t WHERE a = 1";
    assert!(!refused(Roles::of("app"), delete));
    assert!(refused(Roles::of("app").or(&Roles::of("dba")), delete));
    assert!(refused(Roles::Any, delete));
    assert!(refused(Roles::of("app"), &format!("SET ROLE dba; {delete}")));
    assert!(!refused(Roles::of("app"), &format!("SET ROLE other; {delete}")));
}
