//! The kernel matrix: guard on other kernels, in virtual machines with a real systemd and a real PostgreSQL.
//!
//! Kernels and the guests' system come from Debian and are kept in target/vm. What runs in a guest is this build; what
//! it found comes back on a disk of its own.

mod debian;
mod image;
mod initrd;
mod kernels;
mod machine;
mod progress;
mod report;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
pub use debian::Apt;
pub use report::Outcome;

use self::{
    image::Images,
    kernels::Kernel,
    machine::{Accelerator, How},
};
use crate::{
    build,
    setup::{self, Group},
    shell,
};

/// Run guard's kernel tests and the agent before a real PostgreSQL on Debian's kernels, in virtual machines.
///
/// Prints a table of the rung of the ladder that guard reached on each, and of what passed. The first run downloads
/// about 500 MB into target/vm; later ones take what is there. With KVM where it works, else emulated.
///
/// Examples: `cargo xtask kernel-matrix`, `cargo xtask kernel-matrix --kernels 5.10,newest --json`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which ones: 5.10, 5.10-cgroup-v1, 6.1, 6.12, newest. All unless named
    #[arg(long, value_delimiter = ',', value_name = "KERNELS")]
    kernels: Vec<String>,
    /// Print JSON in place of the table
    #[arg(long)]
    json: bool,
    /// Take what is built already
    #[arg(long)]
    no_build: bool,
    /// Virtual machines at a time
    #[arg(long, default_value_t = 2)]
    at_once: usize,
    /// Leave out the end-to-end tests and what takes long
    #[arg(long)]
    short: bool,
}

/// Runs the task.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = Kernel::selected(&arguments.kernels)?;
    setup::ensure(&[Group::Build, Group::Matrix])?;
    if !arguments.no_build {
        build::workspace(false)?;
    }
    let say = |line: String| {
        if !arguments.json {
            println!("  {line}");
        }
    };
    let images = Images::ready(&wanted, say)?;
    let outcomes = run(images, &wanted, arguments.at_once, arguments.short, say)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report::json(&outcomes))?);
    } else {
        print!("{}", report::table(&outcomes));
    }
    Ok(if outcomes.iter().all(Outcome::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a run of all tests takes: an old kernel and the newest. Where they cannot be had: why.
pub fn short() -> Result<Result<Vec<Outcome>, String>> {
    let wanted = Kernel::selected(&["5.10".to_owned(), "newest".to_owned()])?;
    let say = |line: String| println!("  {line}");
    let images = match Images::ready(&wanted, say) {
        Ok(images) => images,
        Err(error) => return Ok(Err(format!("{error:#}"))),
    };
    let outcomes = run(images, &wanted, 2, true, say)?;
    print!("{}", report::table(&outcomes));
    Ok(Ok(outcomes))
}

/// Where everything is kept.
fn home() -> PathBuf {
    shell::target().join("vm")
}

/// Boots every kernel, several at a time.
fn run(
    images: Images,
    wanted: &[&'static Kernel],
    at_once: usize,
    short: bool,
    say: impl Fn(String) + Copy + Send,
) -> Result<Vec<Outcome>> {
    let accelerator = Accelerator::probe(images.of(wanted.first().context("no kernel is named")?)?);
    say(format!("machines run {}", accelerator.describe()));
    let how = How { accelerator, short };
    let images = images.with(machine::pack_work(&home(), short)?);
    let (queue, outcomes) = (Mutex::new(wanted.to_vec()), Mutex::new(Vec::new()));
    let (images, queue, found) = (Arc::new(images), &queue, &outcomes);
    thread::scope(|scope| {
        for _ in 0..at_once.max(1) {
            let images = Arc::clone(&images);
            scope.spawn(move || {
                while let Some(kernel) = next(queue) {
                    let started = Instant::now();
                    let outcome = images
                        .of(kernel)
                        .and_then(|image| machine::run(image, &images, how))
                        .map_or_else(
                            |error| Outcome::broken(kernel.name, &format!("{error:#}")),
                            |output| Outcome::read(kernel, &output),
                        )
                        .after(started.elapsed());
                    say(outcome.line());
                    if let Ok(mut outcomes) = found.lock() {
                        outcomes.push(outcome);
                    }
                }
            });
        }
    });
    let Ok(mut outcomes) = outcomes.into_inner() else { bail!("a machine's thread has failed") };
    outcomes.sort_by_key(|outcome| wanted.iter().position(|kernel| kernel.name == outcome.kernel));
    Ok(outcomes)
}

fn next(queue: &Mutex<Vec<&'static Kernel>>) -> Option<&'static Kernel> {
    let mut queue = queue.lock().ok()?;
    if queue.is_empty() { None } else { Some(queue.remove(0)) }
}
