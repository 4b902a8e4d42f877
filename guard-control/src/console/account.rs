//! Oneself: password, roles, tokens for one's own programs.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};

use super::{
    page::{self, Head, Place},
    people, show,
};
use crate::{
    http::{
        app::App,
        fault::Fault,
        signed::{Posted, Signed, set_cookie},
    },
    people::{PeopleError, Role, Roles, password::MIN_LETTERS},
};

/// The page.
pub async fn page(State(app): State<App>, signed: Signed) -> Result<Markup, Fault> {
    whole(&app, &signed, &html! {}).await
}

async fn whole(app: &App, signed: &Signed, said: &Markup) -> Result<Markup, Fault> {
    let me = signed.person.id;
    let tokens = app.people.with(move |book| book.tokens(Some(me))).await?;
    let first = signed.person.must_change;
    let title = if first { "Choose your password" } else { "Your account" };
    let head = Head {
        place: Place::Account,
        title,
        lead: if first { "The one you were given was for the first time." } else { "" },
    };
    let body = html! {
        (said)
        @if signed.person.local { (passwords(signed, first)) }
        @if !first {
            section.card {
                h2 { "What you may do" }
                ul.plain { @for role in signed.person.roles.iter() { li { b { (role.name()) } " " (role.meaning()) } } }
                @if !signed.person.groups.is_empty() { p { "You decide for " b { (show::text(&signed.person.groups.join(", "), 300)) } "." } }
            }
            section.card {
                h2 { "Your tokens" }
                p.faint { "For your own programs and the command line. One can never do more than you may." }
                (people::token_table(&tokens, signed, "/account/tokens/revoke"))
            }
            form.card.stack method="post" action="/account/tokens" {
                (page::form_token(signed))
                h2 { "A new token" }
                div.grid {
                    label { span { "What it is for" } input type="text" name="name" required maxlength="64" autocomplete="off"; }
                    label { span { "Days that it lasts" } input type="number" name="days" value="30" min="1" max="365"; }
                }
                fieldset {
                    legend { "What it may do" }
                    @for role in signed.person.roles.iter() {
                        label.tick { input type="checkbox" name="role" value=(role.name()) checked[role == Role::Viewer]; span { b { (role.name()) } " " (role.meaning()) } }
                    }
                }
                button type="submit" { "Make it" }
            }
        }
    };
    Ok(page::page(app, signed, head, &body))
}

fn passwords(signed: &Signed, first: bool) -> Markup {
    html! {
        form.card.stack method="post" action="/account/password" {
            (page::form_token(signed))
            @if !first { h2 { "Password" } }
            input type="text" name="username" value=(signed.person.name) autocomplete="username" hidden;
            label { span { (if first { "The password you were given" } else { "Old password" }) } input type="password" name="old" required autocomplete="current-password"; }
            label { span { "New password, at least " (MIN_LETTERS) " letters" } input type="password" name="new" required minlength=(MIN_LETTERS) autocomplete="new-password"; }
            label { span { "The new one again" } input type="password" name="again" required minlength=(MIN_LETTERS) autocomplete="new-password"; }
            button type="submit" { "Save" }
        }
    }
}

/// Chooses a password. Every session ends; this browser gets a new one.
pub async fn password(State(app): State<App>, posted: Posted) -> Result<Response, Fault> {
    let Posted { signed, fields } = posted;
    let (old, new) = (fields.text("old").to_owned(), fields.text("new").to_owned());
    let wrong = |problem: &str| page::note("bad", &html! { (problem) });
    if new != fields.text("again") {
        return Ok(whole(&app, &signed, &wrong("The new passwords differ.")).await?.into_response());
    }
    // Guessing the old one is as slow as anywhere.
    if signed.actor.address.parse().is_ok_and(|address| !app.passwords.admits(address)) {
        return Err(Fault::TooMany);
    }
    let (me, address) = (signed.person.id, signed.actor.address.clone());
    signed.does(&app, "password-change", &signed.person.name, "").await?;
    let chosen = app
        .people
        .with(move |book| {
            book.choose_password(me, &old, &new)?;
            book.begin(me, "password", &address)
        })
        .await;
    match chosen {
        Ok(cookie) => {
            let headers = [(header::SET_COOKIE, set_cookie(&app, &cookie))];
            Ok((headers, Redirect::to("/")).into_response())
        }
        Err(PeopleError::Request(problem)) => {
            app.recorder.refused(&signed.actor, "password-change", &signed.person.name, &problem).await?;
            Ok(whole(&app, &signed, &wrong(&problem)).await?.into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a token for one's own programs.
pub async fn make_token(State(app): State<App>, posted: Posted) -> Result<Markup, Fault> {
    let Posted { signed, fields } = posted;
    let name = fields.text("name").to_owned();
    let roles = fields.all("role").iter().map(|name| name.parse()).collect::<Result<Roles, String>>();
    let (roles, days) = (roles.map_err(Fault::Bad)?, people::days(&fields));
    signed.does(&app, "token-make", &name, &format!("their own, roles {roles}, {days} days")).await?;
    let (made, owner) = (name.clone(), signed.person.clone());
    let token = app
        .people
        .with(move |book| book.make_token(&made, Some(&owner), &roles, (&owner.name, days)))
        .await?;
    whole(&app, &signed, &people::once(&format!("The token {name}."), &token)).await
}

/// Ends one of one's own.
pub async fn revoke_token(State(app): State<App>, posted: Posted) -> Result<Markup, Fault> {
    let id: i64 = posted.fields.text("id").parse().map_err(|_| Fault::NotFound("such token"))?;
    let me = posted.signed.person.id;
    posted.signed.does(&app, "token-revoke", &format!("token {id}"), "their own").await?;
    app.people.with(move |book| book.revoke(id, Some(me))).await?;
    whole(&app, &posted.signed, &page::note("good", &html! { "Revoked: it is worth nothing any more." }))
        .await
}
