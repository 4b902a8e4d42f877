//! Who may do what, and tokens of machines: for admins.

use axum::extract::{Path, State};
use maud::{Markup, html};

use super::{
    page::{self, Head, Place},
    show,
};
use crate::{
    http::{
        app::App,
        fault::Fault,
        signed::{Fields, Posted, Signed},
    },
    people::{Person, Right, Role, Roles, tokens::Token},
};

/// Days that a token lasts where nothing else is said.
const DAYS: i64 = 90;

/// Everybody.
pub async fn list(State(app): State<App>, signed: Signed) -> Result<Markup, Fault> {
    signed.must(&app, Right::Administer, "see-people", "").await?;
    everybody(&app, &signed, &html! {}).await
}

async fn everybody(app: &App, signed: &Signed, said: &Markup) -> Result<Markup, Fault> {
    let people = app.people.with(|book| book.people()).await?;
    let head =
        Head { place: Place::People, title: "People", lead: "Who may sign in here, and what they may do." };
    let body = html! {
        (said)
        div.table tabindex="0" role="region" aria-label="People" {
            table {
                thead { tr { th scope="col" { "Name" } th scope="col" { "Roles" } th scope="col" { "Groups" } th scope="col" { "Signs in" } th scope="col" { "Last" } } }
                tbody { @for person in &people { (row(person)) } }
            }
        }
        form.card.stack method="post" action="/people" {
            (page::form_token(signed))
            h2 { "Add somebody" }
            p.faint { "They get a password for the first time, which is shown once. Use the name of their account on the hosts: nobody decides on a statement that their own account has asked for." }
            div.grid {
                label { span { "Name" } input type="text" name="name" required maxlength="64" autocomplete="off"; }
                label { span { "Full name" } input type="text" name="full_name" maxlength="128" autocomplete="off"; }
                label { span { "Groups, between commas" } input type="text" name="groups" autocomplete="off" placeholder="dba, oncall"; }
            }
            (ticks(&Roles::from_iter([Role::Viewer])))
            button type="submit" { "Add" }
        }
    };
    Ok(page::page(app, signed, head, &body))
}

fn row(person: &Person) -> Markup {
    html! {
        tr {
            th scope="row" { a href={ "/people/" (person.id) } { (show::text(&person.name, 64)) } @if !person.full_name.is_empty() { div.faint { (show::text(&person.full_name, 100)) } } }
            td { (person.roles) @if person.disabled { " " span.pill.refused { "switched off" } } }
            td { (show::text(&person.groups.join(", "), 200)) }
            td { @if person.local { "with a password" } @else { "elsewhere" } @if person.must_change { " " span.tag { "not yet" } } }
            td { (show::ago(person.seen.and_then(show::seconds))) }
        }
    }
}

fn ticks(chosen: &Roles) -> Markup {
    html! {
        fieldset {
            legend { "Roles" }
            @for role in Role::ALL {
                label.tick {
                    input type="checkbox" name="role" value=(role.name()) checked[chosen.has(role)];
                    span { b { (role.name()) } " " (role.meaning()) }
                }
            }
        }
    }
}

fn roles(fields: &Fields) -> Result<Roles, Fault> {
    fields.all("role").iter().map(|name| name.parse()).collect::<Result<Roles, String>>().map_err(Fault::Bad)
}

fn groups(fields: &Fields) -> Vec<String> {
    let all = fields.text("groups").split(',').map(|group| group.trim().to_owned());
    all.filter(|group| !group.is_empty()).collect()
}

/// A secret, shown once.
pub fn once(what: &str, secret: &str) -> Markup {
    page::note(
        "good",
        &html! {
            p { (what) " It is shown this once:" }
            pre tabindex="0" { code data-once="" { (secret) } }
        },
    )
}

/// Adds somebody.
pub async fn add(State(app): State<App>, posted: Posted) -> Result<Markup, Fault> {
    let name = posted.fields.text("name").to_owned();
    posted.signed.must(&app, Right::Administer, "person-add", &name).await?;
    let (roles, groups) = (roles(&posted.fields)?, groups(&posted.fields));
    let full_name = posted.fields.text("full_name").to_owned();
    posted
        .signed
        .does(&app, "person-add", &name, &format!("roles {roles}, groups {}", groups.join(", ")))
        .await?;
    let added = name.clone();
    let password = app.people.with(move |book| book.add(&added, &full_name, &roles, &groups)).await?;
    let said = once(&format!("The password of {name} for the first time."), &password);
    everybody(&app, &posted.signed, &said).await
}

/// One person.
pub async fn page(State(app): State<App>, signed: Signed, Path(id): Path<i64>) -> Result<Markup, Fault> {
    signed.must(&app, Right::Administer, "see-people", &id.to_string()).await?;
    one(&app, &signed, id, &html! {}).await
}

async fn one(app: &App, signed: &Signed, id: i64, said: &Markup) -> Result<Markup, Fault> {
    let person = app.people.with(move |book| book.person(id)).await?;
    let title = show::text(&person.name, 64);
    let head =
        Head { place: Place::People, title: &title, lead: "What they may do, and whether they may sign in." };
    let body = html! {
        (said)
        form.card.stack method="post" action={ "/people/" (id) } {
            (page::form_token(signed))
            (ticks(&person.roles))
            label { span { "Groups, between commas" } input type="text" name="groups" value=(person.groups.join(", ")) autocomplete="off"; }
            @if !person.local { p.faint { "Roles and groups come from elsewhere each time that they sign in: what is changed here lasts until then." } }
            label.tick { input type="checkbox" name="disabled" value="1" checked[person.disabled]; span { "may not sign in" } }
            button type="submit" { "Save" }
        }
        @if person.local {
            form.card.stack method="post" action={ "/people/" (id) "/reset" } {
                (page::form_token(signed))
                p { "A password for the first time again: the old one and all their sessions end." }
                button.quiet type="submit" { "Reset the password" }
            }
        }
    };
    Ok(page::page(app, signed, head, &body))
}

/// Changes somebody.
pub async fn change(State(app): State<App>, Path(id): Path<i64>, posted: Posted) -> Result<Markup, Fault> {
    let person = app.people.with(move |book| book.person(id)).await?;
    posted.signed.must(&app, Right::Administer, "person-change", &person.name).await?;
    let (roles, groups) = (roles(&posted.fields)?, groups(&posted.fields));
    let disabled = !posted.fields.text("disabled").is_empty();
    let detail = format!("roles {roles}, groups {}, switched off: {disabled}", groups.join(", "));
    posted.signed.does(&app, "person-change", &person.name, &detail).await?;
    app.people.with(move |book| book.change(id, &roles, &groups, disabled)).await?;
    one(&app, &posted.signed, id, &page::note("good", &html! { "Saved." })).await
}

/// Resets somebody's password.
pub async fn reset(State(app): State<App>, Path(id): Path<i64>, posted: Posted) -> Result<Markup, Fault> {
    let person = app.people.with(move |book| book.person(id)).await?;
    posted.signed.must(&app, Right::Administer, "password-reset", &person.name).await?;
    posted.signed.does(&app, "password-reset", &person.name, "").await?;
    let password = app.people.with(move |book| book.reset(id)).await?;
    let said = once(&format!("The password of {} for the first time.", person.name), &password);
    one(&app, &posted.signed, id, &said).await
}

/// Tokens.
pub async fn tokens(State(app): State<App>, signed: Signed) -> Result<Markup, Fault> {
    signed.must(&app, Right::Administer, "see-tokens", "").await?;
    all_tokens(&app, &signed, &html! {}).await
}

async fn all_tokens(app: &App, signed: &Signed, said: &Markup) -> Result<Markup, Fault> {
    let tokens = app.people.with(|book| book.tokens(None)).await?;
    let head = Head {
        place: Place::Tokens,
        title: "Tokens",
        lead: "Programs come with a token; people make their own under their account.",
    };
    let body = html! {
        (said)
        (token_table(&tokens, signed, "/tokens/revoke"))
        form.card.stack method="post" action="/tokens" {
            (page::form_token(signed))
            h2 { "A token for a machine" }
            div.grid {
                label { span { "What it is for" } input type="text" name="name" required maxlength="64" autocomplete="off"; }
                label { span { "Role" } select name="role" { option value="viewer" { "viewer" } option value="auditor" { "auditor" } } }
                label { span { "Days that it lasts" } input type="number" name="days" value=(DAYS) min="1" max="365"; }
            }
            button type="submit" { "Make it" }
        }
    };
    Ok(page::page(app, signed, head, &body))
}

/// Tokens in a table, each with a way to end it.
pub fn token_table(tokens: &[Token], signed: &Signed, revoke: &str) -> Markup {
    html! {
        @if tokens.is_empty() { p.faint { "There is no token." } }
        @else {
            div.table tabindex="0" role="region" aria-label="Tokens" {
                table {
                    thead { tr { th scope="col" { "For" } th scope="col" { "Whose" } th scope="col" { "Roles" } th scope="col" { "Ends" } th scope="col" { "Used" } th scope="col" { span.unseen { "End it" } } } }
                    tbody {
                        @for token in tokens {
                            tr {
                                th scope="row" { (show::text(&token.name, 64)) }
                                td { (token.person.as_deref().map_or_else(|| "a machine's".to_owned(), |name| show::text(name, 64))) }
                                td { (token.roles) }
                                td { (show::time(show::seconds(token.expires))) }
                                td { (show::ago(token.used.and_then(show::seconds))) }
                                td {
                                    form method="post" action=(revoke) {
                                        (page::form_token(signed))
                                        input type="hidden" name="id" value=(token.id);
                                        button.quiet type="submit" { "Revoke" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Days in a form.
pub fn days(fields: &Fields) -> i64 {
    fields.text("days").parse().unwrap_or(DAYS)
}

/// Makes one for a machine.
pub async fn make_token(State(app): State<App>, posted: Posted) -> Result<Markup, Fault> {
    let name = posted.fields.text("name").to_owned();
    posted.signed.must(&app, Right::Administer, "token-make", &name).await?;
    let (roles, days) = (roles(&posted.fields)?, days(&posted.fields));
    posted
        .signed
        .does(&app, "token-make", &name, &format!("a machine's, roles {roles}, {days} days"))
        .await?;
    let (made, by) = (name.clone(), posted.signed.person.name.clone());
    let token = app.people.with(move |book| book.make_token(&made, None, &roles, (&by, days))).await?;
    all_tokens(&app, &posted.signed, &once(&format!("The token {name}."), &token)).await
}

/// Ends one.
pub async fn revoke_token(State(app): State<App>, posted: Posted) -> Result<Markup, Fault> {
    let id: i64 = posted.fields.text("id").parse().map_err(|_| Fault::NotFound("such token"))?;
    posted.signed.must(&app, Right::Administer, "token-revoke", &id.to_string()).await?;
    posted.signed.does(&app, "token-revoke", &format!("token {id}"), "").await?;
    app.people.with(move |book| book.revoke(id, None)).await?;
    all_tokens(&app, &posted.signed, &page::note("good", &html! { "Revoked: it is worth nothing any more." }))
        .await
}
