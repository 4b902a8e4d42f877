//! Who asks. A request's cookie or token enters; a person who has signed in leaves, or a fault does.
//!
//! INVARIANT: a form reaches its page only as [`Posted`], which has compared the form's token with the session's.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{
    RequestExt,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};

use super::{Peer, app::App, fault::Fault};
use crate::people::{Person, Right, record::Actor, secret};

/// Where a session's cookie is looked for. The prefix makes browsers take it over TLS alone, for this host alone.
const COOKIE: &str = "__Host-guard";
/// Over plain HTTP, on loopback.
const PLAIN_COOKIE: &str = "guard";

/// Somebody who has signed in.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Who.
    pub person: Person,
    /// The same for the record.
    pub actor: Actor,
    /// What their forms have to repeat.
    pub form_token: String,
    /// Their session's cookie; empty for tokens.
    pub cookie: String,
}

impl Signed {
    /// Whether they may.
    pub fn may(&self, right: Right) -> bool {
        self.person.roles.may(right)
    }

    /// Where they may not, that is recorded too: `action` on `subject`.
    pub async fn must(
        &self,
        app: &App,
        right: Right,
        action: &'static str,
        subject: &str,
    ) -> Result<(), Fault> {
        if self.may(right) {
            return Ok(());
        }
        app.recorder.refused(&self.actor, action, subject, &format!("it is for {}", right.held_by())).await?;
        Err(Fault::Forbidden(right))
    }

    /// They do it now.
    pub async fn does(
        &self,
        app: &App,
        action: &'static str,
        subject: &str,
        detail: &str,
    ) -> Result<(), Fault> {
        Ok(app.recorder.done(&self.actor, action, subject, detail).await?)
    }
}

/// The peer's address of a request.
pub fn peer(parts: &Parts) -> SocketAddr {
    parts.extensions.get::<Peer>().map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)), |peer| peer.0)
}

/// The session's cookie of a request.
pub fn cookie(app: &App, headers: &HeaderMap) -> Option<String> {
    named_cookie(headers, if app.secure { COOKIE } else { PLAIN_COOKIE })
}

/// One cookie of a request.
pub fn named_cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
}

/// The header that gives a browser its session's cookie, or takes it away where it is empty.
pub fn set_cookie(app: &App, value: &str) -> String {
    let (name, secure) = if app.secure { (COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
    let age = if value.is_empty() { "; Max-Age=0" } else { "" };
    // Lax: links in messages lead here from elsewhere. Forms have tokens.
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}")
}

impl FromRequestParts<App> for Signed {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Fault> {
        let signed = who(parts, app).await?;
        // Everything but choosing a password waits until there is one.
        if signed.person.must_change
            && !matches!(parts.uri.path(), "/account" | "/account/password" | "/sign-out")
        {
            return Err(Fault::MustChange);
        }
        let own = parts.uri.path().starts_with("/account") || parts.uri.path() == "/sign-out";
        match signed.person.roles.is_empty() && !own {
            true => Err(Fault::Forbidden(Right::See)),
            false => Ok(signed),
        }
    }
}

async fn who(parts: &Parts, app: &App) -> Result<Signed, Fault> {
    let wanted = match parts.method.as_str() {
        "GET" => parts.uri.path_and_query().map_or("/", |wanted| wanted.as_str()).to_owned(),
        _ => "/".to_owned(),
    };
    let Some(cookie) = cookie(app, &parts.headers) else { return Err(Fault::NotSignedIn(wanted)) };
    let address = app.client(peer(parts), &parts.headers).to_string();
    let looked_up = cookie.clone();
    let found = app.people.with(move |book| book.session(&looked_up)).await?;
    let Some((person, by)) = found else { return Err(Fault::NotSignedIn(wanted)) };
    let actor = Actor { person: person.name.clone(), by, token: String::new(), address };
    Ok(Signed { person, actor, form_token: secret::form_token(&cookie), cookie })
}

/// Somebody who comes with an API token, or with a session.
#[derive(Clone, Debug)]
pub struct Caller(pub Signed);

impl FromRequestParts<App> for Caller {
    type Rejection = crate::api::ApiFault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            let signed = Signed::from_request_parts(parts, app).await?;
            // A page elsewhere could send a browser's cookie along: what changes something needs the form's token.
            let same = parts
                .headers
                .get("x-guard-form")
                .is_some_and(|token| secret::same(token.as_bytes(), signed.form_token.as_bytes()));
            return if parts.method.is_safe() || same { Ok(Self(signed)) } else { Err(Fault::Form.into()) };
        };
        let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        let client = app.client(peer(parts), &parts.headers);
        let found = match token {
            Some(token) => {
                app.people.with(move |book| book.bearer(token.trim())).await.map_err(Fault::from)?
            }
            None => None,
        };
        let Some((person, token)) = found else {
            // Guessing is as slow as with passwords.
            if !app.passwords.admits(client) {
                return Err(Fault::TooMany.into());
            }
            return Err(Fault::NotSignedIn(String::new()).into());
        };
        if person.roles.is_empty() {
            return Err(Fault::Forbidden(Right::See).into());
        }
        let actor =
            Actor { person: person.name.clone(), by: "token".to_owned(), token, address: client.to_string() };
        Ok(Self(Signed { person, actor, form_token: String::new(), cookie: String::new() }))
    }
}

/// The fields of a form. A field that comes twice counts the first time.
#[derive(Clone, Debug, Default)]
pub struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    /// Reads a form's body.
    pub fn read(body: &[u8]) -> Self {
        let mut fields = Self::default();
        for (name, value) in url::form_urlencoded::parse(body) {
            fields.0.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        fields
    }

    /// One field; empty where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(|values| values.first()).map_or("", String::as_str)
    }

    /// All values of a field, as of boxes that were ticked.
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

/// A form of somebody who has signed in, sent from here.
#[derive(Debug)]
pub struct Posted {
    /// Who sent it.
    pub signed: Signed,
    /// What it says.
    pub fields: Fields,
}

impl FromRequest<App> for Posted {
    type Rejection = Fault;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, Fault> {
        let signed = request.extract_parts_with_state::<Signed, App>(app).await?;
        let body = Bytes::from_request(request, app).await;
        let fields = Fields::read(&body.map_err(|error| Fault::Bad(error.body_text()))?);
        match secret::same(fields.text("form").as_bytes(), signed.form_token.as_bytes()) {
            true => Ok(Self { signed, fields }),
            false => Err(Fault::Form),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_browsers_write_them() {
        let fields = Fields::read(b"name=a+b%3Cc&role=viewer&role=admin&empty=&%FF");
        assert_eq!(fields.text("name"), "a b<c");
        assert_eq!(fields.all("role"), ["viewer", "admin"]);
        assert_eq!((fields.text("empty"), fields.text("none")), ("", ""));
    }
}
