//! Batches into PostgreSQL: each in a transaction of its own that holds the agent's row.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use guard_common::audit::{
    chain::{GENESIS, HASH_LEN, Head},
    checkpoint::PublicKey,
    v1::{ControlEvent, Record, record::Body},
};
use prost::Message;
use tokio_postgres::{
    Client, Transaction,
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::{clean, pool::Lent, schema::LOCK};
use crate::store::{
    Appended, Batch, OWN, StoreError,
    fit::{Fitting, Known, Refused, fit},
    id::record_id,
    now,
    row::Row,
};

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// What a partition is called, before its day since 1970.
const PARTITION: &str = "records_day_";

/// The last day for which a partition is known to be there.
#[derive(Debug, Default)]
pub(super) struct Days(AtomicI64);

impl Days {
    /// Makes the partitions of today and tomorrow where they are missing.
    pub(super) async fn prepare(&self, client: &mut Client) -> Result<(), StoreError> {
        let tomorrow = now().div_euclid(DAY) + 1;
        if self.0.load(Ordering::Relaxed) >= tomorrow {
            return Ok(());
        }
        let transaction = client.transaction().await?;
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        for day in [tomorrow - 1, tomorrow] {
            let make = format!(
                "CREATE TABLE IF NOT EXISTS {PARTITION}{day} PARTITION OF records FOR VALUES FROM ({}) TO ({})",
                day * DAY,
                (day + 1) * DAY
            );
            transaction.batch_execute(&make).await?;
        }
        transaction.commit().await?;
        self.0.store(tomorrow, Ordering::Relaxed);
        Ok(())
    }
}

/// Drops the partitions of days before `oldest`; which days they were.
pub(super) async fn drop_days(client: &mut Client, oldest: i64) -> Result<Vec<i64>, StoreError> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let select = "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'records'::regclass";
    let rows = transaction.query(select, &[]).await?;
    // Never the day that still goes on, whatever is asked for.
    let oldest = oldest.min(now()).div_euclid(DAY);
    let day = |name: String| name.strip_prefix(PARTITION)?.parse::<i64>().ok();
    let days = rows.iter().filter_map(|row| day(row.get(0))).filter(|day| *day < oldest);
    let days: Vec<i64> = days.collect();
    for day in &days {
        transaction.batch_execute(&format!("DROP TABLE {PARTITION}{day}")).await?;
    }
    transaction.commit().await?;
    Ok(days)
}

/// Checks and stores a batch: all of it or nothing.
pub(super) async fn append(client: &mut Lent, batch: &Batch) -> Result<Appended, StoreError> {
    let transaction = client.transaction().await?;
    let Stored { agent, known } = stored(&transaction, &batch.agent_id).await?;
    let refused = match differing(&transaction, agent, batch.repeated(known.head.sequence)).await? {
        Some(refused) => refused,
        None => match fit(&known, batch) {
            Ok(fitting) => {
                if let Some(refused) = keep(&transaction, agent, batch, &fitting).await? {
                    refused
                } else {
                    transaction.commit().await?;
                    return Ok(Appended::Stored(fitting.after.head.sequence));
                }
            }
            Err(refused) => refused,
        },
    };
    transaction.rollback().await?;
    let transaction = client.transaction().await?;
    alarm(&transaction, &batch.agent_id, &refused).await?;
    transaction.commit().await?;
    Ok(Appended::Rejected { sequence: refused.sequence, reason: refused.reason })
}

/// Where an agent's chain stands.
struct Stored {
    agent: i64,
    known: Known,
}

/// Holds the agent's row until the end of the transaction.
async fn stored(at: &Transaction<'_>, agent_id: &str) -> Result<Stored, StoreError> {
    let select = "SELECT id, head_sequence, head_hash, signing_key, signed_sequence, key_alarm FROM agents
         WHERE agent_id = $1 FOR UPDATE";
    let row = at.query_opt(select, &[&agent_id]).await?;
    let row = row.ok_or(StoreError::Request("the agent has not said hello"))?;
    let hash = <[u8; HASH_LEN]>::try_from(row.get::<_, &[u8]>(2)).map_err(|_| StoreError::Unwritten)?;
    let key: Option<&[u8]> = row.get(3);
    Ok(Stored {
        agent: row.get(0),
        known: Known {
            head: Head { sequence: row.get::<_, i64>(1).cast_unsigned(), hash },
            key: key.and_then(|key| PublicKey::from_bytes(key).ok()),
            signed: row.get::<_, i64>(4).cast_unsigned(),
            key_alarm: row.get(5),
        },
    })
}

/// Repeated records must be the ones that are stored.
async fn differing(
    at: &Transaction<'_>,
    agent: i64,
    repeated: &[Row],
) -> Result<Option<Refused>, StoreError> {
    for row in repeated {
        let sequence = row.sealed.sequence;
        let Some(id) = record_id(agent, sequence) else {
            return Ok(Some(Refused::chain(sequence, "its number is out of range")));
        };
        let stored = at.query_opt("SELECT hash, payload FROM records WHERE id = $1", &[&id]).await?;
        let reason = match stored {
            Some(stored)
                if stored.get::<_, &[u8]>(0) == &row.sealed.hash[..]
                    && stored.get::<_, &[u8]>(1) == &row.sealed.payload[..] =>
            {
                continue;
            }
            Some(_) => "another record with this number is stored: the agent's chain has forked",
            None => "it was reported as deleted before",
        };
        return Ok(Some(Refused::chain(sequence, reason)));
    }
    Ok(None)
}

/// Stores what fits.
async fn keep(
    at: &Transaction<'_>,
    agent: i64,
    batch: &Batch,
    fitting: &Fitting<'_>,
) -> Result<Option<Refused>, StoreError> {
    if let Some(hole) = &fitting.hole {
        let insert = "INSERT INTO holes (agent, first, last, previous, found) VALUES ($1, $2, $3, $4, $5)";
        let (first, last) = (hole.first.cast_signed(), hole.last.cast_signed());
        at.execute(insert, &[&agent, &first, &last, &&hole.previous[..], &now()]).await?;
        tracing::warn!(first, last, "records were deleted on the agent's host before they were sent");
    }
    if let Some(refused) = copy(at, agent, fitting.new).await? {
        return Ok(Some(refused));
    }
    let (after, missing) = (&fitting.after, fitting.hole.map_or(0, |hole| hole.records()));
    let update =
        "UPDATE agents SET head_sequence = $2, head_hash = $3, gaps = gaps + $4, missing = missing + $5,
             malformed = malformed + $6, last_seen = $7, alarm = NULL, signing_key = $8, signed_sequence = $9,
             key_alarm = $10 WHERE id = $1";
    at.execute(
        update,
        &[
            &agent,
            &after.head.sequence.cast_signed(),
            &&after.head.hash[..],
            &fitting.gaps.cast_signed(),
            &missing.cast_signed(),
            &fitting.malformed.cast_signed(),
            &now(),
            &after.key.as_ref().map(|key| &key.as_bytes()[..]),
            &after.signed.cast_signed(),
            &after.key_alarm,
        ],
    )
    .await?;
    for event in &fitting.events {
        tracing::error!(agent = batch.agent_id, sequence = event.sequence, "{}", event.detail);
        note(at, Body::ControlEvent(event.clone())).await?;
    }
    Ok(None)
}

/// PostgreSQL's quickest way in.
async fn copy(at: &Transaction<'_>, agent: i64, rows: &[Row]) -> Result<Option<Refused>, StoreError> {
    if rows.is_empty() {
        return Ok(None);
    }
    const TYPES: [Type; 15] = [
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::BYTEA,
        Type::BYTEA,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT,
    ];
    let sink = at
        .copy_in::<_, Bytes>(
            "COPY records (id, received, at, kind, hash, payload, malformed, verdict, access, policy, executable,
                 db_user, workload, text, flow) FROM STDIN BINARY",
        )
        .await?;
    let writer = BinaryCopyInWriter::new(sink, &TYPES);
    let mut writer = std::pin::pin!(writer);
    let received = now();
    for row in rows {
        let sequence = row.sealed.sequence;
        let Some(id) = record_id(agent, sequence) else {
            return Ok(Some(Refused::chain(sequence, "its number is out of range")));
        };
        let columns = &row.columns;
        let texts =
            [&columns.policy, &columns.executable, &columns.db_user, &columns.workload, &columns.text]
                .map(|text| text.as_deref().map(clean));
        let numbers = (columns.verdict.map(i64::from), columns.access.map(i64::from));
        let (hash, payload) = (&row.sealed.hash[..], &row.sealed.payload[..]);
        let malformed = i64::from(columns.malformed);
        let values: [&(dyn ToSql + Sync); 15] = [
            &id,
            &received,
            &columns.at,
            &columns.kind,
            &hash,
            &payload,
            &malformed,
            &numbers.0,
            &numbers.1,
            &texts[0],
            &texts[1],
            &texts[2],
            &texts[3],
            &texts[4],
            &columns.flow,
        ];
        writer.as_mut().write(&values).await?;
    }
    writer.finish().await?;
    Ok(None)
}

/// A batch was refused: the agent's row says why, and the control plane's own chain says it once.
async fn alarm(at: &Transaction<'_>, agent_id: &str, refused: &Refused) -> Result<(), StoreError> {
    let Refused { sequence, reason, event } = refused;
    let alarm = format!("record {sequence} does not fit: {reason}");
    let select = "SELECT host, alarm FROM agents WHERE agent_id = $1 FOR UPDATE";
    let row = at.query_one(select, &[&agent_id]).await?;
    let (host, before): (String, Option<String>) = (row.get(0), row.get(1));
    let update = "UPDATE agents SET alarm = $2, last_seen = $3 WHERE agent_id = $1";
    at.execute(update, &[&agent_id, &alarm, &now()]).await?;
    if before.as_ref() == Some(&alarm) {
        return Ok(());
    }
    tracing::error!(agent = agent_id, sequence, reason, "rejected a batch: the agent's chain does not fit");
    let event = ControlEvent {
        event: (*event).to_owned(),
        agent_id: agent_id.to_owned(),
        host,
        sequence: *sequence,
        detail: reason.clone(),
        count: 0,
    };
    note(at, Body::ControlEvent(event)).await
}

/// Adds a record to the control plane's own chain, which all replicas share and which begins with the first one.
pub(super) async fn note(at: &Transaction<'_>, body: Body) -> Result<(), StoreError> {
    let insert = "INSERT INTO agents (agent_id, host, version, mode, labels, first_seen, last_seen, head_hash)
         VALUES ($1, 'guard-control', '', $2, '{}', $3, $3, $4) ON CONFLICT (mode) WHERE mode = 'control' DO NOTHING";
    let select = "SELECT agent_id FROM agents WHERE mode = $1";
    let own = match at.query_opt(select, &[&OWN]).await? {
        Some(row) => row,
        None => {
            at.execute(insert, &[&Uuid::new_v4().to_string(), &OWN, &now(), &&GENESIS[..]]).await?;
            at.query_one(select, &[&OWN]).await?
        }
    };
    let Stored { agent, known } = stored(at, own.get(0)).await?;
    let mut head = known.head;
    let row = Row::new(head.seal(Record::now(body).encode_to_vec().into()));
    if let Some(refused) = copy(at, agent, std::slice::from_ref(&row)).await? {
        tracing::error!(reason = refused.reason, "the control plane's own chain is full");
        return Err(StoreError::Unwritten);
    }
    let update = "UPDATE agents SET head_sequence = $2, head_hash = $3, last_seen = $4 WHERE id = $1";
    at.execute(update, &[&agent, &head.sequence.cast_signed(), &&head.hash[..], &now()]).await?;
    Ok(())
}
