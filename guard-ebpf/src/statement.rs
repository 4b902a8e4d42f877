//! Statements as PostgreSQL runs them: probes on the functions through which all of them pass.
//!
//! The executor sees plans, also of dynamic SQL in functions and of prepared statements that run again; the utility
//! level sees everything else. The program file is shared by all servers that run it: what belongs to a server that is
//! not observed leaves at once. The texts are those of the server's own memory, read before the statement runs.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{
            bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user, bpf_probe_read_user_str,
        },
    },
    macros::{map, uprobe},
    maps::{Array, HashMap, LruHashMap, RingBuf, ring_buf::RingBufEntry},
    programs::ProbeContext,
};
use guard_common::kernel::{
    EventKind,
    statement::{
        BACKENDS as BACKENDS_LIMIT, Backend, BackendEvent, CHUNK_LEN, CHUNKS, NAME_LEN, NO_RUN, RUNS, Run,
        RunsEvent, SERVERS, SETTING_LEN, StatementEvent, TEXT_LEN, Target, TextEvent, flag, level, mode,
        query, switch,
    },
};

use crate::{
    events::{header, lost},
    hash::Hash,
    read::{cleared, offset},
    unix::file_of,
};

/// `PROCESS_UTILITY_SUBCOMMAND`: a part of a statement that was seen as a whole.
const SUBCOMMAND: u32 = 3;
/// Bytes that are compared at once, and how often: 16 KiB.
const PIECE: usize = 64;
const PIECES: u32 = 256;
/// Chunks of a text whose repeats are counted: about 2 KiB. Longer ones are told of each time.
const COUNTED: usize = 32;
/// How often what the proxy sees may be counted before it is noticed that it does: a power of two.
const NOTICED: u64 = 64;
/// `BPF_RB_NO_WAKEUP` and `BPF_RB_FORCE_WAKEUP`.
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;
/// `BPF_RB_AVAIL_DATA` and `BPF_RB_RING_SIZE`.
const AVAILABLE: u64 = 0;
const SIZE: u64 = 1;

/// Statements and their backends. The agent sets its size before loading.
#[map]
static STATEMENTS: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);

/// Observed servers by their first process.
#[map]
static OBSERVED: HashMap<u32, Target> = HashMap::with_max_entries(SERVERS, 0);

/// Backends by process.
#[map]
static BACKENDS: LruHashMap<u32, Backend> = LruHashMap::with_max_entries(BACKENDS_LIMIT, 0);

/// Backends whose clients the proxy sees, by process, with the time of their start. The agent writes it: [`BACKENDS`] is
/// the backends' own.
#[map]
static PROXIED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(BACKENDS_LIMIT, 0);

/// What the agent tells: [`switch`].
#[map]
static AWAKE: Array<u32> = Array::with_max_entries(switch::COUNT, 0);

/// `standard_ExecutorRun(QueryDesc *queryDesc, ..)`.
#[uprobe]
pub fn statement_executor(ctx: ProbeContext) -> u32 {
    let query: u64 = ctx.arg(0).unwrap_or(0);
    executor(query);
    0
}

#[inline(always)]
fn executor(description: u64) -> Option<()> {
    let (backend, target) = observed()?;
    let mut words = [const { MaybeUninit::<u64>::uninit() }; query::WORDS];
    let from = (description + query::PLAN) as *const _;
    // SAFETY: as many bytes as the words have; the helper writes all of them, fails on a bad address, and clears them then.
    let (failed, plan, text, executed) = unsafe {
        let failed = bpf_probe_read_user(words.as_mut_ptr().cast(), (query::WORDS * 8) as u32, from);
        (failed, words[0].assume_init(), words[1].assume_init(), words[query::WORDS - 1].assume_init())
    };
    // A cursor's second fetch, or the next rows of a portal.
    if failed != 0 || executed as u8 != 0 {
        return None;
    }
    report(backend, target, &Seen { text, plan, level: level::EXECUTOR, function: 0 })
}

/// `standard_ProcessUtility(PlannedStmt *pstmt, const char *queryString, [bool readOnlyTree,] ProcessUtilityContext, ..)`.
#[uprobe]
pub fn statement_utility(ctx: ProbeContext) -> u32 {
    let plan: u64 = ctx.arg(0).unwrap_or(0);
    let text: u64 = ctx.arg(1).unwrap_or(0);
    let third: u64 = ctx.arg(2).unwrap_or(0);
    let fourth: u64 = ctx.arg(3).unwrap_or(0);
    utility(plan, text, third as u32, fourth as u32);
    0
}

#[inline(always)]
fn utility(plan: u64, text: u64, third: u32, fourth: u32) -> Option<()> {
    let (backend, target) = observed()?;
    let context = if target.utility_fourth == 1 { fourth } else { third };
    if context == SUBCOMMAND {
        return None;
    }
    report(backend, target, &Seen { text, plan, level: level::UTILITY, function: 0 })
}

/// `HandleFunctionRequest(StringInfo msgBuf)`: the message begins with the function's number in network order.
#[uprobe]
pub fn statement_function(ctx: ProbeContext) -> u32 {
    let message: u64 = ctx.arg(0).unwrap_or(0);
    function(message);
    0
}

#[inline(always)]
fn function(message: u64) -> Option<()> {
    let (backend, target) = observed()?;
    let data: u64 = user(message, 0).0;
    let (number, failed) = user::<u32>(data, 0);
    if failed != 0 {
        return None;
    }
    let seen = Seen { text: 0, plan: 0, level: level::FUNCTION, function: u32::from_be(number) };
    report(backend, target, &seen)
}

/// `exec_replication_command(const char *cmd_string)`: walsenders take SQL this way, too.
#[uprobe]
pub fn statement_replication(ctx: ProbeContext) -> u32 {
    let text: u64 = ctx.arg(0).unwrap_or(0);
    replication(text);
    0
}

#[inline(always)]
fn replication(text: u64) -> Option<()> {
    let (backend, target) = observed()?;
    report(backend, target, &Seen { text, plan: 0, level: level::REPLICATION, function: 0 })
}

/// A process has ended: another may get its number.
#[inline(always)]
pub fn ended(pid: u32) {
    if let Some(backend) = BACKENDS.get_ptr_mut(&pid)
        && !tell_runs(backend)
    {
        lost(EventKind::StatementRuns);
    }
    let _ = BACKENDS.remove(&pid);
    let _ = PROXIED.remove(&pid);
}

/// Where a plan's statement begins in the text, and its length: -1 and 0 where that is not known, or there is no plan.
#[inline(always)]
fn place(plan: u64, target: &Target) -> [i32; 2] {
    let (place, failed) = user::<[i32; 2]>(plan, target.plan_location);
    [place[0] | failed as i32, place[1]]
}

/// A statement that is about to run.
struct Seen {
    text: u64,
    /// 0 where there is none.
    plan: u64,
    level: u32,
    function: u32,
}

/// The backend that runs right now and its server, where that is observed.
#[inline(always)]
fn observed() -> Option<(*mut Backend, &'static Target)> {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let backend = match BACKENDS.get_ptr_mut(&pid) {
        Some(backend) => backend,
        None => admit(pid)?,
    };
    // SAFETY: a value of the map; the backend is one process with one thread.
    let (mode, server_pid) = unsafe { ((*backend).mode, (*backend).server_pid) };
    if mode == mode::NOTHING {
        return None;
    }
    // SAFETY: read only; the agent replaces entries as a whole.
    let target = unsafe { OBSERVED.get(&server_pid) }?;
    Some((backend, target))
}

/// What a backend begins with. In the object: the stack has no room for one.
static BEGINNING: Backend = Backend {
    start_ns: 0,
    settings: 0,
    server_pid: 0,
    sequence: 0,
    mode: mode::NOTHING,
    used: 0,
    utility: 0,
    hand: 0,
    scratch: 0,
    runs: [Run { identity: 0, again: 0 }; RUNS],
};

/// Decides once for each process whether it is looked at. Without a client it works for another backend, or for the
/// server itself.
#[inline(always)]
fn admit(pid: u32) -> Option<*mut Backend> {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let leader: u64 = cleared(task, offset!(task_group_leader));
    let parent: u64 = cleared(leader, offset!(task_real_parent));
    let server_pid: u32 = cleared(parent, offset!(task_tgid));
    let _ = BACKENDS.insert(&pid, &BEGINNING, 0);
    let backend = BACKENDS.get_ptr_mut(&pid)?;
    // SAFETY: a value of the map, of a process with one thread.
    unsafe {
        (*backend).start_ns = cleared(leader, offset!(task_start_boottime));
        (*backend).server_pid = server_pid;
    }
    // SAFETY: read only.
    if let Some(target) = unsafe { OBSERVED.get(&server_pid) }
        && user::<u64>(target.port, 0).0 != 0
    {
        // SAFETY: as above.
        unsafe { (*backend).mode = mode::ALL };
    }
    Some(backend)
}

#[inline(always)]
fn report(backend: *mut Backend, target: &Target, seen: &Seen) -> Option<()> {
    let each = *AWAKE.get(switch::EACH)?;
    let (sent, _): (u64, _) = user(target.client_text, 0);
    let nested = seen.text != 0 && seen.text != sent && !same_text(seen.text, sent);
    // SAFETY: a value of the map, of a process with one thread; here and below.
    if !nested && unsafe { (*backend).mode } == mode::NESTED {
        return None;
    }
    // From here on for those alone that are not left to the proxy.
    let place = place(seen.plan, target);
    let settings = settings(target);
    let standard: (u8, u64) = user(target.standard_strings, 0);
    let mut flags = if nested { flag::NESTED } else { 0 };
    // Where the server does not say, they are.
    if standard.0 != 0 || standard.1 != 0 {
        flags |= flag::STANDARD_STRINGS;
    }
    let mut flags = forgotten(backend, flags);
    let nested = flags & flag::NESTED != 0;
    let identity = if each == 1 { 0 } else { identity(seen, place, settings, flags) };
    // SAFETY: as above.
    let utility = unsafe { (*backend).utility };
    if seen.level == level::UTILITY {
        // SAFETY: as above.
        unsafe { (*backend).utility = identity };
    }
    if identity != 0 && ran_again(backend, identity) {
        return None;
    }
    if !nested && is_proxied(backend) {
        return None;
    }
    // SAFETY: as above.
    if unsafe { (*backend).settings } != settings {
        introduce(backend, target, settings);
    }
    let run = forgotten(backend, if identity == 0 { NO_RUN } else { make_room(backend) });
    // SAFETY: as above.
    let (sequence, start_ns) = unsafe {
        (*backend).sequence = (*backend).sequence.wrapping_add(1);
        ((*backend).sequence, (*backend).start_ns)
    };
    let wake = wake();
    let mut entry = reserve::<StatementEvent>(EventKind::Statement)?;
    let event = entry.as_mut_ptr();
    let (kept, more) = copy_first(&mut entry, seen.text);
    if more {
        flags |= flag::MORE;
    }
    if seen.text != 0 && kept < 0 {
        flags |= flag::UNREADABLE;
    }
    // SAFETY: fields of the reserved entry.
    unsafe {
        (&raw mut (*event).header).write(header(EventKind::Statement));
        (&raw mut (*event).start_ns).write(start_ns);
        (&raw mut (*event).address).write(seen.text);
        (&raw mut (*event).identity).write(identity);
        (&raw mut (*event).utility).write(utility);
        (&raw mut (*event).pid).write((bpf_get_current_pid_tgid() >> 32) as u32);
        (&raw mut (*event).sequence).write(sequence);
        (&raw mut (*event).level).write(seen.level);
        (&raw mut (*event).flags).write(flags);
        (&raw mut (*event).location).write(place[0]);
        (&raw mut (*event).length).write(place[1]);
        (&raw mut (*event).function).write(seen.function);
        (&raw mut (*event).text_kept).write(if kept > 0 { kept as u32 } else { 0 });
        (&raw mut (*event).run).write(run);
        (&raw mut (*event).reserved).write(0);
    }
    entry.submit(wake);
    // What was not told of is not counted either: the next run tells.
    if let Some(place) = run_at(backend, run) {
        // SAFETY: one of the backend's runs.
        unsafe { (&raw mut (*place).identity).write(identity) };
    }
    if more {
        copy_rest(seen.text, sequence);
    }
    Some(())
}

/// The same value, by way of the map: there a verifier forgets what it knows of it. It would follow all that comes after
/// once for each value that it knows.
#[inline(always)]
fn forgotten(backend: *mut Backend, value: u32) -> u32 {
    // SAFETY: a value of the map, of a process with one thread.
    unsafe {
        let word = &raw mut (*backend).scratch;
        word.write_volatile(value);
        word.read_volatile()
    }
}

/// Stands for the statement and all by which it is read; 0 where its text is too long for that or cannot be read.
#[inline(always)]
fn identity(seen: &Seen, place: [i32; 2], settings: u64, flags: u32) -> u64 {
    let place = u64::from(place[0] as u32) << 32 | u64::from(place[1] as u32);
    let kind = u64::from(seen.function) << 32 | u64::from(seen.level) << 16 | u64::from(flags);
    hash_of(seen.text, settings, place, kind)
}

#[inline(always)]
fn hash_of(text: u64, settings: u64, place: u64, kind: u64) -> u64 {
    let mut hash = Hash::new();
    hash.word(settings);
    hash.word(place);
    hash.word(kind);
    if text != 0 && hash.text::<COUNTED>(text).is_none() {
        return 0;
    }
    hash.finish()[0] | 1
}

/// Counts one more run of what was told of before; false where that is not the case.
#[inline(always)]
fn ran_again(backend: *mut Backend, identity: u64) -> bool {
    let mut index = 0;
    while index < RUNS as u32 {
        if let Some(run) = run_at(backend, index) {
            // SAFETY: one of the backend's runs, here and below.
            if unsafe { (*run).identity } == identity {
                let again = unsafe { (*run).again } + 1;
                unsafe {
                    (&raw mut (*run).again).write(again);
                    (*backend).used |= 1 << index;
                }
                if again % NOTICED == 0 {
                    // From now on what the proxy sees goes another way.
                    is_proxied(backend);
                }
                return true;
            }
        }
        index += 1;
    }
    false
}

/// One of the backend's runs; nothing for [`NO_RUN`].
#[inline(always)]
fn run_at(backend: *mut Backend, index: u32) -> Option<*mut Run> {
    if index >= RUNS as u32 {
        return None;
    }
    // SAFETY: within the array.
    Some(unsafe { (&raw mut (*backend).runs).cast::<Run>().add(index as usize) })
}

/// Makes one of the backend's runs free, if need be of one that has not come again for long. [`NO_RUN`] where what was
/// counted of it cannot be told: it stays then.
#[inline(always)]
fn make_room(backend: *mut Backend) -> u32 {
    // SAFETY: a value of the map, of a process with one thread; here and below.
    let (mut hand, mut used) = unsafe { ((*backend).hand, (*backend).used) };
    let mut step = 0;
    while step < RUNS {
        step += 1;
        hand &= RUNS as u32 - 1;
        if used & (1 << hand) == 0 {
            break;
        }
        used &= !(1 << hand);
        hand += 1;
    }
    hand &= RUNS as u32 - 1;
    // SAFETY: as above.
    unsafe { (*backend).used = used };
    let Some(run) = run_at(backend, hand) else { return NO_RUN };
    // SAFETY: one of the backend's runs.
    if unsafe { (*run).again } > 0 && !tell_runs(backend) {
        return NO_RUN;
    }
    // The count first: an identity never stands beside the count of another.
    // SAFETY: as above.
    unsafe {
        (&raw mut (*run).again).write_volatile(0);
        (&raw mut (*run).identity).write_volatile(0);
        (*backend).hand = hand + 1;
    }
    hand
}

/// Tells what is counted, where there is anything; false where it finds no room.
#[inline(always)]
fn tell_runs(backend: *mut Backend) -> bool {
    let mut any = 0;
    let mut index = 0;
    while index < RUNS as u32 {
        if let Some(run) = run_at(backend, index) {
            // SAFETY: one of the backend's runs.
            any |= unsafe { (*run).again };
        }
        index += 1;
    }
    if any == 0 {
        return true;
    }
    let wake = wake();
    // Without room nothing is lost yet: it goes on being counted.
    let Some(mut entry) = STATEMENTS.reserve::<RunsEvent>(0) else { return false };
    let event = entry.as_mut_ptr();
    // SAFETY: fields of the reserved entry; the helper copies as many bytes as the field has from a value of the map.
    unsafe {
        (&raw mut (*event).header).write(header(EventKind::StatementRuns));
        (&raw mut (*event).start_ns).write((*backend).start_ns);
        (&raw mut (*event).pid).write((bpf_get_current_pid_tgid() >> 32) as u32);
        (&raw mut (*event).sequence).write((*backend).sequence);
        let (to, from) = (&raw mut (*event).runs, &raw const (*backend).runs);
        bpf_probe_read_kernel(to.cast(), size_of::<[Run; RUNS]>() as u32, from.cast());
    }
    entry.submit(wake);
    true
}

/// Nothing is counted any more: what comes is read in another way.
#[inline(always)]
fn forget_runs(backend: *mut Backend) {
    let mut index = 0;
    while index < RUNS as u32 {
        if let Some(run) = run_at(backend, index) {
            // SAFETY: one of the backend's runs.
            unsafe {
                (&raw mut (*run).again).write_volatile(0);
                (&raw mut (*run).identity).write_volatile(0);
            }
        }
        index += 1;
    }
}

/// What the agent has told.
#[inline(always)]
fn is_on(switch: u32) -> bool {
    AWAKE.get(switch).is_some_and(|word| *word == 1)
}

/// Whether both are the same text: on the extended protocol the server keeps two copies of it. What is too long to be
/// compared counts as another.
#[inline(always)]
fn same_text(one: u64, other: u64) -> bool {
    let (mut left, mut right) = ([0_u64; PIECE / 8 + 1], [0_u64; PIECE / 8 + 1]);
    let mut at = 0;
    let mut step = 0;
    while step < PIECES {
        step += 1;
        // SAFETY: both buffers have room for a piece and a zero byte; the helper checks the sources.
        let (length, other_length) = unsafe {
            let size = PIECE as u32 + 1;
            (
                bpf_probe_read_user_str((&raw mut left).cast(), size, (one + at) as *const _),
                bpf_probe_read_user_str((&raw mut right).cast(), size, (other + at) as *const _),
            )
        };
        // Whole pieces, without a branch for each word: behind the texts' end is what was there before, which is the same.
        let mut differs = (length ^ other_length) as u64;
        macro_rules! compare {
            ($($index:literal)*) => {$(
                differs |= left[$index] ^ right[$index];
            )*};
        }
        compare!(0 1 2 3 4 5 6 7);
        if differs != 0 || length <= 0 {
            return false;
        }
        if length <= PIECE as i64 {
            return true;
        }
        at += PIECE as u64;
    }
    false
}

/// Whether the proxy sees what the client of this backend sends.
#[inline(always)]
fn is_proxied(backend: *mut Backend) -> bool {
    // SAFETY: a value of the map, of a process with one thread.
    let (mode, start_ns) = unsafe { ((*backend).mode, (*backend).start_ns) };
    if mode == mode::NESTED {
        return true;
    }
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: read only.
    let proxied = unsafe { PROXIED.get(&pid) }.is_some_and(|start| *start == start_ns);
    if proxied {
        // SAFETY: as above.
        unsafe { (*backend).mode = mode::NESTED };
    }
    proxied
}

/// The beginning of the text: its bytes without the zero, below zero where it cannot be read, and whether there is more.
#[inline(always)]
fn copy_first(entry: &mut RingBufEntry<StatementEvent>, text: u64) -> (i64, bool) {
    if text == 0 {
        return (0, false);
    }
    // SAFETY: bounded by the field's length; the helper checks the source.
    let read = unsafe {
        let to = &raw mut (*entry.as_mut_ptr()).text;
        bpf_probe_read_user_str(to.cast(), TEXT_LEN as u32, text as *const _)
    };
    (read - 1, read == TEXT_LEN as i64)
}

/// The rest, up to what is kept of a text at most.
#[inline(always)]
fn copy_rest(text: u64, sequence: u32) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let mut at = text + TEXT_LEN as u64 - 1;
    let mut number = 0;
    while number < CHUNKS {
        number += 1;
        let Some(mut entry) = reserve::<TextEvent>(EventKind::StatementText) else { return };
        let event = entry.as_mut_ptr();
        // SAFETY: fields of the reserved entry; the helper bounds the copy and checks the source.
        let read = unsafe {
            let to = &raw mut (*event).text;
            bpf_probe_read_user_str(to.cast(), CHUNK_LEN as u32, at as *const _)
        };
        let more = read == CHUNK_LEN as i64;
        let left = if number == CHUNKS { 2 } else { 1 };
        // SAFETY: as above.
        unsafe {
            (&raw mut (*event).header).write(header(EventKind::StatementText));
            (&raw mut (*event).pid).write(pid);
            (&raw mut (*event).sequence).write(sequence);
            (&raw mut (*event).text_kept).write(if read > 0 { read as u32 - 1 } else { 0 });
            (&raw mut (*event).more).write(if more { left } else { 0 });
        }
        // Wakes an agent that waits for it: asking whether it does would be one more branch while the entry is held.
        entry.submit(0);
        if !more {
            return;
        }
        at += CHUNK_LEN as u64 - 1;
    }
}

/// Stands for the settings as they are now: where they are kept, and how they begin. A setting that changes is kept
/// elsewhere, since the new value is there before the old one goes.
#[inline(always)]
fn settings(target: &Target) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for place in [target.role, target.search_path, target.application_name] {
        let (text, _): (u64, _) = user(place, 0);
        let (start, _): (u64, _) = user(text, 0);
        sum = (sum ^ text).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        sum = (sum ^ start).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
    sum | 1
}

/// Tells who the backend works for, with its settings.
#[inline(always)]
fn introduce(backend: *mut Backend, target: &Target, settings: u64) {
    // What was counted belongs to the settings of before.
    if !tell_runs(backend) {
        return;
    }
    forget_runs(backend);
    let (port, _): (u64, _) = user(target.port, 0);
    let (descriptor, failed): (i32, u64) = user(port, target.port_socket);
    let (cookie, inode) = socket(descriptor | failed as i32);
    let wake = wake();
    let Some(mut entry) = reserve::<BackendEvent>(EventKind::Backend) else { return };
    let event = entry.as_mut_ptr();
    // SAFETY: a value of the map and fields of the reserved entry; the helpers bound the copies and check the sources.
    unsafe {
        (&raw mut (*event).header).write(header(EventKind::Backend));
        (&raw mut (*event).start_ns).write((*backend).start_ns);
        (&raw mut (*event).cookie).write(cookie);
        (&raw mut (*event).inode).write(inode);
        (&raw mut (*event).pid).write((bpf_get_current_pid_tgid() >> 32) as u32);
        (&raw mut (*event).server_pid).write((*backend).server_pid);
        text::<NAME_LEN>(&raw mut (*event).user, user(port, target.port_user).0);
        text::<NAME_LEN>(&raw mut (*event).database, user(port, target.port_database).0);
        text::<NAME_LEN>(&raw mut (*event).role, user(target.role, 0).0);
        text::<NAME_LEN>(&raw mut (*event).application_name, user(target.application_name, 0).0);
        text::<SETTING_LEN>(&raw mut (*event).search_path, user(target.search_path, 0).0);
        (*backend).settings = settings;
    }
    entry.submit(wake);
}

/// A text of the backend's memory; empty where it cannot be read, since the helper clears what it cannot fill.
///
/// # Safety
/// `to` must be a field of a reserved entry.
#[inline(always)]
unsafe fn text<const LENGTH: usize>(to: *mut [u8; LENGTH], from: u64) {
    // SAFETY: the caller's promise; the helper bounds the copy and checks the source.
    unsafe { bpf_probe_read_user_str(to.cast(), LENGTH as u32, from as *const _) };
}

/// Cookie and inode number of one of the current process's sockets; 0 where there is none.
#[inline(always)]
fn socket(descriptor: i32) -> (u64, u64) {
    let Some(file) = file_of(descriptor) else { return (0, 0) };
    let inode: u64 = cleared(file, offset!(file_inode));
    let socket: u64 = cleared(file, offset!(file_private_data));
    let sock: u64 = cleared(socket, offset!(socket_sk));
    (cleared(sock, offset!(sock_cookie)), cleared(inode, offset!(inode_number)))
}

/// A value of the backend's memory, all zero where it cannot be read, and all ones for that it could not. Without a branch,
/// since older verifiers follow both ways of each through all that comes after.
#[inline(always)]
fn user<T: Copy>(base: u64, offset: u32) -> (T, u64) {
    let mut value = MaybeUninit::<T>::uninit();
    let from = (base + u64::from(offset)) as *const _;
    // SAFETY: room for one value, which the helper fills or clears; every bit pattern of an integer is valid.
    unsafe {
        let failed = bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        (value.assume_init(), (failed >> 63) as u64)
    }
}

#[inline(always)]
fn reserve<T: 'static>(kind: EventKind) -> Option<RingBufEntry<T>> {
    match STATEMENTS.reserve::<T>(0) {
        Some(entry) => Some(entry),
        None => {
            lost(kind);
            None
        }
    }
}

/// Whether the agent has to be woken: it takes many statements at once, unless it sleeps or the buffer fills.
#[inline(always)]
fn wake() -> u64 {
    if !is_on(switch::AWAKE) {
        return 0;
    }
    if STATEMENTS.query(AVAILABLE) > STATEMENTS.query(SIZE) / 4 { FORCE_WAKEUP } else { NO_WAKEUP }
}
