//! Reads policy files and checks all that can be checked before the first decision.
//!
//! One folder per topic: `topic/policy.cedar` beside `README.md` and `cases.toml`. Every policy has an `@id`, unique
//! in the set; every `forbid` has a `@reason`. Nothing is loaded by halves.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use cedar_policy::{Authorizer, Effect, Policy, PolicyId, ValidationMode, Validator};
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use super::{
    Origin, PolicySet, Told,
    slices::{Slices, names},
};
use crate::{
    approval,
    columns::{ColumnAction, Mask},
    schema::SCHEMA,
};

/// The policies of this repository.
static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../policies");

/// Annotations with a meaning.
const ANNOTATIONS: [&str; 10] =
    ["id", "reason", "hint", "mode", "mask", "approval", "wait", "approvers", "within", "break_glass"];

/// Name of folders whose policies are not in force: they are there to be copied.
pub const EXAMPLES: &str = "examples";

/// Largest policy file in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Most files in a policy folder.
const MAX_FILES: usize = 1_000;

/// Why a set of policies was not taken. The one in force stays.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The folder or a file cannot be read.
    #[error("cannot read policies in `{path}`: {error}")]
    Read {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// No policy at all: that would refuse everything.
    #[error("no policy found in `{0}`: expected files such as `topic/policy.cedar`")]
    Empty(String),
    /// A file or a folder is too large.
    #[error("`{0}` is too large: a policy file has at most 1 MiB, a folder at most 1000 files")]
    TooLarge(PathBuf),
    /// Cedar's grammar does not take it.
    #[error("`{file}` is not valid Cedar: {error}")]
    Syntax {
        /// The file.
        file: String,
        /// Line, column and what was expected.
        error: String,
    },
    /// A policy lacks an annotation or has a wrong one.
    #[error("`{file}`, policy {policy}: {problem}")]
    Annotation {
        /// The file.
        file: String,
        /// Its `@id`, or its place in the file.
        policy: String,
        /// What is wrong and what to write.
        problem: String,
    },
    /// It names something that the schema does not know, or compares what cannot be compared.
    #[error("policies do not fit the schema:\n{0}")]
    Schema(String),
}

impl PolicySet {
    /// The policies built into this binary.
    pub fn built_in() -> Result<Self, PolicyError> {
        Self::from_files(built_in_files(), Origin::BuiltIn)
    }

    /// Every `*.cedar` file below `folder`.
    pub fn from_folder(folder: &Path) -> Result<Self, PolicyError> {
        Self::from_files(Self::files_of(folder)?, Origin::Folder(folder.to_owned()))
    }

    /// The files below `folder` that a set is made of: name to content.
    pub fn files_of(folder: &Path) -> Result<BTreeMap<String, String>, PolicyError> {
        let mut files = BTreeMap::new();
        collect_folder(folder, folder, 0, &mut files)?;
        Ok(files)
    }

    /// The set made of `files`: name to content.
    pub fn from_files(files: BTreeMap<String, String>, origin: Origin) -> Result<Self, PolicyError> {
        let mut policies = cedar_policy::PolicySet::new();
        let mut hasher = Sha256::new();
        for (name, text) in &files {
            for part in [name.as_str(), text.as_str()] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
            for policy in read_file(name, text)? {
                let duplicate = |_| PolicyError::Annotation {
                    file: name.clone(),
                    policy: policy.id().to_string(),
                    problem: "its `@id` is already taken by another policy: ids are unique in the set"
                        .to_owned(),
                };
                policies.add(policy.clone()).map_err(duplicate)?;
            }
        }
        if policies.is_empty() {
            return Err(PolicyError::Empty(origin.to_string()));
        }
        validate(&policies)?;
        let slices = Slices::new(&policies).map_err(|error| PolicyError::Schema(error.to_string()))?;
        Ok(Self {
            authorizer: Authorizer::new(),
            told: policies.policies().map(|policy| (policy.id().clone(), Told::of(policy))).collect(),
            policies,
            slices,
            hash: hex::encode(hasher.finalize()),
            origin,
        })
    }
}

/// Test cases of the policies built into this binary: file name to content.
pub fn built_in_cases() -> BTreeMap<String, String> {
    BUILT_IN
        .dirs()
        .filter_map(|topic| topic.get_file(topic.path().join("cases.toml")))
        .filter_map(|file| Some((file.path().display().to_string(), file.contents_utf8()?.to_owned())))
        .collect()
}

/// The policy files built into this binary: file name to content.
pub(super) fn built_in_files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    collect_built_in(&BUILT_IN, &mut files);
    files
}

fn collect_built_in(dir: &Dir<'_>, files: &mut BTreeMap<String, String>) {
    for file in dir.files().filter(|file| file.path().extension().is_some_and(|e| e == "cedar")) {
        if let Some(text) = file.contents_utf8() {
            files.insert(file.path().display().to_string(), text.to_owned());
        }
    }
    let topics = dir.dirs().filter(|dir| dir.path().file_name().is_none_or(|name| name != EXAMPLES));
    topics.for_each(|dir| collect_built_in(dir, files));
}

fn collect_folder(
    root: &Path,
    folder: &Path,
    depth: u32,
    files: &mut BTreeMap<String, String>,
) -> Result<(), PolicyError> {
    let failed = |path: &Path, error| PolicyError::Read { path: path.to_owned(), error };
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if is_left_out(&path) {
            continue;
        }
        let kind = fs::metadata(&path).map_err(|error| failed(&path, error))?;
        if kind.is_dir() && depth < 8 {
            collect_folder(root, &path, depth + 1, files)?;
        } else if path.extension().is_some_and(|extension| extension == "cedar") {
            if kind.len() > MAX_FILE_BYTES || files.len() >= MAX_FILES {
                return Err(PolicyError::TooLarge(path));
            }
            let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
            files.insert(path.strip_prefix(root).unwrap_or(&path).display().to_string(), text);
        }
    }
    Ok(())
}

/// Whether what has this name in a policy folder is no part of the set: examples, and what is hidden. Editors hide their
/// own files there, and Kubernetes the versions of a mounted ConfigMap.
pub fn is_left_out(path: &Path) -> bool {
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    path.file_name().is_some_and(|name| hidden(name) || name == EXAMPLES)
}

/// The policies of one file, under the names that they give themselves.
fn read_file(file: &str, text: &str) -> Result<Vec<Policy>, PolicyError> {
    let syntax = |error: String| PolicyError::Syntax { file: file.to_owned(), error };
    let parsed: cedar_policy::PolicySet =
        text.parse().map_err(|error: cedar_policy::ParseErrors| syntax(describe(text, &error)))?;
    if parsed.templates().next().is_some() {
        return Err(syntax(
            "templates (`?principal`, `?resource`) are not supported: write a policy".to_owned(),
        ));
    }
    parsed.policies().map(|policy| check_annotations(file, policy)).collect()
}

fn check_annotations(file: &str, policy: &Policy) -> Result<Policy, PolicyError> {
    let id = policy.annotation("id").filter(|id| !id.is_empty());
    let wrong = |problem: String| PolicyError::Annotation {
        file: file.to_owned(),
        policy: id.unwrap_or(policy.id().as_ref()).to_owned(),
        problem,
    };
    let Some(name) = id else {
        return Err(wrong("it has no `@id(\"..\")`: records and messages name policies by it".to_owned()));
    };
    if policy.effect() == Effect::Forbid && policy.annotation("reason").is_none_or(str::is_empty) {
        return Err(wrong("a forbid needs `@reason(\"..\")`: the person who is refused reads it".to_owned()));
    }
    if let Some(mode) = policy.annotation("mode").filter(|mode| !["monitor", "enforce"].contains(mode)) {
        return Err(wrong(format!("`@mode(\"{mode}\")` is not known: write `monitor` or `enforce`")));
    }
    if policy.effect() == Effect::Permit && policy.annotation("mode") == Some("monitor") {
        return Err(wrong("`@mode(\"monitor\")` is for forbids: a permit has nothing to watch".to_owned()));
    }
    if let Some(mask) = policy.annotation("mask") {
        mask.parse::<Mask>().map_err(|problem| wrong(format!("`@mask(\"{mask}\")`: {problem}")))?;
        if !names(policy, ColumnAction::Reveal) {
            return Err(wrong(
                "`@mask` says how a column is seen: it stands on policies with `action == Guard::Action::\"reveal\"`"
                    .to_owned(),
            ));
        }
    }
    approval::needs(policy).map_err(&wrong)?;
    approval::break_glass(policy).map_err(&wrong)?;
    if let Some((unknown, _)) = policy.annotations().find(|(key, _)| !ANNOTATIONS.contains(key)) {
        let nearest = ANNOTATIONS
            .into_iter()
            .max_by(|a, b| strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown)));
        return Err(wrong(format!(
            "`@{unknown}` is not known, did you mean `@{}`? (known: {})",
            nearest.unwrap_or("id"),
            ANNOTATIONS.join(", ")
        )));
    }
    Ok(policy.new_id(PolicyId::new(name)))
}

fn validate(policies: &cedar_policy::PolicySet) -> Result<(), PolicyError> {
    let result = Validator::new(SCHEMA.clone()).validate(policies, ValidationMode::Strict);
    if result.validation_passed() {
        return Ok(());
    }
    let problems: Vec<String> = result.validation_errors().map(|error| format!("  {error}")).collect();
    Err(PolicyError::Schema(problems.join("\n")))
}

/// Where the grammar gave up, and why.
fn describe(text: &str, errors: &cedar_policy::ParseErrors) -> String {
    use miette::Diagnostic;
    errors
        .iter()
        .map(|error| {
            let place = error.labels().and_then(|mut labels| labels.next()).map(|label| {
                let line = text.bytes().take(label.offset()).filter(|byte| *byte == b'\n').count() + 1;
                format!("line {line}: ")
            });
            format!("{}{error}", place.unwrap_or_default())
        })
        .collect::<Vec<_>>()
        .join("; ")
}
