//! Stopping a backend, or letting it go on: because its statement is known, or because nobody is there to decide.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_ktime_get_ns, bpf_send_signal},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    programs::ProbeContext,
};
use guard_common::kernel::hold::{
    HoldEvent, Known, MAX_KNOWN, STALE_NS, Stop, StopKey, beat, choice, count, level,
};

use crate::{
    backend::{Backend, user},
    hash::Hash,
};

const SIGINT: u32 = 2;
const SIGSTOP: u32 = 19;
/// Chunks of a setting, such as the search path.
const SETTING: usize = 4;
/// Chunks of a statement.
const STATEMENT: usize = MAX_KNOWN / 64;

/// Who was stopped.
#[map]
static HOLD_EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// Statements that are allowed.
#[map]
static HOLD_KNOWN: LruHashMap<Known, u32> = LruHashMap::with_max_entries(65_536, 0);

/// Backends that are stopped. It is written before they are, so that none can be forgotten.
#[map]
static HOLD_STOPS: HashMap<StopKey, Stop> = HashMap::with_max_entries(4_096, 0);

/// When agent and watchdog were seen to work.
#[map]
static HOLD_BEATS: Array<u64> = Array::with_max_entries(beat::COUNT, 0);

/// What came of the probes.
#[map]
static HOLD_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(count::COUNT, 0);

/// Lets a known statement go on, and stops any other.
#[inline(always)]
pub fn consider(ctx: &ProbeContext, backend: &Backend, at_level: u32, text: u64) {
    let message = backend.message();
    let roles = backend.roles();
    let identity = if at_level == level::CALL { None } else { identity(backend, roles, text) };
    if let Some((hash, length)) = identity {
        if at_level == level::PARSE && length == 0 {
            return; // Nothing runs.
        }
        if length > 0 && (is_known(backend, hash, at_level) || is_granted(backend, hash, message)) {
            add(count::KNOWN);
            return;
        }
    }
    let hash = match identity {
        Some((hash, length)) if length > 0 => hash,
        _ => [0; 2],
    };
    if !attended() || !stop(ctx, backend, Request { at_level, text, hash, message, roles }) {
        add(count::UNDECIDED);
        if backend.server.unattended == choice::CANCEL {
            // SAFETY: a helper; the signal goes to this process.
            unsafe { bpf_send_signal(SIGINT) };
        }
    }
}

/// What is stopped.
struct Request {
    at_level: u32,
    text: u64,
    hash: [u64; 2],
    message: u64,
    roles: [u32; 2],
}

/// Hash of the text and of what else says how it is read, and the length of the text.
#[inline(always)]
fn identity(backend: &Backend, roles: [u32; 2], text: u64) -> Option<([u64; 2], u64)> {
    let server = backend.server;
    let mut hash = Hash::new();
    hash.word(u64::from(roles[0]) << 32 | u64::from(roles[1]));
    hash.word(u64::from(user::<u8>(server.plain_strings)?));
    for setting in [server.search_path, server.role, server.application_name] {
        match setting {
            0 => hash.word(0), // This version does not say.
            _ => hash.text::<SETTING>(user(setting)?).map(|_| ())?,
        }
    }
    let length = hash.text::<STATEMENT>(text)?;
    Some((hash.finish(), length))
}

#[inline(always)]
fn is_known(backend: &Backend, hash: [u64; 2], at_level: u32) -> bool {
    let scope = backend.known.scope;
    let known = Known { hash, scope, epoch: backend.server.epoch, level: at_level };
    // SAFETY: the value is not read.
    scope != 0 && unsafe { HOLD_KNOWN.get(&known) }.is_some()
}

/// Whether people have approved this text for the message that runs now.
#[inline(always)]
fn is_granted(backend: &Backend, hash: [u64; 2], message: u64) -> bool {
    let known = &backend.known;
    message != 0 && known.granted_in == message && known.granted[0] == hash[0] && known.granted[1] == hash[1]
}

/// Agent and watchdog are there.
#[inline(always)]
fn attended() -> bool {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let fresh = |index: u32| {
        HOLD_BEATS.get(index).is_some_and(|beat| {
            // SAFETY: a word of a map; volatile, since another process writes it.
            let beat = unsafe { core::ptr::read_volatile(beat) };
            now.saturating_sub(beat) < STALE_NS
        })
    };
    fresh(beat::AGENT) && fresh(beat::WATCHDOG)
}

/// Stops this process where it stands; false where that is not possible.
#[inline(always)]
fn stop(ctx: &ProbeContext, backend: &Backend, request: Request) -> bool {
    let Some(mut entry) = HOLD_EVENTS.reserve::<HoldEvent>(0) else { return false };
    // SAFETY: a helper without arguments.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let key = StopKey { at_ns, pid: backend.pid, reserved: 0 };
    let (ip, sp, lr) = registers(ctx);
    let stop = Stop {
        start_ns: backend.start_ns,
        ip,
        sp,
        lr,
        interrupt: backend.server.interrupt,
        level: request.at_level & 0xff,
        orphans: backend.server.orphans,
    };
    if HOLD_STOPS.insert(&key, &stop, BPF_NOEXIST.into()).is_err() {
        entry.discard(0);
        return false;
    }
    // SAFETY: a helper; the signal goes to this process.
    if unsafe { bpf_send_signal(SIGSTOP) } != 0 {
        let _ = HOLD_STOPS.remove(&key);
        entry.discard(0);
        return false;
    }
    entry.write(HoldEvent {
        key,
        stop,
        text: request.text,
        hash: request.hash,
        message: request.message,
        scope: backend.known.scope,
        epoch: backend.server.epoch,
        level: request.at_level,
        postmaster: backend.postmaster,
        roles: request.roles,
        reserved: 0,
    });
    entry.submit(0);
    add(count::HELD);
    true
}

/// Where the process stands: instruction, stack, and the return address where it is in a register.
#[inline(always)]
fn registers(ctx: &ProbeContext) -> (u64, u64, u64) {
    // SAFETY: the context of a probe holds the registers of the process.
    let registers = unsafe { &*ctx.regs };
    #[cfg(bpf_target_arch = "aarch64")]
    return (registers.pc, registers.sp, registers.regs[30]);
    #[cfg(not(bpf_target_arch = "aarch64"))]
    return (registers.rip, registers.rsp, 0);
}

#[inline(always)]
fn add(index: u32) {
    if let Some(count) = HOLD_COUNTS.get_ptr_mut(index) {
        // SAFETY: the slot belongs to this CPU.
        unsafe { *count += 1 };
    }
}
