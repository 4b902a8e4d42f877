//! What webhooks are sent.

use guard_common::api::{agent::ApprovalRequest, control::FleetApproval};
use serde_json::{Value, json};

use super::{Event, link};
use crate::{console::show, http::app::App, people::secret};

/// Letters of a statement in a message.
const SHORT: usize = 600;

/// `t=<seconds since 1970>,v1=<hex>`: HMAC-SHA-256 over `<seconds>.<body>`.
pub fn signature(secret: &str, at: i64, body: &str) -> String {
    let tag = secret::sign(secret.as_bytes(), format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex::encode(tag))
}

/// For programs.
pub fn json(app: &App, event: Event, change: &FleetApproval) -> Value {
    let request = change.request.clone().unwrap_or_default();
    let time = |at: Option<&pbjson_types::Timestamp>| show::stamp(at).map(|at| at.to_string());
    let needs =
        request.needs.iter().flat_map(|needs| &needs.requirements).map(
            |one| json!({ "policy": one.policy, "groups": one.groups, "approvers": one.approvers.max(1) }),
        );
    json!({
        "event": event.name(),
        "request_id": request.id,
        "agent_id": change.agent_id,
        "host": change.host,
        "statement": request.text,
        "effects": request.effects_in_words,
        "server": request.server,
        "environment": request.environment,
        "database": request.database,
        "database_user": request.db_user,
        "workload": show::who(request.workload.as_ref()),
        "policy": request.policy,
        "reason": request.reason,
        "justification": request.justification,
        "needs": needs.collect::<Vec<_>>(),
        "opened": time(request.opened.as_ref()),
        "expires": time(request.expires.as_ref()),
        "url": link::link(&app.link_key, &app.url, &change.agent_id, &request.id),
    })
}

/// For chats: blocks as Slack has them. What a client wrote cannot mention people, link or break out of its block.
pub fn slack(app: &App, event: Event, change: &FleetApproval) -> Value {
    let request = change.request.clone().unwrap_or_default();
    let headline = format!("{} on {}", words(event), plain(&change.host, 60));
    let url = link::link(&app.link_key, &app.url, &change.agent_id, &request.id);
    let statement = plain(&request.text, SHORT).replace('`', "'");
    let mut blocks = vec![
        json!({ "type": "header", "text": { "type": "plain_text", "text": show::text(&headline, 140) } }),
        json!({ "type": "section", "text": { "type": "mrkdwn", "text": format!("```{statement}```") } }),
        json!({ "type": "section", "fields": fields(&request) }),
    ];
    if event == Event::Waiting {
        blocks.push(json!({ "type": "actions", "elements": [{
            "type": "button", "style": "primary", "url": url, "text": { "type": "plain_text", "text": "Look at it" },
        }] }));
    }
    json!({ "text": headline, "blocks": blocks })
}

fn words(event: Event) -> &'static str {
    match event {
        Event::Waiting => "A statement waits for approval",
        Event::Approved => "A statement was approved",
        Event::Denied => "A statement was denied",
        Event::Ran => "An approved statement ran",
        Event::Expired => "Nobody decided in time on a statement",
        Event::Withdrawn => "A statement that waited was withdrawn",
    }
}

fn fields(request: &ApprovalRequest) -> Vec<Value> {
    let who = format!("{} as {}@{}", show::who(request.workload.as_ref()), request.db_user, request.database);
    let given = if request.justification.is_empty() { "none given" } else { &request.justification };
    let all = [
        ("Who", who.as_str()),
        ("Policy", &request.policy),
        ("Why it waits", &request.reason),
        ("Reason", given),
    ];
    let field = |(name, value): (&str, &str)| json!({ "type": "mrkdwn", "text": format!("*{name}*\n{}", plain(value, 200)) });
    all.into_iter().map(field).collect()
}

/// A client's words for Slack's markup: without anything that it would act on.
fn plain(words: &str, limit: usize) -> String {
    let mut text = String::new();
    for letter in show::text(words, limit).chars() {
        match letter {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            letter => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_covers_time_and_body() {
        let signed = signature("0123456789abcdef", 1_700_000_000, "{}");
        // By `printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef`.
        let tag = "e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e";
        assert_eq!(signed, format!("t=1700000000,v1={tag}"));
        assert_ne!(signed, signature("0123456789abcdef", 1_700_000_001, "{}"));
        assert_ne!(signed, signature("0123456789abcdef", 1_700_000_000, "{ }"));
        assert_ne!(signed, signature("0123456789abcdeg", 1_700_000_000, "{}"));
    }

    #[test]
    fn a_statement_cannot_call_everybody_in_a_chat() {
        assert_eq!(
            plain("<!channel> & <https://evil|x>\u{202e}", 99),
            "&lt;!channel&gt; &amp; &lt;https://evil|x&gt;\\u{202e}"
        );
    }
}
