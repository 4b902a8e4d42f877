//! Test cases of policies, in `cases.toml` beside the policies: who does what, and what must come of it.
//!
//! The text of a case file enters, checked [`Case`]s leave. Running a case needs the reading of SQL: that is the
//! agent's (`guard-agent policy test`).

use guard_common::audit::v1::{Ancestor, Container, Label, Pod, ProgramFile, Workload, workload::Evidence};
use serde::Deserialize;

use crate::{
    columns::{Column, Use},
    vocabulary::DataKind,
};

/// One file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// The cases.
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
}

/// What must come of one request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case shows.
    pub name: String,
    /// A statement; or one of the following is given.
    pub sql: Option<String>,
    /// A connection.
    pub connect: Option<Connect>,
    /// A column that is looked at.
    pub reveal: Option<CaseColumn>,
    /// A column that a statement uses without showing it.
    pub infer: Option<CaseUse>,
    /// Who asks.
    #[serde(default)]
    pub workload: CaseWorkload,
    /// Who logs in to the database.
    #[serde(default = "app")]
    pub db_user: String,
    /// The database.
    #[serde(default = "app")]
    pub database: String,
    /// The server's name.
    #[serde(default = "main")]
    pub server: String,
    /// The server's environment.
    #[serde(default = "production")]
    pub environment: String,
    /// Statements of the principal on this server in the last minute, this one included.
    #[serde(default = "one")]
    pub statements_per_minute: u64,
    /// Its rows in the last minute.
    #[serde(default)]
    pub rows_per_minute: u64,
    /// A reason is given.
    #[serde(default)]
    pub justified: bool,
    /// What must come of it.
    pub expect: Expect,
    /// The rule by which the column must be masked.
    pub mask: Option<String>,
    /// The policy that must decide.
    pub policy: Option<String>,
    /// Evaluation errors that must come.
    #[serde(default)]
    pub errors: usize,
}

fn one() -> u64 {
    1
}

fn app() -> String {
    "app".to_owned()
}

fn main() -> String {
    "main".to_owned()
}

fn production() -> String {
    "production".to_owned()
}

/// A connection to decide on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Through the proxy.
    pub proxied: bool,
    /// `tcp` or `unix`.
    #[serde(default = "unix")]
    pub transport: String,
}

fn unix() -> String {
    "unix".to_owned()
}

/// What must come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// It goes on.
    Allow,
    /// It is refused.
    Refuse,
    /// It goes on, and the record says that a policy in `@mode("monitor")` would have refused it.
    WouldRefuse,
    /// The column is seen in clear.
    Clear,
    /// It is masked.
    Masked,
    /// It waits for an approval.
    Hold,
    /// It would wait, but for a policy with `@break_glass` that lets it run with a reason.
    BreakGlass,
    /// It goes on, and the record says that a policy in `@mode("monitor")` would have held it.
    WouldHold,
}

/// A column with sensitive data.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseColumn {
    /// Its schema.
    #[serde(default = "public")]
    pub schema: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub column: String,
    /// The kind of its data: `email`, `payment_card`, ..
    pub kind: String,
    /// Tags beside those of the kind.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What says that it is sensitive.
    #[serde(default = "by_name")]
    pub evidence: String,
}

fn public() -> String {
    "public".to_owned()
}

fn by_name() -> String {
    "column name".to_owned()
}

impl CaseColumn {
    /// As policies see it.
    pub fn to_column(&self) -> Result<Column, String> {
        let kind = DataKind::ALL.iter().copied().find(|kind| kind.as_str() == self.kind);
        let kind = kind.ok_or_else(|| {
            let known: Vec<&str> = DataKind::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("`{}` is no kind of data (known: {})", self.kind, known.join(", "))
        })?;
        Ok(Column {
            schema: self.schema.clone(),
            table: self.table.clone(),
            name: self.column.clone(),
            kind,
            tags: self.tags.clone(),
            evidence: self.evidence.clone(),
        })
    }
}

/// How a statement uses a column.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseUse {
    /// The column.
    pub of: CaseColumn,
    /// `where`, `join`, `group`, `order`, `distinct`.
    pub uses: Vec<String>,
    /// It is only compared with a value that the statement gives.
    #[serde(default)]
    pub equality: bool,
}

impl CaseUse {
    /// As policies see it.
    pub fn to_use(&self) -> Result<Use, String> {
        let word = |word: &String| Use::WORDS.iter().copied().find(|known| known == word);
        let words = self.uses.iter().map(|given| {
            word(given).ok_or_else(|| format!("`{given}` is no use (known: {})", Use::WORDS.join(", ")))
        });
        Ok(Use { words: words.collect::<Result<_, _>>()?, equality: self.equality })
    }
}

/// A workload, as far as a case cares.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseWorkload {
    /// Full path.
    pub executable: String,
    /// systemd unit.
    pub unit: String,
    /// Name of the AI agent it runs under.
    pub ai_agent: String,
    /// Operating system user.
    pub user: String,
    /// Its number.
    pub uid: u32,
    /// The person behind sudo.
    pub login_user: String,
    /// Container id.
    pub container: String,
    /// Pod as `namespace/name`.
    pub pod: String,
    /// Address of a remote client.
    pub address: String,
    /// Executables of the parents.
    pub ancestry: Vec<String>,
    /// Name of the CI runner it runs under.
    pub ci_runner: String,
    /// The container's name.
    pub container_name: String,
    /// The container's image.
    pub image: String,
    /// The pod's service account.
    pub service_account: String,
    /// What the pod belongs to, as `kind/name`.
    pub pod_owner: String,
    /// Labels of the pod, or of the container where there is no pod, as `name=value`.
    pub labels: Vec<String>,
    /// SHA-256 of the program file, hex.
    pub sha256: String,
}

impl From<&CaseWorkload> for Workload {
    fn from(case: &CaseWorkload) -> Self {
        let evidence = if case.address.is_empty() { Evidence::Attested } else { Evidence::Address };
        let labels: Vec<Label> = case.labels.iter().map(|label| label_of(label)).collect();
        let (owner_kind, owner_name) = case.pod_owner.split_once('/').unwrap_or_default();
        let pod = case.pod.split_once('/').map(|(namespace, name)| Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: labels.clone(),
            service_account: case.service_account.clone(),
            owner_kind: owner_kind.to_owned(),
            owner_name: owner_name.to_owned(),
            ..Pod::default()
        });
        let in_container = [&case.container, &case.container_name, &case.image];
        let container = in_container.iter().any(|part| !part.is_empty()).then(|| Container {
            runtime: "docker".to_owned(),
            id: case.container.clone(),
            name: case.container_name.clone(),
            image: case.image.clone(),
            labels,
            ..Container::default()
        });
        let program_file = (!case.sha256.is_empty())
            .then(|| ProgramFile { sha256: case.sha256.clone(), ..ProgramFile::default() });
        let ancestor =
            |executable: &String| Ancestor { executable: executable.clone(), ..Ancestor::default() };
        Self {
            evidence: evidence.into(),
            executable: case.executable.clone(),
            unit: case.unit.clone(),
            ai_agent: case.ai_agent.clone(),
            user: case.user.clone(),
            uid: case.uid,
            login_user: case.login_user.clone(),
            container,
            pod,
            remote_address: case.address.clone(),
            ancestry: case.ancestry.iter().map(ancestor).collect(),
            ci_runner: case.ci_runner.clone(),
            program_file,
            ..Self::default()
        }
    }
}

fn label_of(label: &str) -> Label {
    let (name, value) = label.split_once('=').unwrap_or((label, ""));
    Label { name: name.to_owned(), value: value.to_owned() }
}

/// The cases of one file; the error names line and key.
pub fn parse(text: &str) -> Result<Vec<Case>, String> {
    let file: CaseFile = toml::from_str(text).map_err(|error| error.to_string())?;
    for case in &file.cases {
        let given = [case.sql.is_some(), case.connect.is_some(), case.reveal.is_some(), case.infer.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err(format!("case `{}`: give one of `sql`, `connect`, `reveal`, `infer`", case.name));
        }
        let looks = matches!(case.expect, Expect::Clear | Expect::Masked);
        if looks != case.reveal.is_some() || (case.mask.is_some() && case.expect != Expect::Masked) {
            return Err(format!(
                "case `{}`: `reveal` goes with `expect = \"clear\"` or `\"masked\"`, and `mask` with the latter",
                case.name
            ));
        }
    }
    Ok(file.cases)
}
