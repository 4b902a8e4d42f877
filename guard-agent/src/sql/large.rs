//! Long texts enter, their statements leave: read by threads of their own, so that a session thread goes on with its
//! other sessions meanwhile.
//!
//! As many texts are held as the queue has places; whoever asks for more waits. Never fails: what no thread answers
//! for is reported as unreadable.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use tokio::sync::{mpsc, oneshot};

use super::{Classifier, Limits, Modes, Statement, unreadable};

/// Threads for all long texts of the process.
const THREADS: usize = 2;
/// Texts that wait for one of them.
const QUEUE: usize = 4;
/// More than the caps on a text need in a debug build.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// The way to the threads that read long texts. They end with the last of its clones.
#[derive(Clone, Debug)]
pub struct LargeTexts {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    text: Vec<u8>,
    modes: Modes,
    answer: oneshot::Sender<Arc<Statement>>,
}

impl LargeTexts {
    /// Texts from here on are long: shorter ones are read in less time than the way to another thread is worth.
    pub const FROM_BYTES: usize = 64 * 1024;

    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(limits: Limits) -> io::Result<Self> {
        // What is long is hardly ever sent twice.
        let limits = Limits { cache_entries: 0, cache_bytes: 0, ..limits };
        let (queue, jobs) = mpsc::channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..THREADS {
            let jobs = Arc::clone(&jobs);
            thread::Builder::new()
                .name(format!("long-text-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || work(&jobs, limits))?;
        }
        Ok(Self { queue })
    }

    /// What `text` does under `modes`, when its turn has come.
    pub async fn classify(&self, text: &[u8], modes: Modes) -> Arc<Statement> {
        let length = text.len();
        let lost = || unreadable("nothing is left to read it", length);
        // The text is copied only once there is a place for it.
        let Ok(place) = self.queue.reserve().await else { return lost() };
        let (answer, answered) = oneshot::channel();
        place.send(Job { text: text.to_vec(), modes, answer });
        answered.await.unwrap_or_else(|_| lost())
    }
}

fn work(jobs: &Mutex<mpsc::Receiver<Job>>, limits: Limits) {
    loop {
        // Held while waiting: the other threads wait for the lock instead of for the queue.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(Job { text, modes, answer }) = job else { return };
        if answer.is_closed() {
            // The session is gone.
            continue;
        }
        // A new one for each text: what it needed to read this one may be many times the text.
        let _ = answer.send(Classifier::new(limits).classify(&text, &modes));
    }
}

#[cfg(test)]
mod tests {
    use guard_policy::vocabulary::{Action, Parse};

    use super::*;

    fn insert(rows: usize) -> String {
        let rows: Vec<String> = (0..rows).map(|row| format!("({row}, 'row {row}')")).collect();
        format!("INSERT INTO t VALUES {}", rows.join(", "))
    }

    #[tokio::test]
    async fn many_at_once_are_all_read_and_the_thread_goes_on_meanwhile() {
        let large = LargeTexts::start(Limits::default()).unwrap();
        let text = insert(20_000);
        assert!(text.len() > LargeTexts::FROM_BYTES);
        let mut readings = tokio::task::JoinSet::new();
        for _ in 0..3 * QUEUE {
            let (large, text) = (large.clone(), text.clone());
            readings.spawn(async move { large.classify(text.as_bytes(), Modes::default()).await });
        }
        let mut turns = 0_u32;
        while !readings.is_empty() {
            turns += 1;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            while let Some(statement) = readings.try_join_next() {
                let statement = statement.unwrap();
                assert_eq!(statement.parse, Parse::Full);
                assert!(statement.effects.iter().all(|effect| effect.action == Action::Insert));
            }
        }
        assert!(turns > 1, "this thread was not held up");
    }

    #[tokio::test]
    async fn what_no_thread_reads_is_unreadable() {
        let (queue, jobs) = mpsc::channel(1);
        drop(jobs);
        let statement = LargeTexts { queue }.classify(b"SELECT 1", Modes::default()).await;
        assert_eq!(statement.effects[0].action, Action::Unreadable);
    }
}
