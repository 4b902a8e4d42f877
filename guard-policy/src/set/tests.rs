use std::{collections::BTreeMap, sync::Arc};

use guard_common::audit::v1::{ClientCertificate, Workload};

use super::*;
use crate::{
    cases::CaseWorkload,
    ground::Facts,
    schema::SCHEMA,
    vocabulary::{ObjectKind, Parse},
};

mod approvals;
mod properties;
mod reveal;

fn set(text: &str) -> Result<PolicySet, PolicyError> {
    PolicySet::from_files(BTreeMap::from([("a/policy.cedar".to_owned(), text.to_owned())]), Origin::BuiltIn)
}

fn ground(workload: &Workload) -> Ground {
    let target = Target::new("production", "main", "postgresql", "app");
    let facts =
        Facts { proxied: true, transport: "tcp", db_user: "app", roles: &["app"], application_name: "psql" };
    Ground::new(&Principal::new(workload), &target, &facts)
}

fn conditions(has_where: Option<bool>) -> Conditions {
    Conditions { has_where, parse: Parse::Full, parts: 1, rates: Rates::default(), justified: false }
}

fn decide(set: &PolicySet, workload: &Workload, action: Action, has_where: Option<bool>) -> Outcome {
    let object = Object::named(ObjectKind::Table, None, "customers");
    set.decide(&mut ground(workload), action, &object, &conditions(has_where))
}

fn full_workload() -> Workload {
    crate::cases::parse(
        r#"
        [[case]]
        name = "all attributes"
        sql = "SELECT 1"
        expect = "allow"
        [case.workload]
        executable = "/usr/bin/psql"
        unit = "a.service"
        ai_agent = "claude"
        user = "ana"
        login_user = "ana"
        container = "0123"
        pod = "default/web"
        address = "10.0.0.1"
        ancestry = ["/bin/bash"]
        "#,
    )
    .map(|cases| Workload::from(&cases[0].workload))
    .unwrap()
}

#[test]
fn requests_fit_the_schema_for_every_action_and_kind_of_object() {
    let target = Target::new("production", "main", "postgresql", "app");
    for workload in [Workload::default(), full_workload()] {
        let principal = Principal::new(&workload);
        let (connect, entities) = ground::connect(&principal, &target, true, "tcp").unwrap();
        check(&connect, &entities);
        let mut ground = ground(&workload);
        for action in Action::ALL.iter().filter(|action| **action != Action::Connect) {
            for kind in ObjectKind::ALL {
                for object in [Object::any(*kind), Object::named(*kind, Some("s"), "n")] {
                    for rates in [None, Some(Rates { statements: 1, rows: u64::MAX })] {
                        let conditions =
                            Conditions { parse: Parse::Tokens, parts: 2, ..conditions(Some(false)) };
                        let (request, entities) =
                            ground.request(*action, &object, &conditions, rates).unwrap();
                        check(&request, entities);
                    }
                }
            }
        }
    }

    fn check(request: &Request, entities: &Entities) {
        cedar_policy::Request::new(
            request.principal().unwrap().clone(),
            request.action().unwrap().clone(),
            request.resource().unwrap().clone(),
            request.context().unwrap().clone(),
            Some(&SCHEMA),
        )
        .unwrap_or_else(|error| panic!("{:?}: {error}", request.action()));
        Entities::from_entities(entities.iter().cloned(), Some(&SCHEMA))
            .unwrap_or_else(|error| panic!("{:?}: {error}", request.action()));
    }
}

#[test]
fn built_in_policies_load_and_decide() {
    let set = PolicySet::built_in().unwrap();
    assert!(set.len() >= 7);
    let workload = Workload::default();
    assert!(decide(&set, &workload, Action::Select, None).allowed);
    assert!(decide(&set, &workload, Action::Delete, Some(true)).allowed);
    let refused = decide(&set, &workload, Action::Delete, Some(false));
    assert!(!refused.allowed);
    assert_eq!(refused.policy, "no-bulk-change");
    assert!(!refused.reason.is_empty() && !refused.hint.is_empty());
}

#[test]
fn a_forbid_that_errs_refuses() {
    let set = set(r#"
        @id("all") permit (principal, action, resource);
        @id("overflows") @reason("none")
        forbid (principal, action == Guard::Action::"select", resource)
        when { 9223372036854775807 + context.parts > 0 };
        "#)
    .unwrap();
    let outcome = decide(&set, &Workload::default(), Action::Select, None);
    assert!(!outcome.allowed);
    assert_eq!(outcome.errors.len(), 1, "{outcome:?}");
    assert!(decide(&set, &Workload::default(), Action::Insert, None).allowed);
}

#[test]
fn what_nothing_permits_is_refused() {
    let set = set(r#"@id("reads") permit (principal, action in Guard::Action::"read", resource);"#).unwrap();
    assert!(decide(&set, &Workload::default(), Action::Select, None).allowed);
    assert_eq!(decide(&set, &Workload::default(), Action::Insert, None).policy, "default-deny");
}

#[test]
fn a_policy_in_monitor_mode_is_told_but_does_not_refuse() {
    let text = r#"
        @id("all") permit (principal, action, resource);
        @id("trial") @reason("on trial") @mode("monitor")
        forbid (principal, action == Guard::Action::"delete", resource);
        @id("firm") @reason("no") forbid (principal, action == Guard::Action::"delete", resource)
        when { !context.has_where };
    "#;
    let set = set(text).unwrap();
    let watched = decide(&set, &Workload::default(), Action::Delete, Some(true));
    assert!(watched.allowed && watched.would_refuse);
    assert_eq!(watched.policy, "trial");
    let refused = decide(&set, &Workload::default(), Action::Delete, Some(false));
    assert!(!refused.allowed);
    assert_eq!(refused.policy, "firm");
}

#[test]
fn broken_policies_say_what_is_wrong() {
    let error = |text: &str| set(text).unwrap_err().to_string();
    assert!(error("permit (principal, action, resource);").contains("@id"));
    assert!(
        error("\n\npermit (principal action, resource);").contains("line 3"),
        "{}",
        error("\n\npermit (principal action, resource);")
    );
    assert!(error(r#"@id("a") forbid (principal, action, resource);"#).contains("@reason"));
    let typo = error(r#"@id("a") @reson("x") permit (principal, action, resource);"#);
    assert!(typo.contains("did you mean `@reason`"), "{typo}");
    assert!(
        error(r#"@id("a") permit (principal, action == Guard::Action::"selct", resource);"#)
            .contains("schema")
    );
    let twice = error(
        r#"@id("a") permit (principal, action, resource); @id("a") permit (principal, action, resource);"#,
    );
    assert!(twice.contains("unique"), "{twice}");
    assert!(error("").contains("no policy found"));
}

#[test]
fn the_hash_names_the_content() {
    let one = set(r#"@id("a") permit (principal, action, resource);"#).unwrap();
    let other = set(r#"@id("a") permit (principal, action, resource) ;"#).unwrap();
    assert_ne!(one.hash(), other.hash());
    assert_eq!(one.hash().len(), 64);
}

#[test]
fn rates_reach_the_policies_that_read_them() {
    let set = set(r#"
        @id("all") permit (principal, action, resource);
        @id("bulk") @reason("too many rows") forbid (principal, action in Guard::Action::"read", resource)
        when { context.rows_per_minute > 1000 };
        "#)
    .unwrap();
    assert!(set.reads_rates() && !PolicySet::built_in().unwrap().reads_rates());
    let object = Object::named(ObjectKind::Table, None, "customers");
    let mut ground = ground(&Workload::default());
    let mut after = |action, rows| {
        let rates = Rates { statements: 1, rows };
        set.decide(&mut ground, action, &object, &Conditions { rates, ..conditions(None) }).allowed
    };
    assert!(after(Action::Select, 1000));
    assert!(!after(Action::Select, 1001));
    assert!(after(Action::Select, 1000), "a context of other rates was kept");
    assert!(after(Action::Insert, 1001));
}

#[test]
fn hidden_files_and_examples_are_not_in_force() {
    let folder = std::env::temp_dir().join(format!("guard-policy-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("..2026")).unwrap();
    std::fs::create_dir_all(folder.join("examples/a")).unwrap();
    let policy = r#"@id("a") permit (principal, action, resource);"#;
    for file in ["policy.cedar", "..2026/policy.cedar", ".#policy.cedar", "examples/a/policy.cedar"] {
        std::fs::write(folder.join(file), policy).unwrap();
    }
    let loaded = PolicySet::from_folder(&folder).map(|set| set.len());
    let examples = PolicySet::from_folder(&folder.join("examples")).map(|set| set.len());
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!((loaded.unwrap(), examples.unwrap()), (1, 1));
    let built_in = PolicySet::built_in().unwrap();
    assert!(built_in.policies.policy(&PolicyId::new("ai-agents-read-little")).is_none());
}

#[test]
fn a_policy_can_ask_for_a_certificate() {
    let policies = set(r#"
        @id("all") permit (principal, action, resource);
        @id("billing-by-certificate") @reason("billing shows its certificate")
        forbid (principal, action == Guard::Action::"connect", resource == Guard::Server::"main")
        unless { principal has certificate && principal.certificate.spiffe_id == "spiffe://example.org/billing" };
        "#)
    .unwrap();
    let target = Target::new("production", "main", "postgresql", "");
    let allowed =
        |workload: &Workload| policies.connect(&Principal::new(workload), &target, true, "tcp").allowed;
    let holder = |spiffe_id: &str| Workload {
        certificate: Some(ClientCertificate {
            spiffe_id: spiffe_id.to_owned(),
            uris: vec![spiffe_id.to_owned()],
            ..ClientCertificate::default()
        }),
        ..Workload::default()
    };
    assert!(allowed(&holder("spiffe://example.org/billing")));
    assert!(!allowed(&holder("spiffe://example.org/orders")) && !allowed(&Workload::default()));
}

#[test]
fn an_approval_is_for_the_same_program_whenever_its_hash_is_known() {
    let running = |inode, sha256: &str, unhashed: &str| {
        let file = guard_common::audit::v1::ProgramFile {
            inode,
            sha256: sha256.to_owned(),
            unhashed: unhashed.to_owned(),
        };
        Principal::new(&Workload { program_file: Some(file), ..Workload::default() })
    };
    let (early, later, other) = (running(7, "", "pending"), running(7, "abc", ""), running(8, "abc", ""));
    assert_eq!(early.bound_as(), later.bound_as());
    assert_ne!(early.fingerprint(), later.fingerprint());
    assert_ne!(other.bound_as(), later.bound_as());
    assert_eq!(other.fingerprint(), later.fingerprint());
}

#[test]
fn containers_and_pods_are_known_by_their_labels_accounts_and_owners() {
    let policies = set(r#"
        @id("billing") permit (principal, action == Guard::Action::"connect", resource) when {
            principal.labels.contains("app=billing") && principal has service_account
            && principal.service_account == "billing" && principal has pod_owner
            && principal.pod_owner like "ReplicaSet/billing-*" && principal has image
            && principal.image like "registry.example.org/*" };
        @id("pinned") permit (principal, action == Guard::Action::"connect", resource)
        when { principal has sha256 && principal.sha256 == "abc" };
        @id("no-ci") @reason("no runners") forbid (principal, action == Guard::Action::"connect", resource)
        when { principal has ci_runner };
        "#)
    .unwrap();
    assert!(policies.reads_hashes() && !PolicySet::built_in().unwrap().reads_hashes());
    let target = Target::new("production", "main", "postgresql", "");
    let allowed = |case: &CaseWorkload| {
        policies.connect(&Principal::new(&Workload::from(case)), &target, false, "tcp").allowed
    };
    let billing = CaseWorkload {
        pod: "shop/billing-1".to_owned(),
        labels: vec!["app=billing".to_owned()],
        service_account: "billing".to_owned(),
        pod_owner: "ReplicaSet/billing-5d9c".to_owned(),
        image: "registry.example.org/billing:7".to_owned(),
        ..CaseWorkload::default()
    };
    assert!(allowed(&billing));
    assert!(!allowed(&CaseWorkload { service_account: "default".to_owned(), ..billing.clone() }));
    assert!(!allowed(&CaseWorkload { labels: Vec::new(), ..billing.clone() }));
    assert!(!allowed(&CaseWorkload { ci_runner: "gitlab".to_owned(), ..billing }));
    assert!(allowed(&CaseWorkload { sha256: "abc".to_owned(), ..CaseWorkload::default() }));
    assert!(!allowed(&CaseWorkload { sha256: "abd".to_owned(), ..CaseWorkload::default() }));
}

#[test]
fn principals_that_no_policy_tells_apart_are_one_in_memory() {
    let workload =
        |pid, executable: &str| Workload { pid, executable: executable.to_owned(), ..Workload::default() };
    let one = Principal::new(&workload(1, "/usr/bin/one-of-a-kind"));
    let other = Principal::new(&workload(2, "/usr/bin/one-of-a-kind"));
    let third = Principal::new(&workload(2, "/usr/bin/another-of-a-kind"));
    assert!(Arc::ptr_eq(one.name(), other.name()));
    assert_ne!(one.name(), third.name());
}
