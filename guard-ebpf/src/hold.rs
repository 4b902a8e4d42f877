//! Stops PostgreSQL's backends before they run a statement that nobody has allowed yet.
//!
//! The agent reads the text, decides, and lets the backend go. Nothing is decided here: a statement that was allowed
//! before, letter by letter and in the same session's terms, goes on; whatever else is stopped. Without a heartbeat of
//! the agent and of its watchdog nobody is stopped.
#![no_std]
#![no_main]

#[path = "hold/backend.rs"]
mod backend;
#[path = "hold/hash.rs"]
mod hash;
#[path = "hold/stop.rs"]
mod stop;

// The sensor's way to read the kernel; this object needs little of it.
#[allow(dead_code)]
mod read;

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use guard_common::kernel::hold::level;

use crate::{backend::Backend, stop::consider};

/// Bytes from the start of `QueryDesc` to its text: an enum, its padding and the plan come first, in every version.
const TEXT_IN_QUERY: u64 = 16;
/// Kinds of plans go no higher.
const MAX_OPERATION: u32 = 15;

/// `List *pg_parse_query(const char *query_string)`.
#[uprobe]
pub fn hold_parse(ctx: ProbeContext) -> u32 {
    let text: u64 = ctx.arg(0).unwrap_or(0);
    if let Some(backend) = Backend::current()
        // Functions in SQL are parsed here as well, some long before they run: what they run is seen below.
        && backend.client_text() == text
    {
        consider(&ctx, &backend, level::PARSE, text);
    }
    0
}

/// `void standard_ExecutorRun(QueryDesc *queryDesc, ..)`.
#[uprobe]
pub fn hold_run(ctx: ProbeContext) -> u32 {
    let query: u64 = ctx.arg(0).unwrap_or(0);
    if let Some(backend) = Backend::current() {
        let operation = backend::user::<u32>(query).unwrap_or(0) & MAX_OPERATION;
        let text = backend::user::<u64>(query + TEXT_IN_QUERY).unwrap_or(0);
        consider(&ctx, &backend, level::RUN | operation << 8, text);
    }
    0
}

/// `void standard_ProcessUtility(PlannedStmt *pstmt, const char *queryString, ..)`.
#[uprobe]
pub fn hold_utility(ctx: ProbeContext) -> u32 {
    let text: u64 = ctx.arg(1).unwrap_or(0);
    if let Some(backend) = Backend::current() {
        consider(&ctx, &backend, level::UTILITY, text);
    }
    0
}

/// `void HandleFunctionRequest(StringInfo msgBuf)`.
#[uprobe]
pub fn hold_call(ctx: ProbeContext) -> u32 {
    let message: u64 = ctx.arg(0).unwrap_or(0);
    if let Some(backend) = Backend::current() {
        consider(&ctx, &backend, level::CALL, message);
    }
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never reached: the programs have no panicking operation, or the verifier would refuse them.
    unsafe { core::hint::unreachable_unchecked() }
}

/// The kernel gives the helpers that these programs need only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
