//! The store's tables, as a list of migrations.
//!
//! A database of any earlier version is brought up to date at opening; one of a later version is refused.

use rusqlite::{Connection, TransactionBehavior};

use super::{
    StoreError,
    matter::Matter,
    row::Columns,
    sqlite::{INSERT, Numbers, insert_record},
    tally::SLOT,
};

/// One per version, applied in order. Never changed once released: add another.
const MIGRATIONS: [&str; 5] = [
    // A record's id is `agent << 44 | sequence` ([`super::id`]): the chain of one agent lies together, and both the
    // look-up of a duplicate and the insert touch one tree.
    "CREATE TABLE agents (
        id INTEGER PRIMARY KEY,
        agent_id TEXT NOT NULL UNIQUE,
        host TEXT NOT NULL,
        version TEXT NOT NULL,
        mode TEXT NOT NULL,
        labels TEXT NOT NULL,
        first_seen INTEGER NOT NULL,
        last_seen INTEGER NOT NULL,
        head_sequence INTEGER NOT NULL DEFAULT 0,
        head_hash BLOB NOT NULL,
        gaps INTEGER NOT NULL DEFAULT 0,
        missing INTEGER NOT NULL DEFAULT 0,
        malformed INTEGER NOT NULL DEFAULT 0,
        alarm TEXT
    ) STRICT;

    CREATE TABLE holes (
        agent INTEGER NOT NULL REFERENCES agents (id),
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        previous BLOB NOT NULL,
        found INTEGER NOT NULL,
        PRIMARY KEY (agent, first)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        hash BLOB NOT NULL,
        payload BLOB NOT NULL,
        malformed INTEGER NOT NULL,
        verdict INTEGER,
        access INTEGER,
        policy TEXT,
        executable TEXT,
        db_user TEXT,
        workload TEXT,
        text TEXT
    ) STRICT;

    CREATE INDEX decisions ON records (at) WHERE verdict IS NOT NULL;
    CREATE INDEX refusals ON records (at) WHERE verdict > 1;
    CREATE INDEX non_proxied ON records (at) WHERE access = 2;",
    // Certificates, signatures, proofs and policies. Times are microseconds since 1970.
    "ALTER TABLE agents ADD COLUMN signing_key BLOB;
    ALTER TABLE agents ADD COLUMN signed_sequence INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE agents ADD COLUMN key_alarm TEXT;
    ALTER TABLE agents ADD COLUMN proved_sequence INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE agents ADD COLUMN policy_version INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE agents ADD COLUMN policy_hash TEXT NOT NULL DEFAULT '';
    ALTER TABLE agents ADD COLUMN policy_error TEXT NOT NULL DEFAULT '';

    CREATE TABLE tokens (
        hash BLOB PRIMARY KEY,
        name TEXT NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        used INTEGER,
        agent_id TEXT
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE certificates (
        serial TEXT PRIMARY KEY,
        agent_id TEXT NOT NULL,
        host TEXT NOT NULL,
        issued INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        revoked INTEGER,
        reason TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX certificates_of_agent ON certificates (agent_id);

    CREATE TABLE policies (
        version INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        author TEXT NOT NULL,
        note TEXT NOT NULL,
        hash TEXT NOT NULL,
        bundle BLOB NOT NULL,
        key_id TEXT NOT NULL,
        signature BLOB NOT NULL
    ) STRICT;

    CREATE TABLE rollouts (
        id INTEGER PRIMARY KEY,
        version INTEGER NOT NULL REFERENCES policies (version),
        labels TEXT NOT NULL,
        at INTEGER NOT NULL,
        author TEXT NOT NULL
    ) STRICT;

    CREATE TABLE leaves (
        number INTEGER PRIMARY KEY,
        agent_id TEXT NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        head BLOB NOT NULL,
        root BLOB NOT NULL
    ) STRICT;
    CREATE INDEX leaves_of_agent ON leaves (agent_id, last);

    CREATE TABLE nodes (
        level INTEGER NOT NULL,
        number INTEGER NOT NULL,
        hash BLOB NOT NULL,
        PRIMARY KEY (level, number)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE tree_heads (
        size INTEGER PRIMARY KEY,
        root BLOB NOT NULL,
        at INTEGER NOT NULL,
        key_id TEXT NOT NULL,
        signature BLOB NOT NULL
    ) STRICT;",
    // How far each outlet has given out whose records.
    "CREATE TABLE outlets (
        name TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        holder TEXT NOT NULL,
        lease INTEGER NOT NULL,
        sent INTEGER NOT NULL DEFAULT 0,
        passed_over INTEGER NOT NULL DEFAULT 0,
        missed INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        error TEXT,
        failed_at INTEGER,
        sent_at INTEGER
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE outlet_cursors (
        outlet TEXT NOT NULL,
        agent INTEGER NOT NULL REFERENCES agents (id),
        sequence INTEGER NOT NULL,
        PRIMARY KEY (outlet, agent)
    ) STRICT, WITHOUT ROWID;",
    // What people search for is kept once for all records that are alike, and decisions are counted as they come; what is
    // read with every record stands before what is long. The records move over after this ([`take_over`]).
    "DROP INDEX decisions;
    DROP INDEX refusals;
    DROP INDEX non_proxied;
    ALTER TABLE records RENAME TO records_before;

    CREATE TABLE matters (
        id INTEGER PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        kind INTEGER NOT NULL,
        verdict INTEGER NOT NULL,
        access INTEGER,
        policy TEXT NOT NULL,
        words TEXT NOT NULL
    ) STRICT;

    CREATE TABLE records (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        verdict INTEGER,
        access INTEGER,
        matter INTEGER,
        flow TEXT,
        malformed INTEGER NOT NULL,
        hash BLOB NOT NULL,
        payload BLOB NOT NULL
    ) STRICT;

    -- Decisions of a quarter of a minute.
    CREATE TABLE tallies (
        slot INTEGER NOT NULL,
        verdict INTEGER NOT NULL,
        round INTEGER NOT NULL,
        policy TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (slot, verdict, round, policy)
    ) STRICT, WITHOUT ROWID;",
    // What agents say of their hosts, and the ends of connections as both sides tell them.
    "ALTER TABLE agents ADD COLUMN clock INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE agents ADD COLUMN addresses TEXT NOT NULL DEFAULT '';
    ALTER TABLE agents ADD COLUMN databases TEXT NOT NULL DEFAULT '';
    CREATE INDEX reports ON records (flow, at) WHERE kind = 23;
    CREATE INDEX flows ON records (flow, at) WHERE kind = 20;",
];

/// The migration that the records move over after.
const MATTERS: usize = 3;

/// Moves the records of an earlier version into the tables of the fourth one.
fn take_over(at: &Connection) -> Result<(), StoreError> {
    let select = "SELECT id, at, kind, hash, payload, malformed, verdict, access, policy, executable, db_user, workload, text
         FROM records_before ORDER BY id";
    let mut matters = Numbers::default();
    let mut select = at.prepare(select)?;
    let mut rows = select.query([])?;
    let mut insert = at.prepare(INSERT)?;
    while let Some(row) = rows.next()? {
        let columns = Columns {
            at: row.get(1)?,
            kind: row.get(2)?,
            malformed: row.get(5)?,
            verdict: row.get(6)?,
            access: row.get(7)?,
            policy: row.get(8)?,
            executable: row.get(9)?,
            db_user: row.get(10)?,
            workload: row.get(11)?,
            text: row.get(12)?,
            flow: None,
        };
        let matter = Matter::of(&columns).map(|matter| matters.number(at, &matter)).transpose()?;
        let bytes = |at: usize| row.get_ref(at)?.as_blob().map_err(rusqlite::Error::from);
        insert_record(&mut insert, row.get(0)?, (&columns, matter), (bytes(3)?, bytes(4)?))?;
    }
    drop(rows);
    let tally = format!(
        "INSERT INTO tallies SELECT at / {SLOT}, verdict, coalesce(access = 2, 0), coalesce(policy, ''), count(*)
         FROM records_before WHERE verdict IS NOT NULL GROUP BY 1, 2, 3, 4"
    );
    at.execute(&tally, [])?;
    Ok(at.execute_batch(
        "DROP TABLE records_before;
        CREATE INDEX decisions ON records (at) WHERE verdict IS NOT NULL;
        CREATE INDEX refusals ON records (at) WHERE verdict > 1;
        CREATE INDEX non_proxied ON records (at) WHERE access = 2;
        CREATE INDEX decisions_by_matter ON records (matter, at) WHERE matter IS NOT NULL;",
    )?)
}

/// Brings the database up to the version of this program.
pub fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let version: usize =
        transaction.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))? as usize;
    check(version)?;
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        transaction.execute_batch(migration)?;
        if at == MATTERS {
            take_over(&transaction)?;
        }
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    Ok(transaction.commit()?)
}

/// Refuses a database that this program can't read.
pub fn check_readable(connection: &Connection) -> Result<(), StoreError> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))? as usize;
    check(version)?;
    if version < MIGRATIONS.len() { Err(StoreError::Older) } else { Ok(()) }
}

fn check(version: usize) -> Result<(), StoreError> {
    match version <= MIGRATIONS.len() {
        true => Ok(()),
        false => Err(StoreError::Newer { found: version, known: MIGRATIONS.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrating_twice_changes_nothing_and_a_later_version_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(migrate(&mut connection), Err(StoreError::Newer { found: 99, .. })));
        connection.pragma_update(None, "user_version", 1).unwrap();
        assert!(matches!(check_readable(&connection), Err(StoreError::Older)));
    }

    #[test]
    fn a_store_of_the_first_version_keeps_what_it_has() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let agent =
            "INSERT INTO agents (agent_id, host, version, mode, labels, first_seen, last_seen, head_hash)
             VALUES ('a', 'h', '', '', '{}', 1, 1, x'00');
             INSERT INTO records (id, at, kind, hash, payload, malformed, verdict, access, policy, text) VALUES
             (1, 30000000, 30, x'01', x'02', 0, 2, 1, 'p', 'drop table t'), (2, 31000000, 30, x'01', x'02', 0, 2, 1, 'p', 'drop table t'),
             (3, 32000000, 14, x'03', x'04', 0, NULL, NULL, NULL, NULL)";
        connection.execute_batch(agent).unwrap();
        migrate(&mut connection).unwrap();
        let one = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(
            one("SELECT group_concat(id || ':' || coalesce(matter, '-')) FROM records"),
            "1:1,2:1,3:-"
        );
        assert!(one("SELECT words FROM matters").starts_with("drop table t"));
        assert_eq!(
            one("SELECT slot || ' ' || verdict || ' ' || round || policy || count FROM tallies"),
            "2 2 0p2"
        );
        let kept: (String, i64) = connection
            .query_row("SELECT agent_id, signed_sequence FROM agents", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!(kept, ("a".to_owned(), 0));
    }
}
