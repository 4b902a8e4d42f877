//! Why somebody wants something: from a comment in a statement, or from what its client calls itself.

/// Longest text in which a comment is looked for, in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// Longest reason that is kept, in letters.
const MAX_REASON: usize = 500;

/// Shortest reason that counts, in letters: `.` is none.
const MIN_REASON: usize = 3;

/// The reason in `/* reason: .. */`. It may stand anywhere outside of literals; where it stands is not looked at, because
/// nothing is decided by it that its writer could not write anyway.
pub fn from_text(text: &[u8]) -> Option<String> {
    let text = &text[..text.len().min(MAX_TEXT)];
    let mut rest = text;
    while let Some(at) = find(rest, b"/*") {
        rest = &rest[at + 2..];
        let end = find(rest, b"*/")?;
        let comment = String::from_utf8_lossy(&rest[..end]);
        if let Some(reason) = after_key(&comment, ':') {
            return Some(reason);
        }
        rest = &rest[end..];
    }
    None
}

/// The reason in an `application_name` such as `psql reason=ticket 4711`.
pub fn from_name(name: &str) -> Option<String> {
    let at = name.to_ascii_lowercase().find("reason=")?;
    kept(&name[at + "reason=".len()..])
}

fn after_key(comment: &str, separator: char) -> Option<String> {
    let comment = comment.trim_start();
    let key = comment.get(.."reason".len())?;
    if !key.eq_ignore_ascii_case("reason") {
        return None;
    }
    kept(comment["reason".len()..].trim_start().strip_prefix(separator)?)
}

/// Whatever is hidden in it is not shown to reviewers as if it were not there: it is left out.
fn kept(reason: &str) -> Option<String> {
    let reason: String =
        reason.trim().chars().filter(|letter| !letter.is_control()).take(MAX_REASON).collect();
    (reason.chars().count() >= MIN_REASON).then_some(reason)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_in_comments_and_names() {
        let text = |text: &str| from_text(text.as_bytes());
        assert_eq!(text("/* reason: ticket 4711 */ DELETE FROM t").as_deref(), Some("ticket 4711"));
        assert_eq!(text("DELETE /* x */ FROM t /*Reason : gdpr*/").as_deref(), Some("gdpr"));
        for none in [
            "DELETE FROM t",
            "/* reason: */ x",
            "/* reason: a",
            "/* reasons: abc */",
            "/* ä */",
            "-- reason: abc",
        ] {
            assert_eq!(text(none), None, "{none}");
        }
        assert_eq!(from_name("psql reason=ticket 4711").as_deref(), Some("ticket 4711"));
        assert_eq!(from_name("Reason=abc").as_deref(), Some("abc"));
        assert_eq!(from_name("psql"), None);
        assert_eq!(
            text(&format!("/* reason: {} */", "ä".repeat(9_999))).unwrap().chars().count(),
            MAX_REASON
        );
    }
}
