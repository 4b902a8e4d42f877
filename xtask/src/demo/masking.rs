//! The step in which three people read the same rows and see different things.

use anyhow::Result;
use guard_tests::{Account, Site};

use super::show::Show;

/// What the demo adds to the policies built into the agent: who sees more than nothing.
pub const POLICY: &str = r#"@id("desk-sees-a-part")
@reason("the desk recognises callers")
@mask("partial")
permit (principal, action == Guard::Action::"reveal", resource)
when { principal.user == "daemon" && resource.tags.contains("pii") };

@id("billing-sees-everything")
@reason("billing writes letters")
permit (principal, action == Guard::Action::"reveal", resource)
when { principal.user == "nobody" };
"#;

const PATRONS: &str = "CREATE TABLE patrons (id int PRIMARY KEY, full_name text, email text, card_number text);\n\
    INSERT INTO patrons VALUES (1, 'Philippa Quackenbush', 'philippa@feathers.example', '4111 1111 1111 1111'),\n\
    (2, 'Zebulon Pike', 'zebulon.pike@mountains.example', '5500 0000 0000 0004');\n";

const READ: &str = "SELECT * FROM patrons ORDER BY id;\n";

/// Values that only those may see who are permitted.
const CLEAR: [&str; 4] = ["Quackenbush", "philippa", "Zebulon", "1111 1111"];

/// The same SELECT by three people.
pub fn step(show: &mut Show, site: &Site) -> Result<()> {
    show.section(
        "Sensitive values stay on the host",
        "Nothing says which columns these are: their names and values do. Who may see them, policies say.",
    );
    let psql = site.proxied();
    psql.display(PATRONS)?.expect_ok("psql")?;
    show.command(&format!("{} -c \"{}\"", psql.shown(), READ.trim()));
    let masked = psql.display(READ)?;
    show.output(&masked.stdout);
    let nothing = |text: &str| !CLEAR.iter().any(|value| text.contains(value));
    let hidden = masked.ok() && masked.stdout.contains("(2 rows)") && nothing(&masked.stdout);
    show.check("nobody sees them unless a policy says so", hidden, &masked.stderr);
    let round =
        "SELECT upper(full_name), to_jsonb(p), email || '' FROM patrons p;\nCOPY patrons TO STDOUT;\n";
    let round = psql.display(round)?;
    show.output(&round.stdout);
    let hidden = round.ok() && nothing(&round.stdout) && !round.stdout.contains("PHILIPPA");
    show.check("nor by functions, JSON, concatenation or COPY", hidden, &round.stderr);

    for (name, what, shows) in [
        ("daemon", "whom a policy shows a part sees a part", "@feathers.example"),
        ("nobody", "whom a policy permits it sees the values", "Philippa Quackenbush"),
    ] {
        let Some(account) = Account::named(name)? else {
            show.output(&format!("This host has no account `{name}` to read as: left out."));
            continue;
        };
        show.command(&format!("{} -c \"{}\"   -- as the user {name}", psql.shown(), READ.trim()));
        let seen = psql.display_as(&account, READ)?;
        show.output(&seen.stdout);
        let right = seen.stdout.contains(shows) && (name == "nobody" || !seen.stdout.contains("philippa@"));
        show.check(what, right, &seen.stderr);
    }
    let record = site.wait_for("outcomes", "what was masked and what was shown", |body| {
        let text = body.to_string();
        text.contains("patrons.email") && text.contains("billing-sees-everything")
    });
    show.found("the record says who saw what, and no value", record);
    Ok(())
}
