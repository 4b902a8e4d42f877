//! What waits for people, and what cannot.

use std::time::Duration;

use super::*;
use crate::approval::Wait;

const BASE: &str = r#"@id("base") permit (principal, action, resource);"#;

fn held(policies: &str, action: Action) -> Outcome {
    decide(&set(&format!("{BASE}{policies}")).unwrap(), &Workload::default(), action, Some(false))
}

const BULK: &str = r#"@id("bulk") @reason("r") @approval("dba, oncall") @approvers("2") @within("10m")
    forbid (principal, action == Guard::Action::"delete", resource);"#;

#[test]
fn what_only_approvals_stand_against_waits() {
    let outcome = held(BULK, Action::Delete);
    assert!(!outcome.allowed && outcome.policy == "bulk");
    let needs = outcome.needs.unwrap();
    assert_eq!((needs.wait, needs.within), (Wait::Hold, Some(Duration::from_secs(600))));
    let [one] = &needs.requirements[..] else { panic!("{needs:?}") };
    assert_eq!((one.policy.as_str(), one.approvers), ("bulk", 2));
    assert_eq!(one.groups, ["dba", "oncall"]);
    assert!(held(BULK, Action::Update).allowed);
}

#[test]
fn one_plain_forbid_beside_it_refuses() {
    let plain = r#"@id("never") @reason("r") forbid (principal, action in Guard::Action::"write", resource) when { !context.has_where };"#;
    let outcome = held(&format!("{BULK}{plain}"), Action::Delete);
    assert!(!outcome.allowed && outcome.needs.is_none());
    assert_eq!(outcome.policy, "never");
}

#[test]
fn nobody_can_approve_what_nothing_permits() {
    let set = set(&format!(
        "{BULK}@id(\"reads\") permit (principal, action in Guard::Action::\"read\", resource);"
    ));
    let outcome = decide(&set.unwrap(), &Workload::default(), Action::Delete, None);
    assert!(!outcome.allowed && outcome.needs.is_none());
    assert_eq!(outcome.policy, "default-deny");
}

#[test]
fn two_policies_ask_for_both() {
    let other = r#"@id("second") @reason("r") @approval("security") @wait("retry")
        forbid (principal, action in Guard::Action::"write", resource);"#;
    let needs = held(&format!("{BULK}{other}"), Action::Delete).needs.unwrap();
    assert_eq!(needs.requirements.len(), 2);
    assert_eq!((needs.wait, needs.within), (Wait::Retry, Some(Duration::from_secs(600))));
}

#[test]
fn a_trial_would_have_waited() {
    let trial = BULK.replace("@reason", "@mode(\"monitor\") @reason");
    let outcome = held(&trial, Action::Delete);
    assert!(outcome.allowed && outcome.would_refuse && outcome.needs.is_some());
}

#[test]
fn glass_is_broken_only_where_something_waits_and_the_conditions_hold() {
    let glass = r#"@id("glass") @reason("oncall") @break_glass("oncall")
        permit (principal, action in Guard::Action::"write", resource) when { context.justified };"#;
    let set = set(&format!("{BASE}{BULK}{glass}")).unwrap();
    assert!(set.reads_reasons() && set.asks_people());
    let object = Object::named(ObjectKind::Table, None, "customers");
    let decide = |action, justified| {
        let conditions = Conditions { justified, ..conditions(None) };
        set.decide(&mut ground(&Workload::default()), action, &object, &conditions)
    };
    assert_eq!(decide(Action::Delete, false).break_glass, None);
    let outcome = decide(Action::Delete, true);
    assert_eq!(outcome.break_glass.unwrap().group.as_deref(), Some("oncall"));
    assert!(!outcome.allowed && outcome.needs.is_some());
    assert_eq!(decide(Action::Update, true).break_glass, None);
    // It permits nothing by itself.
    let alone = super::set(&format!("{BULK}{glass}")).unwrap();
    assert!(!super::decide(&alone, &Workload::default(), Action::Update, None).allowed);
}

#[test]
fn annotations_that_cannot_work_are_refused() {
    let forbid = |annotations: &str| {
        let text =
            format!(r#"{BASE}@id("a") @reason("r") {annotations} forbid (principal, action, resource);"#);
        set(&text).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(forbid(r#"@approval("dba")"#), "");
    assert!(forbid(r#"@approval("")"#).contains("names the group"));
    assert!(forbid(r#"@approval("dba,,x")"#).contains("names the group"));
    assert!(forbid(r#"@approval("d ba")"#).contains("`d ba`"));
    assert!(forbid(r#"@approvers("2")"#).contains("@approval"));
    assert!(forbid(r#"@approval("dba") @approvers("0")"#).contains("from 1 to 8"));
    assert!(forbid(r#"@approval("dba") @wait("forever")"#).contains("`hold` or `retry`"));
    assert!(forbid(r#"@approval("dba") @within("soon")"#).contains("15m"));
    assert!(forbid(r#"@break_glass("dba")"#).contains("for permits"));
    assert!(forbid(r#"@aproval("dba")"#).contains("did you mean `@approval`"));
    let permit = |annotations: &str| {
        set(&format!(r#"@id("a") {annotations} permit (principal, action, resource);"#))
            .unwrap_err()
            .to_string()
    };
    assert!(permit(r#"@approval("dba")"#).contains("for forbids"));
    assert!(permit(r#"@break_glass("dba")"#).contains("@reason"));
    let connect = r#"@id("a") @reason("r") @approval("dba") forbid (principal, action == Guard::Action::"connect", resource);"#;
    assert!(set(connect).unwrap_err().to_string().contains("cannot wait"));
}
