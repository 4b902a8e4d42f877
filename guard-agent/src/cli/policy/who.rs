//! A workload, as the command line describes it: `exe=/usr/bin/psql,agent=claude`, or a file.
//!
//! Text enters, a checked description leaves; an error names the key and the nearest that is known.

use std::{fs, path::Path, str::FromStr};

use guard_common::audit::v1::Workload;
use guard_policy::cases::CaseWorkload;

/// Largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// The keys, and the attribute that each sets.
const KEYS: [&str; 11] =
    ["exe", "unit", "agent", "user", "uid", "login-user", "container", "pod", "address", "parent", "file"];

/// One `--as`.
#[derive(Clone, Debug)]
pub(super) enum Who {
    /// Pairs of key and value.
    Pairs(Vec<(&'static str, String)>),
    /// A file's content: a `workload` of `cases.toml`, or one of a record.
    Whole(Box<Workload>),
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file=").or_else(|| text.strip_prefix('@')) {
            return read(Path::new(path)).map(|workload| Self::Whole(Box::new(workload)));
        }
        text.split(',').map(pair).collect::<Result<_, _>>().map(Self::Pairs)
    }
}

fn pair(text: &str) -> Result<(&'static str, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        format!(
            "`{text}` is no `key=value`: write such as `exe=/usr/bin/psql,unit=orders.service`, or `@file`"
        )
    })?;
    let wanted = match key.trim() {
        "executable" => "exe",
        "ai_agent" | "ai-agent" => "agent",
        "login_user" => "login-user",
        other => other,
    };
    let known = KEYS.into_iter().find(|known| *known == wanted);
    let known = known.ok_or_else(|| {
        let similar =
            |a: &&str, b: &&str| strsim::jaro_winkler(a, wanted).total_cmp(&strsim::jaro_winkler(b, wanted));
        let nearest = KEYS.into_iter().max_by(similar).unwrap_or("exe");
        format!("`{wanted}` is not known, did you mean `{nearest}`? (known: {})", KEYS.join(", "))
    })?;
    if known == "uid" {
        value.parse::<u32>().map_err(|_| format!("`uid={value}`: write a number"))?;
    }
    Ok((known, value.to_owned()))
}

fn read(path: &Path) -> Result<Workload, String> {
    let failed = |problem: String| format!("cannot read a workload from `{}`: {problem}", path.display());
    let size = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(failed("it is larger than 1 MiB".to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(&text).map_err(|error| failed(error.to_string()));
    }
    let described: CaseWorkload = toml::from_str(&text).map_err(|error| failed(error.to_string()))?;
    Ok(Workload::from(&described))
}

/// The workload that all of `parts` describe together; a file goes first.
pub(super) fn workload(parts: &[Who]) -> Workload {
    let mut described = CaseWorkload::default();
    let mut whole = None;
    for part in parts {
        match part {
            Who::Whole(workload) => whole = Some((**workload).clone()),
            Who::Pairs(pairs) => pairs.iter().for_each(|(key, value)| set(&mut described, key, value)),
        }
    }
    let pairs = Workload::from(&described);
    match whole {
        None => pairs,
        Some(whole) => overlay(whole, pairs),
    }
}

fn set(described: &mut CaseWorkload, key: &str, value: &str) {
    let field = match key {
        "unit" => &mut described.unit,
        "agent" => &mut described.ai_agent,
        "user" => &mut described.user,
        "login-user" => &mut described.login_user,
        "container" => &mut described.container,
        "pod" => &mut described.pod,
        "address" => &mut described.address,
        "uid" => return described.uid = value.parse().unwrap_or_default(),
        "parent" => return described.ancestry.push(value.to_owned()),
        _ => &mut described.executable,
    };
    value.clone_into(field);
}

/// `over` where it says something, `under` otherwise.
fn overlay(under: Workload, over: Workload) -> Workload {
    let text = |under: String, over: String| if over.is_empty() { under } else { over };
    Workload {
        executable: text(under.executable, over.executable),
        unit: text(under.unit, over.unit),
        ai_agent: text(under.ai_agent, over.ai_agent),
        user: text(under.user, over.user),
        login_user: text(under.login_user, over.login_user),
        uid: if over.uid == 0 { under.uid } else { over.uid },
        container: over.container.or(under.container),
        pod: over.pod.or(under.pod),
        remote_address: text(under.remote_address, over.remote_address),
        ancestry: if over.ancestry.is_empty() { under.ancestry } else { over.ancestry },
        ..under
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[&str]) -> Result<Workload, String> {
        let parts: Vec<Who> = parts.iter().map(|part| part.parse()).collect::<Result<_, _>>()?;
        Ok(workload(&parts))
    }

    #[test]
    fn pairs_and_their_mistakes() {
        let agent = of(&["exe=/usr/bin/psql,agent=claude", "parent=/bin/bash,parent=/usr/bin/node"]).unwrap();
        assert_eq!((agent.executable.as_str(), agent.ai_agent.as_str()), ("/usr/bin/psql", "claude"));
        assert_eq!(agent.ancestry.len(), 2);
        assert_eq!(of(&["uid=1000,pod=shop/web-1"]).unwrap().pod.unwrap().namespace, "shop");
        assert!(of(&["agnet=claude"]).unwrap_err().contains("did you mean `agent`"));
        assert!(of(&["claude"]).unwrap_err().contains("key=value"));
        assert!(of(&["uid=ana"]).unwrap_err().contains("number"));
        assert!(of(&["@/nonexistent"]).unwrap_err().contains("/nonexistent"));
    }

    #[test]
    fn files_in_both_forms_and_pairs_over_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            format!("@{}", path.display())
        };
        let toml = write("a.toml", "executable = \"/srv/orders\"\nunit = \"orders.service\"\n");
        assert_eq!(of(&[&toml]).unwrap().unit, "orders.service");
        let over = of(&[&toml, "unit=other.service"]).unwrap();
        assert_eq!((over.unit.as_str(), over.executable.as_str()), ("other.service", "/srv/orders"));
        let recorded = Workload { unit: "a.service".to_owned(), comm: "a".to_owned(), ..Workload::default() };
        let json = write("a.json", &serde_json::to_string(&recorded).unwrap());
        assert_eq!(of(&[&json]).unwrap(), recorded);
        assert!(of(&[&write("b.toml", "unti = 1")]).unwrap_err().contains("unti"));
    }
}
