use std::collections::BTreeMap;

use guard_common::audit::v1::{ClientCertificate, Workload};

use super::*;
use crate::vocabulary::{ObjectKind, Parse};

fn set(text: &str) -> Result<PolicySet, PolicyError> {
    PolicySet::from_files(BTreeMap::from([("a/policy.cedar".to_owned(), text.to_owned())]), Origin::BuiltIn)
}

fn decide(set: &PolicySet, workload: &Workload, action: Action, has_where: Option<bool>) -> Outcome {
    let target = Target::new("production", "main", "postgresql", "app");
    let conditions = Conditions {
        proxied: true,
        transport: "tcp",
        db_user: "app",
        application_name: "psql",
        has_where,
        parse: Parse::Full,
        parts: 1,
    };
    let object = Object::named(ObjectKind::Table, None, "customers");
    set.decide(&Principal::new(workload), &target, action, &object, &conditions)
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
        let connect = Request::connect(&principal, &target, true, "tcp").unwrap();
        check(connect);
        for action in Action::ALL.iter().filter(|action| **action != Action::Connect) {
            for kind in ObjectKind::ALL {
                let conditions = Conditions {
                    proxied: true,
                    transport: "unix",
                    db_user: "a",
                    application_name: "",
                    has_where: Some(false),
                    parse: Parse::Tokens,
                    parts: 2,
                };
                for object in [Object::any(*kind), Object::named(*kind, Some("s"), "n")] {
                    check(Request::statement(&principal, &target, *action, &object, &conditions).unwrap());
                }
            }
        }
    }

    fn check(request: Request) {
        let Request { request, .. } = request;
        cedar_policy::Request::new(
            request.principal().unwrap().clone(),
            request.action().unwrap().clone(),
            request.resource().unwrap().clone(),
            request.context().unwrap().clone(),
            Some(&SCHEMA),
        )
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
fn a_policy_can_ask_for_a_certificate() {
    let policies = set(r#"
        @id("all") permit (principal, action, resource);
        @id("billing-by-certificate")
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
    check(Request::connect(&Principal::new(&holder("spiffe://x/y")), &target, true, "tcp").unwrap());
}
