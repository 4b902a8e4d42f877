//! Taking decisions along: JSON lines or CSV, as they are read from the store, never more at once than a page.

use std::collections::VecDeque;

use axum::{
    body::Body,
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use guard_common::{
    api::control::{DecisionsRequest, StoredDecision, stored_decision::Subject},
    audit::v1::{Decision, connection_opened::Access},
};
use serde::Deserialize;

use super::{search::Wanted, show};
use crate::{
    http::{app::App, fault::Fault, signed::Signed},
    people::Right,
};

/// Decisions that are read at once.
const PAGE: u32 = 1_000;
/// Decisions in one export.
const MOST: usize = 1_000_000;

/// Columns of the CSV.
const COLUMNS: &str = "time,host,agent_id,sequence,kind,verdict,policy,reason,access,workload,executable,db_user,database,text\r\n";

/// The form in which they leave.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object per line.
    #[default]
    Jsonl,
    /// With a line of headings.
    Csv,
}

/// What is asked for.
#[derive(Debug, Deserialize)]
pub struct Asked {
    #[serde(default)]
    format: Format,
}

/// The download.
pub async fn download(
    State(app): State<App>,
    signed: Signed,
    Query(asked): Query<Asked>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Fault> {
    take_along(&app, &signed, &wanted, asked.format).await
}

/// The same for pages and programs.
pub async fn take_along(
    app: &App,
    signed: &Signed,
    wanted: &Wanted,
    format: Format,
) -> Result<Response, Fault> {
    let query = wanted.query();
    signed.must(app, Right::Export, "export", &query).await?;
    let mut export = Export {
        app: app.clone(),
        request: wanted.request(PAGE)?,
        format,
        left: MOST,
        ready: VecDeque::new(),
        done: false,
    };
    // What makes no sense is said while it can be said.
    export.fill().await?;
    signed.does(app, "export", &query, extension(format)).await?;
    let (kind, name) = match format {
        Format::Jsonl => ("application/jsonl; charset=utf-8", "guard-decisions.jsonl"),
        Format::Csv => ("text/csv; charset=utf-8", "guard-decisions.csv"),
    };
    let lines = stream::try_unfold(export, |mut export| async move {
        let line = export.next().await?;
        Ok::<_, Fault>(line.map(|line| (line, export)))
    });
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    // An error in the middle breaks the transfer off: nobody takes half for the whole.
    Ok((headers, Body::from_stream(lines)).into_response())
}

fn extension(format: Format) -> &'static str {
    match format {
        Format::Jsonl => "jsonl",
        Format::Csv => "csv",
    }
}

struct Export {
    app: App,
    request: DecisionsRequest,
    format: Format,
    left: usize,
    ready: VecDeque<String>,
    done: bool,
}

impl Export {
    async fn next(&mut self) -> Result<Option<String>, Fault> {
        while self.ready.is_empty() && !self.done {
            self.fill().await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn fill(&mut self) -> Result<(), Fault> {
        let first = self.request.page.is_empty();
        let answer = self.app.fleet.store.decisions(self.request.clone()).await?;
        let mut text = String::new();
        if first && self.format == Format::Csv {
            text.push_str(COLUMNS);
        }
        for stored in answer.decisions.iter().take(self.left) {
            match self.format {
                Format::Jsonl => {
                    let line =
                        serde_json::to_string(stored).map_err(|error| Fault::Bad(error.to_string()))?;
                    text.push_str(&line);
                    text.push('\n');
                }
                Format::Csv => line(&mut text, stored),
            }
        }
        self.left -= answer.decisions.len().min(self.left);
        self.done = answer.next_page.is_empty() || self.left == 0;
        self.request.page = answer.next_page;
        self.ready.push_back(text);
        Ok(())
    }
}

fn line(text: &mut String, stored: &StoredDecision) {
    let nothing = Decision::default();
    let at = show::stamp(stored.at.as_ref()).map(|at| at.to_string()).unwrap_or_default();
    let (decision, rest) = match &stored.subject {
        Some(Subject::Connection(connection)) => {
            let workload = connection.workload.clone().unwrap_or_default();
            let access = match connection.access() {
                Access::Proxied => "proxied",
                Access::NonProxied => "non-proxied",
                Access::Unspecified => "",
            };
            let rest = [
                access.to_owned(),
                workload.label(),
                workload.executable,
                String::new(),
                String::new(),
                show::server(connection),
            ];
            (connection.decision.as_ref(), ("connection", rest))
        }
        Some(Subject::Statement(statement)) => {
            let access = if statement.evidence.is_empty() { "proxied" } else { &statement.evidence };
            let rest = [
                access.to_owned(),
                statement.workload.clone(),
                String::new(),
                statement.db_user.clone(),
                statement.database.clone(),
                statement.text.clone(),
            ];
            (statement.decision.as_ref(), ("statement", rest))
        }
        None => return,
    };
    let decision = decision.unwrap_or(&nothing);
    let sequence = stored.sequence.to_string();
    let (kind, rest) = rest;
    let first = [
        &at,
        &stored.host,
        &stored.agent_id,
        &sequence,
        kind,
        show::verdict(decision.verdict()).0,
        &decision.policy,
        &decision.reason,
    ];
    let mut fields = first.into_iter().chain(rest.iter().map(String::as_str));
    if let Some(one) = fields.next() {
        text.push_str(&field(one));
    }
    for one in fields {
        text.push(',');
        text.push_str(&field(one));
    }
    text.push_str("\r\n");
}

/// A field as RFC 4180 has it. Spreadsheets run what begins like a formula: that gets a quote in front.
fn field(value: &str) -> String {
    let formula = value.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if !formula && !value.contains([',', '"', '\n', '\r']) {
        return value.to_owned();
    }
    format!("\"{}{}\"", if formula { "'" } else { "" }, value.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stays_one_field_and_is_no_formula() {
        assert_eq!(field("select 1"), "select 1");
        assert_eq!(field("a,\"b\"\nc"), "\"a,\"\"b\"\"\nc\"");
        assert_eq!(field("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
        assert_eq!(field("-- drop"), "\"'-- drop\"");
        assert_eq!(field("@x"), "\"'@x\"");
    }

    #[test]
    fn a_line_has_as_many_fields_as_the_headings() {
        let statement = guard_common::audit::v1::Statement { text: "a".to_owned(), ..Default::default() };
        let connection = guard_common::audit::v1::ConnectionOpened::default();
        for subject in [Subject::Statement(statement), Subject::Connection(connection)] {
            let mut text = String::new();
            line(&mut text, &StoredDecision { subject: Some(subject), ..StoredDecision::default() });
            assert_eq!(text.matches(',').count(), COLUMNS.matches(',').count(), "{text}");
        }
    }
}
