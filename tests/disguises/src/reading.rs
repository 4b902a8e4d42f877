//! guard's reading of a text and its decision, without a proxy: bytes enter, effects and a verdict leave.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context, Result};
use guard_agent::{
    config::Config,
    decide::{AppliedMode, Decider, Session},
    sql::{Classifier, Encoding, Limits, Modes, Roles, SearchPath, Statement},
};
use guard_common::audit::v1::{Workload, decision::Verdict};
use guard_policy::{PolicySet, Principal, Rates, Target, cases::CaseWorkload, vocabulary::Parse};

use crate::corpus::Case;

/// Reads statements and decides about them, as a session would.
#[derive(Debug)]
pub struct Reader {
    classifier: Classifier,
    /// How many statements were read how well.
    pub levels: BTreeMap<&'static str, usize>,
}

impl Reader {
    /// With nothing read.
    pub fn new() -> Self {
        Self { classifier: Classifier::new(Limits::default()), levels: BTreeMap::new() }
    }

    /// Reads one message.
    pub fn read(&mut self, message: &[u8], modes: &Modes) -> Arc<Statement> {
        let statement = self.classifier.classify(message, modes);
        *self.levels.entry(statement.parse.as_str()).or_default() += 1;
        statement
    }

    /// Reads all messages of a case. Where one of several changes how text is read, the session keeps track of it:
    /// here the most careful way of reading stands for that, and the proxy is asked for the rest.
    pub fn read_case(&mut self, case: &Case) -> Vec<Arc<Statement>> {
        let mut modes = case.modes();
        let readings = case.messages().into_iter().map(|message| {
            let statement = self.read(&message, &modes);
            let text = String::from_utf8_lossy(&message).to_lowercase();
            if text.contains("standard_conforming_strings") && text.contains("off") {
                modes.standard_conforming_strings = false;
            }
            if text.contains("sjis") {
                modes.client_encoding = Encoding::Other;
            } else if text.contains("latin1") {
                modes.client_encoding = Encoding::Latin1;
            }
            statement
        });
        readings.collect()
    }

    /// The levels in one line.
    pub fn levels(&self) -> String {
        let of = |level: Parse| self.levels.get(level.as_str()).copied().unwrap_or_default();
        format!("{} full, {} tokens, {} none", of(Parse::Full), of(Parse::Tokens), of(Parse::None))
    }
}

/// The server's name in policies.
const SERVER: &str = "shop-db";

/// Decides by one set of policies, for one kind of client.
#[derive(Debug)]
pub struct Judge {
    decider: Decider,
    session: Session,
}

impl Judge {
    /// By the policies in `folder`, those built in where it is not said.
    pub fn new(folder: Option<&Path>, ai_agent: &str) -> Result<Self> {
        let policies = match folder {
            Some(folder) => {
                PolicySet::from_folder(folder).with_context(|| format!("policies in {}", folder.display()))?
            }
            None => PolicySet::built_in()?,
        };
        let workload = Workload::from(&CaseWorkload {
            executable: "/usr/bin/psql".to_owned(),
            ai_agent: ai_agent.to_owned(),
            ..CaseWorkload::default()
        });
        let decider = Decider::new(policies, &Config::default());
        let principal = Principal::new(&workload);
        let AppliedMode { mode, from: mode_from } = AppliedMode::ENFORCED;
        let session = Session {
            meter: decider.meter(&principal, SERVER),
            principal,
            target: Target::new("production", SERVER, "postgresql", "shop"),
            mode,
            mode_from,
            proxied: true,
            transport: "tcp",
            db_user: "postgres".to_owned(),
            application_name: String::new(),
            search_path: SearchPath::default(),
            roles: Roles::of("postgres"),
        };
        Ok(Self { decider, session })
    }

    /// The policy that refuses the statement.
    pub fn refuses(&self, statement: &Statement) -> Option<String> {
        let decision = self.decider.statement(&self.session, statement, Rates::default());
        (decision.verdict() == Verdict::Refused).then_some(decision.policy)
    }
}
