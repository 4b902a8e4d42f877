//! `guard-control people`: who may sign in, from the host itself. For the first steps, and for when nobody can sign in.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use guard_common::audit::{
    display::short,
    v1::{PersonAction, person_action::Outcome},
};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{
    output,
    place::{Place, StoreUrl},
};
use crate::{
    people::{Book, Person, Roles},
    store::postgres::Url,
};

/// Options of `people`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    guard-control people list\n  \
    guard-control people add ann --roles approver --groups dba,oncall\n  \
    guard-control people reset admin\n\n\
    The server may be running meanwhile; it takes what is done here into its record.")]
pub struct PeopleArgs {
    #[command(subcommand)]
    what: What,
    /// Folder of the store
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "GUARD_CONTROL_DATA",
        default_value = "/var/lib/guard-control"
    )]
    data: PathBuf,
    /// PostgreSQL instead of the embedded store, as `guard-control serve --store`
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "GUARD_CONTROL_STORE",
        hide_env_values = true,
        value_parser = StoreUrl
    )]
    store: Option<Url>,
    /// Certificate authorities of PostgreSQL, PEM
    #[arg(long, global = true, value_name = "FILE", env = "GUARD_CONTROL_STORE_CA")]
    store_ca: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show who may sign in
    List {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Add somebody, and print a password for the first time
    Add {
        /// Their name: that of their account on the hosts
        name: String,
        /// viewer, approver, auditor, admin; several with commas
        #[arg(long, default_value = "viewer")]
        roles: Roles,
        /// Groups for which they decide, as policies name them; with commas
        #[arg(long, value_delimiter = ',')]
        groups: Vec<String>,
        /// Their name as people call them
        #[arg(long, default_value = "")]
        full_name: String,
    },
    /// Print a password for the first time again; ends their sessions
    Reset {
        /// Their name
        name: String,
    },
    /// Change what somebody may do
    Change {
        /// Their name
        name: String,
        /// All their roles from now on
        #[arg(long)]
        roles: Option<Roles>,
        /// All their groups from now on, with commas
        #[arg(long, value_delimiter = ',')]
        groups: Option<Vec<String>>,
        /// Whether they may sign in
        #[arg(long)]
        enabled: Option<bool>,
    },
}

/// Does it.
pub fn run(args: &PeopleArgs) -> anyhow::Result<()> {
    match &args.store {
        None => {
            anyhow::ensure!(
                args.data.is_dir(),
                "there is no store in `{}`: name the folder that `guard-control serve --data` uses",
                args.data.display()
            );
            does(&Book::open(&args.data)?, &args.what)
        }
        Some(_) => {
            let place = Place::of_people(args.data.clone(), args.store.clone(), args.store_ca.clone());
            // Its threads drive the store's connections while this one waits.
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let opened = runtime.block_on(place.open())?;
            does(&Book::shared(opened.store.clone(), runtime.handle().clone()), &args.what)
        }
    }
}

fn does(book: &Book, what: &What) -> anyhow::Result<()> {
    match what {
        What::List { json: true } => output::json_lines(book.people()?.iter().map(as_json)),
        What::List { json: false } => list(&book.people()?),
        What::Add { name, roles, groups, full_name } => {
            note(book, "person-add", name, &format!("roles {roles}, groups {}", groups.join(", ")))?;
            let password = book.add(name, full_name, roles, groups)?;
            output::write(format!("the password of {name} for the first time: {password}\n").as_bytes())
        }
        What::Reset { name } => {
            let person = book.named(name)?;
            note(book, "password-reset", name, "")?;
            let password = book.reset(person.id)?;
            output::write(format!("the password of {name} for the first time: {password}\n").as_bytes())
        }
        What::Change { name, roles, groups, enabled } => {
            let person = book.named(name)?;
            let roles = roles.clone().unwrap_or(person.roles);
            let groups = groups.clone().unwrap_or(person.groups);
            let disabled = enabled.map_or(person.disabled, |enabled| !enabled);
            let detail = format!("roles {roles}, groups {}, switched off: {disabled}", groups.join(", "));
            note(book, "person-change", name, &detail)?;
            Ok(book.change(person.id, &roles, &groups, disabled)?)
        }
    }
}

/// For the record: by whoever runs this.
fn note(book: &Book, action: &str, subject: &str, detail: &str) -> anyhow::Result<()> {
    let who = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_default();
    let action = PersonAction {
        action: action.to_owned(),
        person: short(&who, 64),
        by: "command-line".to_owned(),
        subject: subject.to_owned(),
        detail: detail.to_owned(),
        outcome: Outcome::Done.into(),
        ..PersonAction::default()
    };
    book.leave_for_record(&action).context("what is done here cannot be noted for the record")
}

/// Without anything secret.
fn as_json(person: &Person) -> Result<Value, serde_json::Error> {
    let roles: Vec<_> = person.roles.iter().map(|role| role.name()).collect();
    let seen = person.seen.and_then(|at| Timestamp::from_second(at).ok()).map(|at| at.to_string());
    Ok(json!({
        "name": person.name, "full_name": person.full_name, "roles": roles, "groups": person.groups,
        "local": person.local, "disabled": person.disabled, "seen": seen,
    }))
}

fn list(people: &[Person]) -> anyhow::Result<()> {
    let mut table = output::table(&["name", "roles", "groups", "signs in", "last"]);
    for person in people {
        let seen = person.seen.and_then(|at| Timestamp::from_second(at).ok());
        let seen = seen.map_or_else(
            || "never".to_owned(),
            |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
        );
        let how = match (person.disabled, person.local) {
            (true, _) => "switched off",
            (false, true) => "with a password",
            (false, false) => "elsewhere",
        };
        table.add_row([
            Cell::new(short(&person.name, 64)),
            Cell::new(person.roles.to_string()),
            Cell::new(short(&person.groups.join(", "), 100)),
            Cell::new(how),
            Cell::new(seen),
        ]);
    }
    output::print(&table)
}
