//! Figures: medians over rounds, ratios within rounds, a table and a JSON file.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{shell, style};

/// What was measured: a name, and one number per round.
#[derive(Debug, Default)]
pub struct Samples {
    rounds: BTreeMap<String, Vec<f64>>,
}

impl Samples {
    /// Adds the number of one round.
    pub fn add(&mut self, figure: &str, value: f64) {
        self.rounds.entry(figure.to_owned()).or_default().push(value);
    }

    /// The names of everything that was measured.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rounds.keys().map(String::as_str)
    }

    /// The median over all rounds.
    pub fn median(&self, figure: &str) -> Option<f64> {
        median(self.rounds.get(figure)?)
    }

    /// The medians of all.
    pub fn medians(&self) -> BTreeMap<String, f64> {
        self.names().filter_map(|name| Some((name.to_owned(), self.median(name)?))).collect()
    }

    /// The median of the ratios of each round: what the machine does meanwhile touches both sides.
    pub fn ratio(&self, figure: &str, to: &str) -> Option<f64> {
        median(&self.ratios(figure, to)?)
    }

    /// How far [`Self::ratio`] may be off: the standard error of the rounds' ratios. Nothing for a single round.
    pub fn ratio_error(&self, figure: &str, to: &str) -> Option<f64> {
        let ratios = self.ratios(figure, to)?;
        let rounds = u32::try_from(ratios.len()).ok().filter(|rounds| *rounds > 1).map(f64::from)?;
        let mean = ratios.iter().sum::<f64>() / rounds;
        let squares: f64 = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum();
        Some((squares / (rounds - 1.0) / rounds).sqrt())
    }

    fn ratios(&self, figure: &str, to: &str) -> Option<Vec<f64>> {
        let (above, below) = (self.rounds.get(figure)?, self.rounds.get(to)?);
        Some(above.iter().zip(below).map(|(above, below)| above / below).collect())
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => None,
        0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

/// Builds and runs the agent's bench `name`: one line of figures for each round. `debug`: without optimisation.
pub fn of_agent(name: &str, rounds: u32, debug: bool) -> Result<Samples> {
    of_package("guard-agent", name, rounds, debug)
}

/// The same of any package.
pub fn of_package(package: &str, name: &str, rounds: u32, debug: bool) -> Result<Samples> {
    with(package, name, &["--rounds", &rounds.to_string()], debug)
}

/// The same with the bench's own arguments.
pub fn with(package: &str, name: &str, arguments: &[&str], debug: bool) -> Result<Samples> {
    println!("{}", style::strong(&format!("Building the bench `{name}`")));
    let mut command = shell::cargo(&["bench", "--locked", "--quiet", "--package", package]);
    if debug {
        command.args(["--profile", "dev"]);
    }
    command.args(["--bench", name, "--"]).args(arguments);
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", shell::shown(&command)))?;
    ensure!(output.status.success(), "{} failed", shell::shown(&command));
    let mut samples = Samples::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let round: BTreeMap<String, f64> =
            serde_json::from_str(line).with_context(|| format!("not a round of the bench: {line}"))?;
        round.iter().for_each(|(figure, value)| samples.add(figure, *value));
    }
    Ok(samples)
}

/// Writes `target/bench/<name>.json` and gives its path.
pub fn write(name: &str, figures: &BTreeMap<String, f64>) -> Result<PathBuf> {
    let folder = shell::target().join("bench");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, serde_json::to_string_pretty(figures)? + "\n")?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_rounds() {
        let mut samples = Samples::default();
        for (guard, direct) in [(50.0, 100.0), (10.0, 20.0), (90.0, 100.0)] {
            samples.add("guard", guard);
            samples.add("direct", direct);
        }
        assert_eq!(samples.ratio("guard", "direct"), Some(0.5));
        assert_eq!(samples.median("direct"), Some(100.0));
        assert_eq!(samples.median("absent"), None);
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        // 0.5, 0.5, 0.9: 0.4 / 3.
        let error = samples.ratio_error("guard", "direct").unwrap();
        assert!((error - 0.133_333).abs() < 1e-5, "{error}");
        samples.add("once", 1.0);
        assert_eq!(samples.ratio_error("once", "once"), None);
    }
}
