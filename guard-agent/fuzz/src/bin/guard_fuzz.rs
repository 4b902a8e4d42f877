//! libFuzzer's program for all targets: `GUARD_FUZZ_TARGET` names the one to run.
//!
//! With `GUARD_FUZZ_PREPARE=<folder>` it writes the seeds and the dictionary of every target there, prints a line
//! `name max_len sql` for each, and ends.
#![no_main]

use std::{env, fs, io, path::Path, process, sync::LazyLock};

use guard_fuzz::{TARGETS, Target, dictionary};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = env::var("GUARD_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("GUARD_FUZZ_TARGET has to be one of {}; `cargo xtask fuzz` sets it", names.join(", "));
        process::exit(2);
    })
});

fn prepare(folder: &Path) -> io::Result<()> {
    for target in TARGETS {
        let corpus = folder.join("seeds").join(target.name);
        fs::create_dir_all(&corpus)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number:04}")), seed)?;
        }
        println!("{} {} {}", target.name, target.max_len, target.sql);
    }
    fs::write(folder.join("sql.dict"), dictionary())
}

libfuzzer_sys::fuzz_target!(
    init: {
        if let Some(folder) = env::var_os("GUARD_FUZZ_PREPARE") {
            let outcome = prepare(Path::new(&folder));
            if let Err(error) = &outcome {
                eprintln!("cannot write seeds to {}: {error}", folder.display());
            }
            process::exit(i32::from(outcome.is_err()));
        }
        LazyLock::force(&TARGET);
    },
    |data: &[u8]| (TARGET.run)(data)
);
