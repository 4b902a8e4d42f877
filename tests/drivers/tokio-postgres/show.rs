//! The behaviours.

use std::{io::Cursor, time::Duration};

use futures_util::{SinkExt, TryStreamExt, future, pin_mut};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_postgres::{
    AsyncMessage, Client, Error, IsolationLevel, NoTls, SimpleQueryMessage,
    binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream},
    config::ChannelBinding,
    types::Type,
};

use super::{
    Failure, Shown,
    session::{Session, config, connect, connect_with, digest, error, raised, refusal, secure, variable},
};

/// Shows one behaviour.
pub async fn behaviour(name: &str) -> Shown {
    match name {
        "connects" => connects().await,
        "scram" => logins("TEST_USER").await,
        "md5" => logins("TEST_MD5_USER").await,
        "tls" => user(&secure(ChannelBinding::Disable).await?).await,
        "scram_plus" => user(&secure(ChannelBinding::Require).await?).await,
        "simple" => {
            simple("SELECT 1, NULL, '', 1.50::numeric, ARRAY[1, 2]; SELECT id FROM items WHERE false;").await
        }
        "multi" => {
            simple("SELECT 1; CREATE TEMP TABLE m (a int); INSERT INTO m VALUES (1); SELECT * FROM m").await
        }
        "extended" | "binary" | "unicode" => extended().await,
        "prepared" => prepared().await,
        "pipeline" => pipeline("SELECT 1 / 0", error).await,
        "cursor" => cursor().await,
        "copy_in" | "copy_failed" => copy_in().await,
        "copy_out" => copy_out().await,
        "copy_binary" => copy_binary().await,
        "cancel" => cancel().await,
        "large_objects" => Err(Failure::Unsupported("tokio-postgres has no means for it")),
        "notify" => notify().await,
        "notices" => notices().await,
        "errors" => errors().await,
        "transactions" | "aborted" => transactions().await,
        "large_result" | "large_parameter" => large().await,
        "timeout" => limit().await,
        "terminated" => terminated().await,
        "encoding" => Err(Failure::Unsupported("tokio-postgres speaks UTF-8 alone")),
        "settings" => settings().await,
        "many" => many().await,
        "masked" => masked().await,
        "refused" => refused().await,
        "refused_extended" => refused_extended().await,
        "refused_open" => refused_open().await,
        "refused_pipeline" => pipeline("DROP TABLE guarded", refusal).await,
        _ => Err(Failure::Broken("the program does not show it".to_owned())),
    }
}

async fn user(client: &Client) -> Shown {
    Ok(json!(client.query_one("SELECT current_user::text", &[]).await?.get::<_, String>(0)))
}

async fn connects() -> Shown {
    let client = connect().await?.client;
    let nowhere = connect_with(config().dbname("nowhere")).await.map(drop);
    Ok(json!([user(&client).await?, raised(nowhere, error)?]))
}

async fn logins(role: &str) -> Shown {
    let mut config = config();
    config.user(variable(role));
    let right = user(&connect_with(&config).await?.client).await?;
    let wrong = connect_with(config.password("wrong")).await.map(drop);
    Ok(json!([right, raised(wrong, error)?]))
}

async fn simple(text: &str) -> Shown {
    let client = connect().await?.client;
    let messages = client.simple_query(text).await?;
    let shown: Vec<_> = messages
        .iter()
        .map(|message| match message {
            SimpleQueryMessage::Row(row) => json!((0..row.len()).map(|n| row.get(n)).collect::<Vec<_>>()),
            SimpleQueryMessage::CommandComplete(rows) => json!(rows),
            SimpleQueryMessage::RowDescription(columns) => {
                json!(columns.iter().map(|one| one.name()).collect::<Vec<_>>())
            }
            _ => json!("another message"),
        })
        .collect();
    client.batch_execute("").await?;
    Ok(json!([shown, raised(client.batch_execute("SELECT 1; SELECT 1 / 0; SELECT 2").await, error)?]))
}

async fn extended() -> Shown {
    let client = connect().await?.client;
    let text = "SELECT $1::int, $2::bigint, $3::float8, $4::text AS \"c\u{f6}l \u{1F980}\", $5::text, $6::bytea, $7::int[]";
    let given = ("\u{1F980} '\"\\", None::<String>, vec![0_u8, 255], vec![1, 2]);
    let row = client
        .query_one(text, &[&1, &(1_i64 << 40), &1.5_f64, &given.0, &given.1, &given.2, &given.3])
        .await?;
    let columns: Vec<_> = row.columns().iter().map(|column| [column.name(), column.type_().name()]).collect();
    let values = json!([
        row.get::<_, i32>(0),
        row.get::<_, i64>(1),
        row.get::<_, f64>(2),
        row.get::<_, String>(3),
        row.get::<_, Option<String>>(4),
        row.get::<_, Vec<u8>>(5),
        row.get::<_, Vec<i32>>(6)
    ]);
    let typed = client.query_typed("SELECT $1 + 1", &[(&41_i32, Type::INT4)]).await?;
    let counted = client.execute("UPDATE items SET name = name WHERE id = $1", &[&3]).await?;
    Ok(json!([columns, values, typed.first().map(|row| row.get::<_, i32>(0)), counted]))
}

async fn prepared() -> Shown {
    let client = connect().await?.client;
    let statement = client.prepare_typed("SELECT name FROM items WHERE id = $1", &[Type::INT4]).await?;
    let mut names = Vec::new();
    for id in 1..30 {
        names.push(client.query_one(&statement, &[&id]).await?.get::<_, String>(0));
    }
    client.batch_execute("CREATE TEMP TABLE changing (a int)").await?;
    let changing = client.prepare("SELECT * FROM changing").await?;
    client.query(&changing, &[]).await?;
    client.batch_execute("ALTER TABLE changing ADD b text").await?;
    let after = raised(client.query(&changing, &[]).await, error)?;
    drop((statement, changing));
    let left = client
        .query_one("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%items%'", &[])
        .await?;
    Ok(json!([names, after, left.get::<_, i64>(0)]))
}

async fn pipeline(failing: &str, describe: fn(&Error) -> serde_json::Value) -> Shown {
    let client = connect().await?.client;
    let statement = client.prepare("SELECT $1::int + 1").await?;
    let (client, statement) = (&client, &statement);
    let all = (0..200)
        .map(|n| async move { client.query_one(statement, &[&n]).await.map(|row| row.get::<_, i32>(0)) });
    let sum: i32 = future::try_join_all(all).await?.iter().sum();
    // One after the other without waiting for answers, each with its own Sync.
    let (first, second, third) = tokio::join!(
        client.query("SELECT 1", &[]),
        client.query(failing, &[]),
        client.query("SELECT 2", &[])
    );
    Ok(json!([sum, first?.len(), raised(second, describe)?, third?.len()]))
}

async fn cursor() -> Shown {
    let mut client = connect().await?.client;
    let transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT id FROM items WHERE id > $1 ORDER BY id", &[&100]).await?;
    let mut parts = Vec::new();
    loop {
        let rows = transaction.query_portal(&portal, 137).await?;
        if rows.is_empty() {
            break;
        }
        parts.push(rows.len());
    }
    drop(portal);
    transaction.commit().await?;
    Ok(json!(parts))
}

async fn copy_in() -> Shown {
    let client = connect().await?.client;
    client.batch_execute("CREATE TEMP TABLE copied (id int, name text)").await?;
    let sink = client.copy_in("COPY copied FROM STDIN").await?;
    pin_mut!(sink);
    for n in 0..20_000 {
        sink.feed(chunk(&format!("{n}\trow {n}\n"))).await?;
    }
    let count = sink.finish().await?;
    {
        // Dropped before its end: the driver tells the server that it gives up.
        let given_up = client.copy_in("COPY copied FROM STDIN").await?;
        pin_mut!(given_up);
        given_up.send(chunk("1\tone\n")).await?;
    }
    let wrong = client.copy_in("COPY copied FROM STDIN").await?;
    pin_mut!(wrong);
    let _ = wrong.send(chunk("x\ttwo\n")).await;
    let wrong = raised(wrong.finish().await, error)?;
    let rows = client.query_one("SELECT count(*) FROM copied", &[]).await?.get::<_, i64>(0);
    Ok(json!([count, wrong, rows]))
}

fn chunk(text: &str) -> Cursor<Vec<u8>> {
    Cursor::new(text.as_bytes().to_vec())
}

async fn copy_out() -> Shown {
    let client = connect().await?.client;
    let text = "COPY (SELECT n, repeat('x', n % 100) FROM generate_series(1, 50000) n) TO STDOUT";
    let parts: Vec<_> = client.copy_out(text).await?.try_collect().await?;
    {
        // Left before its end.
        let left = client.copy_out("COPY (SELECT * FROM generate_series(1, 300000)) TO STDOUT").await?;
        pin_mut!(left);
        left.try_next().await?;
    }
    Ok(json!([digest(&parts.concat()), user(&client).await?]))
}

async fn copy_binary() -> Shown {
    let client = connect().await?.client;
    client.batch_execute("CREATE TEMP TABLE copied (id int, name text)").await?;
    let sink = client.copy_in("COPY copied FROM STDIN (FORMAT binary)").await?;
    let writer = BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]);
    pin_mut!(writer);
    for n in 0..5_000 {
        writer.as_mut().write(&[&n, &format!("row {n}")]).await?;
    }
    let count = writer.finish().await?;
    let stream = client.copy_out("COPY copied TO STDOUT (FORMAT binary)").await?;
    let rows: Vec<_> = BinaryCopyOutStream::new(stream, &[Type::INT4, Type::TEXT]).try_collect().await?;
    let names: String = rows.iter().map(|row| row.get::<String>(1)).collect();
    Ok(json!([count, rows.len(), digest(names.as_bytes())]))
}

async fn cancel() -> Shown {
    let client = connect().await?.client;
    let token = client.cancel_token();
    let (slept, cancelled) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), async {
        sleep(Duration::from_millis(500)).await;
        token.cancel_query(NoTls).await
    });
    cancelled?;
    Ok(json!([raised(slept, error)?, user(&client).await?]))
}

async fn notify() -> Shown {
    let (mut listener, speaker) = (connect().await?, connect().await?.client);
    let channel = format!("c_{}", variable("TEST_TAG"));
    listener.client.batch_execute(&format!("LISTEN {channel}")).await?;
    let mut heard = Vec::new();
    for n in 0..3 {
        speaker.batch_execute(&format!("NOTIFY {channel}, 'payload {n}'")).await?;
    }
    while heard.len() < 3 {
        match next(&mut listener).await? {
            AsyncMessage::Notification(one) => heard.push(one.payload().to_owned()),
            _ => continue,
        }
    }
    Ok(json!(heard))
}

async fn next(session: &mut Session) -> Result<AsyncMessage, Failure> {
    let message = timeout(Duration::from_secs(10), session.messages.recv()).await?;
    message.ok_or(Failure::Broken("the session has ended".to_owned()))
}

async fn notices() -> Shown {
    let mut session = connect().await?;
    let text = "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING DETAIL = 'd', HINT = 'h'; END $$";
    session.client.batch_execute(text).await?;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        if let AsyncMessage::Notice(one) = next(&mut session).await? {
            heard.push(json!([one.severity(), one.code().code(), one.message(), one.detail(), one.hint()]));
        }
    }
    Ok(json!(heard))
}

async fn errors() -> Shown {
    let client = connect().await?.client;
    let mut seen = Vec::new();
    for text in [
        "SELECT * FROM nothing",
        "SELECT 1 +",
        "SELECT 1 / 0",
        "INSERT INTO items VALUES (1, 'twice')",
        "INSERT INTO items VALUES (NULL, 'none')",
        "INSERT INTO items VALUES (5000, repeat('x', 2000))",
    ] {
        seen.push(raised(client.query(text, &[]).await, error)?);
        seen.push(raised(client.batch_execute(text).await, error)?);
    }
    Ok(json!(seen))
}

async fn transactions() -> Shown {
    let mut client = connect().await?.client;
    let mut outer = client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await?;
    let inner = outer.savepoint("s").await?;
    let failed = raised(inner.query("SELECT 1 / 0", &[]).await, error)?;
    let aborted = raised(inner.query("SELECT 1", &[]).await, error)?;
    inner.rollback().await?;
    let level = outer.query_one("SHOW transaction_isolation", &[]).await?.get::<_, String>(0);
    outer.commit().await?;
    Ok(json!([failed, aborted, level, user(&client).await?]))
}

async fn large() -> Shown {
    let client = connect().await?.client;
    let rows = client.query("SELECT repeat(md5(n::text), 30) FROM generate_series(1, 12000) n", &[]).await?;
    let words: String = rows.iter().map(|row| row.get::<_, String>(0)).collect();
    let row = client.query_one("SELECT md5($1::bytea), length($1)", &[&vec![7_u8; 8 * 1024 * 1024]]).await?;
    Ok(json!([digest(words.as_bytes()), row.get::<_, String>(0), row.get::<_, i32>(1)]))
}

async fn limit() -> Shown {
    let client = connect_with(config().options("-c statement_timeout=200")).await?.client;
    Ok(json!([raised(client.query("SELECT pg_sleep(10)", &[]).await, error)?, user(&client).await?]))
}

async fn terminated() -> Shown {
    let (client, other) = (connect().await?.client, connect().await?.client);
    let pid = client.query_one("SELECT pg_backend_pid()", &[]).await?.get::<_, i32>(0);
    let (gone, _) = tokio::join!(client.query("SELECT pg_sleep(30)", &[]), async {
        sleep(Duration::from_millis(200)).await;
        other.query("SELECT pg_terminate_backend($1)", &[&pid]).await
    });
    let gone = raised(gone, error)?;
    sleep(Duration::from_millis(200)).await;
    Ok(json!([gone, client.is_closed(), user(&connect().await?.client).await?]))
}

async fn settings() -> Shown {
    let client = connect_with(config().application_name("what is set").options("-c search_path=pg_catalog"))
        .await?
        .client;
    let mut shown = Vec::new();
    for name in ["application_name", "search_path", "client_encoding"] {
        shown.push(client.query_one(&format!("SHOW {name}"), &[]).await?.get::<_, String>(0));
    }
    Ok(json!(shown))
}

async fn many() -> Shown {
    let one = |n: i32| async move {
        let row = connect().await?.client.query_one("SELECT $1::int * 2", &[&n]).await?;
        Ok::<_, Error>(row.get::<_, i32>(0))
    };
    Ok(json!(future::try_join_all((0..32).map(one)).await?))
}

async fn masked() -> Shown {
    let client = connect().await?.client;
    client
        .batch_execute(
            "CREATE TEMP TABLE people (id int, full_name text, email varchar(60), card_number bigint, phones text[]);
             INSERT INTO people VALUES (4711, 'Philippa Quackenbush', 'philippa@feathers.example', 4111111111111111,
                                        '{+44 20 7946 0958}')",
        )
        .await?;
    let mut outcomes = Vec::new();
    for row in client.query("SELECT * FROM people", &[]).await? {
        let (id, card): (i32, i64) = (row.try_get(0)?, row.try_get(3)?);
        let (name, email): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let phones: Vec<Option<String>> = row.try_get(4)?;
        let clear = name.contains("Quackenbush")
            || email.contains("philippa")
            || card == 4_111_111_111_111_111
            || phones.iter().flatten().any(|phone| phone.contains("7946"));
        outcomes.push(json!({ "id": id, "phones": phones.len(), "by_guard": !clear }));
    }
    for message in client.simple_query("SELECT * FROM people").await? {
        if let SimpleQueryMessage::Row(row) = message {
            let clear = row.get(1).is_some_and(|name| name.contains("Quackenbush"));
            outcomes.push(json!({ "id": row.get(0), "by_guard": !clear }));
        }
    }
    Ok(json!(outcomes))
}

async fn refused() -> Shown {
    let client = connect().await?.client;
    let outcomes = [
        raised(client.batch_execute("DROP TABLE guarded").await, refusal)?,
        raised(client.batch_execute("SELECT 1; DROP TABLE guarded").await, refusal)?,
    ];
    Ok(json!([outcomes, user(&client).await?, client.is_closed()]))
}

async fn refused_extended() -> Shown {
    let client = connect().await?.client;
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        outcomes.push(raised(client.execute("DROP TABLE guarded", &[]).await, refusal)?);
    }
    Ok(json!([outcomes, user(&client).await?]))
}

async fn refused_open() -> Shown {
    let mut client = connect().await?.client;
    let mut transaction = client.transaction().await?;
    let saved = transaction.savepoint("s").await?;
    let first = raised(saved.batch_execute("DROP TABLE guarded").await, refusal)?;
    let second = raised(saved.query("SELECT 1", &[]).await, error)?;
    saved.rollback().await?;
    let kept = transaction.query("SELECT 'kept'", &[]).await?.len();
    transaction.commit().await?;
    Ok(json!([first, second, kept]))
}
