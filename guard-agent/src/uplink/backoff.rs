//! How long to wait before the next try: doubling from 0.2 to 30 seconds, with jitter, so that a fleet does not come
//! back all at once.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// The waits between tries.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl Backoff {
    /// The next wait.
    pub fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        jitter(wait)
    }

    /// The longest wait.
    pub fn longest(&self) -> Duration {
        jitter(LONGEST)
    }

    /// After a success: short waits again.
    pub fn reset(&mut self) {
        self.next = SHORTEST;
    }
}

/// Between a half and all of `wait`.
fn jitter(wait: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_bytes()[0];
    wait / 2 + wait / 2 * u32::from(random) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        assert!((SHORTEST / 2..=SHORTEST).contains(&backoff.next()));
        for _ in 0..40 {
            assert!(backoff.next() <= LONGEST);
        }
        assert!((LONGEST / 2..=LONGEST).contains(&backoff.next()));
        backoff.reset();
        assert!(backoff.next() <= SHORTEST);
    }
}
