//! Counts of the control plane in Prometheus' text form.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use guard_common::api::control::Agent;

/// What is counted here; the rest is looked up.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Answers by the hundreds of their status: 2xx, 3xx, 4xx, 5xx.
    answers: [AtomicU64; 4],
    /// Requests that were too many.
    pub limited: AtomicU64,
    /// Sign-ins that failed.
    pub sign_ins_failed: AtomicU64,
    /// Approvals that people decided here.
    pub decided: AtomicU64,
    /// Messages to webhooks, sent and given up.
    pub hooks_sent: AtomicU64,
    /// See `hooks_sent`.
    pub hooks_failed: AtomicU64,
}

impl Metrics {
    /// An answer has gone out.
    pub fn answered(&self, status: u16) {
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.answers[class].fetch_add(1, Ordering::Relaxed);
    }

    /// One more.
    pub fn count(of: &AtomicU64) {
        of.fetch_add(1, Ordering::Relaxed);
    }

    /// As Prometheus reads it.
    pub fn text(&self, agents: &[Agent], waiting: usize) -> String {
        let mut text = String::with_capacity(2_048);
        let mut one = |name: &str, kind: &str, help: &str, values: &[(&str, u64)]| {
            let _ = writeln!(text, "# HELP guard_control_{name} {help}\n# TYPE guard_control_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "guard_control_{name}{labels} {value}");
            }
        };
        let connected = agents.iter().filter(|agent| agent.connected).count() as u64;
        let alarms = agents.iter().filter(|agent| !agent.alarm.is_empty()).count() as u64;
        let sum = |of: fn(&Agent) -> u64| agents.iter().map(of).sum::<u64>();
        one("agents", "gauge", "Agents that were ever seen.", &[("", agents.len() as u64)]);
        one("agents_connected", "gauge", "Agents with an open stream.", &[("", connected)]);
        one("agents_alarmed", "gauge", "Agents whose chain does not fit.", &[("", alarms)]);
        one(
            "records_stored_total",
            "counter",
            "Records in the store.",
            &[("", sum(|one| one.stored_sequence))],
        );
        one(
            "records_missing_total",
            "counter",
            "Records that never arrived.",
            &[("", sum(|one| one.missing))],
        );
        one("gaps_total", "counter", "Gap records and holes.", &[("", sum(|one| one.gaps))]);
        one("approvals_waiting", "gauge", "Statements that wait for people.", &[("", waiting as u64)]);
        let load = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let [ok, moved, refused, failed] = &self.answers;
        one(
            "http_responses_total",
            "counter",
            "Answers of the console by class of status.",
            &[
                ("{class=\"2xx\"}", load(ok)),
                ("{class=\"3xx\"}", load(moved)),
                ("{class=\"4xx\"}", load(refused)),
                ("{class=\"5xx\"}", load(failed)),
            ],
        );
        one("http_limited_total", "counter", "Requests that were too many.", &[("", load(&self.limited))]);
        one(
            "sign_ins_failed_total",
            "counter",
            "Sign-ins that failed.",
            &[("", load(&self.sign_ins_failed))],
        );
        one("approvals_decided_total", "counter", "Approvals decided here.", &[("", load(&self.decided))]);
        one(
            "webhooks_total",
            "counter",
            "Messages to webhooks.",
            &[
                ("{outcome=\"sent\"}", load(&self.hooks_sent)),
                ("{outcome=\"failed\"}", load(&self.hooks_failed)),
            ],
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_is_named_typed_and_explained() {
        let metrics = Metrics::default();
        metrics.answered(204);
        metrics.answered(599);
        let agents = [Agent { stored_sequence: 7, connected: true, ..Agent::default() }];
        let text = metrics.text(&agents, 2);
        assert!(text.contains("guard_control_http_responses_total{class=\"2xx\"} 1\n"), "{text}");
        assert!(text.contains("guard_control_records_stored_total 7\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            value.parse::<u64>().unwrap();
            let name = name.split('{').next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")) && text.contains(&format!("# HELP {name} ")));
        }
    }
}
