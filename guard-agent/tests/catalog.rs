//! The catalog as a real server tells it, to a role that may do nothing but log in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use guard_agent::{
    catalog::{Catalog, Catalogs, Database, Evidence, Limits, Names, Progress, Settings, TypeShape},
    sql::{Classifier, Limits as SqlLimits, Modes, SearchPath, lineage},
};
use guard_policy::vocabulary::DataKind;
use guard_tests::{
    Postgres,
    skip::{self, Need},
};

const SCHEMA: &str = r#"
CREATE ROLE nobody_special LOGIN;
CREATE DOMAIN mail AS text CHECK (VALUE LIKE '%@%');
CREATE TYPE place AS (street text, town text);
CREATE TABLE customers (id int PRIMARY KEY, email text UNIQUE, phone varchar(20), tel text, home place, mails mail[],
    dropped text, folded text GENERATED ALWAYS AS (lower(email)) STORED, comment text);
ALTER TABLE customers DROP COLUMN dropped;
COMMENT ON COLUMN customers.tel IS 'how to reach them. guard: phone, marketing';
COMMENT ON COLUMN customers.phone IS 'guard: none';
CREATE TABLE letters (id int, recipient text REFERENCES customers (email), body text);
CREATE TABLE events (at date, email text) PARTITION BY RANGE (at);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
ALTER TABLE events ADD COLUMN who text;
COMMENT ON COLUMN events.who IS 'guard: person_name';
CREATE VIEW contacts AS SELECT id, email AS c, upper(email) || tel AS u, comment FROM customers;
CREATE VIEW over_contacts AS SELECT c AS d, (SELECT max(u) FROM contacts) AS m, 1 AS one FROM contacts;
CREATE MATERIALIZED VIEW stored AS SELECT d FROM over_contacts;
CREATE SCHEMA "Odd Schema";
CREATE TABLE "Odd Schema"."Odd Table" ("E Mail" text, email text);
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM public;
"#;

#[derive(Debug)]
struct Emails;

impl Names for Emails {
    fn kind(&self, _table: &str, column: &str, _ty: &TypeShape<'_>) -> Option<DataKind> {
        match column {
            "email" | "mails" => Some(DataKind::Email),
            "phone" => Some(DataKind::Phone),
            _ => None,
        }
    }
}

/// A connection that speaks just enough.
struct Connection(TcpStream);

impl Connection {
    fn open(server: &Postgres, user: &str) -> Self {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let parameters = format!("user\0{user}\0database\0postgres\0\0");
        let mut startup = u32::try_from(parameters.len() + 8).unwrap().to_be_bytes().to_vec();
        startup.extend_from_slice(&196_608_u32.to_be_bytes());
        startup.extend_from_slice(parameters.as_bytes());
        stream.write_all(&startup).unwrap();
        let mut connection = Self(stream);
        while connection.message().0 != b'Z' {}
        connection
    }

    fn message(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        self.0.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    fn query(&mut self, text: &str) -> Vec<String> {
        let mut message = vec![b'Q'];
        message.extend_from_slice(&u32::try_from(text.len() + 5).unwrap().to_be_bytes());
        message.extend_from_slice(text.as_bytes());
        message.push(0);
        self.0.write_all(&message).unwrap();
        let mut rows = Vec::new();
        loop {
            match self.message() {
                (b'D', body) => rows.push(String::from_utf8_lossy(&body[6..]).into_owned()),
                (b'E', body) => panic!("{}", String::from_utf8_lossy(&body)),
                (b'Z', _) => return rows,
                _ => {}
            }
        }
    }

    fn read(&mut self, database: &Arc<Database>) {
        database.changed();
        let mut reader = database.begin(Instant::now() + Duration::from_secs(600)).expect("due");
        self.0.write_all(&reader.request()).unwrap();
        loop {
            let (tag, body) = self.message();
            assert!(tag != b'E', "{}", String::from_utf8_lossy(&body));
            match reader.on_message(tag, &body) {
                Progress::Wait => {}
                Progress::Send(bytes) => self.0.write_all(&bytes).unwrap(),
                Progress::Done => return,
            }
        }
    }
}

/// `email derived`: what a column holds and how that is known.
fn says(catalog: &Catalog, table: &str, column: &str) -> String {
    let found = catalog.find("", table, &SearchPath::Initial, "x").relations;
    let [relation] = found.as_slice() else { panic!("{table}: {} relations", found.len()) };
    let column = relation.by_name(column).unwrap_or_else(|| panic!("{table}.{column}"));
    match catalog.sensitive(relation.oid, column.number) {
        Some(sensitive) => {
            let own: Vec<&str> = sensitive.tags.iter().map(AsRef::as_ref).collect();
            format!("{} {} {}", sensitive.kind, sensitive.evidence.as_str(), own.join(","))
        }
        None if catalog.is_cleared(relation.oid, column.number) => "cleared".to_owned(),
        None => "-".to_owned(),
    }
}

fn shows(catalog: &Catalog, text: &str) -> Vec<usize> {
    let statement = Classifier::new(SqlLimits::default()).classify(text.as_bytes(), &Modes::default());
    let world = lineage::World { catalog, path: &SearchPath::Initial, user: "x" };
    match &lineage::of(&statement, &world).parts[0].outputs {
        lineage::Outputs::Columns(columns) => columns.iter().map(|column| column.sources.len()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_servers_catalogue_is_read_by_a_role_that_may_do_nothing() {
    if skip::without(&[Need::Postgres]) {
        return;
    }
    let server = Postgres::start().unwrap();
    let owner = server.psql(guard_tests::postgres::OWNER, "postgres");
    owner.query(SCHEMA).unwrap().expect_ok("the schema").unwrap();
    let settings =
        Settings { interval: Duration::from_secs(300), limits: Limits::default(), names: Arc::new(Emails) };
    let database = Catalogs::new(settings, HashMap::new()).database("main", "postgres");
    let mut connection = Connection::open(&server, "nobody_special");
    connection.query("SET search_path = pg_temp, public");
    let settings_before =
        connection.query("SELECT current_setting('search_path') || current_setting('statement_timeout')");
    connection.read(&database);
    let settings_after =
        connection.query("SELECT current_setting('search_path') || current_setting('statement_timeout')");
    assert_eq!(settings_before, settings_after, "nothing leaks into the session");

    let catalog = database.catalog();
    let health = database.health();
    assert!(catalog.is_complete() && health.readings == 1 && health.failures == 0, "{health:?}");
    for (table, column, expected) in [
        ("customers", "id", "-"),
        ("customers", "email", "email column name "),
        ("customers", "phone", "cleared"),
        ("customers", "tel", "phone comment marketing"),
        ("customers", "mails", "email column name "),
        ("customers", "folded", "email derived "),
        ("letters", "recipient", "email related "),
        ("letters", "body", "-"),
        ("events_1", "email", "email column name "),
        ("events_1", "who", "person_name related "),
        ("contacts", "c", "email derived "),
        ("contacts", "comment", "-"),
        ("over_contacts", "d", "email derived "),
        ("over_contacts", "one", "-"),
        ("stored", "d", "email derived "),
        ("Odd Table", "email", "email column name "),
        ("pg_authid", "rolpassword", "password_hash built-in "),
        ("pg_stats", "most_common_vals", "tagged built-in "),
    ] {
        assert_eq!(says(&catalog, table, column), expected, "{table}.{column}");
    }
    assert!(says(&catalog, "over_contacts", "m").ends_with("derived "), "of two kinds");
    let customers = catalog.find("", "customers", &SearchPath::Initial, "x").relations[0];
    assert!(customers.by_name("dropped").is_none());
    assert!(customers.by_name("folded").unwrap().generated);
    assert_eq!(customers.by_name("comment").unwrap().number, 9, "numbers stay when a column goes");
    let home = catalog.type_of(customers.by_name("home").unwrap().type_oid).unwrap();
    assert_eq!((home.kind, &*home.name), ('c', "place"));
    assert_eq!(catalog.relation(home.relation).unwrap().columns.len(), 2);
    let mails = catalog.type_of(customers.by_name("mails").unwrap().type_oid).unwrap();
    let mail = catalog.type_of(mails.element).unwrap();
    assert_eq!((mails.category, mail.kind, mail.base), ('A', 'd', 25));
    assert_eq!(shows(&catalog, "SELECT * FROM customers"), [0, 1, 0, 1, 0, 1, 1, 0]);
    assert_eq!(shows(&catalog, "SELECT u, c, to_json(x) FROM contacts x"), [1, 1, 2]);
    assert_eq!(shows(&catalog, "COPY customers TO STDOUT"), [0, 1, 0, 1, 0, 1, 0]);

    what_is_renamed_stays_sensitive(&server, &mut connection, &database);
}

fn what_is_renamed_stays_sensitive(server: &Postgres, connection: &mut Connection, database: &Arc<Database>) {
    let owner = server.psql(guard_tests::postgres::OWNER, "postgres");
    let before = database.version();
    let ddl = "ALTER TABLE customers RENAME COLUMN email TO id2; ALTER TABLE letters RENAME TO notes;
        CREATE TABLE copied AS SELECT id2 AS plain FROM customers";
    owner.query(ddl).unwrap().expect_ok("renaming").unwrap();
    let statement = Classifier::new(SqlLimits::default())
        .classify(b"CREATE TABLE copied AS SELECT email AS plain FROM customers", &Modes::default());
    let catalog = database.catalog();
    let world = lineage::World { catalog: &catalog, path: &SearchPath::Initial, user: "x" };
    database.learn(&lineage::of(&statement, &world).parts[0].targets);
    assert_eq!(database.catalog().sensitive_by_name("copied", "plain").unwrap().evidence, Evidence::Learned);
    for _ in 0..2 {
        connection.read(database);
        let catalog = database.catalog();
        assert_eq!(says(&catalog, "customers", "id2"), "email learned ");
        assert_eq!(says(&catalog, "notes", "recipient"), "email learned ");
        assert_eq!(says(&catalog, "copied", "plain"), "email learned ");
        assert_eq!(says(&catalog, "contacts", "c"), "email derived ");
    }
    assert!(database.version() > before);
    // A name for one that is gone means nothing for its successor.
    owner.query("DROP TABLE copied; CREATE TABLE copied (plain text)").unwrap().expect_ok("anew").unwrap();
    connection.read(database);
    assert_eq!(says(&database.catalog(), "copied", "plain"), "-");
}
