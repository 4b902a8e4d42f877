//! Signing in and out: with a password, or by an identity provider's word.

use std::net::SocketAddr;

use axum::{
    Extension,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use serde::Deserialize;

use super::page;
use crate::{
    http::{
        Peer,
        app::App,
        fault::Fault,
        metrics::Metrics,
        signed::{Fields, Posted, cookie, set_cookie},
    },
    people::{Person, book::Denied, password::MAX_BYTES, record::Actor},
};

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    to: String,
}

/// The page.
pub async fn page(
    State(app): State<App>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let wanted = page::own_address(&asked.to);
    if let Some(cookie) = cookie(&app, &headers)
        && app.people.with(move |book| book.session(&cookie)).await?.is_some()
    {
        return Ok(Redirect::to(wanted).into_response());
    }
    Ok(form(&app, wanted, None).into_response())
}

fn form(app: &App, wanted: &str, problem: Option<&str>) -> Markup {
    let to: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
    page::bare(
        "Sign in",
        &html! {
            section.card.sign-in {
                h1 { "Sign in" }
                @if let Some(problem) = problem { div.note.bad role="alert" { (problem) } }
                @if let Some(oidc) = &app.oidc {
                    p { a.button.wide href={ "/sign-in/elsewhere?to=" (to) } { (oidc.label()) } }
                    p.or { span { "or with a password" } }
                }
                form.stack method="post" action="/sign-in" {
                    input type="hidden" name="to" value=(wanted);
                    label { span { "Name" } input type="text" name="name" required maxlength="64" autocomplete="username" autocapitalize="none" autofocus[problem.is_none()]; }
                    label { span { "Password" } input type="password" name="password" required maxlength=(MAX_BYTES) autocomplete="current-password"; }
                    button.wide type="submit" { "Sign in" }
                }
            }
            p.faint.small { "The first admin's password is on the output of " code { "guard-control serve" } "; "
                code { "guard-control people reset admin" } " gives another one." }
        },
    )
}

fn actor(app: &App, peer: SocketAddr, headers: &HeaderMap, person: &str, by: &str) -> Actor {
    Actor {
        person: person.to_owned(),
        by: by.to_owned(),
        token: String::new(),
        address: app.client(peer, headers).to_string(),
    }
}

/// With a password.
pub async fn password(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Fault> {
    if !app.passwords.admits(app.client(peer, &headers)) {
        Metrics::count(&app.metrics.limited);
        return Err(Fault::TooMany);
    }
    let fields = Fields::read(&body);
    let (name, password) = (fields.text("name").to_owned(), fields.text("password").to_owned());
    let wanted = page::own_address(fields.text("to"));
    let actor = actor(&app, peer, &headers, &name, "password");
    match app.people.with(move |book| book.sign_in(&name, &password)).await? {
        Ok(person) => begin(&app, &actor, &person, wanted).await,
        Err(denied) => {
            Metrics::count(&app.metrics.sign_ins_failed);
            let problem = match denied {
                Denied::Wrong => "That name and password do not belong together.".to_owned(),
                Denied::Wait(seconds) => format!("Too many wrong passwords: try again in {seconds} seconds."),
                Denied::Disabled => "This account is switched off: ask an admin.".to_owned(),
            };
            app.recorder.refused(&actor, "sign-in", &actor.person, &problem).await?;
            Ok((StatusCode::UNAUTHORIZED, form(&app, wanted, Some(&problem))).into_response())
        }
    }
}

/// Begins a session; the one before, if any, is not taken over.
async fn begin(app: &App, actor: &Actor, person: &Person, wanted: &str) -> Result<Response, Fault> {
    let actor = Actor { person: person.name.clone(), ..actor.clone() };
    let detail = if person.must_change { "with the password for the first time" } else { "" };
    app.recorder.done(&actor, "sign-in", &person.name, detail).await?;
    let (id, by, address) = (person.id, actor.by.clone(), actor.address.clone());
    let cookie = app.people.with(move |book| book.begin(id, &by, &address)).await?;
    let headers = [(header::SET_COOKIE, set_cookie(app, &cookie))];
    Ok((headers, Redirect::to(wanted)).into_response())
}

/// To the identity provider. Whoever goes has told nothing yet that could be guessed.
pub async fn elsewhere(State(app): State<App>, Query(asked): Query<Asked>) -> Result<Response, Fault> {
    let oidc = app.oidc.as_ref().ok_or(Fault::NotFound("such page"))?;
    let (address, state) = oidc.begin(page::own_address(&asked.to)).await.map_err(Fault::Elsewhere)?;
    // Back only to the browser that went: nobody is signed in as somebody else by a link.
    let headers = [(header::SET_COOKIE, oidc_cookie(&app, &state))];
    Ok((headers, Redirect::to(&address)).into_response())
}

fn oidc_cookie_name(app: &App) -> &'static str {
    if app.secure { "__Secure-guard-oidc" } else { "guard-oidc" }
}

fn oidc_cookie(app: &App, state: &str) -> String {
    let secure = if app.secure { "; Secure" } else { "" };
    let age = if state.is_empty() { 0 } else { 600 };
    format!("{}={state}; Path=/sign-in; HttpOnly; SameSite=Lax; Max-Age={age}{secure}", oidc_cookie_name(app))
}

/// What the identity provider sends along.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Back {
    code: String,
    state: String,
    error: String,
}

/// Back from there.
pub async fn back(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    Query(back): Query<Back>,
) -> Result<Response, Fault> {
    let oidc = app.oidc.as_ref().ok_or(Fault::NotFound("such page"))?;
    if !app.passwords.admits(app.client(peer, &headers)) {
        return Err(Fault::TooMany);
    }
    let actor = actor(&app, peer, &headers, "", "oidc");
    let own = crate::http::signed::named_cookie(&headers, oidc_cookie_name(&app)).unwrap_or_default();
    let came = if !back.error.is_empty() {
        Err(format!("the provider says `{}`", super::show::text(&back.error, 60)))
    } else if own.is_empty() || own != back.state {
        Err("this browser did not ask for it, or too long ago: sign in again".to_owned())
    } else {
        oidc.finish(&back.state, back.code).await
    };
    let (claimed, wanted) = match came {
        Ok(came) => came,
        Err(problem) => {
            Metrics::count(&app.metrics.sign_ins_failed);
            app.recorder.refused(&actor, "sign-in", "", &problem).await?;
            return Err(Fault::Elsewhere(problem));
        }
    };
    let name = claimed.name.clone();
    let person = app
        .people
        .with(move |book| {
            let rights = (&claimed.roles, &claimed.groups[..]);
            book.sign_in_from_elsewhere(&claimed.subject, &claimed.name, &claimed.full_name, rights)
        })
        .await;
    let problem = match person {
        Ok(Ok(person)) if person.roles.is_empty() => {
            "none of your groups has a role here: ask an admin".to_owned()
        }
        Ok(Ok(person)) => return begin(&app, &actor, &person, page::own_address(&wanted)).await,
        Ok(Err(_)) => "this account is switched off: ask an admin".to_owned(),
        Err(crate::people::PeopleError::Request(problem)) => problem,
        Err(error) => return Err(error.into()),
    };
    Metrics::count(&app.metrics.sign_ins_failed);
    app.recorder.refused(&Actor { person: name, ..actor }, "sign-in", "", &problem).await?;
    Err(Fault::Elsewhere(problem))
}

/// Out.
pub async fn out(State(app): State<App>, posted: Posted) -> Result<Response, Fault> {
    let signed = posted.signed;
    signed.does(&app, "sign-out", &signed.person.name, "").await?;
    let cookie = signed.cookie.clone();
    app.people.with(move |book| book.end(&cookie)).await?;
    Ok(([(header::SET_COOKIE, set_cookie(&app, ""))], Redirect::to("/sign-in")).into_response())
}
