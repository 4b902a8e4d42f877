//! Whole catalogs, from rows as a server sends them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::sample::{self, SHOP, database, read, row, rows_of, shop};
use super::*;
use crate::sql::lineage::{Column, Target};

fn evidence(catalog: &Catalog, relation: Oid, number: i16) -> Option<Evidence> {
    catalog.sensitive(relation, number).map(|sensitive| sensitive.evidence)
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(1000)
}

#[test]
fn what_people_say_comes_before_what_names_say() {
    let tag = |column: &str, kind: Option<&str>, sensitive| ColumnTag {
        column: column.to_owned(),
        database: None,
        kind: kind.map(str::to_owned),
        tags: vec!["hr".to_owned()],
        sensitive,
    };
    let patterns = [
        tag("public.staff.*", Some("income"), true),
        tag("hr.people.ssn", None, false),
        tag("public.orders.note", None, true),
    ];
    let database = database(patterns.iter().map(|tag| Pattern::try_from(tag).unwrap()).collect());
    let mut rows = rows_of(SHOP);
    rows.push(row(&["d", "16400", "3", "guard: none"]));
    rows.push(row(&["d", "16400", "7", "what we know. Guard: health, private"]));
    rows.push(row(&["d", "16402", "2", "guard: email"]));
    rows.push(row(&["d", "16404", "0", "guard: internal"]));
    rows.push(row(&["d", "16403", "3", "guard: email"]));
    read(&database, &rows, &[]);
    let catalog = database.catalog();
    assert!(catalog.is_cleared(16400, 3) && catalog.sensitive(16400, 3).is_none(), "customers.email");
    let note = catalog.sensitive(16400, 7).unwrap();
    assert_eq!((note.kind, note.evidence), (DataKind::Health, Evidence::Comment));
    assert_eq!(note.tags().collect::<Vec<_>>(), ["pii", "health", "special", "private"]);
    assert_eq!(catalog.sensitive(16402, 2).unwrap().kind, DataKind::Income, "configured before commented");
    assert!(catalog.is_cleared(16403, 3), "hr.people.ssn");
    assert_eq!(catalog.sensitive(16404, 1).unwrap().kind, DataKind::Tagged, "the whole table");
    assert_eq!(catalog.sensitive(16401, 4).unwrap().tags().collect::<Vec<_>>(), ["hr"]);
    assert_eq!(evidence(&catalog, 11002, 3), Some(Evidence::BuiltIn));
}

#[test]
fn columns_that_only_people_have_say_what_the_table_is() {
    let database = database(Vec::new());
    let text = "16420 public.t1 r: called text, ssn text\n16421 public.t2 r: called text, email text\n";
    read(&database, &rows_of(text), &[]);
    let catalog = database.catalog();
    assert_eq!(catalog.sensitive(16420, 1).map(|found| found.kind), Some(DataKind::PersonName));
    assert!(catalog.sensitive(16421, 1).is_none(), "companies have addresses too");
}

#[test]
fn sensitivity_passes_on_to_views_heirs_keys_and_generated_columns() {
    let database = database(Vec::new());
    let text = SHOP.to_owned()
        + "16410 public.part r: id int4, who text\n\
           16411 public.letters r: id int4, address text\n\
           16412 public.folded r: email text, small text generated, note text\n\
           16413 public.v1 v: a text, b text\n\
           16414 public.v2 v: c text, d int4, e int4\n\
           16415 public.broken v: a text\n";
    let mut rows = rows_of(&text);
    rows.push(row(&["k", "16411", "16400", "2", "3"]));
    rows.push(row(&["i", "16410", "16404"]));
    rows.push(row(&["d", "16404", "2", "guard: person_name"]));
    rows.push(row(&["g", "16412", "2", "lower(email)"]));
    let heir = rows_of("16416 public.heir r: a text\n");
    rows.extend(heir.into_iter().filter(|row| row.get(6) != Some(&b't')));
    rows.push(row(&["i", "16416", "16404"]));
    let definitions = [
        row(&["v", "16413", "SELECT small, note FROM public.folded"]),
        row(&["v", "16414", "SELECT v.a || 'x', 1, count(v.a) FROM public.v1 v"]),
        row(&["v", "16415", "SELECT FROM WHERE"]),
    ];
    read(&database, &rows, &definitions);
    let catalog = database.catalog();
    assert_eq!(evidence(&catalog, 16411, 2), Some(Evidence::Related), "a key to customers.email");
    assert_eq!(evidence(&catalog, 16416, 1), Some(Evidence::Related), "a column of the parent");
    assert_eq!(evidence(&catalog, 16412, 2), Some(Evidence::Derived));
    assert_eq!(evidence(&catalog, 16412, 3), None);
    assert_eq!(evidence(&catalog, 16413, 1), Some(Evidence::Derived));
    assert_eq!(evidence(&catalog, 16413, 2), None);
    assert_eq!(evidence(&catalog, 16414, 1), Some(Evidence::Derived), "a view of a view");
    assert_eq!((evidence(&catalog, 16414, 2), evidence(&catalog, 16414, 3)), (None, None));
    assert_eq!(catalog.sensitive(16414, 1).unwrap().kind, DataKind::Email);
}

#[test]
fn one_session_reads_at_a_time() {
    let database = database(Vec::new());
    assert!(database.is_due(Instant::now()), "never read");
    let first = database.begin(Instant::now()).unwrap();
    assert!(!database.is_due(later()) && database.begin(later()).is_none());
    database.changed();
    assert!(database.begin(later()).is_none());
    drop(first);
    assert_eq!((database.health().failures, database.health().readings), (0, 0));
    assert!(database.is_due(Instant::now()), "its session has left: the next one reads");
    read(&database, &rows_of(SHOP), &[]);
    assert_eq!(database.health().readings, 1);
    let soon = Instant::now() + Duration::from_secs(60);
    assert!(!database.is_due(soon));
    database.changed();
    assert!(database.is_due(soon), "something changed");
}

#[test]
fn what_changes_during_a_reading_is_read_again() {
    let database = database(Vec::new());
    let mut reader = database.begin(Instant::now()).unwrap();
    database.changed();
    assert_eq!(reader.on_message(b'Z', b"I"), Progress::Done);
    assert!(database.is_due(Instant::now() + Duration::from_secs(1)));
}

#[test]
fn failures_are_seen_and_tried_again_at_growing_distances() {
    let database = database(Vec::new());
    let mut waits = Vec::new();
    for _ in 0..12 {
        database.changed();
        let began = Instant::now();
        let due = (0..400_000).step_by(250).find(|ms| database.is_due(began + Duration::from_millis(*ms)));
        waits.push(due.unwrap());
        let mut reader = database.begin(later()).unwrap();
        let error = b"SERROR\0C42501\0Mpermission denied for table pg_class\0\0";
        assert_eq!(reader.on_message(b'E', error), Progress::Wait);
        assert_eq!(reader.on_message(b'Z', b"I"), Progress::Done);
    }
    assert!(waits.is_sorted() && waits[0] == 0 && waits[11] <= 300_000, "{waits:?}");
    let health = database.health();
    assert_eq!(health.failures, 12);
    assert_eq!(health.last_failure.as_deref(), Some("42501: permission denied for table pg_class"));
    assert!(!database.catalog().is_complete());
}

#[test]
fn definitions_that_cannot_be_read_leave_the_rest() {
    let database = database(Vec::new());
    let mut reader = database.begin(later()).unwrap();
    for row in rows_of(SHOP) {
        reader.on_message(b'D', &row);
    }
    assert!(matches!(reader.on_message(b'Z', b"I"), Progress::Send(_)));
    reader.on_message(b'E', b"SERROR\0C55P03\0Mcanceling statement due to lock timeout\0\0");
    assert_eq!(reader.on_message(b'Z', b"I"), Progress::Done);
    let catalog = database.catalog();
    assert!(catalog.relation(16400).is_some() && !catalog.is_complete());
    assert!(database.is_due(Instant::now() + Duration::from_secs(6)), "again soon");
}

#[test]
fn no_row_makes_it_panic_and_none_takes_more_than_the_bounds() {
    let whole = rows_of(SHOP);
    let mut facts = Facts::new(Limits::default());
    for body in &whole {
        for end in 0..body.len() {
            rows::take(&body[..end], &mut facts);
            let mut broken = body.clone();
            broken[end] ^= 0xff;
            rows::take(&broken, &mut facts);
        }
    }
    assert!(!facts.complete);
    let limits = Limits { relations: 3, columns: 20, bytes: 2_000 };
    let mut facts = Facts::new(limits);
    whole.iter().for_each(|body| rows::take(body, &mut facts));
    assert!(!facts.complete && facts.bytes <= 2_000);
    let names: Arc<dyn Names> = Arc::new(sample::FewNames);
    let known = build::Known { patterns: &[], names: &names, learned: &Learned::default() };
    let base = build::build(facts, &known);
    assert!(base.relations.len() <= 3 && !base.complete);
    assert!(base.relations.values().all(|relation| !relation.columns.is_empty()));
}

fn target(table: &str, column: &str, relation: Option<Oid>) -> Target {
    let source = Column {
        id: Some((16400, 3)),
        schema: "public".into(),
        table: "customers".into(),
        column: "email".into(),
        kind: DataKind::Email,
    };
    Target { schema: "".into(), table: table.into(), relation, column: column.into(), sources: vec![source] }
}

#[test]
fn what_is_written_elsewhere_is_learned_and_outlives_readings_and_names() {
    let database = shop();
    let version = database.version();
    database.learn(&[target("staff_copy", "note", Some(16406)), target("fresh", "x", None)]);
    assert!(database.version() > version);
    let catalog = database.catalog();
    assert_eq!(evidence(&catalog, 16406, 2), Some(Evidence::Learned));
    assert_eq!(catalog.sensitive_by_name("fresh", "x").unwrap().kind, DataKind::Email);
    assert_eq!(catalog.sensitive_by_name("fresh", "y"), None);
    let same = database.version();
    database.learn(&[target("staff_copy", "note", Some(16406))]);
    assert_eq!(database.version(), same, "nothing new");

    let renamed = SHOP
        .replace("staff_copy r: id int4, note", "renamed r: id int4, remark")
        .replace("name text, email text", "name text, contact text");
    let rows = rows_of(&(renamed + "16420 public.fresh r: x text, y text\n"));
    for _ in 0..2 {
        read(&database, &rows, &[]);
        let catalog = database.catalog();
        assert_eq!(evidence(&catalog, 16406, 2), Some(Evidence::Learned), "renamed.remark");
        assert_eq!(evidence(&catalog, 16400, 3), Some(Evidence::Learned), "customers.contact was email");
        assert_eq!(evidence(&catalog, 16420, 1), Some(Evidence::Learned), "fresh.x");
        assert_eq!(evidence(&catalog, 16420, 2), None);
    }
    // Dropped and made anew it is another one.
    let rows = rows_of(&SHOP.replace("16406", "16499"));
    read(&database, &rows, &[]);
    assert_eq!(evidence(&database.catalog(), 16499, 2), None);
}

#[test]
fn a_mark_knows_its_catalog_alone() {
    let (one, other) = (shop().catalog(), shop().catalog());
    assert!(one.mark().is_of(&one) && one.mark().is_of(&one.clone()));
    assert!(!one.mark().is_of(&other));
}

#[test]
fn nothing_that_could_be_refused_is_asked() {
    let limits = Limits::default();
    for text in [queries::facts(&limits), queries::definitions(&limits)] {
        assert!(!text.contains('\\'), "its meaning would depend on a setting");
        for word in ["pg_authid", "pg_statistic", "information_schema.", "pg_roles", "FOR UPDATE"] {
            assert!(!text.contains(word), "{word}");
        }
        let statement = crate::sql::Classifier::new(crate::sql::Limits::default())
            .classify(text.as_bytes(), &crate::sql::Modes::default());
        let effects = statement.effects.iter().filter(|effect| effect.action.as_str() != "select");
        let others: Vec<String> =
            effects.map(|effect| format!("{} {}", effect.action, effect.object)).collect();
        assert!(others.iter().all(|effect| effect.starts_with("set ")), "{others:?}");
    }
}
