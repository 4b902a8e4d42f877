//! What the guests found: lines of JSON enter, a table or one JSON document leaves.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde_json::{Value, json};

use super::kernels::Kernel;
use crate::style;

/// What came of one kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// As it is named on the command line.
    pub kernel: &'static str,
    /// As it names itself.
    pub release: String,
    /// The rung of the ladder that guard reached.
    pub rung: String,
    /// What stopped clients round the proxy: over TCP and on a unix socket.
    pub stopped: [String; 2],
    /// Checks that held.
    pub passed: i64,
    /// Checks that did not.
    pub failed: i64,
    /// Checks that this kernel could not be asked for.
    pub skipped: i64,
    /// What did not hold, and why.
    pub problems: Vec<String>,
    /// How long the machine took.
    pub took: Duration,
}

impl Outcome {
    /// The machine did not do its work.
    pub fn broken(kernel: &'static str, why: &str) -> Self {
        Self { kernel, failed: 1, problems: vec![why.to_owned()], ..Self::default() }
    }

    /// From the lines that a guest wrote; see `tests/guest`.
    pub fn read(kernel: &Kernel, output: &str) -> Self {
        let mut outcome = Self { kernel: kernel.name, ..Self::default() };
        let mut whole = false;
        for line in output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let number = |key: &str| line.get(key).and_then(Value::as_i64).unwrap_or(0);
            match text("line").as_str() {
                "host" => {
                    outcome.release = text("release");
                    outcome.reaches("root", text("rung"), kernel.rung);
                }
                "stopped" => outcome.stops([text("tcp"), text("tcp6"), text("unix")], kernel.stops),
                "agent" => outcome.reaches("the agent's unit", text("rung"), kernel.unit_rung),
                "check" => {
                    outcome.passed += number("passed");
                    outcome.failed += number("failed");
                    outcome.skipped += number("skipped");
                    if number("failed") > 0 {
                        outcome.problems.push(format!("{}: {}", text("name"), text("detail")));
                    }
                }
                "end" => whole = true,
                _ => {}
            }
        }
        if !whole {
            outcome.failed += 1;
            outcome.problems.push("the guest did not come to its end".to_owned());
        }
        outcome
    }

    /// Who reaches which rung is a check of its own: lower than it has to be is a fault, and so is higher.
    fn reaches(&mut self, who: &str, rung: String, expected: &str) {
        if rung == expected {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.problems.push(format!("{who} is on the rung `{rung}`, not on `{expected}`"));
        }
        self.rung = rung;
    }

    /// What stops clients is a check of its own as well.
    fn stops(&mut self, [tcp, tcp6, unix]: [String; 3], [by_tcp, by_unix]: [&str; 2]) {
        for (way, action, expected) in
            [("TCP", &tcp, by_tcp), ("IPv6", &tcp6, by_tcp), ("unix", &unix, by_unix)]
        {
            if action == expected {
                self.passed += 1;
            } else {
                self.failed += 1;
                self.problems
                    .push(format!("clients by {way} are stopped by `{action}`, not by `{expected}`"));
            }
        }
        self.stopped = [tcp, unix];
    }

    /// With how long it took.
    pub fn after(self, took: Duration) -> Self {
        Self { took, ..self }
    }

    /// Everything held.
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// In one line, and what did not hold below.
    pub fn line(&self) -> String {
        let mark = if self.is_good() { style::good("ok    ") } else { style::bad("FAILED") };
        let mut line = format!(
            "{mark} {:<14} {:<30} rung {:<14} {} passed, {} failed, {} skipped ({} s)",
            self.kernel,
            self.release,
            self.rung,
            self.passed,
            self.failed,
            self.skipped,
            self.took.as_secs()
        );
        for problem in &self.problems {
            line.push_str("\n         ");
            line.push_str(problem);
        }
        line
    }
}

/// The table.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "kernel", "release", "rung", "TCP", "unix", "passed", "failed", "skipped", "seconds", "result",
    ]);
    for outcome in outcomes {
        table.add_row([
            outcome.kernel.to_owned(),
            outcome.release.clone(),
            outcome.rung.clone(),
            outcome.stopped[0].clone(),
            outcome.stopped[1].clone(),
            outcome.passed.to_string(),
            outcome.failed.to_string(),
            outcome.skipped.to_string(),
            outcome.took.as_secs().to_string(),
            if outcome.is_good() { "ok" } else { "FAILED" }.to_owned(),
        ]);
    }
    format!("{table}\n")
}

/// The same as JSON.
pub fn json(outcomes: &[Outcome]) -> Value {
    let one = |outcome: &Outcome| {
        json!({
            "kernel": outcome.kernel,
            "release": outcome.release,
            "rung": outcome.rung,
            "stopped": { "tcp": outcome.stopped[0], "unix": outcome.stopped[1] },
            "passed": outcome.passed,
            "failed": outcome.failed,
            "skipped": outcome.skipped,
            "seconds": outcome.took.as_secs(),
            "ok": outcome.is_good(),
            "problems": outcome.problems,
        })
    };
    json!({ "kernels": outcomes.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::{
        super::kernels::{ALL, Kernel},
        Outcome, json,
    };

    const KERNEL: &Kernel = &ALL[3];

    const GOOD: &str = "{\"line\":\"host\",\"release\":\"6.12.0\",\"rung\":\"full\"}\n\
        {\"line\":\"check\",\"name\":\"kernel tests\",\"passed\":20,\"failed\":0,\"skipped\":1,\"detail\":\"\"}\n\
        {\"line\":\"stopped\",\"tcp\":\"REFUSED_IN_KERNEL\",\"tcp6\":\"REFUSED_IN_KERNEL\",\"unix\":\"REFUSED_IN_KERNEL\"}\n\
        noise\n{\"line\":\"end\"}\n";

    #[test]
    fn a_guests_lines_are_added_up() {
        let outcome = Outcome::read(KERNEL, GOOD);
        assert!(outcome.is_good(), "{outcome:?}");
        assert_eq!((outcome.passed, outcome.skipped, outcome.rung.as_str()), (24, 1, "full"));
        let cut = GOOD.replace("\"unix\":\"REFUSED_IN_KERNEL\"", "\"unix\":\"CUT\"");
        assert!(Outcome::read(KERNEL, &cut).problems[0].contains("`CUT`"), "{cut}");
        assert_eq!(json(&[outcome])["kernels"][0]["ok"], true);
    }

    #[test]
    fn a_guest_that_stops_has_failed() {
        let cut = GOOD.replace("{\"line\":\"end\"}", "");
        assert!(!Outcome::read(KERNEL, &cut).is_good());
        assert!(!Outcome::read(KERNEL, "{\"line\":\"end\"}").is_good(), "nothing was checked");
        let failed = GOOD.replace("\"failed\":0", "\"failed\":2");
        assert_eq!(Outcome::read(KERNEL, &failed).problems.len(), 1);
        let lower = GOOD.replace("full", "no-btf");
        assert!(Outcome::read(KERNEL, &lower).problems[0].contains("`no-btf`"));
        assert!(!Outcome::broken("6.1", "no qemu").is_good());
    }
}
