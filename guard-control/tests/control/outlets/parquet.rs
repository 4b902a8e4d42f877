//! Files of columns, read by somebody else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use guard_common::audit::v1::{ControlEvent, Record, decision::Verdict, record::Body};
use guard_tests::{receivers::duckdb, skip};
use prost::Message;

use super::{
    super::agent::{Chain, statement},
    Site, given_out, only, statements, store, until,
};

fn settings(folder: &Path, more: &str) -> String {
    format!("[[parquet]]\nname = \"lake\"\nfolder = \"{}\"\npart_seconds = 1\n{more}\n", folder.display())
}

fn parts(folder: &Path) -> Vec<PathBuf> {
    let days = fs::read_dir(folder).into_iter().flatten().flatten();
    let days = days.filter(|day| day.file_name().to_string_lossy().starts_with("date="));
    days.flat_map(|day| fs::read_dir(day.path()).unwrap()).map(|part| part.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_reader_finds_every_record_by_day() {
    if skip::without(&[skip::Need::DuckDb]) {
        return;
    }
    let (data, lake) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = lake.path().join("guard");
    let mut chain = Chain::new();
    let mut records = statements(&mut chain, 2_500);
    records.push(chain.seal(statement("select 'Ä\0\n\u{202e}'", Verdict::WouldRefuse)));
    records.push(chain.head.seal(vec![0xff; 9].into()));
    let mut old = Record::now(Body::ControlEvent(ControlEvent {
        event: "enrolled".to_owned(),
        ..ControlEvent::default()
    }));
    old.at = Some(pbjson_types::Timestamp { seconds: 1_709_251_199, nanos: 999_999_000 });
    records.push(chain.head.seal(old.encode_to_vec().into()));
    let site = Site::start(data.path(), &settings(&folder, ""));
    store(&site.store, &chain.id, &records).await;
    let state = given_out(&site.store).await;
    assert_eq!((state.sent, state.failures), (2_503, 0), "{state:?}");
    site.stop().await;

    let all = format!("read_parquet('{}/*/*.parquet', hive_partitioning = true)", folder.display());
    let ask = |query: &str| duckdb(&query.replace("ALL", &all)).unwrap();
    assert_eq!(
        ask("select count(*), count(distinct key), min(sequence), max(sequence) from ALL"),
        ["[2503, 2503, 1, 2503]"]
    );
    assert_eq!(
        ask("select verdict, count(*) from ALL group by 1 order by 1"),
        ["[\"allowed\", 2250]", "[\"refused\", 250]", "[\"would-refuse\", 1]", "[null, 2]"]
    );
    assert_eq!(
        ask("select statement from ALL where verdict = 'would-refuse'"),
        ["[\"select '\\u00c4\\u0000\\n\\u202e'\"]"]
    );
    assert_eq!(
        ask("select kind, host, record is null, octet_length(payload) from ALL where sequence = 2502"),
        ["[\"unknown\", \"db1\", true, 9]"]
    );
    assert_eq!(
        ask(
            "select event, cast(date as varchar), occurred_at = timestamptz '2024-02-29 23:59:59.999999+00' from ALL where kind = 'control-event'"
        ),
        ["[\"enrolled\", \"2024-02-29\", true]"]
    );
    // The chain can be followed in the file alone.
    assert_eq!(
        ask(
            "select count(*) from ALL where length(hash) = 64 and json_extract_string(record, '$.statement.db_user') = 'app'"
        ),
        ["[2501]"]
    );
    for part in parts(&folder) {
        let metadata = format!("select distinct compression from parquet_metadata('{}')", part.display());
        assert_eq!(duckdb(&metadata).unwrap(), ["[\"ZSTD\"]"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_files_are_never_in_place_and_come_again() {
    let (data, lake) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let aside = lake.path().join(".guard-writing/lake");
    let slow = settings(lake.path(), "").replace("part_seconds = 1", "part_seconds = 3600");
    let mut chain = Chain::new();
    let site = Site::start(data.path(), &slow);
    store(&site.store, &chain.id.clone(), &statements(&mut chain, 9_000)).await;
    until("a file has begun", async || fs::read_dir(&aside).is_ok_and(|files| files.count() > 0)).await;
    let state = only(&site.store).await;
    assert_eq!((state.sent, state.waiting), (0, 9_000), "what is not in place has not left");
    assert!(parts(lake.path()).is_empty());
    site.crash().await;
    fs::write(aside.join("part-left.parquet"), "half").unwrap();

    let site = Site::start(data.path(), &slow);
    let left = aside.join("part-left.parquet");
    let begun = async || !left.exists() && fs::read_dir(&aside).is_ok_and(|files| files.count() == 1);
    until("it has begun again, and what was left is gone", begun).await;
    // In good order it finishes what it holds, or lets it come again: there are whole files alone.
    site.stop().await;
    assert_eq!(fs::read_dir(&aside).unwrap().count(), 0);
    let site = Site::start(data.path(), &settings(lake.path(), ""));
    assert_eq!(given_out(&site.store).await.sent, 9_000);
    assert!(!parts(lake.path()).is_empty());
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_told_and_tried_again() {
    let (data, lake) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = lake.path().join("guard");
    fs::write(&folder, "no folder").unwrap();
    let mut chain = Chain::new();
    let site = Site::start(data.path(), &settings(&folder, ""));
    store(&site.store, &chain.id.clone(), &statements(&mut chain, 10)).await;
    until("it is said", async || !only(&site.store).await.error.is_empty()).await;
    assert_eq!(only(&site.store).await.waiting, 10);
    fs::remove_file(&folder).unwrap();
    assert_eq!(given_out(&site.store).await.sent, 10);
    assert_eq!(parts(&folder).len(), 1);
    site.stop().await;
}
