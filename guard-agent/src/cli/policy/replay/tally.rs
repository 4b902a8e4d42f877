//! What would change, gathered for people and for programs.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use guard_common::audit::{
    display::visible,
    v1::{Decision, decision::Verdict},
};
use guard_policy::{Outcome, PolicySet};
use pbjson_types::Timestamp;
use serde_json::json;

/// Most kinds of change that are told apart; the rest is summed up.
const MAX_CHANGES: usize = 1_000;

/// Rows of the table for people.
const SHOWN: usize = 40;

/// What policy says of something, whatever the mode makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Says {
    Allowed,
    /// Refused by policies in `@mode("monitor")` alone.
    Watched,
    Refused,
}

impl Says {
    fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Watched => "allowed, watched",
            Self::Refused => "refused",
        }
    }
}

/// What was decided then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Then {
    says: Says,
    /// It went on.
    ran: bool,
}

impl Then {
    pub(super) fn of(decision: &Decision) -> Self {
        let says = match decision.verdict() {
            // What waited was not let through by policies alone.
            Verdict::Allowed if decision.needs.is_some() => Says::Refused,
            Verdict::Allowed => Says::Allowed,
            Verdict::WouldRefuse | Verdict::WouldHold if decision.mode_from == "policy" => Says::Watched,
            Verdict::WouldRefuse
            | Verdict::WouldHold
            | Verdict::Held
            | Verdict::Refused
            | Verdict::Unspecified => Says::Refused,
        };
        let ran = matches!(decision.verdict(), Verdict::Allowed | Verdict::WouldRefuse | Verdict::WouldHold);
        Self { says, ran }
    }
}

/// What it is about, and who asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) workload: &'a str,
    pub(super) text: &'a str,
}

/// One kind of change: the same workload, the same policy, the same turn.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    now: Says,
    then: Says,
    workload: String,
    policy: String,
    /// A connection, not a statement.
    connection: bool,
}

#[derive(Debug)]
struct Seen {
    count: u64,
    first: u64,
    text: String,
    reason: String,
}

/// Everything that was counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    records: u64,
    statements: u64,
    connections: u64,
    /// Refused by these policies, and how many of them went on then.
    refused: u64,
    refused_that_ran: u64,
    changes: BTreeMap<Change, Seen>,
    /// Changes beyond the first kinds, towards refusal and away from it.
    uncounted: [u64; 2],
    skipped: BTreeMap<&'static str, u64>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Tally {
    pub(super) fn record(&mut self, at: Option<&Timestamp>) {
        self.records += 1;
        if let Some(at) = at {
            self.first.get_or_insert(*at);
            self.last = Some(*at);
        }
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn skipped(&mut self, what: &'static str) {
        *self.skipped.entry(what).or_default() += 1;
    }

    pub(super) fn connection(&mut self, sequence: u64, asked: &Asked<'_>, then: Then, now: &Outcome) {
        self.connections += 1;
        let says = match (now.allowed, now.would_refuse) {
            (true, false) => Says::Allowed,
            (true, true) => Says::Watched,
            (false, _) => Says::Refused,
        };
        self.compare(sequence, asked, then, says, (&now.policy, &now.reason, true));
    }

    pub(super) fn statement(&mut self, sequence: u64, asked: &Asked<'_>, then: Then, now: &Decision) {
        self.statements += 1;
        let says = Then::of(now).says;
        if says == Says::Refused {
            self.refused += 1;
            self.refused_that_ran += u64::from(then.ran);
        }
        self.compare(sequence, asked, then, says, (&now.policy, &now.reason, false));
    }

    fn compare(
        &mut self,
        sequence: u64,
        asked: &Asked<'_>,
        then: Then,
        now: Says,
        (policy, reason, connection): (&str, &str, bool),
    ) {
        if now == then.says {
            return;
        }
        let (workload, policy) = (asked.workload.to_owned(), policy.to_owned());
        let change = Change { now, then: then.says, workload, policy, connection };
        if let Some(seen) = self.changes.get_mut(&change) {
            seen.count += 1;
        } else if self.changes.len() < MAX_CHANGES {
            let text = asked.text[..asked.text.floor_char_boundary(200)].to_owned();
            let seen = Seen { count: 1, first: sequence, text, reason: reason.to_owned() };
            self.changes.insert(change, seen);
        } else {
            self.uncounted[usize::from(now < then.says)] += 1;
        }
    }

    /// Something that policy allowed then is refused now.
    pub(super) fn refuses_more(&self) -> bool {
        self.uncounted[0] > 0 || self.changes.keys().any(Change::refuses)
    }

    /// How many of a kind of change there are, of how many workloads.
    fn sum(&self, of: impl Fn(&Change) -> bool) -> (u64, usize) {
        let chosen = || self.changes.iter().filter(|(change, _)| of(change));
        let workloads: BTreeSet<&str> = chosen().map(|(change, _)| change.workload.as_str()).collect();
        (chosen().map(|(_, seen)| seen.count).sum(), workloads.len())
    }

    pub(super) fn as_json(&self, policies: &PolicySet) -> serde_json::Value {
        let sum = |of: fn(&Change) -> bool, connection: bool| {
            let (count, workloads) = self.sum(|change| of(change) && change.connection == connection);
            json!({ "count": count, "workloads": workloads })
        };
        let changes = self.changes.iter().map(|(change, seen)| {
            json!({
                "what": if change.connection { "connection" } else { "statement" },
                "workload": change.workload,
                "then": change.then.word(),
                "now": change.now.word(),
                "policy": change.policy,
                "reason": seen.reason,
                "count": seen.count,
                "first_sequence": seen.first,
                "example": seen.text,
            })
        });
        json!({
            "policies": policies.origin().to_string(),
            "policy_hash": policies.hash(),
            "records": self.records,
            "from": self.first,
            "until": self.last,
            "statements": self.statements,
            "connections": self.connections,
            "refused_statements": self.refused,
            "refused_statements_that_ran": self.refused_that_ran,
            "newly_refused_statements": sum(Change::refuses, false),
            "newly_refused_connections": sum(Change::refuses, true),
            "newly_allowed_statements": sum(Change::allows, false),
            "newly_allowed_connections": sum(Change::allows, true),
            "changes": changes.collect::<Vec<_>>(),
            "changes_not_listed": self.uncounted.iter().sum::<u64>(),
            "skipped": self.skipped,
        })
    }

    pub(super) fn describe(&self, policies: &PolicySet) -> String {
        let hash = policies.hash().get(..12).unwrap_or_default();
        let mut text = format!(
            "{} statements and {} connections, decided on by {} policies of {} ({hash})\n",
            self.statements,
            self.connections,
            policies.len(),
            policies.origin()
        );
        let mut told = false;
        for (would, were) in [("refused", "allowed"), ("allowed", "refused")] {
            for (connection, what) in [(false, "statements"), (true, "connections")] {
                let of =
                    |change: &Change| if would == "refused" { change.refuses() } else { change.allows() };
                let (count, workloads) = self.sum(|change| of(change) && change.connection == connection);
                if count > 0 {
                    told = true;
                    text.push_str(&format!(
                        "would have {would} {count} {what} of {workloads} workloads that policy {were} then\n"
                    ));
                }
            }
        }
        if !told {
            text.push_str("nothing would have been refused that was allowed, or allowed that was refused\n");
        }
        if self.refused > 0 {
            let (refused, ran) = (self.refused, self.refused_that_ran);
            text.push_str(&format!(
                "in enforce mode {refused} statements are refused; {ran} of them ran then\n"
            ));
        }
        let uncounted: u64 = self.uncounted.iter().sum();
        if uncounted > 0 {
            text.push_str(&format!("{uncounted} more changes are of too many kinds to be listed\n"));
        }
        for (what, count) in &self.skipped {
            text.push_str(&format!("left out: {count} x {what}\n"));
        }
        if !self.changes.is_empty() {
            text.push_str(&format!("\n{}\n", self.table()));
        }
        text
    }

    /// The most frequent changes, those towards refusal first.
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["workload", "then", "now", "policy", "times", "first record", "such as"]);
        let mut changes: Vec<_> = self.changes.iter().collect();
        changes.sort_by_key(|(change, seen)| (!change.refuses(), std::cmp::Reverse(seen.count)));
        for (change, seen) in changes.iter().take(SHOWN) {
            table.add_row([
                visible(&change.workload).to_string(),
                change.then.word().to_owned(),
                change.now.word().to_owned(),
                change.policy.clone(),
                seen.count.to_string(),
                seen.first.to_string(),
                visible(&seen.text).to_string(),
            ]);
        }
        table
    }
}

impl Change {
    fn refuses(&self) -> bool {
        self.now == Says::Refused
    }

    fn allows(&self) -> bool {
        self.then == Says::Refused
    }
}
