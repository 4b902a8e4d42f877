//! Who decides: a process that the kernel names enters, whether its word counts leaves.
//!
//! Groups come from the configuration, else from the host's own accounts. Whoever asks does not decide: the person who
//! logged in counts, through su and sudo.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::{
    api::agent::ApprovalRequest,
    audit::v1::{Person, Workload, workload::Evidence},
};
use nix::unistd::{Group, User, getgrouplist};
use serde::{Deserialize, Serialize};

/// Groups of approvers by name: who is in them, as `user:<name>`, `uid:<number>` or `group:<unix group>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Groups(pub BTreeMap<String, Vec<String>>);

impl Groups {
    /// What is wrong with an entry, if anything is.
    pub fn check(&self) -> Result<(), (String, String)> {
        for (group, members) in &self.0 {
            let wrong = |problem: String| Err((format!("approvals.groups.{group}"), problem));
            if members.is_empty() {
                return wrong("nobody is in it: name at least one `user:..` or `group:..`".to_owned());
            }
            for member in members {
                let well = match member.split_once(':') {
                    Some(("user" | "group", name)) => !name.is_empty(),
                    Some(("uid", number)) => number.parse::<u32>().is_ok(),
                    _ => false,
                };
                if !well {
                    return wrong(format!(
                        "`{member}` is not known: write `user:alice`, `uid:1001` or `group:dba`"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether `user` is in the unix group `group`; `None` where there is no such group. May ask a name service.
type InUnixGroup<'a> = &'a dyn Fn(&str, &str) -> Option<bool>;

/// As the host's accounts say.
fn in_unix_group(user: &str, group: &str) -> Option<bool> {
    let group = Group::from_name(group).ok().flatten()?;
    let member = || {
        let account = User::from_name(user).ok().flatten()?;
        let name = std::ffi::CString::new(user).ok()?;
        let groups = getgrouplist(&name, account.gid).ok()?;
        Some(groups.contains(&group.gid))
    };
    Some(member().unwrap_or(false))
}

/// The accounts by which a person is known: the one that they logged in with, and the one that the process runs as.
fn accounts(person: &Person) -> impl Iterator<Item = (&str, Option<u32>)> {
    let logged_in = person.login_uid.map(|uid| (person.login_user.as_str(), Some(uid)));
    logged_in.into_iter().chain([(person.user.as_str(), Some(person.uid))])
}

/// Whether `person` is in `group`. A group that nobody has configured is the unix group of its name; where there is none
/// either, root decides.
fn belongs(groups: &Groups, group: &str, person: &Person, in_unix_group: InUnixGroup<'_>) -> bool {
    let in_unix = |name: &str| {
        let answers = accounts(person).filter(|(user, _)| !user.is_empty());
        answers.filter_map(|(user, _)| in_unix_group(user, name)).any(|answer| answer)
    };
    if let Some(members) = groups.0.get(group) {
        return members.iter().any(|member| match member.split_once(':') {
            Some(("user", name)) => accounts(person).any(|(user, _)| user == name),
            Some(("uid", number)) => {
                number.parse().is_ok_and(|uid| accounts(person).any(|(_, own)| own == Some(uid)))
            }
            Some(("group", name)) => in_unix(name),
            _ => false,
        });
    }
    match in_unix_group("root", group) {
        Some(_) => in_unix(group),
        None => person.uid == 0,
    }
}

/// Whether the person behind a process of this host is in `group`. May ask a name service: not on a thread that serves
/// sessions.
pub fn belongs_here(groups: &Groups, group: &str, workload: &Workload) -> bool {
    is_known(workload) && belongs(groups, group, &person(workload), &in_unix_group)
}

/// Whether the kernel has named the account of a process of this host.
fn is_known(workload: &Workload) -> bool {
    workload.remote_address.is_empty()
        && matches!(workload.evidence(), Evidence::Attested | Evidence::Reported)
}

/// Somebody who wants to decide.
#[derive(Clone, Debug, Default)]
pub struct Voter {
    /// Who, by the kernel's word or the control plane's.
    pub person: Person,
    /// The AI agent under which the process runs; empty for none.
    pub ai_agent: String,
    member_of: BTreeSet<String>,
}

impl Voter {
    /// The person behind a process of this host, with those of `wanted` that they belong to. May ask a name service: not
    /// on a thread that serves sessions.
    pub fn local(groups: &Groups, workload: &Workload, wanted: &BTreeSet<String>) -> Self {
        let person = person(workload);
        let member_of =
            wanted.iter().filter(|group| belongs(groups, group, &person, &in_unix_group)).cloned().collect();
        Self { person, ai_agent: workload.ai_agent.clone(), member_of }
    }

    /// Somebody of whom another has made sure.
    pub fn known(person: Person, member_of: impl IntoIterator<Item = String>) -> Self {
        Self { person, ai_agent: String::new(), member_of: member_of.into_iter().collect() }
    }

    /// Those of `groups` that they are in.
    pub(super) fn in_groups<'a>(&'a self, groups: &'a [String]) -> impl Iterator<Item = String> + 'a {
        groups.iter().filter(|group| self.member_of.contains(*group)).cloned()
    }

    /// Whether they are in any of the groups that may decide on `request`.
    pub fn is_approver_of(&self, request: &ApprovalRequest) -> bool {
        let requirements = request.needs.iter().flat_map(|needs| &needs.requirements);
        requirements.into_iter().any(|one| self.in_groups(&one.groups).next().is_some())
    }

    /// Who logged in, else who the process runs as.
    pub fn name(&self) -> &str {
        if self.person.login_user.is_empty() { &self.person.user } else { &self.person.login_user }
    }

    /// The same person as `other`.
    pub(super) fn is(&self, other: &Person) -> bool {
        if self.person.via != other.via {
            return self.name()
                == (if other.login_user.is_empty() { &other.user } else { &other.login_user });
        }
        if self.person.via == CONTROL {
            return self.person.user == other.user;
        }
        same_accounts((self.person.uid, self.person.login_uid), (other.uid, other.login_uid))
    }
}

/// Attested by this host's kernel.
pub const LOCAL: &str = "local";

/// The control plane's word.
pub const CONTROL: &str = "control";

/// The person behind a process.
pub fn person(workload: &Workload) -> Person {
    Person {
        user: workload.user.clone(),
        uid: workload.uid,
        login_uid: workload.login_uid,
        login_user: workload.login_user.clone(),
        pid: workload.pid,
        executable: workload.executable.clone(),
        groups: Vec::new(),
        via: LOCAL.to_owned(),
    }
}

/// Who logged in says it; where that is not known of both, one account in common is enough.
fn same_accounts(one: (u32, Option<u32>), other: (u32, Option<u32>)) -> bool {
    match (one.1, other.1) {
        (Some(one), Some(other)) => one == other,
        _ => [Some(one.0), one.1].iter().flatten().any(|uid| [Some(other.0), other.1].contains(&Some(*uid))),
    }
}

/// Whether `person` is behind the workload that asks. Of a remote one nothing is known but names.
pub(super) fn is_same_person(workload: &Workload, db_user: &str, person: &Person) -> bool {
    let names = [person.user.as_str(), person.login_user.as_str()];
    let named = |name: &str| !name.is_empty() && names.iter().any(|own| own.eq_ignore_ascii_case(name));
    let known = is_known(workload);
    if known && person.via == LOCAL {
        let accounts = (workload.uid, workload.login_uid);
        return same_accounts(accounts, (person.uid, person.login_uid))
            || workload.euid != workload.uid && workload.euid != 0 && workload.euid == person.uid;
    }
    if known {
        // Of another host's person only the name can be compared.
        return named(&workload.user) || named(&workload.login_user);
    }
    let certificate = workload.certificate.as_ref();
    let holder = certificate.map_or("", |certificate| certificate.common_name.as_str());
    let mails = certificate.into_iter().flat_map(|certificate| &certificate.emails);
    named(db_user)
        || named(holder)
        || mails.into_iter().any(|mail| named(mail.split('@').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn someone(user: &str, uid: u32, login: Option<(&str, u32)>) -> Person {
        Person {
            user: user.to_owned(),
            uid,
            login_uid: login.map(|(_, uid)| uid),
            login_user: login.map(|(name, _)| name.to_owned()).unwrap_or_default(),
            via: LOCAL.to_owned(),
            ..Person::default()
        }
    }

    fn process(uid: u32, login_uid: Option<u32>) -> Workload {
        let mut workload = Workload { uid, euid: uid, login_uid, ..Workload::default() };
        workload.set_evidence(Evidence::Attested);
        workload
    }

    #[test]
    fn groups_are_the_configured_ones_then_those_of_the_host_then_root() {
        let unix = |user: &str, group: &str| (group == "dba").then_some(user == "ann");
        let groups: Groups =
            toml::from_str::<Groups>("oncall = [\"user:bob\", \"uid:7\"]\nleads = [\"group:dba\"]").unwrap();
        let belongs = |group: &str, person: &Person| belongs(&groups, group, person, &unix);
        let (ann, bob, root) = (someone("ann", 1, None), someone("bob", 2, None), someone("root", 0, None));
        assert!(belongs("dba", &ann) && !belongs("dba", &bob) && !belongs("dba", &root));
        assert!(belongs("oncall", &bob) && !belongs("oncall", &ann) && !belongs("oncall", &root));
        assert!(belongs("oncall", &someone("x", 7, None)));
        assert!(belongs("leads", &ann) && !belongs("leads", &bob));
        assert!(belongs("nobody-knows", &root) && !belongs("nobody-knows", &ann));
        // Through sudo she is who she is.
        assert!(belongs("dba", &someone("root", 0, Some(("ann", 1)))));
    }

    #[test]
    fn whoever_logged_in_is_the_same_person_through_sudo() {
        let same = |workload: &Workload, person: &Person| is_same_person(workload, "app", person);
        let ann_as_root = someone("root", 0, Some(("ann", 1)));
        assert!(same(&process(1, Some(1)), &ann_as_root));
        assert!(same(&process(0, Some(1)), &someone("ann", 1, Some(("ann", 1)))));
        assert!(!same(&process(0, Some(2)), &ann_as_root), "two people may both be root");
        assert!(same(&process(0, None), &ann_as_root), "nobody knows who this root is");
        assert!(same(&process(999, None), &someone("svc", 999, None)));
        assert!(!same(&process(999, None), &someone("ann", 1, None)));
    }

    #[test]
    fn of_a_remote_requester_names_are_compared() {
        let remote = Workload { remote_address: "10.0.0.1".to_owned(), ..Workload::default() };
        assert!(is_same_person(&remote, "Ann", &someone("root", 0, Some(("ann", 1)))));
        assert!(
            !is_same_person(&remote, "app", &someone("root", 0, None)),
            "uid 0 of a remote one says nothing"
        );
    }

    #[test]
    fn members_that_cannot_be_are_told() {
        let check = |text: &str| toml::from_str::<Groups>(text).unwrap().check();
        assert_eq!(check("dba = [\"user:ann\", \"uid:7\", \"group:wheel\"]"), Ok(()));
        assert!(check("dba = []").unwrap_err().1.contains("nobody"));
        assert!(check("dba = [\"ann\"]").unwrap_err().1.contains("user:alice"));
        assert!(check("dba = [\"uid:ann\"]").is_err());
    }
}
