//! Counts the bytes of unix connections. The kernel keeps no counts of its own for them: programs look at each message on any
//! socket of the host. So where there are many messages and none is for a database's unix socket, they rest.

use std::{
    mem,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError, RawTracePoint, raw_trace_point::RawTracePointLink},
};

use super::host;

/// The program that sees what was sent.
pub const SENT: &str = "sock_sent";
/// The program that sees what was received.
pub const RECEIVED: &str = "sock_received";

/// How long they go on being counted when the last of the connections has ended: who comes as often as that, such as a
/// monitoring agent, is counted from the first byte.
const LINGER: Duration = Duration::from_mins(2);
/// How long they are not counted before it is tried whether the host has become quiet.
const REST: Duration = Duration::from_secs(30);
/// Messages per second of which the looking costs something: at 0.2 us each, this is a thousandth of one CPU.
const MANY: u64 = 5_000;

/// They are counted as long as this lives.
#[derive(Debug)]
pub struct Counting {
    since: Duration,
    #[expect(dead_code, reason = "dropping them detaches")]
    links: [RawTracePointLink; 2],
}

impl Counting {
    /// Begins to count. The programs have been loaded before.
    pub fn begin(ebpf: &mut Ebpf) -> Result<Self, ProgramError> {
        let mut linked =
            |name| link(ebpf.program_mut(name).ok_or(ProgramError::UnexpectedProgramType)?, tracepoint(name));
        let links = [linked(SENT)?, linked(RECEIVED)?];
        Ok(Self { since: host::monotonic(), links })
    }

    /// Since when (`CLOCK_MONOTONIC`).
    pub fn since(&self) -> Duration {
        self.since
    }
}

/// When to count.
#[derive(Debug)]
pub struct Duty {
    /// When there was last a connection whose bytes are counted.
    needed: Option<Instant>,
    resting_since: Option<Instant>,
    looked: Instant,
    /// How many messages had been looked at until then.
    messages: u64,
}

impl Duty {
    /// Begins with counting.
    pub fn new(now: Instant) -> Self {
        Self { needed: None, resting_since: None, looked: now, messages: 0 }
    }

    /// There is such a connection: they are counted for a good while.
    pub fn begin(&mut self, now: Instant) {
        self.needed = Some(now);
        self.resting_since = None;
    }

    /// Whether they are to be counted from now on. `connected`: there is a connection whose bytes are counted; `messages`:
    /// how many messages the programs have looked at, ever.
    pub fn decide(&mut self, now: Instant, connected: bool, messages: u64) -> bool {
        if connected {
            self.begin(now);
        }
        let passed = messages.wrapping_sub(mem::replace(&mut self.messages, messages));
        let elapsed = now.saturating_duration_since(mem::replace(&mut self.looked, now));
        if let Some(since) = self.resting_since {
            if now.saturating_duration_since(since) >= REST {
                self.resting_since = None;
            }
        } else if u128::from(passed) * 1_000 > u128::from(MANY) * elapsed.as_millis().max(1)
            && self.needed.is_none_or(|needed| now.saturating_duration_since(needed) > LINGER)
        {
            self.resting_since = Some(now);
        }
        self.resting_since.is_none()
    }
}

/// Loads the program `name`, and sees whether it can be attached.
pub fn probe(program: &mut Program, name: &str) -> Result<(), ProgramError> {
    <&mut RawTracePoint>::try_from(&mut *program)?.load()?;
    link(program, tracepoint(name)).map(drop)
}

fn tracepoint(name: &str) -> &'static str {
    if name == SENT { "sock_send_length" } else { "sock_recv_length" }
}

fn link(program: &mut Program, tracepoint: &str) -> Result<RawTracePointLink, ProgramError> {
    let program: &mut RawTracePoint = program.try_into()?;
    let link = program.attach(tracepoint)?;
    program.take_link(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks four times a second for `seconds`, at a host with `rate` messages per second; gives how often they were counted.
    fn watch(duty: &mut Duty, now: &mut Instant, messages: &mut u64, seconds: u64, rate: u64) -> u64 {
        let mut counted = 0;
        for _ in 0..seconds * 4 {
            *now += Duration::from_millis(250);
            // Resting, the programs look at nothing.
            *messages += if duty.resting_since.is_none() { rate / 4 } else { 0 };
            counted += u64::from(duty.decide(*now, false, *messages));
        }
        counted
    }

    #[test]
    fn they_rest_on_a_busy_host_and_look_now_and_then_whether_it_still_is() {
        let (mut now, mut messages) = (Instant::now(), 0);
        let mut duty = Duty::new(now);
        assert_eq!(watch(&mut duty, &mut now, &mut messages, 600, MANY / 2), 2_400, "a quiet host");
        let counted = watch(&mut duty, &mut now, &mut messages, 600, MANY * 10);
        assert!((10..=20).contains(&counted), "once in every rest: {counted}");
        let counted = watch(&mut duty, &mut now, &mut messages, 600, 0);
        assert!(counted >= 2_400 - 4 * REST.as_secs(), "it is quiet again: {counted}");
    }

    #[test]
    fn a_connection_is_counted_however_busy_the_host_and_the_next_one_soon_after_it_too() {
        let (mut now, mut messages) = (Instant::now(), 0);
        let mut duty = Duty::new(now);
        watch(&mut duty, &mut now, &mut messages, 10, MANY * 10);
        assert!(duty.resting_since.is_some());
        duty.begin(now);
        messages += MANY * 1_000;
        assert!(duty.decide(now + Duration::from_mins(10), true, messages));
        now += Duration::from_mins(10);
        let lingered = watch(&mut duty, &mut now, &mut messages, 600, MANY * 10);
        assert!((LINGER.as_secs() * 4..LINGER.as_secs() * 4 + 30).contains(&lingered), "{lingered}");
    }
}
