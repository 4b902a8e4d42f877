//! What people did here, for those who check on them.

use axum::extract::{Query, State};
use guard_common::audit::v1::person_action::Outcome;
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    page::{self, Head, Place},
    show,
};
use crate::{
    http::{app::App, fault::Fault, signed::Signed},
    people::Right,
};

/// Actions on a page.
const PAGE: usize = 100;

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    before: Option<u64>,
}

/// The page.
pub async fn page(
    State(app): State<App>,
    signed: Signed,
    Query(asked): Query<Asked>,
) -> Result<Markup, Fault> {
    signed.must(&app, Right::SeePeoplesActions, "see-actions", "").await?;
    let actions = app.readings.actions(asked.before, PAGE).await?;
    let head = Head {
        place: Place::Actions,
        title: "What people did",
        lead: "Everything that somebody does here is a record in a chain of its own, written before it is done.",
    };
    let body = html! {
        div.table tabindex="0" role="region" aria-label="Actions" {
            table {
                thead { tr { th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "Did" } th scope="col" { "To what" } th scope="col" { "From" } th scope="col" { "Record" } } }
                tbody {
                    @for one in &actions {
                        @let action = &one.action;
                        tr {
                            td { (show::time(show::stamp(one.at.as_ref()))) }
                            th scope="row" { (show::text(&action.person, 64)) @if !action.token.is_empty() { span.faint { " by token " (show::text(&action.token, 64)) } } }
                            td {
                                (show::text(&action.action, 40))
                                @if action.outcome() == Outcome::Refused { " " span.pill.refused { "refused" } }
                            }
                            td { (show::text(&action.subject, 200)) @if !action.detail.is_empty() { div.faint { (show::text(&action.detail, 300)) } } }
                            td { (show::text(&action.address, 60)) span.faint { " " (show::text(&action.by, 20)) } }
                            td.number { (one.sequence) }
                        }
                    }
                }
            }
        }
        @if actions.len() == PAGE {
            @if let Some(last) = actions.last() { p { a.button href={ "/actions?before=" (last.sequence) } { "Older" } } }
        }
    };
    Ok(page::page(&app, &signed, head, &body))
}
