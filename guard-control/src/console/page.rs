//! The frame of every page: where one is, what waits, who one is.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::assets::{ICON_ADDRESS, SCRIPT_ADDRESS, STYLE_ADDRESS};
use crate::{
    http::{app::App, signed::Signed},
    people::Right,
};

/// Where one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first page.
    Overview,
    /// What happens now.
    Live,
    /// Access round the proxy.
    Round,
    /// Searching.
    Search,
    /// Statements that wait.
    Approvals,
    /// Agents.
    Agents,
    /// Policies.
    Policies,
    /// Whether the record is whole.
    Verification,
    /// What people did.
    Actions,
    /// People.
    People,
    /// Tokens of machines.
    Tokens,
    /// Oneself.
    Account,
}

impl Place {
    fn entry(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Overview => ("/", "Overview", "M3 12 12 4l9 8M6 10v9h12v-9"),
            Self::Live => ("/live", "Live", "M3 12h4l3-8 4 16 3-8h4"),
            Self::Round => ("/round-the-proxy", "Round the proxy", "M4 18C4 8 20 8 20 18M12 14v6M16 18h4v-4"),
            Self::Search => ("/search", "Search", "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14M16 16l5 5"),
            Self::Approvals => ("/approvals", "Approvals", "M4 12.5 9.5 18 20 6"),
            Self::Agents => ("/agents", "Agents", "M4 5h16v6H4zM4 14h16v6H4zM7.5 8h.01M7.5 17h.01"),
            Self::Policies => ("/policies", "Policies", "M6 3h9l4 4v14H6zM9 12h7M9 16h7M14 3v5h5"),
            Self::Verification => (
                "/verification",
                "Verification",
                "M12 3l8 3v6c0 5-4 8-8 9-4-1-8-4-8-9V6zM8.5 12l2.5 2.5 4.5-5",
            ),
            Self::Actions => {
                ("/actions", "What people did", "M12 7v5l3 2M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18")
            }
            Self::People => (
                "/people",
                "People",
                "M9 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8M2 21c0-5 3-7 7-7s7 2 7 7M16 3a4 4 0 0 1 0 8M18 14c3 1 4 3 4 7",
            ),
            Self::Tokens => ("/tokens", "Tokens", "M15 4a5 5 0 1 0 0 10 5 5 0 0 0 0-10M11 12l-8 8M6 17l2 2"),
            Self::Account => {
                ("/account", "Your account", "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8M4 21c0-5 4-7 8-7s8 2 8 7")
            }
        }
    }
}

const SEEING: [Place; 8] = [
    Place::Overview,
    Place::Live,
    Place::Round,
    Place::Search,
    Place::Approvals,
    Place::Agents,
    Place::Policies,
    Place::Verification,
];

/// A page's head.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Where it is.
    pub place: Place,
    /// Its title.
    pub title: &'a str,
    /// What one can do here, in a sentence.
    pub lead: &'a str,
}

/// A whole page for somebody.
pub fn page(app: &App, signed: &Signed, head: Head<'_>, body: &Markup) -> Markup {
    let waiting = app.fleet.waiting.list(None).len();
    let name = &signed.person.name;
    let shown = if signed.person.full_name.is_empty() { name } else { &signed.person.full_name };
    document(
        head.title,
        &html! {
            a.skip href="#main" { "Skip to the content" }
            div.frame {
                header.side {
                    a.brand href="/" { (mark()) span { "guard" } }
                    nav aria-label="Pages" {
                        ul {
                            @for place in SEEING { (entry(place, head.place, waiting)) }
                            @if signed.may(Right::SeePeoplesActions) { (entry(Place::Actions, head.place, 0)) }
                            @if signed.may(Right::Administer) {
                                (entry(Place::People, head.place, 0))
                                (entry(Place::Tokens, head.place, 0))
                            }
                        }
                    }
                    div.me {
                        a href="/account" aria-current=[(head.place == Place::Account).then_some("page")] {
                            span.avatar aria-hidden="true" { (initial(shown)) }
                            span.name { (shown) small { (signed.person.roles) } }
                        }
                        form method="post" action="/sign-out" {
                            (form_token(signed))
                            button.quiet type="submit" { "Sign out" }
                        }
                    }
                }
                main #main tabindex="-1" {
                    div.head {
                        h1 { (head.title) }
                        @if !head.lead.is_empty() { p.lead { (head.lead) } }
                    }
                    (body)
                }
            }
        },
    )
}

fn entry(place: Place, here: Place, waiting: usize) -> Markup {
    let (address, name, icon) = place.entry();
    html! {
        li {
            a href=(address) aria-current=[(place == here).then_some("page")] {
                (glyph(icon)) span { (name) }
                @if place == Place::Approvals && waiting > 0 {
                    span.badge { (waiting) span.unseen { " waiting" } }
                }
            }
        }
    }
}

/// A drawing of lines, 24 by 24.
pub fn glyph(path: &'static str) -> Markup {
    html! { svg.glyph viewBox="0 0 24 24" aria-hidden="true" focusable="false" { path d=(path) {} } }
}

fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 32 32" aria-hidden="true" focusable="false" {
            path d="M16 2 28 6.5V16c0 7.5-5.5 12-12 14C9.500 28 4 23.500 4 16V6.500z" {}
            path.inner d="M10 13c0-1.500 2.700-2.700 6-2.700s6 1.200 6 2.700-2.700 2.700-6 2.700-6-1.200-6-2.700v6.500c0 1.500 2.700 2.700 6 2.700s6-1.200 6-2.700V13" {}
        }
    }
}

fn initial(name: &str) -> String {
    name.chars().next().map_or_else(|| "?".to_owned(), |letter| letter.to_uppercase().to_string())
}

/// The hidden field that proves that a form is from here.
pub fn form_token(signed: &Signed) -> Markup {
    html! { input type="hidden" name="form" value=(signed.form_token); }
}

/// A page for nobody in particular, such as the one for signing in.
pub fn bare(title: &str, body: &Markup) -> Markup {
    document(
        title,
        &html! {
            main.bare #main {
                a.brand href="/" { (mark()) span { "guard" } }
                (body)
            }
        },
    )
}

/// A sentence alone on a page.
pub fn alone(title: &str, sentence: &str) -> Markup {
    bare(
        title,
        &html! {
            section.card {
                h1 { (title) }
                p { (sentence) }
                p { a.button href="/" { "To the overview" } }
            }
        },
    )
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · guard" }
                link rel="icon" href=(ICON_ADDRESS.as_str());
                link rel="stylesheet" href=(STYLE_ADDRESS.as_str());
                script src=(SCRIPT_ADDRESS.as_str()) defer {}
            }
            body { (body) }
        }
    }
}

/// Where there is nothing to see yet: what would be here, and how it comes here.
pub fn empty(title: &str, body: &Markup) -> Markup {
    html! {
        div.empty {
            (PreEscaped("<svg class=\"drawing\" viewBox=\"0 0 120 60\" aria-hidden=\"true\" focusable=\"false\"><path d=\"M6 46h26l8-26 14 34 10-22 6 14h44\"/><circle cx=\"114\" cy=\"46\" r=\"3\"/></svg>"))
            h2 { (title) }
            (body)
        }
    }
}

/// A note above a page's content: something was done, or is wrong.
pub fn note(kind: &'static str, body: &Markup) -> Markup {
    html! { div class={ "note " (kind) } role="status" { (body) } }
}

/// Where people sign in, to come to `wanted` after that.
pub fn sign_in_address(wanted: &str) -> String {
    if wanted.is_empty() || wanted == "/" {
        return "/sign-in".to_owned();
    }
    let encoded: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
    format!("/sign-in?to={encoded}")
}

/// An address of this console and of no other place; the overview where it is not.
pub fn own_address(wanted: &str) -> &str {
    let own = wanted.starts_with('/')
        && !wanted.starts_with("//")
        && !wanted.contains(['\\', '\r', '\n', '\t', '\0'])
        && wanted.len() <= 2_048
        && wanted.is_ascii();
    if own { wanted } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere_after_signing_in() {
        for good in ["/", "/approvals/a/b", "/search?contains=a%2Fb"] {
            assert_eq!(own_address(good), good);
        }
        for bad in ["https://evil", "//evil", "/\\evil", "/a\r\nSet-Cookie: x", "", "javascript:1", "/ä"] {
            assert_eq!(own_address(bad), "/", "{bad}");
        }
        assert_eq!(sign_in_address("/search?a=b&c"), "/sign-in?to=%2Fsearch%3Fa%3Db%26c");
    }
}
