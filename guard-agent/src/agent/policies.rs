//! The policy folder of a running agent: taken at the start, on SIGHUP, and when its files change.
//!
//! A folder enters; the set that is in force leaves, whole or not at all. A set that does not load changes nothing but
//! the record, the log and `guard-agent status`: the set before stays in force.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use guard_common::{
    api::control::{PolicyStatus, SignedPolicy},
    audit::v1::{PolicyChange, record::Body},
};
use guard_policy::{Origin, PolicyError, PolicySet, is_left_out};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{Agent, handed::Handed};
use crate::{config::Config, uplink::Policies};

/// Deepest folder that is looked at, and most entries: policy files do not go further either.
const MAX_DEPTH: u32 = 8;
const MAX_ENTRIES: usize = 10_000;

/// Loads the policies that `config` names: those that the control plane handed down, its folder, or those built in.
pub fn load(config: &Config) -> Result<PolicySet, PolicyError> {
    match Handed::of(config).map(|handed| handed.load()) {
        Some(Ok(Some((_, policies)))) => return Ok(policies),
        Some(Err(error)) => {
            tracing::error!(
                "{error}; this host's own policies are in force until the control plane hands others down"
            );
        }
        _ => {}
    }
    match &config.paths.policies {
        Some(folder) => PolicySet::from_folder(folder),
        None => PolicySet::built_in(),
    }
}

/// How the files of a folder look from outside: it differs whenever one of them was written, added or taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(PathBuf, Look)>);

/// Device, inode, size, seconds and nanoseconds of the last change.
type Look = (u64, u64, u64, i64, i64);

impl Stamp {
    /// Of the folder that `config` names.
    pub(super) fn of(config: &Config) -> Self {
        let mut entries = Vec::new();
        if let Some(folder) = &config.paths.policies {
            look(folder, 0, &mut entries);
        }
        entries.sort_unstable();
        Self(entries)
    }
}

/// What cannot be read is left out: loading will say why.
fn look(folder: &Path, depth: u32, entries: &mut Vec<(PathBuf, Look)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // Through links: a mounted ConfigMap changes by pointing elsewhere.
        let Ok(found) = fs::metadata(&path) else { continue };
        if is_left_out(&path) || entries.len() >= MAX_ENTRIES {
            continue;
        }
        if found.is_dir() && depth < MAX_DEPTH {
            look(&path, depth + 1, entries);
        } else if path.extension().is_some_and(|extension| extension == "cedar") {
            let look = (found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec());
            entries.push((path, look));
        }
    }
}

/// Takes the folder anew whenever its files have changed and come to rest. `before`: as they were when they were loaded.
pub(super) async fn watch(agent: Arc<Agent>, before: Stamp) {
    let seconds = agent.config.policy.watch_seconds;
    if seconds == 0 || agent.config.paths.policies.is_none() {
        return;
    }
    let mut ticks = interval(Duration::from_secs(seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut taken, mut last) = (before.clone(), before);
    loop {
        ticks.tick().await;
        let looking = Arc::clone(&agent);
        let Ok(now) = tokio::task::spawn_blocking(move || Stamp::of(&looking.config)).await else { continue };
        // Of files that are being copied one by one, the first look sees a part.
        if now != taken && now == last {
            taken = now.clone();
            take(&agent, Occasion::FilesChanged).await;
        }
        last = now;
    }
}

/// Takes the folder anew because somebody asks for it.
pub(super) async fn reload(agent: &Arc<Agent>) {
    take(agent, Occasion::Asked).await;
}

/// Takes what the control plane hands down, and tells it what runs.
pub(super) async fn follow_control(
    agent: Arc<Agent>,
    door: Policies,
    mut offers: mpsc::Receiver<SignedPolicy>,
) {
    let tell = |agent: &Agent, error: String| {
        let policies = agent.decider.policies();
        let version = match policies.origin() {
            Origin::Control(version) => *version,
            _ => 0,
        };
        door.tell(PolicyStatus { version, hash: policies.hash().to_owned(), error });
    };
    tell(&agent, String::new());
    let mut ticks = interval(TELL);
    loop {
        let offer = tokio::select! {
            _ = ticks.tick() => {
                // The folder may have changed.
                let error = door.error();
                tell(&agent, error);
                continue;
            }
            offer = offers.recv() => offer,
        };
        let (Some(offer), Some(handed)) = (offer, Handed::of(&agent.config)) else { return };
        let _alone = agent.reloading.lock().await;
        let taken = tokio::task::spawn_blocking(move || handed.take(&offer)).await;
        let error = match taken {
            Ok(Ok((version, policies))) => {
                tracing::info!(version, "policies of the control plane");
                put_in_force(&agent, Ok(policies), Occasion::Asked);
                let enforcer = Arc::clone(&agent.enforcer);
                let _ = tokio::task::spawn_blocking(move || enforcer.follow()).await;
                String::new()
            }
            Ok(Err(error)) => {
                tracing::error!("{error}; the policies before stay in force");
                error.to_string()
            }
            Err(_) => return,
        };
        tell(&agent, error);
    }
}

/// How often it is looked which policies run, for the control plane.
const TELL: Duration = Duration::from_secs(5);

/// Why the folder is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// SIGHUP: whatever comes of it goes on record.
    Asked,
    /// Its files look different: what has the same content is no change.
    FilesChanged,
}

async fn take(agent: &Arc<Agent>, occasion: Occasion) {
    let _alone = agent.reloading.lock().await;
    let loading = Arc::clone(agent);
    // Reading and checking take a while: not on a thread that others wait for.
    let loaded = tokio::task::spawn_blocking(move || load(&loading.config)).await;
    match loaded {
        Ok(loaded) => {
            put_in_force(agent, loaded, occasion);
            let enforcer = Arc::clone(&agent.enforcer);
            // What the kernel refuses by the policies of before ends now.
            let _ = tokio::task::spawn_blocking(move || enforcer.follow()).await;
        }
        Err(error) => tracing::error!("the policy folder could not be read: {error}"),
    }
}

fn put_in_force(agent: &Agent, loaded: Result<PolicySet, PolicyError>, occasion: Occasion) {
    let before = agent.decider.policies();
    let mut told = agent.policy_error.lock().unwrap_or_else(PoisonError::into_inner);
    let (in_force, error) = match loaded {
        Ok(policies) => {
            let same = policies.hash() == before.hash();
            if same && told.is_empty() && occasion == Occasion::FilesChanged {
                return;
            }
            if !same {
                agent.decider.replace(policies);
            }
            let now = agent.decider.policies();
            tracing::info!(policies = now.len(), hash = now.hash(), "policies reloaded");
            (now, String::new())
        }
        Err(error) => {
            tracing::error!("policies were not reloaded, the set before stays in force: {error}");
            (Arc::clone(&before), error.to_string())
        }
    };
    told.clone_from(&error);
    drop(told);
    agent.audit.record(Body::PolicyChange(PolicyChange {
        policy_hash: in_force.hash().to_owned(),
        previous_hash: before.hash().to_owned(),
        source: in_force.origin().to_string(),
        policies: u32::try_from(in_force.len()).unwrap_or(u32::MAX),
        error,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_follows_the_policy_files_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.paths.policies = Some(folder.path().to_owned());
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/policy.cedar", "one");
        let first = Stamp::of(&config);
        write("a/README.md", "text");
        write(".git/policy.cedar", "text");
        assert_eq!(Stamp::of(&config), first);
        write("b/policy.cedar", "two");
        let second = Stamp::of(&config);
        assert_ne!(second, first);
        // Another file of the same size in its place.
        write("a/new", "eno");
        fs::rename(folder.path().join("a/new"), folder.path().join("a/policy.cedar")).unwrap();
        let third = Stamp::of(&config);
        assert_ne!(third, second);
        fs::remove_dir_all(folder.path().join("b")).unwrap();
        assert_ne!(Stamp::of(&config), third);
    }
}
