//! The store for more than one replica: PostgreSQL.
//!
//! Every replica may take every agent: the agent's row is locked while its batch is held against it, so that two replicas
//! cannot store two continuations of one chain. Records lie in partitions by the day on which they came, by the control
//! plane's own clock. A server that goes away is an error of the moment: agents keep their records and come again.

mod append;
mod pool;
mod schema;

use std::{path::PathBuf, pin::pin, time::Duration};

use bytes::BytesMut;
use futures_util::TryStreamExt;
use guard_common::{
    api::control::{Agent, DecisionsRequest, DecisionsResponse, Hello},
    audit::{
        chain::{GENESIS, Hash},
        v1::record::Body,
    },
};
use tokio_postgres::{
    IsolationLevel, Statement, Transaction,
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};

use self::pool::Pool;
pub use self::pool::Url;
use super::{
    Appended, Batch, Keep, OWN, SEARCH_TIME, StoreError,
    filter::{self, Filter, Page},
    hash,
    id::record_id,
    now,
    search::{self, AGENTS},
    sql::{Line, Sql, Value},
};

/// PostgreSQL behind a URL.
pub(super) struct Postgres {
    pool: Pool,
    days: append::Days,
}

impl Postgres {
    /// Connects and brings the schema up to date. `authorities`: PEM, for TLS to the server.
    pub(super) async fn open(url: &Url, authorities: Option<PathBuf>) -> Result<Self, StoreError> {
        let pool = Pool::new(url, authorities)?;
        let mut client = pool.client().await?;
        schema::migrate(&mut client).await?;
        drop(client);
        Ok(Self { pool, days: append::Days::default() })
    }
}

#[tonic::async_trait]
impl Keep for Postgres {
    async fn hello(&self, hello: Hello) -> Result<u64, StoreError> {
        let labels = serde_json::to_string(&hello.labels).unwrap_or_default();
        let client = self.pool.client().await?;
        let statement = client
            .prepare_cached(
                "INSERT INTO agents (agent_id, host, version, mode, labels, first_seen, last_seen, head_hash)
                 VALUES ($1, $2, $3, $4, $5, $6, $6, $7)
                 ON CONFLICT (agent_id) DO UPDATE SET host = $2, version = $3, mode = $4, labels = $5, last_seen = $6
                 RETURNING head_sequence",
            )
            .await?;
        let (genesis, now) = (&GENESIS[..], now());
        let row = client
            .query_one(
                &statement,
                &[
                    &hello.agent_id,
                    &clean(&hello.host),
                    &clean(&hello.agent_version),
                    &clean(&hello.mode),
                    &clean(&labels),
                    &now,
                    &genesis,
                ],
            )
            .await?;
        Ok(row.get::<_, i64>(0).cast_unsigned())
    }

    async fn append(&self, batch: Batch) -> Result<Appended, StoreError> {
        let mut client = self.pool.client().await?;
        self.days.prepare(&mut client).await?;
        append::append(&mut client, &batch).await
    }

    async fn note(&self, body: Body) -> Result<(), StoreError> {
        let mut client = self.pool.client().await?;
        self.days.prepare(&mut client).await?;
        let transaction = client.transaction().await?;
        append::note(&transaction, body).await?;
        Ok(transaction.commit().await?)
    }

    async fn run(&self, statements: Vec<Sql>) -> Result<Vec<Vec<Line>>, StoreError> {
        let mut client = self.pool.client().await?;
        let transaction = client.transaction().await?;
        let mut answers = Vec::with_capacity(statements.len());
        for statement in &statements {
            answers.push(run_one(&transaction, statement).await?);
        }
        transaction.commit().await?;
        Ok(answers)
    }

    async fn look(&self, questions: Vec<Sql>, within: Duration) -> Result<Vec<Vec<Line>>, StoreError> {
        let mut client = self.pool.client().await?;
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        limit_time(&transaction, within).await?;
        let mut answers = Vec::with_capacity(questions.len());
        let mut last: Option<(&str, Statement)> = None;
        for question in &questions {
            // Many agents are asked for alike.
            let statement = match last.take() {
                Some((text, statement)) if text == question.text => statement,
                _ => transaction.prepare(&question.text).await?,
            };
            answers.push(run_prepared(&transaction, &statement, question).await?);
            last = Some((&question.text, statement));
        }
        Ok(answers)
    }

    async fn decisions(&self, request: DecisionsRequest) -> Result<DecisionsResponse, StoreError> {
        let mut client = self.pool.client().await?;
        let transaction = client.build_transaction().read_only(true).start().await?;
        limit_time(&transaction, SEARCH_TIME).await?;
        let agent = match request.agent_id.as_str() {
            "" => None,
            agent_id => {
                let found =
                    transaction.query_opt("SELECT id FROM agents WHERE agent_id = $1", &[&agent_id]).await?;
                match found {
                    Some(row) => Some(row.get::<_, i64>(0)),
                    None => return Ok(DecisionsResponse::default()),
                }
            }
        };
        let filter = Filter::of(agent, &request)?;
        let limit = filter::limit(&request);
        // INVARIANT: the filter's text is this program's own; what people write is in its values.
        let text = filter::page_sql(&filter.sql, None, limit).replace('?', "$").replace(" LIKE ", " ILIKE ");
        let statement = transaction.prepare(&text).await?;
        let values: Vec<Value> = filter.values.into_iter().map(Value::from).collect();
        let rows = transaction.query_raw(&statement, values.iter()).await?;
        let mut rows = pin!(rows);
        let mut page = Page::new(limit);
        while let Some(row) = rows.try_next().await? {
            let whose = || Ok((row.try_get(3)?, row.try_get(4)?));
            if !page.take((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?, whose)? {
                break;
            }
        }
        Ok(page.answer)
    }

    async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        let lines = self.run(vec![Sql::new(AGENTS, [OWN.into()])]).await?;
        Ok(lines.iter().flatten().map(search::agent).collect())
    }

    async fn forget(&self, oldest: i64) -> Result<u64, StoreError> {
        let mut client = self.pool.client().await?;
        Ok(append::drop_days(&mut client, oldest).await?.len() as u64)
    }

    async fn hashes(&self, agent_id: &str, first: u64, last: u64) -> Result<Vec<Hash>, StoreError> {
        let client = self.pool.client().await?;
        let Some(agent) = client.query_opt("SELECT id FROM agents WHERE agent_id = $1", &[&agent_id]).await?
        else {
            return Ok(Vec::new());
        };
        let agent: i64 = agent.get(0);
        let (Some(first), Some(last)) = (record_id(agent, first), record_id(agent, last)) else {
            return Ok(Vec::new());
        };
        let select = "SELECT hash FROM records WHERE id BETWEEN $1 AND $2 ORDER BY id";
        let rows = client.query_raw(select, [first, last]).await?;
        let mut rows = pin!(rows);
        let mut hashes = Vec::new();
        while let Some(row) = rows.try_next().await? {
            hashes.push(hash(row.try_get(0)?)?);
        }
        Ok(hashes)
    }
}

async fn limit_time(transaction: &Transaction<'_>, time: Duration) -> Result<(), StoreError> {
    let limit = format!("SET LOCAL statement_timeout = {}", time.as_millis());
    Ok(transaction.batch_execute(&limit).await?)
}

async fn run_one(transaction: &Transaction<'_>, statement: &Sql) -> Result<Vec<Line>, StoreError> {
    let prepared = transaction.prepare(&statement.text).await?;
    run_prepared(transaction, &prepared, statement).await
}

async fn run_prepared(
    transaction: &Transaction<'_>,
    prepared: &Statement,
    statement: &Sql,
) -> Result<Vec<Line>, StoreError> {
    let values: Vec<&(dyn ToSql + Sync)> =
        statement.values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    let rows = transaction.query(prepared, &values).await?;
    let line = |row: &tokio_postgres::Row| (0..row.len()).map(|at| row.try_get(at)).collect::<Result<_, _>>();
    Ok(rows.iter().map(line).collect::<Result<Vec<_>, _>>()?.into_iter().map(Line).collect())
}

/// PostgreSQL keeps no NUL in texts; whatever sends one sees it as it is shown elsewhere.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl From<rusqlite::types::Value> for Value {
    fn from(value: rusqlite::types::Value) -> Self {
        match value {
            rusqlite::types::Value::Integer(number) => Self::Int(number),
            rusqlite::types::Value::Text(text) => Self::Text(text),
            rusqlite::types::Value::Blob(bytes) => Self::Bytes(bytes),
            rusqlite::types::Value::Null | rusqlite::types::Value::Real(_) => Self::Null,
        }
    }
}

type Failed = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Failed> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(number) if *kind == Type::INT4 => i32::try_from(*number)?.to_sql(kind, out),
            Self::Int(number) if *kind == Type::INT2 => i16::try_from(*number)?.to_sql(kind, out),
            Self::Int(number) => number.to_sql(kind, out),
            Self::Text(text) => clean(text).to_sql(kind, out),
            Self::Bytes(bytes) => bytes.to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT2 | Type::INT4 | Type::INT8 | Type::TEXT | Type::VARCHAR | Type::BYTEA)
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Failed> {
        Ok(match *kind {
            Type::INT2 => Self::Int(i16::from_sql(kind, raw)?.into()),
            Type::INT4 => Self::Int(i32::from_sql(kind, raw)?.into()),
            Type::INT8 => Self::Int(i64::from_sql(kind, raw)?),
            Type::BOOL => Self::Int(bool::from_sql(kind, raw)?.into()),
            Type::BYTEA => Self::Bytes(Vec::from_sql(kind, raw)?),
            _ => Self::Text(String::from_sql(kind, raw)?),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Failed> {
        Ok(Self::Null)
    }

    fn accepts(kind: &Type) -> bool {
        matches!(
            *kind,
            Type::INT2 | Type::INT4 | Type::INT8 | Type::BOOL | Type::TEXT | Type::VARCHAR | Type::BYTEA
        )
    }
}
