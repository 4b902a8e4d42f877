//! `audit search`: the records that match, the oldest first.

use std::{path::Path, str::FromStr};

use clap::{Args, ValueEnum};
use guard_common::audit::v1::{Record, connection_opened::Access, decision::Verdict, record::Body};
use jiff::{SignedDuration, Timestamp};

use super::{
    CommandError, line,
    output::{Output, open},
};
use crate::audit::Reader;

/// Options of `search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Only records with this text in any field, in upper or lower case
    text: Option<String>,
    /// Only decisions with this verdict
    #[arg(long)]
    verdict: Option<VerdictArg>,
    /// Only records of this kind
    #[arg(long)]
    kind: Option<Kind>,
    /// Only connections that went round the proxy
    #[arg(long)]
    non_proxied: bool,
    /// Only what happened since then: a time back (90s, 15m, 1h, 7d) or a timestamp (2026-11-22T08:00:00Z)
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum VerdictArg {
    /// It went on
    Allowed,
    /// It did not happen
    Refused,
    /// Policy refuses it, but guard was only watching
    #[value(alias = "would-refuse")]
    WouldRefuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Starts and stops of the agent
    Agent,
    /// Changes of the policy set
    Policy,
    /// What the kernel side can see
    Sensor,
    /// What is missing from the record
    Gap,
    /// Connections, as they were opened
    Connection,
    /// Connections, as they were closed
    Closed,
    /// Logins
    Session,
    /// Statements
    Statement,
    /// How statements ended
    Outcome,
    /// Requests for approval, and what became of them
    Approval,
    /// Signatures over the record, and the keys that make them
    Checkpoint,
}

/// The beginning of what is looked at.
#[derive(Clone, Copy, Debug)]
struct Since(Timestamp);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self(at));
        }
        let days = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok());
        let back = match days {
            Some(days) => days.checked_mul(86_400).map(SignedDuration::from_secs),
            None => text.parse::<SignedDuration>().ok(),
        };
        back.and_then(|back| Timestamp::now().checked_sub(back).ok()).map(Self).ok_or_else(|| {
            "neither a time back, such as 1h, nor a timestamp, such as 2026-11-22T08:00:00Z".to_owned()
        })
    }
}

/// Prints what matches.
pub fn run(args: &SearchArgs, journal: &Path) -> Result<(), CommandError> {
    let text = args.text.as_ref().map(|text| text.to_lowercase());
    let mut reader = Reader::open(journal, 1)?;
    let mut output = Output::new(args.json);
    loop {
        match reader.next_record() {
            Ok(Some(sealed)) => {
                let record = open(&sealed);
                if matches(args, text.as_deref(), &record) {
                    output.record(&sealed, &record)?;
                }
            }
            Ok(None) => return Ok(output.flush()?),
            Err(error) => {
                output.flush()?;
                return Err(error.into());
            }
        }
    }
}

fn matches(args: &SearchArgs, text: Option<&str>, record: &Record) -> bool {
    let Some(body) = &record.body else { return false };
    let verdict = line::decision(body).map(|decision| decision.verdict());
    args.since.is_none_or(|Since(since)| happened_after(record, since))
        && args.kind.is_none_or(|kind| kind == kind_of(body))
        && args.verdict.is_none_or(|wanted| verdict == Some(wanted.into()))
        && (!args.non_proxied || is_non_proxied(body))
        && text.is_none_or(|text| serde_json::to_value(record).is_ok_and(|value| holds(&value, text)))
}

impl From<VerdictArg> for Verdict {
    fn from(verdict: VerdictArg) -> Self {
        match verdict {
            VerdictArg::Allowed => Self::Allowed,
            VerdictArg::Refused => Self::Refused,
            VerdictArg::WouldRefuse => Self::WouldRefuse,
        }
    }
}

fn happened_after(record: &Record, since: Timestamp) -> bool {
    let at = record.at.as_ref().and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    at.is_some_and(|at| at >= since)
}

fn is_non_proxied(body: &Body) -> bool {
    matches!(body, Body::ConnectionOpened(connection) if connection.access() == Access::NonProxied)
}

fn kind_of(body: &Body) -> Kind {
    match body {
        Body::AgentStarted(_) | Body::AgentStopped(_) => Kind::Agent,
        Body::PolicyChange(_) => Kind::Policy,
        Body::SensorState(_) => Kind::Sensor,
        Body::Gap(_) => Kind::Gap,
        Body::ConnectionOpened(_) | Body::ClientConnected(_) => Kind::Connection,
        Body::ConnectionClosed(_) => Kind::Closed,
        Body::SessionStarted(_) => Kind::Session,
        Body::Statement(_) => Kind::Statement,
        Body::Outcomes(_) => Kind::Outcome,
        Body::Approval(_) | Body::PersonAction(_) => Kind::Approval,
        Body::KeyChange(_) | Body::Checkpoint(_) | Body::Tombstone(_) | Body::ControlEvent(_) => {
            Kind::Checkpoint
        }
    }
}

/// Whether any text in `value` holds `text`, which is in lower case.
fn holds(value: &serde_json::Value, text: &str) -> bool {
    match value {
        serde_json::Value::String(field) => field.to_lowercase().contains(text),
        serde_json::Value::Array(values) => values.iter().any(|value| holds(value, text)),
        serde_json::Value::Object(fields) => fields.values().any(|value| holds(value, text)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::{Decision, Statement};

    use super::*;

    #[test]
    fn times_back_and_timestamps_are_understood() {
        let hour = "1h".parse::<Since>().unwrap().0;
        assert!((Timestamp::now().duration_since(hour).as_secs() - 3_600).abs() < 5);
        assert!("7d".parse::<Since>().is_ok() && "90s".parse::<Since>().is_ok());
        assert_eq!("2026-11-22T08:00:00Z".parse::<Since>().unwrap().0.as_second(), 1_795_334_400);
        for wrong in ["", "h", "soon", "99999999999999999d"] {
            assert!(wrong.parse::<Since>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_filter_can_refuse() {
        let statement = Statement {
            text: "DROP TABLE \"Customers\"".to_owned(),
            decision: Some(Decision { verdict: Verdict::Refused.into(), ..Decision::default() }),
            ..Statement::default()
        };
        let record = Record::now(Body::Statement(statement));
        let any = SearchArgs {
            text: None,
            verdict: None,
            kind: None,
            non_proxied: false,
            since: None,
            json: false,
        };
        assert!(matches(&any, Some("table \"customers\""), &record));
        assert!(!matches(&any, Some("orders"), &record));
        assert!(matches(&SearchArgs { verdict: Some(VerdictArg::Refused), ..any }, None, &record));
        let any = || SearchArgs {
            text: None,
            verdict: None,
            kind: None,
            non_proxied: false,
            since: None,
            json: false,
        };
        assert!(!matches(&SearchArgs { verdict: Some(VerdictArg::Allowed), ..any() }, None, &record));
        assert!(!matches(&SearchArgs { kind: Some(Kind::Gap), ..any() }, None, &record));
        assert!(!matches(&SearchArgs { non_proxied: true, ..any() }, None, &record));
        let later = Timestamp::now() + SignedDuration::from_hours(1);
        assert!(!matches(&SearchArgs { since: Some(Since(later)), ..any() }, None, &record));
    }
}
