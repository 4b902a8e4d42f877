//! What other hosts' agents say of a connection's client: always as reported, always by whom, and never one of several.

use guard_common::{
    api::control::{ClaimedClient, RemoteClient, remote_client::Known},
    audit::v1::Workload,
};
use maud::{Markup, html};

use super::show;

/// Agents that are named in one place; the rest are counted.
const SHOWN: usize = 10;

/// In a word or two, for a list.
pub fn tag(remote: &RemoteClient) -> Markup {
    match (remote.known(), remote.claims.first()) {
        (Known::Reported, Some(claim)) => html! {
            span.tag title=(remote.note) {
                (show::who(claim.workload.as_ref())) ", reported by " (show::text(&claim.host, 40))
                @if claim.uncertain { ", uncertain" }
            }
        },
        (Known::Conflict, _) => html! { span.tag.round title=(remote.note) { "claimed by several agents" } },
        (Known::Unbelievable, _) => html! { span.tag.round title=(remote.note) { "an unbelievable report" } },
        (Known::Reported | Known::Nobody | Known::Unspecified, _) => html! {},
    }
}

/// In a few lines, for a card.
pub fn short(remote: &RemoteClient) -> Markup {
    html! {
        @if remote.claims.is_empty() { p.faint { "Other end: " (remote.note) "." } }
        @else {
            p.meta { (kind(remote)) " " (remote.note) "." }
            @for claim in remote.claims.iter().take(SHOWN) {
                p.meta { (words(claim)) }
                @let command = claim.workload.as_ref().map(|one| one.argv.join(" ")).unwrap_or_default();
                @if !command.is_empty() { pre.command tabindex="0" { code { (show::text(&command, 400)) } } }
            }
        }
    }
}

/// With all that is known of each, for the page of a connection.
pub fn whole(remote: &RemoteClient) -> Markup {
    html! {
        section.card aria-labelledby="reported" {
            div.bar-head {
                h2 #reported { "The other end" }
                (kind(remote))
            }
            p.faint { (remote.note) "." }
            @for claim in remote.claims.iter().take(SHOWN) {
                h3 { (words(claim)) }
                @if let Some(workload) = &claim.workload { (facts(workload)) }
                p.faint.small {
                    "Record " (claim.sequence) " of agent " a href={ "/agents/" (show::text(&claim.agent_id, 40)) } { (show::text(&claim.host, 60)) }
                    ", " (show::time(show::stamp(claim.at.as_ref()))) " by its clock"
                    @if claim.preexisting { "; it was open before that agent began to watch" }
                }
            }
            @if remote.claims.len() > SHOWN { p.faint { "And " (remote.claims.len() - SHOWN) " more." } }
        }
    }
}

fn kind(remote: &RemoteClient) -> Markup {
    match remote.known() {
        Known::Reported => html! { span.tag { "reported" } },
        Known::Conflict => html! { span class="pill refused" { "claimed by several" } },
        Known::Unbelievable => html! { span class="pill refused" { "unbelievable" } },
        Known::Nobody | Known::Unspecified => html! { span.tag { "not reported" } },
    }
}

fn words(claim: &ClaimedClient) -> Markup {
    html! {
        b { (show::who(claim.workload.as_ref())) }
        @if let Some(workload) = &claim.workload {
            @if workload.pid != 0 { " · pid " (workload.pid) }
            @if !workload.user.is_empty() { " · user " (show::text(&workload.user, 40)) }
        }
        " on " (show::text(&claim.host, 60)) " "
        span.tag { "reported" }
        @if claim.uncertain { " " span.tag.round { "uncertain" } }
        @if !claim.own_address { " " span.tag.round { "not an address of its host" } }
    }
}

fn facts(workload: &Workload) -> Markup {
    let pair =
        |name: &'static str, value: String| html! { @if !value.is_empty() { dt { (name) } dd { (value) } } };
    let container = workload.container.clone().unwrap_or_default();
    let pod = workload.pod.clone().unwrap_or_default();
    let ancestry: Vec<String> = workload
        .ancestry
        .iter()
        .rev()
        .take(16)
        .map(|one| show::text(if one.executable.is_empty() { &one.comm } else { &one.executable }, 80))
        .collect();
    html! {
        @if !workload.argv.is_empty() {
            pre.command tabindex="0" aria-label="Command line" { code { (show::text(&workload.argv.join(" "), 2_000)) } }
        }
        dl.facts {
            (pair("program", show::text(&workload.executable, 160)))
            (pair("started by", ancestry.join(" → ")))
            (pair("logged in", show::text(&workload.login_user, 60)))
            (pair("AI agent", show::text(&workload.ai_agent, 60)))
            (pair("CI runner", show::text(&workload.ci_runner, 60)))
            (pair("unit", show::text(&workload.unit, 100)))
            (pair("container", show::text(&format!("{} {}", container.name, container.image), 160).trim().to_owned()))
            (pair("pod", if pod.name.is_empty() { String::new() } else { show::text(&format!("{}/{}", pod.namespace, pod.name), 160) }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_marked_and_nothing_in_it_is_markup() {
        let hostile = "<script>\"'&\u{202e}".to_owned();
        let workload = Workload {
            executable: hostile.clone(),
            argv: vec![hostile.clone()],
            user: hostile.clone(),
            unit: hostile.clone(),
            ..Workload::default()
        };
        let claim = ClaimedClient {
            agent_id: hostile.clone(),
            host: hostile,
            workload: Some(workload),
            own_address: true,
            ..ClaimedClient::default()
        };
        for (known, word) in [
            (Known::Reported, "reported"),
            (Known::Conflict, "several"),
            (Known::Unbelievable, "unbelievable"),
        ] {
            let remote =
                RemoteClient { known: known.into(), claims: vec![claim.clone()], note: "so".to_owned() };
            for page in [tag(&remote), short(&remote), whole(&remote)] {
                let page = page.into_string();
                assert!(page.contains(word), "{page}");
                assert!(!page.contains("<script") && !page.contains('\u{202e}'), "{page}");
            }
        }
        let nobody =
            RemoteClient { known: Known::Nobody.into(), note: "none".to_owned(), claims: Vec::new() };
        assert!(short(&nobody).into_string().contains("none") && tag(&nobody).into_string().is_empty());
    }
}
