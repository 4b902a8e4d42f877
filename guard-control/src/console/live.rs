//! What happens now. The page shows the newest decisions; a stream of events puts newer ones above them.
//!
//! Events carry rows made here, escaped like every page. Who reads slowly gets fewer rows and the number of the others.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use guard_common::{
    api::control::{DecisionsRequest, StoredDecision, stored_decision::Subject},
    audit::v1::{connection_opened::Access, decision::Verdict},
};
use maud::{Markup, html};
use serde::Deserialize;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::Instant,
};

use super::{
    page::{self, Head, Place},
    show,
};
use crate::{
    http::{app::App, fault::Fault, signed::Signed},
    people::sessions,
    server::live::Seen,
};

/// How often rows are sent.
const PAUSE: Duration = Duration::from_millis(400);
/// Rows that are sent at once; the others are counted.
const ROWS: usize = 25;
/// Without news something is sent all the same: routers forget silent connections.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// After that the browser comes again, and its session is looked at again.
const LONGEST: Duration = Duration::from_secs(sessions::NOTED_SECONDS * 10);

/// What is wanted.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    only: String,
}

const FILTERS: [(&str, &str); 4] = [
    ("", "Everything"),
    ("refused", "Refused and held"),
    ("would", "Would be refused"),
    ("round", "Round the proxy"),
];

/// The page.
pub async fn page(
    State(app): State<App>,
    signed: Signed,
    Query(asked): Query<Asked>,
) -> Result<Markup, Fault> {
    let request = DecisionsRequest {
        limit: 30,
        verdict: match asked.only.as_str() {
            "refused" => "refused".to_owned(),
            "would" => "would_refuse".to_owned(),
            _ => String::new(),
        },
        non_proxied: asked.only == "round",
        ..DecisionsRequest::default()
    };
    let newest = app.fleet.store.decisions(request).await?.decisions;
    let only = FILTERS.iter().map(|(name, _)| *name).find(|name| *name == asked.only).unwrap_or("");
    let head =
        Head { place: Place::Live, title: "Live", lead: "Decisions of all hosts as they are recorded." };
    let body = html! {
        div.bar-head.tools {
            nav.spans aria-label="Filter" {
                @for (name, words) in FILTERS {
                    a href={ "/live" @if !name.is_empty() { "?only=" (name) } }
                        aria-current=[(name == only).then_some("true")] { (words) }
                }
            }
            div.live-tools {
                span.live-state data-live-state="" role="status" { "not connected" }
                button.quiet type="button" data-live-pause="" aria-pressed="false" { "Pause" }
            }
        }
        noscript { (page::note("plain", &html! { "Without scripts this page shows what was there when it was loaded: reload it." })) }
        section.card {
            p.faint data-live-more="" hidden {}
            ol.events data-live={ "/live/events" @if !only.is_empty() { "?only=" (only) } } aria-label="Decisions, the newest first" {
                @for stored in &newest { (show::event(stored)) }
            }
            @if newest.is_empty() {
                div data-live-empty="" {
                    (page::empty("Nothing yet", &html! {
                        p { "As soon as somebody connects to a watched database, or sends it a statement, it stands here." }
                    }))
                }
            }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}

/// Whether a decision is wanted.
fn wanted(stored: &StoredDecision, only: &str) -> bool {
    let (decision, round) = match &stored.subject {
        Some(Subject::Connection(connection)) => {
            (connection.decision.as_ref(), connection.access() == Access::NonProxied)
        }
        Some(Subject::Statement(statement)) => (statement.decision.as_ref(), !statement.evidence.is_empty()),
        None => return false,
    };
    let verdict = decision.map_or(Verdict::Unspecified, |decision| decision.verdict());
    match only {
        "refused" => matches!(verdict, Verdict::Refused | Verdict::Held),
        "would" => matches!(verdict, Verdict::WouldRefuse | Verdict::WouldHold),
        "round" => round,
        _ => true,
    }
}

/// The stream.
pub async fn events(State(app): State<App>, _signed: Signed, Query(asked): Query<Asked>) -> Response {
    let reader = Reader {
        seen: app.fleet.live.follow(),
        stopping: app.stopping.clone(),
        only: asked.only,
        until: Instant::now() + LONGEST,
    };
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok::<_, Infallible>(event), reader))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, axum::body::Body::from_stream(events)).into_response()
}

struct Reader {
    seen: Receiver<std::sync::Arc<Seen>>,
    stopping: tokio::sync::watch::Receiver<bool>,
    only: String,
    until: Instant,
}

impl Reader {
    /// The next event; nothing: the stream ends, and the browser comes again.
    async fn next(&mut self) -> Option<String> {
        let quiet = (Instant::now() + HEARTBEAT).min(self.until);
        let first = tokio::select! {
            _ = self.stopping.wait_for(|stopping| *stopping) => return None,
            () = tokio::time::sleep_until(quiet) => {
                return (Instant::now() < self.until).then(|| ": still here\n\n".to_owned());
            }
            seen = self.seen.recv() => seen,
        };
        // What comes meanwhile goes out together.
        tokio::time::sleep(PAUSE).await;
        let mut news = News::default();
        news.take(first, &self.only)?;
        while news.batches < 64
            && let Ok(seen) = self.seen.try_recv()
        {
            news.take(Ok(seen), &self.only)?;
        }
        Some(news.event())
    }
}

#[derive(Default)]
struct News {
    rows: Vec<StoredDecision>,
    more: u64,
    batches: usize,
}

impl News {
    fn take(&mut self, seen: Result<std::sync::Arc<Seen>, RecvError>, only: &str) -> Option<()> {
        self.batches += 1;
        match seen {
            Ok(seen) => {
                self.more += seen.more as u64;
                for stored in seen.decisions.iter().filter(|stored| wanted(stored, only)) {
                    match self.rows.len() < ROWS {
                        true => self.rows.push(stored.clone()),
                        false => self.more += 1,
                    }
                }
                Some(())
            }
            Err(RecvError::Lagged(missed)) => {
                self.more += missed;
                Some(())
            }
            Err(RecvError::Closed) => None,
        }
    }

    /// In the form of `text/event-stream`: a row is one line.
    fn event(self) -> String {
        if self.rows.is_empty() && self.more == 0 {
            return ": nothing of it is wanted\n\n".to_owned();
        }
        let rows = html! { @for stored in self.rows.iter().rev() { (show::event(stored)) } };
        let rows = rows.into_string().replace(['\n', '\r'], " ");
        format!("event: rows\ndata: {rows}\ndata: {}\n\n", self.more)
    }
}

#[cfg(test)]
mod tests {
    use guard_common::audit::v1::Statement;

    use super::*;

    #[test]
    fn a_statement_cannot_end_its_event_or_begin_another() {
        let statement = Statement {
            text: "select 1\n\ndata: <b>x</b>\r\nevent: rows".to_owned(),
            ..Statement::default()
        };
        let stored =
            StoredDecision { subject: Some(Subject::Statement(statement)), ..StoredDecision::default() };
        let event = News { rows: vec![stored], more: 3, batches: 1 }.event();
        let lines: Vec<_> = event.lines().collect();
        assert_eq!(lines.len(), 4, "{event}");
        assert!(lines[0] == "event: rows" && lines[1].starts_with("data: <li") && lines[2] == "data: 3");
        assert!(!event.contains("<b>x"));
    }
}
