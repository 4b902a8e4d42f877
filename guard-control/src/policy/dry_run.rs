//! What policies would have done: recorded decisions enter, the words of `guard-agent policy replay` leave.
//!
//! The program that decides on the hosts decides here too. Records are read agent by agent beside what is being stored, and
//! never held as a whole.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io::{self, BufWriter, Write},
    os::unix::fs::DirBuilderExt,
    path::{Component, Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use guard_common::audit::v1::Record;
use jiff::Timestamp;
use prost::Message;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::{
    reading,
    store::{
        Store, StoreError,
        id::{first_id, sequence_of},
        micros,
        sql::Sql,
    },
};

/// Records that are read at once.
const PAGE: i64 = 1_000;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// What `guard-agent policy replay` ends with where something would be refused.
const WOULD_REFUSE: i32 = 3;
/// How long a run for a page may take.
const LONGEST: Duration = Duration::from_secs(600);
/// Runs that are remembered.
const KEPT: usize = 20;

/// Why nobody knows what they would have done.
#[derive(Debug, thiserror::Error)]
pub enum DryRunError {
    /// There is no program that decides.
    #[error(
        "recorded statements are decided on anew by `guard-agent policy replay`, and there is no guard-agent here: name \
         it with --guard-agent ({0})"
    )]
    NoAgent(io::Error),
    /// It took too long.
    #[error("it took longer than {} minutes: take fewer days", LONGEST.as_secs() / 60)]
    TooLong,
    /// The program failed.
    #[error("`guard-agent policy replay` failed: {0}")]
    Failed(String),
    /// Files could not be written, or records not handed over.
    #[error("the records cannot be handed to `guard-agent policy replay`: {0}")]
    Io(#[from] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The program that tests and replays policies: the one that decides by them.
#[derive(Args, Clone, Debug, Default)]
pub struct Tool {
    /// The guard-agent that tests and replays policies [default: beside this program, or on the PATH]
    #[arg(long, value_name = "FILE", env = "GUARD_CONTROL_AGENT")]
    pub guard_agent: Option<PathBuf>,
}

impl Tool {
    /// Runs it.
    pub fn command(&self) -> Command {
        let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("guard-agent")));
        let found = self.guard_agent.clone().or_else(|| beside.filter(|path| path.exists()));
        let mut command = Command::new(found.unwrap_or_else(|| "guard-agent".into()));
        // Neither of them looks at the configuration of this host.
        command.env("GUARD_AGENT_CONFIG_FILE", "/dev/null");
        command
    }

    /// Begins to decide anew by the policies in `folder`. Its words go on to this program's, or are kept as JSON.
    pub fn replay(&self, folder: &Path, json: bool, keep: bool) -> Result<Replay, DryRunError> {
        let mut command = self.command();
        command.args(["policy", "replay", "-", "--policies"]).arg(folder).args(json.then_some("--json"));
        if keep {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.stdin(Stdio::piped()).spawn().map_err(DryRunError::NoAgent)?;
        let out = child.stdin.take().map(BufWriter::new);
        Ok(Replay { child, out })
    }
}

/// A run that takes records.
#[derive(Debug)]
pub struct Replay {
    child: Child,
    out: Option<BufWriter<ChildStdin>>,
}

impl Replay {
    /// Hands over everything of these days that is decided on, and the connections that it came over, until `deadline`.
    pub async fn write(
        &mut self,
        store: &Store,
        days: u64,
        deadline: Option<Instant>,
    ) -> Result<(), DryRunError> {
        let Some(mut out) = self.out.take() else { return Ok(()) };
        let since = micros(SystemTime::now() - Duration::from_secs(days.saturating_mul(86_400)));
        let select = "SELECT id, head_sequence FROM agents WHERE mode <> 'control' ORDER BY id";
        for agent in store.look_up(Sql::new(select, [])).await? {
            let (base, last) = (first_id(agent.int(0)), agent.int(1));
            let mut behind = base + reading::first_since(store, (base, last), since - DAY).await?;
            loop {
                if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                    return Err(DryRunError::TooLong);
                }
                let select = "SELECT id, payload FROM records WHERE id > $1 AND id <= $2
                     AND (at >= $3 AND kind IN (20, 21, 22, 30, 31) OR at >= $4 AND kind IN (20, 22))
                     ORDER BY id LIMIT $5";
                let values =
                    [behind.into(), (base + last).into(), since.into(), (since - DAY).into(), PAGE.into()];
                let lines = store.look_up(Sql::new(select, values)).await?;
                for line in &lines {
                    behind = line.int(0);
                    write_record(&mut out, behind, line.bytes(1))?;
                }
                if (lines.len() as i64) < PAGE {
                    break;
                }
            }
        }
        Ok(out.flush()?)
    }

    /// Waits for what comes of it. What it says of its own failure is more than a broken pipe.
    pub fn finish(mut self, written: Result<(), DryRunError>) -> Result<Vec<u8>, DryRunError> {
        drop(self.out.take());
        if matches!(written, Err(DryRunError::TooLong)) {
            // It is this program's own child.
            let _ = self.child.kill();
        }
        let output = self.child.wait_with_output()?;
        if output.status.success() || output.status.code() == Some(WOULD_REFUSE) {
            return written.map(|()| output.stdout);
        }
        match written {
            Err(error @ (DryRunError::TooLong | DryRunError::Store(_))) => Err(error),
            _ => {
                let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                said.truncate(said.floor_char_boundary(2_048));
                Err(DryRunError::Failed(if said.is_empty() { output.status.to_string() } else { said }))
            }
        }
    }
}

fn write_record(out: &mut impl Write, id: i64, payload: &[u8]) -> io::Result<()> {
    // What this version cannot read it cannot decide on.
    let Ok(record) = Record::decode(payload) else { return Ok(()) };
    let mut value = serde_json::to_value(&record)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("sequence".to_owned(), sequence_of(id).into());
    }
    serde_json::to_writer(&mut *out, &value)?;
    out.write_all(b"\n")
}

/// Files in a folder of their own, for a program that reads folders; gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn with(files: &BTreeMap<String, String>) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("guard-dry-run-{}", uuid::Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Self(path);
        for (name, content) in files {
            let name = Path::new(name);
            if !name.components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a policy file lies outside of its folder",
                ));
            }
            let path = folder.0.join(name);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, content)?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How far a run is.
#[derive(Clone, Debug)]
pub enum State {
    /// It is under way.
    Running,
    /// What `guard-agent policy replay --json` said.
    Done(Arc<Value>),
    /// It failed: why.
    Failed(String),
}

/// A run that somebody asked for.
#[derive(Clone, Debug)]
pub struct Run {
    /// Of this version.
    pub version: u64,
    /// Days that are looked back.
    pub days: u64,
    /// Who asked.
    pub by: String,
    /// When.
    pub begun: Timestamp,
    /// How far it is.
    pub state: State,
}

/// The runs that people asked this server for: one at a time, and the last of each version is kept.
#[derive(Clone, Debug, Default)]
pub struct DryRuns(Arc<Mutex<Vec<Run>>>);

impl DryRuns {
    fn lock(&self) -> MutexGuard<'_, Vec<Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last run of a version.
    pub fn of(&self, version: u64) -> Option<Run> {
        self.lock().iter().find(|run| run.version == version).cloned()
    }

    /// Begins one with these files; false where another is under way.
    pub fn begin(&self, (store, tool): (Store, Tool), files: BTreeMap<String, String>, run: Run) -> bool {
        let (version, days) = (run.version, run.days);
        {
            let mut runs = self.lock();
            if runs.iter().any(|run| matches!(run.state, State::Running)) {
                return false;
            }
            runs.retain(|known| known.version != version);
            runs.insert(0, run);
            runs.truncate(KEPT);
        }
        let (runs, runtime) = (self.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            let state = match decide(&runtime, &store, &tool, &files, days) {
                Ok(value) => State::Done(Arc::new(value)),
                Err(error) => {
                    tracing::warn!(%error, version, "a dry run has failed");
                    State::Failed(match error {
                        DryRunError::Store(_) => "the store cannot be read: the log says why".to_owned(),
                        error => error.to_string(),
                    })
                }
            };
            if let Some(run) = runs.lock().iter_mut().find(|run| run.version == version) {
                run.state = state;
            }
        });
        true
    }
}

fn decide(
    runtime: &Handle,
    store: &Store,
    tool: &Tool,
    files: &BTreeMap<String, String>,
    days: u64,
) -> Result<Value, DryRunError> {
    let folder = Folder::with(files)?;
    let mut replay = tool.replay(&folder.0, true, true)?;
    let written = runtime.block_on(replay.write(store, days, Some(Instant::now() + LONGEST)));
    let said = replay.finish(written)?;
    serde_json::from_slice(&said)
        .map_err(|error| DryRunError::Failed(format!("its answer is no JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_in_their_folder_and_go_with_it() {
        let files = |name: &str| BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        let folder = Folder::with(&files("topic/policy.cedar")).unwrap();
        let path = folder.0.clone();
        assert_eq!(fs::read_to_string(path.join("topic/policy.cedar")).unwrap(), "x");
        drop(folder);
        assert!(!path.exists());
        for bad in ["../x", "/etc/x", "a/../../x"] {
            assert!(Folder::with(&files(bad)).is_err(), "{bad}");
        }
    }
}
