//! Bytes of the ring buffer enter, events leave. The bytes come from guard's own programs, but are checked for
//! length all the same.

use guard_common::kernel::{
    EventHeader, EventKind,
    cgroup::CgroupEvent,
    process::{ExecEvent, ExitEvent, ForkEvent},
    refusal::RefusedEvent,
    socket::{AcceptedEvent, ClosedEvent, ConnectedEvent},
    statement::{BackendEvent, RunsEvent, StatementEvent, TextEvent},
    unix::UnixAcceptedEvent,
};

/// An event as the kernel side wrote it.
#[derive(Debug)]
pub enum KernelEvent {
    /// A new image.
    Exec(Box<ExecEvent>),
    /// A new process.
    Fork(ForkEvent),
    /// The end of a process.
    Exit(ExitEvent),
    /// A new cgroup.
    Cgroup(Box<CgroupEvent>),
    /// A TCP connection.
    Accepted(AcceptedEvent),
    /// Its end.
    Closed(ClosedEvent),
    /// A connection on a unix socket.
    UnixAccepted(UnixAcceptedEvent),
    /// A connection that was refused.
    Refused(RefusedEvent),
    /// A local process has a connection to a database of another host.
    Connected(ConnectedEvent),
}

/// An event of the ring buffer of statements, as the kernel side wrote it.
#[derive(Debug)]
pub enum StatementPiece {
    /// Who a backend works for.
    Backend(Box<BackendEvent>),
    /// A statement, or its beginning.
    Statement(Box<StatementEvent>),
    /// More of one.
    Text(Box<TextEvent>),
    /// How often statements have run again.
    Runs(Box<RunsEvent>),
}

/// Structures of integers and arrays of them alone.
///
/// # Safety
/// Every bit pattern must be valid.
unsafe trait Plain: Copy {}
// SAFETY: integers alone, here and below.
unsafe impl Plain for EventHeader {}
// SAFETY: as above.
unsafe impl Plain for ExecEvent {}
// SAFETY: as above.
unsafe impl Plain for ForkEvent {}
// SAFETY: as above.
unsafe impl Plain for ExitEvent {}
// SAFETY: as above.
unsafe impl Plain for CgroupEvent {}
// SAFETY: as above.
unsafe impl Plain for AcceptedEvent {}
// SAFETY: as above.
unsafe impl Plain for ClosedEvent {}
// SAFETY: as above.
unsafe impl Plain for UnixAcceptedEvent {}
// SAFETY: as above.
unsafe impl Plain for BackendEvent {}
// SAFETY: as above.
unsafe impl Plain for StatementEvent {}
// SAFETY: as above.
unsafe impl Plain for TextEvent {}
// SAFETY: as above.
unsafe impl Plain for RunsEvent {}
// SAFETY: as above.
unsafe impl Plain for RefusedEvent {}
// SAFETY: as above.
unsafe impl Plain for ConnectedEvent {}

/// The event in `bytes`; nothing for what is too short or of an unknown kind.
pub fn decode(bytes: &[u8]) -> Option<KernelEvent> {
    let header: EventHeader = read(bytes)?;
    Some(match EventKind::from_u32(header.kind)? {
        EventKind::Exec => KernelEvent::Exec(Box::new(read(bytes)?)),
        EventKind::Fork => KernelEvent::Fork(read(bytes)?),
        EventKind::Exit => KernelEvent::Exit(read(bytes)?),
        EventKind::Cgroup => KernelEvent::Cgroup(Box::new(read(bytes)?)),
        EventKind::Accepted => KernelEvent::Accepted(read(bytes)?),
        EventKind::Closed => KernelEvent::Closed(read(bytes)?),
        EventKind::UnixAccepted => KernelEvent::UnixAccepted(read(bytes)?),
        EventKind::Refused => KernelEvent::Refused(read(bytes)?),
        EventKind::Connected => KernelEvent::Connected(read(bytes)?),
        // They have a ring buffer of their own.
        EventKind::Statement | EventKind::StatementText | EventKind::StatementRuns | EventKind::Backend => {
            return None;
        }
    })
}

/// The same for the ring buffer of statements.
pub fn decode_statement(bytes: &[u8]) -> Option<StatementPiece> {
    let header: EventHeader = read(bytes)?;
    Some(match EventKind::from_u32(header.kind)? {
        EventKind::Backend => StatementPiece::Backend(Box::new(read(bytes)?)),
        EventKind::Statement => StatementPiece::Statement(Box::new(read(bytes)?)),
        EventKind::StatementText => StatementPiece::Text(Box::new(read(bytes)?)),
        EventKind::StatementRuns => StatementPiece::Runs(Box::new(read(bytes)?)),
        _ => return None,
    })
}

fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: as many bytes as the type has, and every bit pattern is valid.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::{KernelEvent, decode};

    #[test]
    fn takes_what_is_long_enough() {
        let mut bytes = vec![0_u8; 32];
        bytes[0] = 2;
        bytes[24] = 7;
        assert!(matches!(decode(&bytes), Some(KernelEvent::Exit(event)) if event.pid == 7));
    }

    #[test]
    fn refuses_what_is_short_or_unknown() {
        for length in 0..32 {
            let mut bytes = vec![0_u8; length];
            if let Some(kind) = bytes.first_mut() {
                *kind = 2;
            }
            assert!(decode(&bytes).is_none());
        }
        let mut unknown = vec![0_u8; 4096];
        unknown[0] = 99;
        assert!(decode(&unknown).is_none());
    }
}
