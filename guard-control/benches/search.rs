//! How long people wait for what they search among millions of records: the questions of the console's pages and of the
//! command line, on an embedded store that was filled through its own door. `cargo xtask bench control` runs it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench ends where something fails")]

#[path = "shared/fleet.rs"]
mod fleet;
#[path = "shared/room.rs"]
mod room;

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fleet::{Dice, Host};
use guard_common::api::control::{DecisionsRequest, DecisionsResponse};
use guard_control::{
    reading::Readings,
    store::{Appended, Batch, Store, row::Row},
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use pbjson_types::Timestamp;
use room::Room;
use uuid::Uuid;

/// Hosts among which the records are spread.
const HOSTS: u64 = 2_000;
/// Batches of each host.
const ROUNDS: u64 = 20;
/// Days that they are spread over.
const DAYS: i64 = 30;
/// Bytes of disk that one record may take, with the log beside the database.
const BYTES: u64 = 900;
/// As the console shows them.
const PAGE: u32 = 50;

struct Arguments {
    looks: usize,
    records: u64,
}

impl Arguments {
    fn read() -> Self {
        let mut arguments = Self { looks: 15, records: 10_000_000 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--looks" => arguments.looks = words.next().unwrap().parse().unwrap(),
                "--records" => arguments.records = words.next().unwrap().parse().unwrap(),
                _ => {}
            }
        }
        arguments
    }
}

fn main() {
    let arguments = Arguments::read();
    let room = Room::with(arguments.records * BYTES + 512 * 1024 * 1024);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.spawn(room.leave_on_interrupt());
    let mut figures = BTreeMap::new();
    let filled = runtime.block_on(fill(room.path(), arguments.records));
    figures.insert("fill_records_per_s".to_owned(), filled.records as f64 / filled.took.as_secs_f64());
    figures.insert("store_bytes_per_record".to_owned(), size(room.path()) as f64 / filled.records as f64);
    figures.insert("records".to_owned(), filled.records as f64);
    let (store, handle) = Store::open(room.path()).unwrap();
    runtime.block_on(look(&store, room.path(), &filled, arguments.looks, &mut figures));
    figures.insert("resident_mib".to_owned(), room::resident_mib("VmRSS", std::process::id()));
    drop(store);
    handle.close();
    println!("{}", serde_json::to_string(&figures).unwrap());
}

struct Filled {
    records: u64,
    took: Duration,
    since: i64,
    until: i64,
    /// Some connections, with their agents.
    connections: Vec<(String, Uuid)>,
}

/// Puts records into a store, as agents would have sent them: in batches, all hosts in turn.
async fn fill(dir: &Path, records: u64) -> Filled {
    let (store, handle) = Store::open(dir).unwrap();
    let mut hosts: Vec<Host> = (0..HOSTS).map(Host::new).collect();
    for host in &hosts {
        store.hello(host.hello()).await.unwrap();
    }
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    let (since, until) = (now - DAYS * 86_400_000_000, now);
    let batch = (records / HOSTS / ROUNDS).max(1);
    let step = (until - since) / i64::try_from(batch * ROUNDS).unwrap();
    let (began, mut appending, mut connections) = (Instant::now(), tokio::task::JoinSet::new(), Vec::new());
    for round in 0..ROUNDS {
        for host in &mut hosts {
            let mut at = since + step * i64::try_from(batch * round).unwrap();
            let sealed: Vec<_> = (0..batch)
                .map(|_| {
                    at += step;
                    let late = i64::try_from(host.dice.roll(1_000)).unwrap();
                    host.next(at - late)
                })
                .collect();
            if round % 4 == 1 {
                connections.push((host.id.clone(), host.connection));
            }
            let (id, store) = (host.id.clone(), store.clone());
            while appending.len() >= 32 {
                appending.join_next().await.unwrap().unwrap();
            }
            appending.spawn(async move {
                let batch = Batch::new(id, 1, sealed.into_iter().map(Row::new).collect());
                assert!(matches!(store.append(batch).await.unwrap(), Appended::Stored(_)));
            });
        }
        let records = (round + 1) * HOSTS * batch;
        eprintln!(
            "{records} records are stored, {:.0} a second",
            records as f64 / began.elapsed().as_secs_f64()
        );
    }
    while let Some(done) = appending.join_next().await {
        done.unwrap();
    }
    let took = began.elapsed();
    drop(store);
    tokio::task::spawn_blocking(|| handle.close()).await.unwrap();
    Filled { records: HOSTS * ROUNDS * batch, took, since, until, connections }
}

/// A question, with another subject each time.
type Question = fn(&mut Dice, &Filled) -> DecisionsRequest;

const QUESTIONS: [(&str, Question); 11] = [
    ("newest", |_, _| DecisionsRequest::default()),
    ("host", |dice, _| DecisionsRequest {
        agent_id: Host::new(dice.roll(HOSTS)).id,
        ..DecisionsRequest::default()
    }),
    ("principal", |dice, _| containing(format!("person_{}", dice.roll(400)))),
    ("refused", |_, _| DecisionsRequest { verdict: "refused".to_owned(), ..DecisionsRequest::default() }),
    ("round_the_proxy", |_, _| DecisionsRequest { non_proxied: true, ..DecisionsRequest::default() }),
    ("text_frequent", |dice, _| containing(format!("UPDATE stock_{}", dice.roll(60)))),
    ("text_rare", |_, _| containing("to program".to_owned())),
    ("text_absent", |dice, _| containing(format!("no such thing {}", dice.roll(1_000)))),
    ("text_on_host", |dice, _| DecisionsRequest {
        agent_id: Host::new(dice.roll(HOSTS)).id,
        ..containing("INSERT INTO".to_owned())
    }),
    ("time_range", |dice, filled| within(dice, filled, DecisionsRequest::default())),
    ("text_in_time_range", |dice, filled| within(dice, filled, containing("report_".to_owned()))),
];

fn containing(contains: String) -> DecisionsRequest {
    DecisionsRequest { contains, ..DecisionsRequest::default() }
}

/// Within some hour.
fn within(dice: &mut Dice, filled: &Filled, request: DecisionsRequest) -> DecisionsRequest {
    let room = u64::try_from(filled.until - filled.since).unwrap() - 3_600_000_000;
    let since = (filled.since + i64::try_from(dice.roll(room)).unwrap()) / 1_000_000;
    let moment = |seconds| Some(Timestamp { seconds, nanos: 0 });
    DecisionsRequest { since: moment(since), until: moment(since + 3_600), ..request }
}

async fn look(store: &Store, dir: &Path, filled: &Filled, looks: usize, figures: &mut BTreeMap<String, f64>) {
    for (name, question) in QUESTIONS {
        for cold in [true, false] {
            let mut dice = Dice(7);
            let mut took = Vec::new();
            for _ in 0..looks {
                if cold {
                    forget(dir);
                }
                let request = DecisionsRequest { limit: PAGE, ..question(&mut dice, filled) };
                let began = Instant::now();
                let answer: DecisionsResponse = store.decisions(request).await.unwrap();
                took.push(began.elapsed());
                assert!(name == "text_absent" || !answer.decisions.is_empty(), "{name} found nothing");
            }
            note(figures, (name, cold), took);
        }
    }
    for cold in [true, false] {
        let readings = Readings::new(store.clone());
        let (mut dice, mut courses, mut charts) = (Dice(9), Vec::new(), Vec::new());
        for look in 0..looks {
            let at = usize::try_from(dice.roll(filled.connections.len() as u64)).unwrap();
            let (agent, connection) = &filled.connections[at];
            if cold {
                forget(dir);
            }
            let began = Instant::now();
            let course = readings.connection(agent, *connection).await.unwrap();
            courses.push(began.elapsed());
            assert!(course.is_some_and(|course| !course.records.is_empty()));
            if cold {
                forget(dir);
            }
            let began = Instant::now();
            // Another span each time: what was counted is good for some seconds.
            let span = Duration::from_secs((720 - look as u64) * 3_600);
            let history = readings.history(span).await.unwrap();
            charts.push(began.elapsed());
            assert!(history.total().total() > 0);
        }
        note(figures, ("connection_detail", cold), courses);
        note(figures, ("history_of_30_days", cold), charts);
    }
}

fn note(figures: &mut BTreeMap<String, f64>, (name, cold): (&str, bool), mut took: Vec<Duration>) {
    took.sort();
    let temperature = if cold { "cold" } else { "warm" };
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1_000.0;
    for (what, share) in [("median", 0.5), ("p95", 0.95)] {
        figures.insert(format!("search_{name}_{temperature}_{what}_ms"), at(share));
    }
}

/// Makes the kernel forget the store's files, for as far as they are written.
fn forget(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("sqlite") && !path.to_string_lossy().ends_with("-shm") {
            let file = File::open(path).unwrap();
            file.sync_all().unwrap();
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        }
    }
}

fn size(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    files.map(|file| file.metadata().unwrap().len()).sum()
}
