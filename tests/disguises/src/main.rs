//! Dangerous statements in every disguise, and harmless ones that look dangerous: `cargo xtask test disguises`.
//!
//! The corpus and generated statements are read by guard, run on a real server that says what they truly do, and sent
//! through the real proxy. Nothing here is part of guard.

mod client;
mod corpus;
mod enforcement;
mod generator;
mod harmless;
mod oracle;
mod psql;
mod random;
mod reading;
mod report;
mod truth;
mod truths;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Parser;

use crate::{enforcement::Door, oracle::Scratch, report::Report};

/// Sessions read statements on threads with this much stack.
const STACK: usize = 32 * 1024 * 1024;

/// Checks guard's reading of disguised statements.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Of the generator: the same seed gives the same statements
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many statements are generated and read
    #[arg(long, default_value_t = 20_000)]
    generated: usize,
    /// How many of them also run on the server
    #[arg(long, default_value_t = 600)]
    on_server: usize,
    /// How many of them also go through the proxy
    #[arg(long, default_value_t = 2_000)]
    through_proxy: usize,
    /// Where PostgreSQL's sources are, for the SQL of its regression suite
    #[arg(long, env = "GUARD_POSTGRESQL_SOURCE")]
    postgresql_source: Option<PathBuf>,
    /// Only these parts
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Show every problem
    #[arg(long)]
    all: bool,
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The corpus: reading against the real server
    Corpus,
    /// Generated statements: reading against the real server
    Generated,
    /// Both through the proxy
    Proxy,
    /// Harmless statements: none is refused, and what is called read-only is
    Harmless,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || run(&arguments))?;
    thread.join().unwrap_or_else(|_| anyhow::bail!("the run panicked"))
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    let mut report = Report::default();
    let started = Instant::now();
    let lap = |what: &str| println!("  ({what}: {:.1} s)", started.elapsed().as_secs_f64());
    let cases = corpus::load(&home.join("corpus"))?;
    let generated = generator::generate(arguments.seed, arguments.generated);
    let first = |count: usize| &generated[..count.min(generated.len())];
    let mut scratch = Scratch::start()?;
    lap("server");
    if wanted(Part::Corpus) {
        truths::corpus(&cases, &mut scratch, &mut report)?;
        lap("corpus");
    }
    if wanted(Part::Generated) {
        truths::generated(&generated, arguments.on_server, &mut scratch, &mut report)?;
        lap("generated");
    }
    if wanted(Part::Proxy) {
        let readers = enforcement::agent(&scratch.postgres, Some(&home.join("policies/readers")))?;
        let door = Door { who: "readers", proxy: readers.proxy(), strict: true };
        enforcement::corpus(&cases, door, &mut scratch, &mut report)?;
        enforcement::generated(first(arguments.through_proxy), readers.proxy(), &mut scratch, &mut report)?;
        let shipped = enforcement::agent(&scratch.postgres, None)?;
        let door = Door { who: "shipped policies", proxy: shipped.proxy(), strict: false };
        let destructive: Vec<_> = cases.iter().filter(|case| case.is_destructive()).cloned().collect();
        enforcement::corpus(&destructive, door, &mut scratch, &mut report)?;
        lap("proxy");
    }
    if wanted(Part::Harmless) {
        let source = arguments.postgresql_source.as_deref();
        let source = source.context("where PostgreSQL's sources are: --postgresql-source")?;
        let scripts = harmless::load(&home.join("harmless"), source)?;
        let folder = home.join("policies/open");
        let open = enforcement::agent(&scratch.postgres, Some(&folder))?;
        harmless::refusals(&scripts, (&folder, open.proxy()), &mut scratch, &mut report)?;
        lap("harmless");
        harmless::read_only(&scripts, &scratch, &mut report)?;
        lap("read-only");
    }
    Ok(report.end(arguments.all))
}
