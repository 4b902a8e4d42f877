//! Decisions over time: counts, never records.

use std::time::{Duration, Instant, SystemTime};

use super::{ReadingError, Readings, lock};
use crate::store::{
    SLOT,
    sql::{Line, Sql},
};

/// How long counts are good enough.
const FRESH: Duration = Duration::from_secs(5);
/// Parts of a history.
pub const BUCKETS: usize = 48;
/// Policies that are named.
const CAUSES: i64 = 6;

/// Decisions within one part of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// They went on.
    pub allowed: u64,
    /// They did not happen, or waited for people.
    pub refused: u64,
    /// Policy refuses them, and they went on.
    pub would: u64,
    /// Of all these, connections round the proxy.
    pub non_proxied: u64,
}

impl Bucket {
    /// All of them.
    pub fn total(self) -> u64 {
        self.allowed + self.refused + self.would
    }
}

/// What a policy refused.
#[derive(Clone, Debug)]
pub struct Cause {
    /// The policy.
    pub policy: String,
    /// How often, or how often it would have.
    pub count: u64,
}

/// Decisions over time.
#[derive(Clone, Debug)]
pub struct History {
    /// Microseconds since 1970: where the first bucket begins.
    pub since: i64,
    /// Microseconds of one bucket.
    pub step: i64,
    /// The oldest first.
    pub buckets: Vec<Bucket>,
    /// What refused the most.
    pub causes: Vec<Cause>,
}

impl History {
    /// All buckets together.
    pub fn total(&self) -> Bucket {
        self.buckets.iter().fold(Bucket::default(), |all, one| Bucket {
            allowed: all.allowed + one.allowed,
            refused: all.refused + one.refused,
            would: all.would + one.would,
            non_proxied: all.non_proxied + one.non_proxied,
        })
    }
}

impl Readings {
    /// Of the last `span`.
    pub async fn history(&self, span: Duration) -> Result<History, ReadingError> {
        if let Some((at, history)) = lock(&self.0.history).get(&span)
            && at.elapsed() < FRESH
        {
            return Ok(history.clone());
        }
        let history = self.count(span).await?;
        lock(&self.0.history).insert(span, (Instant::now(), history.clone()));
        Ok(history)
    }

    async fn count(&self, span: Duration) -> Result<History, ReadingError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let step = (micros(span) / BUCKETS as i64).max(1);
        // Whole buckets, so that a bar does not change its meaning with each look.
        let until = (micros(now) / step + 1).saturating_mul(step);
        let since = until - step * BUCKETS as i64;
        // The embedded store counts decisions as they come; PostgreSQL counts them now, with many hands.
        let (counts, causes) = match self.0.store.is_shared() {
            false => (
                format!(
                    "SELECT (slot * {SLOT} - $1) / $2, verdict, round, sum(count) FROM tallies
                     WHERE slot >= $1 / {SLOT} AND slot < $3 / {SLOT} GROUP BY 1, 2, 3"
                ),
                format!(
                    "SELECT policy, sum(count) FROM tallies WHERE slot >= $1 / {SLOT} AND verdict > 1
                     GROUP BY policy ORDER BY 2 DESC, 1 LIMIT $2"
                ),
            ),
            true => (
                "SELECT (at - $1) / $2, verdict, access = 2, count(*) FROM records
                 WHERE verdict IS NOT NULL AND at >= $1 AND at < $3 GROUP BY 1, 2, 3"
                    .to_owned(),
                "SELECT policy, count(*) FROM records WHERE verdict > 1 AND at >= $1
                 GROUP BY policy ORDER BY 2 DESC, 1 LIMIT $2"
                    .to_owned(),
            ),
        };
        let questions = vec![
            Sql::new(counts, [since.into(), step.into(), until.into()]),
            Sql::new(causes, [since.into(), CAUSES.into()]),
        ];
        let answers = self.0.store.look(questions).await?;
        let mut answers = answers.iter();
        let mut buckets = vec![Bucket::default(); BUCKETS];
        for line in answers.next().into_iter().flatten() {
            let place = usize::try_from(line.int(0)).unwrap_or(usize::MAX);
            let Some(bucket) = buckets.get_mut(place) else { continue };
            let count = line.int(3).cast_unsigned();
            match line.int(1) {
                1 => bucket.allowed += count,
                2 | 4 => bucket.refused += count,
                _ => bucket.would += count,
            }
            if line.int(2) != 0 {
                bucket.non_proxied += count;
            }
        }
        let cause =
            |line: &Line| Cause { policy: line.text(0).to_owned(), count: line.int(1).cast_unsigned() };
        let causes = answers.next().into_iter().flatten().map(cause).collect();
        Ok(History { since, step, buckets, causes })
    }
}
