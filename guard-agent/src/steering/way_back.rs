//! The way back: a server's answers to a connection that the proxy has made from a remote client's address are delivered
//! on this host, to the proxy, and not to that client.
//!
//! Three settings of the server's network namespace do it: sockets that a server accepts take the mark of the request
//! (`tcp_fwmark_accept`), a rule sends what has the mark to a table of its own, and that table delivers every address
//! here. Nothing without the mark is touched.

use std::{fs, io};

use super::{
    SteeringError,
    namespace::Namespace,
    netlink::{self, Family, Verb},
};

/// The setting by which accepted sockets take the mark of the request; for both families.
pub const FWMARK_ACCEPT: &str = "/proc/sys/net/ipv4/tcp_fwmark_accept";

/// What was there before, to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// The setting's value, where it is to be put back.
    pub fwmark_accept: String,
}

/// Where the setting stands in this namespace.
pub fn fwmark_accept(namespace: &Namespace) -> Result<String, SteeringError> {
    let value = namespace.inside(|| fs::read_to_string(FWMARK_ACCEPT));
    value.map(|value| value.trim().to_owned()).map_err(|error| SteeringError::WayBack {
        what: FWMARK_ACCEPT,
        family: "",
        error,
    })
}

/// Whether this namespace has what it takes. Changes nothing.
pub fn possible(namespace: &Namespace) -> Result<(), SteeringError> {
    fwmark_accept(namespace)?;
    let rules = namespace.inside(|| netlink::rules(Family::V4));
    let what = "a routing rule by mark";
    rules.map(|_| ()).map_err(|error| SteeringError::WayBack { what, family: Family::V4.name(), error })
}

/// Makes it for every family that the namespace has. IPv6 may be switched off: `needs_v6` says whether that matters.
pub fn make(namespace: &Namespace, mark: u32, needs_v6: bool) -> Result<(), SteeringError> {
    if fwmark_accept(namespace)? == "0" {
        let set = namespace.inside(|| fs::write(FWMARK_ACCEPT, "1"));
        set.map_err(|error| SteeringError::WayBack { what: FWMARK_ACCEPT, family: "", error })?;
    }
    for family in Family::ALL {
        let (rule, route) = namespace
            .inside(move || {
                let rule = netlink::rule(Verb::Add, family, mark);
                Ok((rule, netlink::route(Verb::Add, family, mark)))
            })
            .unwrap_or_else(|error| (Err(error), Ok(false)));
        for (what, result) in [("a routing rule by mark", rule), ("a route of local delivery", route)] {
            match result {
                Ok(_) => {}
                Err(_) if family == Family::V6 && !needs_v6 => {}
                Err(error) => return Err(SteeringError::WayBack { what, family: family.name(), error }),
            }
        }
    }
    Ok(())
}

/// Takes it away again. Says what was removed, and what could not be.
pub fn remove(namespace: &Namespace, mark: u32, before: &Before) -> Vec<(String, io::Result<()>)> {
    let mut done = Vec::new();
    for family in Family::ALL {
        let removed = namespace.inside(move || {
            Ok((netlink::rule(Verb::Remove, family, mark), netlink::route(Verb::Remove, family, mark)))
        });
        let (rule, route) = removed.unwrap_or_else(|error| (Err(error), Ok(false)));
        for (what, result) in [("rule", rule), ("route", route)] {
            let text = format!("{} {what} for mark and table {mark:#x}", family.name());
            match result {
                Ok(true) => done.push((text, Ok(()))),
                Ok(false) => {}
                // A family that is switched off has neither.
                Err(error) if has_no_family(&error) => {}
                Err(error) => done.push((text, Err(error))),
            }
        }
    }
    if !before.fwmark_accept.is_empty()
        && fwmark_accept(namespace).is_ok_and(|now| now != before.fwmark_accept)
    {
        let value = before.fwmark_accept.clone();
        let text = format!("{FWMARK_ACCEPT} is {value} again");
        done.push((text, namespace.inside(move || fs::write(FWMARK_ACCEPT, value))));
    }
    done
}

fn has_no_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENODEV))
}
