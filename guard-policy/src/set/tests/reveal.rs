//! How columns are seen: what permits, which rule, and what is refused when it is loaded.

use guard_common::audit::v1::Workload;

use super::{full_workload, ground, set};
use crate::{
    Column, ColumnAction, Mask, PolicySet, Use,
    schema::SCHEMA,
    vocabulary::{DataKind, MaskRule},
};

fn column(kind: DataKind) -> Column {
    Column {
        schema: "public".to_owned(),
        table: "customers".to_owned(),
        name: "email".to_owned(),
        kind,
        tags: vec!["vip".to_owned()],
        evidence: "column name".to_owned(),
    }
}

fn seen(set: &PolicySet, kind: DataKind) -> (Option<String>, String) {
    let sight = set.reveal(&mut ground(&Workload::default()), &column(kind), &Mask::FULL);
    (sight.mask.map(|mask| mask.to_string()), sight.policy)
}

const ALL: &str = r#"@id("all") permit (principal, action, resource);"#;

fn with(policies: &str) -> PolicySet {
    set(&format!("{ALL}{policies}")).unwrap()
}

#[test]
fn requests_for_columns_fit_the_schema() {
    for workload in [Workload::default(), full_workload()] {
        let ground = ground(&workload);
        for (action, used) in [
            (ColumnAction::Reveal, None),
            (ColumnAction::Infer, Some(Use { words: vec!["where", "order"], equality: true })),
        ] {
            let column = Column { table: "*".to_owned(), schema: String::new(), ..column(DataKind::Tagged) };
            let (request, entities) = ground.column_request(action, &column, used.as_ref()).unwrap();
            cedar_policy::Request::new(
                request.principal().unwrap().clone(),
                request.action().unwrap().clone(),
                request.resource().unwrap().clone(),
                request.context().unwrap().clone(),
                Some(&SCHEMA),
            )
            .unwrap();
            cedar_policy::Entities::from_entities(entities.iter().cloned(), Some(&SCHEMA)).unwrap();
        }
    }
}

#[test]
fn nobody_sees_in_clear_what_no_policy_that_names_it_reveals() {
    assert_eq!(seen(&with(""), DataKind::Email), (Some("full".to_owned()), "not-revealed".to_owned()));
    let set = with(
        r#"@id("contact") permit (principal, action == Guard::Action::"reveal", resource)
           when { resource.tags.contains("contact") };"#,
    );
    assert_eq!(seen(&set, DataKind::Email), (None, "contact".to_owned()));
    assert_eq!(seen(&set, DataKind::Iban).1, "not-revealed");
}

#[test]
fn tables_and_tags_of_a_column_can_be_named() {
    for scope in [
        r#"resource in Guard::Object::"main/app/table/public.customers""#,
        r#"resource in Guard::Environment::"production""#,
        r#"resource == Guard::Column::"main/app/column/public.customers.email""#,
    ] {
        let set = with(&format!(
            r#"@id("p") permit (principal, action == Guard::Action::"reveal", {scope})
               when {{ resource.tags.contains("vip") && resource.kind == "email" }};"#
        ));
        assert_eq!(seen(&set, DataKind::Email).0, None, "{scope}");
        assert!(seen(&set, DataKind::Phone).0.is_some());
    }
}

#[test]
fn the_most_generous_permit_and_the_strictest_forbid_name_the_rule() {
    let permit = |id: &str, mask: &str| {
        let mask = if mask.is_empty() { String::new() } else { format!("@mask(\"{mask}\")") };
        format!(r#"@id("{id}") {mask} permit (principal, action == Guard::Action::"reveal", resource);"#)
    };
    let forbid = |id: &str, mask: &str| permit(id, mask).replace(" permit", " @reason(\"no\") forbid");
    let rule = |policies: &str| seen(&with(policies), DataKind::Email);
    let some = |rule: &str, policy: &str| (Some(rule.to_owned()), policy.to_owned());
    assert_eq!(rule(&(permit("a", "hash") + &permit("b", "partial"))), some("partial", "b"));
    assert_eq!(rule(&(permit("a", "hash") + &permit("b", ""))), (None, "b".to_owned()));
    assert_eq!(rule(&(permit("a", "") + &forbid("b", "partial"))), some("partial", "b"));
    assert_eq!(rule(&(forbid("a", "partial") + &forbid("b", "null"))), some("null", "b"));
    assert_eq!(rule(&(forbid("a", "partial") + &forbid("b", ""))), some("full", "b"));
    assert_eq!(rule(&permit("a", "fixed:x y")), some("fixed:x y", "a"));
    assert_eq!(rule(&(permit("a", "partial") + &permit("b", "partial"))), some("partial", "a"));
}

#[test]
fn an_error_masks() {
    let set = with(
        r#"@id("p") permit (principal, action == Guard::Action::"reveal", resource);
           @id("overflows") @reason("none") forbid (principal, action == Guard::Action::"reveal", resource)
           when { 9223372036854775807 + principal.uid + 1 > 0 };"#,
    );
    assert_eq!(seen(&set, DataKind::Email), (Some("full".to_owned()), "policy-error".to_owned()));
}

#[test]
fn inference_is_allowed_until_a_policy_forbids_it() {
    let infer = |set: &PolicySet, words: &[&'static str], equality| {
        let used = Use { words: words.to_vec(), equality };
        set.infer(&mut ground(&Workload::default()), &column(DataKind::Email), &used).allowed
    };
    let closed =
        set(r#"@id("reads") permit (principal, action in Guard::Action::"read", resource);"#).unwrap();
    assert!(infer(&closed, &["order"], false) && infer(&with(""), &["order"], false));
    let set = with(
        r#"@id("no-sorting") @reason("order tells") forbid (principal, action == Guard::Action::"infer", resource)
           when { context.uses.contains("order") || !context.equality };"#,
    );
    assert!(infer(&set, &["where"], true));
    assert!(!infer(&set, &["where"], false) && !infer(&set, &["where", "order"], true));
}

#[test]
fn a_mask_that_is_wrong_or_in_the_wrong_place_is_refused() {
    let load = |policy: &str| set(policy).unwrap_err().to_string();
    let unknown =
        load(r#"@id("p") @mask("stars") permit (principal, action == Guard::Action::"reveal", resource);"#);
    assert!(unknown.contains("`a/policy.cedar`, policy p") && unknown.contains("partial"), "{unknown}");
    let misplaced = load(r#"@id("p") @mask("null") permit (principal, action, resource);"#);
    assert!(misplaced.contains("reveal"), "{misplaced}");
    assert_eq!("null".parse::<Mask>().unwrap().rule, MaskRule::Null);
}

#[test]
fn what_is_revealed_by_place_is_told_from_what_is_revealed_by_kind() {
    let by_place = |scope: &str, condition: &str| {
        let policy = format!(
            r#"@id("p") permit (principal, action == Guard::Action::"reveal", {scope}) when {{ {condition} }};"#
        );
        with(&policy).reveals_by_place()
    };
    assert!(!by_place("resource", r#"resource.tags.contains("pii") && principal.agent"#));
    assert!(!by_place("resource", r#"resource.kind == "email" || resource.evidence == "content""#));
    assert!(by_place("resource", r#"resource.table == "t""#));
    assert!(by_place("resource", r#"resource["name"] == "t""#));
    assert!(by_place(r#"resource in Guard::Database::"main/app""#, "true"));
    assert!(by_place("resource", r#"resource in Guard::Environment::"scratch""#));
    assert!(by_place("resource", r#"Guard::Column::"x" == resource"#));
    assert!(by_place("resource", r#"[resource].contains(resource)"#));
}
