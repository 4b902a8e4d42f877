//! Searching decisions; searches that people keep.

use axum::{
    extract::{Query, State},
    response::Redirect,
};
use guard_common::api::control::{Agent, DecisionsRequest};
use jiff::tz::TimeZone;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::{
    agents_now,
    page::{self, Head, Place},
    show,
};
use crate::{
    http::{
        app::App,
        fault::Fault,
        signed::{Posted, Signed},
    },
    moment,
    people::Right,
};

/// Decisions on a page.
const PAGE: u32 = 50;

/// Verdicts that can be looked for, as the store names them.
pub const VERDICTS: [(&str, &str); 5] = [
    ("", "any verdict"),
    ("refused", "refused"),
    ("would_refuse", "would refuse"),
    ("would_hold", "would hold"),
    ("allowed", "allowed"),
];
/// Kinds that can be looked for.
pub const KINDS: [(&str, &str); 3] =
    [("", "connections and statements"), ("connection", "connections"), ("statement", "statements")];

/// What is looked for, as in an address.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Wanted {
    /// Part of the statement, the executable, the workload, the user or the policy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub contains: String,
    /// One of [`VERDICTS`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// One of [`KINDS`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// An agent's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// Anything: round the proxy alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub round: String,
    /// Not before this moment; without a zone it is UTC, as pages show times.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Before this moment.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub to: String,
    /// Behind this one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub page: String,
}

impl Wanted {
    /// As the store is asked.
    pub fn request(&self, limit: u32) -> Result<DecisionsRequest, Fault> {
        let moment = |text: &str| match text.trim() {
            "" => Ok(None),
            text => moment::read(text, &TimeZone::UTC).map(Some).map_err(Fault::Bad),
        };
        Ok(DecisionsRequest {
            since: moment(&self.from)?,
            until: moment(&self.to)?,
            limit,
            verdict: self.verdict.clone(),
            agent_id: self.agent.clone(),
            kind: self.kind.clone(),
            non_proxied: !self.round.is_empty(),
            contains: self.contains.trim().to_owned(),
            page: self.page.clone(),
        })
    }

    /// As it stands in an address, from the first page on.
    pub fn query(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let fields = [
            ("contains", &self.contains),
            ("verdict", &self.verdict),
            ("kind", &self.kind),
            ("agent", &self.agent),
            ("round", &self.round),
            ("from", &self.from),
            ("to", &self.to),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            query.append_pair(name, value);
        }
        query.finish()
    }

    /// Reads what [`Self::query`] wrote.
    fn read(query: &str) -> Self {
        let mut wanted = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                "contains" => wanted.contains = value,
                "verdict" => wanted.verdict = value,
                "kind" => wanted.kind = value,
                "agent" => wanted.agent = value,
                "round" => wanted.round = value,
                "from" => wanted.from = value,
                "to" => wanted.to = value,
                _ => {}
            }
        }
        wanted
    }
}

/// The page.
pub async fn page(
    State(app): State<App>,
    signed: Signed,
    Query(wanted): Query<Wanted>,
) -> Result<Markup, Fault> {
    let agents = agents_now(&app).await?;
    let found = app.fleet.store.decisions(wanted.request(PAGE)?).await?;
    let me = signed.person.id;
    let saved = app.people.with(move |book| book.searches(me)).await?;
    let head = Head {
        place: Place::Search,
        title: "Search",
        lead: "Every decision of every host, the newest first.",
    };
    let query = wanted.query();
    let body = html! {
        (form(&wanted, &agents))
        @if !saved.is_empty() {
            section.saved aria-label="Searches that you keep" {
                @for search in &saved {
                    span.chip {
                        a href={ "/search?" (search.query) } { (show::text(&search.name, 64)) }
                        form method="post" action="/search/forget" {
                            (page::form_token(&signed))
                            input type="hidden" name="name" value=(search.name);
                            button type="submit" aria-label={ "Forget the search " (show::text(&search.name, 64)) } { "×" }
                        }
                    }
                }
            }
        }
        section.card aria-labelledby="found" {
            div.bar-head {
                h2 #found { @if found.decisions.is_empty() { "Nothing found" } @else { "Found" } }
                @if !found.decisions.is_empty() && signed.may(Right::Export) {
                    div.live-tools {
                        a.button.quiet href={ "/export?format=jsonl&" (query) } { "Export JSON lines" }
                        a.button.quiet href={ "/export?format=csv&" (query) } { "Export CSV" }
                    }
                }
            }
            @if found.decisions.is_empty() {
                p.faint { "No decision matches. Parts of words are found as well; try less of it, or any verdict." }
            }
            ol.events { @for stored in &found.decisions { (show::event(stored)) } }
            @if !found.next_page.is_empty() {
                p { a.button href={ "/search?" (query) "&page=" (found.next_page) } { "Older" } }
            }
        }
        @if !query.is_empty() {
            form.inline method="post" action="/search/save" {
                (page::form_token(&signed))
                input type="hidden" name="query" value=(query);
                label { "Keep this search as " input type="text" name="name" required maxlength="64" autocomplete="off"; }
                button.quiet type="submit" { "Keep" }
            }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}

fn form(wanted: &Wanted, agents: &[Agent]) -> Markup {
    html! {
        form.search.card method="get" action="/search" role="search" {
            label.grow { span { "Contains" }
                input type="search" name="contains" value=(show::text(&wanted.contains, 1_000)) maxlength="1000"
                    placeholder="statement, program, workload, user or policy" autocomplete="off";
            }
            label { span { "Verdict" } (choice("verdict", &VERDICTS, &wanted.verdict)) }
            label { span { "What" } (choice("kind", &KINDS, &wanted.kind)) }
            label { span { "Host" }
                select name="agent" {
                    option value="" { "any host" }
                    @for agent in agents.iter().take(2_000) {
                        option value=(agent.agent_id) selected[agent.agent_id == wanted.agent] { (show::text(&agent.host, 60)) }
                    }
                }
            }
            label { span { "From (UTC)" } (moment_field("from", &wanted.from)) }
            label { span { "Until (UTC)" } (moment_field("to", &wanted.to)) }
            label.tick { input type="checkbox" name="round" value="1" checked[!wanted.round.is_empty()]; " round the proxy only" }
            button type="submit" { "Search" }
        }
    }
}

fn moment_field(name: &str, value: &str) -> Markup {
    // What a browser shows in such a field has neither a zone nor a `Z`.
    let shown = moment::read(value, &TimeZone::UTC).ok().and_then(|at| show::stamp(Some(&at)));
    let shown = shown.map(|at| at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S").to_string());
    html! { input type="datetime-local" name=(name) step="1" value=[shown]; }
}

fn choice(name: &str, choices: &[(&str, &str)], chosen: &str) -> Markup {
    html! {
        select name=(name) {
            @for (value, words) in choices { option value=(value) selected[*value == chosen] { (words) } }
        }
    }
}

/// Keeps a search.
pub async fn save(State(app): State<App>, posted: Posted) -> Result<Redirect, Fault> {
    let me = posted.signed.person.id;
    let query = Wanted::read(posted.fields.text("query")).query();
    let (name, kept) = (posted.fields.text("name").to_owned(), query.clone());
    app.people.with(move |book| book.save_search(me, &name, &kept)).await?;
    posted.signed.does(&app, "search-keep", posted.fields.text("name"), &query).await?;
    Ok(Redirect::to(&format!("/search?{query}")))
}

/// Forgets one.
pub async fn forget(State(app): State<App>, posted: Posted) -> Result<Redirect, Fault> {
    let me = posted.signed.person.id;
    let name = posted.fields.text("name").to_owned();
    app.people.with(move |book| book.forget_search(me, &name)).await?;
    posted.signed.does(&app, "search-forget", posted.fields.text("name"), "").await?;
    Ok(Redirect::to("/search"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_search_holds_nothing_but_a_search() {
        let query = "contains=a%26b&verdict=refused&page=3.4&evil=https://x&round=1&from=2026-11-22T18:00";
        let kept = Wanted::read(query).query();
        assert_eq!(kept, "contains=a%26b&verdict=refused&round=1&from=2026-11-22T18%3A00");
        assert_eq!(Wanted::read(&kept).contains, "a&b");
    }

    #[test]
    fn a_moment_that_is_none_is_refused_and_none_is_no_limit() {
        let wanted = |from: &str| Wanted { from: from.to_owned(), ..Wanted::default() }.request(1);
        assert_eq!(wanted("").unwrap().since, None);
        assert_eq!(wanted("2026-11-22T18:00").unwrap().since.unwrap().seconds, 1_795_370_400);
        assert!(matches!(wanted("yesterday-ish"), Err(Fault::Bad(_))));
    }
}
