//! Over generated policies and requests: leaving out the policies of other actions changes nothing, and neither does
//! keeping a decision for rates that the policies cannot tell apart.

use std::collections::BTreeMap;

use guard_common::audit::v1::Workload;

use super::{conditions, full_workload, ground};
use crate::{
    Conditions, Ground, Origin, Outcome, PolicySet, Rates,
    schema::SCHEMA,
    vocabulary::{Action, Object, ObjectKind, Parse},
};

/// A small generator of its own: the same inputs in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const GROUPS: &[&str] = &["read", "write", "define", "grant", "administer", "export", "opaque", "harmless"];

/// Some err for some requests; some read what only a part of the requests has.
const CONDITIONS: &[&str] = &[
    "true",
    "principal.agent",
    "principal has unit && principal.unit == \"a.service\"",
    "resource in Guard::Environment::\"production\"",
    "resource in Guard::Schema::\"main/app/public\"",
    "resource.kind == \"table\" || !resource.known",
    "context.has_where",
    "context.parse == \"full\"",
    "9223372036854775807 + context.parts > 0",
    "context.parts * 4611686018427387904 > 0",
    "context.rows_per_minute > 1000",
    "context.statements_per_minute >= 60 && context.rows_per_minute != 7",
    "context.rows_per_minute * 2 > context.statements_per_minute",
    "action in Guard::Action::\"write\"",
    "action == Guard::Action::\"select\" && context.application_name like \"ps*\"",
    "principal.ancestry.contains(\"/bin/bash\")",
];

fn action_scope(random: &mut Random) -> String {
    // Connections have another context: conditions on them are not generated.
    let actions =
        || Action::ALL.iter().filter(|action| **action != Action::Connect).copied().collect::<Vec<_>>();
    match random.below(4) {
        0 => {
            let all = GROUPS
                .iter()
                .map(|group| format!("Guard::Action::\"{group}\""))
                .collect::<Vec<_>>()
                .join(", ");
            format!("action in [{all}]")
        }
        1 => format!("action == Guard::Action::\"{}\"", random.pick(&actions())),
        2 => format!("action in Guard::Action::\"{}\"", random.pick(GROUPS)),
        _ => format!(
            "action in [Guard::Action::\"{}\", Guard::Action::\"{}\"]",
            random.pick(GROUPS),
            random.pick(&actions())
        ),
    }
}

fn policy(random: &mut Random, number: usize) -> String {
    let scope = action_scope(random);
    let resource = random.pick(&[
        "resource",
        "resource",
        "resource in Guard::Environment::\"production\"",
        "resource in Guard::Server::\"other\"",
        "resource is Guard::Object",
    ]);
    let effect = random.pick(&["permit", "forbid", "forbid"]);
    let mode = if effect == "forbid" { random.pick(&["", "", "@mode(\"monitor\")"]) } else { "" };
    let word = random.pick(&["when", "unless"]);
    let condition = random.pick(CONDITIONS);
    format!(
        "@id(\"p{number}\") @reason(\"r{number}\") {mode} {effect} (principal, {scope}, {resource}) {word} {{ {condition} }};\n"
    )
}

/// A set that loads: what the schema's check refuses is drawn anew.
fn generated(random: &mut Random) -> PolicySet {
    let shipped = super::super::load::built_in_files();
    loop {
        let mut files = if random.below(2) == 0 { shipped.clone() } else { BTreeMap::new() };
        for number in 0..=random.below(12) {
            files.insert(format!("generated{number}.cedar"), policy(random, number));
        }
        if let Ok(set) = PolicySet::from_files(files, Origin::BuiltIn) {
            return set;
        }
    }
}

/// The decision by every policy, over entities with every action of the schema.
fn by_all(
    set: &PolicySet,
    ground: &mut Ground,
    action: Action,
    object: &Object,
    conditions: &Conditions,
) -> Outcome {
    let (request, entities) = ground.request(action, object, conditions, Some(conditions.rates)).unwrap();
    let all_actions = SCHEMA.action_entities().unwrap();
    let others = entities.iter().filter(|entity| all_actions.get(&entity.uid()).is_none());
    let entities = all_actions.clone().add_entities(others.cloned(), None).unwrap();
    let whole = set.evaluate(&set.policies, &request, &entities);
    if whole.allowed || !whole.errors.is_empty() {
        return whole;
    }
    let enforced =
        set.policies.policies().filter(|policy| policy.annotation("mode") != Some("monitor")).cloned();
    let enforced =
        set.evaluate(&cedar_policy::PolicySet::from_policies(enforced).unwrap(), &request, &entities);
    if enforced.allowed { Outcome { allowed: true, would_refuse: true, ..whole } } else { enforced }
}

fn sorted(mut outcome: Outcome) -> Outcome {
    outcome.errors.sort_unstable();
    outcome
}

#[test]
fn slices_decide_as_the_whole_set_does() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut seen = [0_usize; 4];
    for _ in 0..60 {
        let set = generated(&mut random);
        let agent = Workload { ai_agent: "claude".to_owned(), ..Workload::default() };
        let mut grounds = [Workload::default(), full_workload(), agent].map(|workload| ground(&workload));
        for _ in 0..8 {
            let ground = &mut grounds[random.below(3)];
            let action = random.pick(&Action::ALL[1..]);
            let kind = random.pick(ObjectKind::ALL);
            let object = match random.below(3) {
                0 => Object::any(kind),
                1 => Object::named(kind, None, "customers"),
                _ => Object::named(kind, Some("public"), "orders"),
            };
            let conditions = Conditions {
                has_where: random.pick(&[None, Some(true), Some(false)]),
                parse: random.pick(&[Parse::Full, Parse::Tokens, Parse::None]),
                parts: random.pick(&[0, 1, 3]),
                rates: some_rates(&mut random),
                justified: random.below(2) == 0,
            };
            let sliced = sorted(set.decide(ground, action, &object, &conditions));
            let whole = sorted(by_all(&set, ground, action, &object, &conditions));
            assert_eq!(sliced, whole, "{action} on {object} under {conditions:?}\n{}", set.policies);
            let class = match (&sliced.errors[..], sliced.allowed, sliced.would_refuse) {
                ([_, ..], ..) => 0,
                (_, true, true) => 1,
                (_, true, false) => 2,
                (_, false, _) => 3,
            };
            seen[class] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 5), "the generator misses a kind of outcome: {seen:?}");
}

fn some_rates(random: &mut Random) -> Rates {
    let statements = random.pick(&[0, 1, 59, 60, 61, 100_000]);
    Rates { statements, rows: random.pick(&[0, 6, 7, 8, 999, 1000, 1001, u64::MAX]) }
}

#[test]
fn rates_with_the_same_key_decide_the_same() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut shared = 0;
    for _ in 0..25 {
        let set = generated(&mut random);
        let mut ground = ground(&Workload::default());
        let object = Object::named(ObjectKind::Table, None, "customers");
        for _ in 0..40 {
            let (one, other) = (some_rates(&mut random), some_rates(&mut random));
            if one == other || set.rates_key(one) != set.rates_key(other) {
                continue;
            }
            shared += 1;
            let action = random.pick(&Action::ALL[1..]);
            let mut decide =
                |rates| set.decide(&mut ground, action, &object, &Conditions { rates, ..conditions(None) });
            assert_eq!(sorted(decide(one)), sorted(decide(other)), "{one:?} {other:?}\n{}", set.policies);
        }
    }
    assert!(shared > 50, "too few rates shared a key: {shared}");
}
