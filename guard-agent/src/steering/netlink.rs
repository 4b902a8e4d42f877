//! rtnetlink in the few messages that steering takes: rules and routes, made, removed and listed.
//!
//! Facts: rtnetlink(7), `linux/fib_rules.h`, `linux/rtnetlink.h`. Only the kernel is talked to; what it answers is read
//! with every length checked all the same.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// What is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make it; that it is there already is no failure.
    Add,
    /// Remove it; that it is not there is no failure.
    Remove,
}

/// An address family of routes and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
/// The loopback device of every network namespace.
const LOOPBACK: u32 = 1;
/// Who made a rule or a route (`rtm_protocol`): no routing daemon uses this number.
const MADE_BY: u8 = 103;
/// Before the tables of the host, behind its own addresses.
const PRIORITY: u32 = 20_000;

/// A rule that sends packets with `mark` to the table of the same number.
pub fn rule(verb: Verb, family: Family, mark: u32) -> io::Result<bool> {
    let mut body = vec![family.number(), 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
    attribute(&mut body, FRA_PRIORITY, &PRIORITY.to_ne_bytes());
    attribute(&mut body, FRA_FWMARK, &mark.to_ne_bytes());
    attribute(&mut body, FRA_FWMASK, &u32::MAX.to_ne_bytes());
    attribute(&mut body, FRA_TABLE, &mark.to_ne_bytes());
    attribute(&mut body, FRA_PROTOCOL, &[MADE_BY]);
    change(verb, RTM_NEWRULE, RTM_DELRULE, &body)
}

/// In the table `table`: every address is delivered on this host.
pub fn route(verb: Verb, family: Family, table: u32) -> io::Result<bool> {
    let mut body = vec![family.number(), 0, 0, 0, 0, MADE_BY, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0];
    attribute(&mut body, RTA_TABLE, &table.to_ne_bytes());
    attribute(&mut body, RTA_OIF, &LOOPBACK.to_ne_bytes());
    change(verb, RTM_NEWROUTE, RTM_DELROUTE, &body)
}

/// The marks of the rules that this namespace has.
pub fn rules(family: Family) -> io::Result<Vec<u32>> {
    let body = [family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let messages = ask(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, &body)?;
    let mark = |body: &Vec<u8>| {
        let (_, value) = attributes(body).find(|(kind, _)| *kind == FRA_FWMARK)?;
        Some(u32::from_ne_bytes(value.try_into().ok()?))
    };
    Ok(messages.iter().filter_map(mark).collect())
}

/// True where something has changed.
fn change(verb: Verb, new: u16, delete: u16, body: &[u8]) -> io::Result<bool> {
    let (kind, flags) = match verb {
        Verb::Add => (new, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL),
        Verb::Remove => (delete, NLM_F_REQUEST | NLM_F_ACK),
    };
    match ask(kind, flags, body) {
        Ok(_) => Ok(true),
        Err(error) => match (verb, error.raw_os_error()) {
            (Verb::Add, Some(libc::EEXIST)) | (Verb::Remove, Some(libc::ENOENT | libc::ESRCH)) => Ok(false),
            _ => Err(error),
        },
    }
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The attributes behind the twelve bytes with which rules and routes begin.
fn attributes(body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(12..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Sends one request; gives the bodies of what is answered, or the kernel's refusal.
fn ask(kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let socket = open()?;
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend(1_u32.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(body);
    // SAFETY: the buffer is as long as is said, and lives through the call.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answers = Vec::new();
    loop {
        let mut buffer = [0; 32 * 1024];
        // SAFETY: the buffer is as long as is said, and lives through the call.
        let count = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        if count == 0 || read(&buffer[..count], &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Takes the messages of one datagram; true where no more follows.
fn read(mut datagram: &[u8], answers: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some(header) = datagram.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(body) = datagram.get(HEADER..length) else { break };
        match kind {
            NLMSG_ERROR => {
                let code = body.first_chunk().map_or(-libc::EIO, |code| i32::from_ne_bytes(*code));
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            NLMSG_DONE => return Ok(true),
            _ => answers.push(body.to_vec()),
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is checked.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let limit = libc::timeval { tv_sec: 5, tv_usec: 0 };
    // SAFETY: the option takes a timeval, which lives through the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const limit).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_written() {
        let mut body = vec![0; 12];
        attribute(&mut body, 21, &[103]);
        attribute(&mut body, 10, &7_u32.to_ne_bytes());
        let read: Vec<_> = attributes(&body).collect();
        assert_eq!(read, [(21, &[103][..]), (10, &7_u32.to_ne_bytes()[..])]);
        for end in 0..body.len() {
            let _ = attributes(&body[..end]).count();
        }
        assert_eq!(attributes(&[0; 16]).count(), 0, "a length of 0 ends it");
    }

    #[test]
    fn rules_can_be_listed() {
        assert!(!rules(Family::V4).unwrap().contains(&0x0067_fffe));
    }

    #[test]
    fn a_refusal_is_an_error_with_the_kernels_number() {
        let mut answers = Vec::new();
        let mut message = 36_u32.to_ne_bytes().to_vec();
        message.extend(NLMSG_ERROR.to_ne_bytes());
        message.resize(16, 0);
        message.extend((-libc::EPERM).to_ne_bytes());
        message.resize(36, 0);
        let error = read(&message, &mut answers).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}
