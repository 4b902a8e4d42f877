//! PostgreSQL's own test suites against a server that runs: straight to it, or through a proxy before it.
//!
//! Enters: the suites' files, the programs of the server's development package, an address. Leaves: which tests failed, and
//! a folder with what each of them printed. It never runs against a server that the caller did not start: the suites drop
//! databases and roles.

mod compare;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

pub use self::compare::{Comparison, differing};
use crate::{
    Account, Folder, postgres,
    run::{self, Finished},
};

/// How long one suite may take on a busy machine.
const SUITE_LIMIT: Duration = Duration::from_secs(300);
/// Libraries of the server's contrib package that the suite loads from beside its own.
const CONTRIB: &[&str] = &["refint", "autoinc"];

/// One of PostgreSQL's suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `src/test/regress`: what statements do and print.
    Regression,
    /// `src/test/isolation`: what several sessions see of each other.
    Isolation,
}

impl Suite {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Regression, Self::Isolation];

    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Isolation => "isolation",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Regression => "src/test/regress",
            Self::Isolation => "src/test/isolation",
        }
    }

    fn schedule(self) -> &'static str {
        match self {
            Self::Regression => "parallel_schedule",
            Self::Isolation => "isolation_schedule",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Regression => "regress/pg_regress",
            Self::Isolation => "isolation/pg_isolation_regress",
        }
    }
}

/// The suites' files where the server's account can read them, with the library that the tests load.
#[derive(Debug)]
pub struct Suites {
    folder: Folder,
    account: Account,
}

/// How one suite went.
#[derive(Debug)]
pub struct Outcome {
    /// Tests that ran.
    pub tests: BTreeSet<String>,
    /// Those that did not print what is expected.
    pub failed: BTreeSet<String>,
    /// The folder of what each of them printed.
    pub results: PathBuf,
    // Keeps `results` alive.
    _folder: Folder,
}

impl Suites {
    /// Makes the suites of PostgreSQL's sources in `sources` ready: copies them and compiles their library.
    pub fn prepare(sources: &Path) -> Result<Self> {
        let (folder, account) = (Folder::new("regress")?, Account::unprivileged()?);
        for suite in Suite::ALL {
            let to = folder.join(suite.name());
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(sources.join(suite.folder())).arg(&to);
            run::run(copy, "", run::CLIENT_LIMIT)?.expect_ok("copying PostgreSQL's test suites")?;
        }
        let suites = Self { folder, account };
        suites.compile()?;
        Ok(suites)
    }

    fn compile(&self) -> Result<()> {
        let libraries = self.libraries();
        fs::create_dir(&libraries)?;
        let mut compiler = Command::new("cc");
        compiler
            .args(["-O1", "-fPIC", "-shared", "-I"])
            .arg(config("--includedir-server")?)
            .arg("-o")
            .arg(libraries.join("regress.so"))
            .arg(self.folder.join("regression/regress.c"));
        run::run(compiler, "", run::CLIENT_LIMIT * 4)?.expect_ok("compiling regress.so")?;
        let installed = config("--pkglibdir")?;
        for name in CONTRIB.iter().map(|name| format!("{name}.so")) {
            symlink(installed.join(&name), libraries.join(&name))?;
        }
        Ok(())
    }

    fn libraries(&self) -> PathBuf {
        self.folder.join("lib")
    }

    /// Runs `suite` as the server's owner against what listens on `address`.
    pub fn run(&self, suite: Suite, address: SocketAddr) -> Result<Outcome> {
        let folder = Folder::new("results")?;
        let output = folder.subfolder("out", &self.account)?;
        let input = self.folder.join(suite.name());
        let mut command = Command::new(program(suite)?);
        command
            .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            .args(["--user", postgres::OWNER, "--max-concurrent-tests=20"])
            .arg(format!("--bindir={}", postgres::programs()?.display()))
            .arg(format!("--dlpath={}", self.libraries().display()))
            .arg(format!("--inputdir={}", input.display()))
            .arg(format!("--outputdir={}", output.display()))
            .arg(format!("--schedule={}", input.join(suite.schedule()).display()))
            .current_dir(&output);
        if suite == Suite::Isolation {
            command.arg("--dbname=isolation_regression");
        }
        self.account.apply(&mut command);
        let finished = run::run(command, "", SUITE_LIMIT)?;
        let (tests, failed) = tests(&finished.stdout);
        ensure!(!tests.is_empty(), "no test ran: {}", said(&finished));
        Ok(Outcome { tests, failed, results: output.join("results"), _folder: folder })
    }
}

fn said(finished: &Finished) -> String {
    format!("exit code {:?}\n{}{}", finished.code, finished.stdout, finished.stderr)
}

/// Whether the programs that run the suites are installed, and the headers for the library that the suites load: distributions
/// put them into different packages.
pub fn programs_are_there() -> bool {
    let headers = config("--includedir-server").map(|folder| folder.join("postgres.h"));
    let programs = Suite::ALL.into_iter().map(program);
    programs.chain([headers]).all(|path| path.is_ok_and(|path| path.exists()))
}

/// `pg_regress` and its like, of the server that is installed.
fn program(suite: Suite) -> Result<PathBuf> {
    let makefiles = config("--pgxs")?;
    // <lib>/pgxs/src/makefiles/pgxs.mk
    let tests = makefiles.ancestors().nth(2).context("pg_config --pgxs names no folder")?.join("test");
    Ok(tests.join(suite.program()))
}

/// What `pg_config` of the installed server says.
fn config(what: &str) -> Result<PathBuf> {
    let mut command = Command::new(postgres::programs()?.join("pg_config"));
    command.arg(what);
    let finished = run::run(command, "", run::CLIENT_LIMIT)?.expect_ok("pg_config")?;
    Ok(finished.stdout.trim().into())
}

/// The tests that ran and those that failed, from what `pg_regress` prints: before version 16 and since.
fn tests(output: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut tests, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for line in output.lines() {
        let Some((name, ok)) = dotted(line).or_else(|| numbered(line)) else { continue };
        tests.insert(name.to_owned());
        if !ok {
            failed.insert(name.to_owned());
        }
    }
    (tests, failed)
}

/// `test boolean   ... ok    29 ms` alone, `     boolean   ... FAILED   29 ms` in a group.
fn dotted(line: &str) -> Option<(&str, bool)> {
    let (name, outcome) = line.split_once(" ... ")?;
    let name = name.trim().strip_prefix("test ").unwrap_or(name.trim()).trim();
    let outcome = outcome.trim();
    (!name.is_empty() && !name.contains(' ')).then(|| (name, outcome.starts_with("ok")))
}

/// `ok 2  - boolean   29 ms`, `not ok 3  + char   9 ms`.
fn numbered(line: &str) -> Option<(&str, bool)> {
    let (ok, rest) = match line.strip_prefix("not ") {
        Some(rest) => (false, rest),
        None => (true, line),
    };
    let mut words = rest.strip_prefix("ok ")?.split_whitespace();
    words.next()?.parse::<u32>().ok()?;
    matches!(words.next()?, "-" | "+").then_some(())?;
    Some((words.next()?, ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn both_forms_of_output_are_read() {
        let old = "parallel group (2 tests):  boolean char\n     boolean   ... ok   29 ms\n     char   ... FAILED   9 ms\n\
                   test tablespace ... FAILED (test process exited with exit code 2)  40 ms\n====\n 1 of 3 tests failed.\n";
        assert_eq!(tests(old), (names(&["boolean", "char", "tablespace"]), names(&["char", "tablespace"])));
        let new = "# parallel group (2 tests):  boolean char\nok 1         + boolean     29 ms\nnot ok 2     + char    9 ms\n\
                   ok 3  - tablespace  4 ms\n1..3\n# 1 of 3 tests failed.\n";
        assert_eq!(tests(new), (names(&["boolean", "char", "tablespace"]), names(&["char"])));
    }
}
