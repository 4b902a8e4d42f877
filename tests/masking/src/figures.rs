//! Counts of what was found, missed and taken for something else.

use std::collections::BTreeMap;

use guard_policy::vocabulary::DataKind;

/// Examples that are kept per kind.
const EXAMPLES: usize = 3;

/// Of one kind.
#[derive(Default)]
pub struct Figure {
    found: usize,
    missed: usize,
    /// Taken for this kind, and something else.
    alarms: usize,
    examples: Vec<String>,
}

impl Figure {
    pub fn recall(&self) -> f64 {
        share(self.found, self.missed)
    }

    pub fn precision(&self) -> f64 {
        share(self.found, self.alarms)
    }
}

/// Of all kinds.
#[derive(Default)]
pub struct Figures {
    kinds: BTreeMap<&'static str, Figure>,
    decoys: usize,
}

impl Figures {
    /// A value of this kind was taken for `found`.
    pub fn value(&mut self, kind: DataKind, found: Option<DataKind>, text: &str) {
        let figure = self.kinds.entry(kind.as_str()).or_default();
        if found == Some(kind) {
            figure.found += 1;
            return;
        }
        figure.missed += 1;
        let taken = found.map_or("nothing", DataKind::as_str);
        if figure.examples.len() < EXAMPLES {
            figure.examples.push(format!("missed, taken for {taken}: {text}"));
        }
        if let Some(other) = found {
            self.alarm(other, text);
        }
    }

    /// A decoy was taken for these.
    pub fn decoy(&mut self, found: Option<DataKind>, text: &str) {
        self.decoys += 1;
        if let Some(kind) = found {
            self.alarm(kind, text);
        }
    }

    fn alarm(&mut self, kind: DataKind, text: &str) {
        let figure = self.kinds.entry(kind.as_str()).or_default();
        figure.alarms += 1;
        if figure.examples.len() < EXAMPLES {
            figure.examples.push(format!("false alarm: {text}"));
        }
    }

    /// Kinds that the data have.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &Figure)> {
        self.kinds
            .iter()
            .filter(|(_, figure)| figure.found + figure.missed > 0)
            .map(|(&kind, figure)| (kind, figure))
    }

    pub fn recall(&self) -> f64 {
        share(self.sum(|figure| figure.found), self.sum(|figure| figure.missed))
    }

    pub fn precision(&self) -> f64 {
        share(self.sum(|figure| figure.found), self.sum(|figure| figure.alarms))
    }

    fn sum(&self, of: impl Fn(&Figure) -> usize) -> usize {
        self.kinds.values().map(of).sum()
    }

    pub fn print(&self, title: &str) {
        println!("\n{title}, with {} decoys", self.decoys);
        println!(
            "{:<14} {:>7} {:>7} {:>7} {:>8} {:>10}",
            "kind", "values", "missed", "alarms", "recall", "precision"
        );
        for (kind, figure) in &self.kinds {
            let values = figure.found + figure.missed;
            println!(
                "{kind:<14} {values:>7} {:>7} {:>7} {:>8.4} {:>10.4}",
                figure.missed,
                figure.alarms,
                figure.recall(),
                figure.precision()
            );
            figure.examples.iter().for_each(|example| println!("    {example}"));
        }
        println!("{:<38} {:>8.4} {:>10.4}", "all", self.recall(), self.precision());
    }
}

fn share(good: usize, bad: usize) -> f64 {
    let all = good + bad;
    if all == 0 { 1.0 } else { good as f64 / all as f64 }
}
