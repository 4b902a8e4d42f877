//! What policies ask of people: annotations enter, checked requirements leave.
//!
//! `@approval("dba")` on a forbid makes a statement wait in place of being refused; `@wait`, `@approvers` and `@within`
//! say how. `@break_glass("oncall")` on a permit lets who gives a reason go at once. Everything is checked when policies
//! are loaded.

use std::time::Duration;

use cedar_policy::{ActionConstraint, Effect, Policy};

use crate::{schema::ACTIONS, vocabulary::Action};

/// Most groups of one policy.
const MAX_GROUPS: usize = 8;

/// Longest name of a group in bytes.
const MAX_NAME: usize = 64;

/// Most people that one policy can ask for.
const MAX_APPROVERS: u32 = 8;

/// Longest time that a request can be open.
const MAX_WITHIN: Duration = Duration::from_secs(7 * 86_400);

/// Stands for everybody whom the conditions of a `@break_glass` policy let.
const ANYBODY: &str = "*";

/// What a statement does until it is approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// It stays where it is, and its client waits.
    #[default]
    Hold,
    /// It is refused, and may be sent again once it is approved.
    Retry,
}

impl Wait {
    /// Its word in policies and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Retry => "retry",
        }
    }
}

/// What one policy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Its id.
    pub policy: String,
    /// Whoever is in one of these groups may approve.
    pub groups: Vec<String>,
    /// As many people have to.
    pub approvers: u32,
}

/// What has to be said before something may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// One for each policy that determines; all of them have to be met.
    pub requirements: Vec<Requirement>,
    /// What it does meanwhile. One policy that wants it sent again is enough for that.
    pub wait: Wait,
    /// How long; the shortest that any of the policies gives.
    pub within: Option<Duration>,
}

impl Needs {
    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for requirement in other.requirements {
            if !self.requirements.contains(&requirement) {
                self.requirements.push(requirement);
            }
        }
        self.wait = self.wait.max(other.wait);
        self.within = match (self.within, other.within) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self
    }
}

/// Leave to go without an approval, for whoever gives a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakGlass {
    /// The policy's id.
    pub policy: String,
    /// The group that the requester must be in; `None`: the policy's conditions say it all.
    pub group: Option<String>,
    /// Its `@reason`.
    pub reason: String,
}

/// What the annotations of a forbid ask for; `None` where it has none. The error says what is wrong and what to write.
pub(crate) fn needs(policy: &Policy) -> Result<Option<Needs>, String> {
    let Some(groups) = policy.annotation("approval") else {
        for other in ["wait", "approvers", "within"] {
            if policy.annotation(other).is_some() {
                return Err(format!("`@{other}` says how an approval goes: add `@approval(\"<group>\")`"));
            }
        }
        return Ok(None);
    };
    if policy.effect() == Effect::Permit {
        return Err("`@approval` is for forbids: what it forbids waits in place of being refused".to_owned());
    }
    if matches!(policy.action_constraint(), ActionConstraint::Eq(one) if &one == ACTIONS.uid(Action::Connect))
    {
        return Err("`@approval` is for statements: a connection cannot wait".to_owned());
    }
    let groups: Vec<String> = groups.split(',').map(|group| group.trim().to_owned()).collect();
    if groups.len() > MAX_GROUPS {
        return Err(format!("`@approval` names {} groups: at most {MAX_GROUPS}", groups.len()));
    }
    groups.iter().try_for_each(|group| check_group("approval", group))?;
    let approvers = match policy.annotation("approvers") {
        None => 1,
        Some(text) => {
            text.parse().ok().filter(|count| (1..=MAX_APPROVERS).contains(count)).ok_or_else(|| {
                format!("`@approvers(\"{text}\")` is not known: write a number from 1 to {MAX_APPROVERS}")
            })?
        }
    };
    let wait = match policy.annotation("wait") {
        None | Some("hold") => Wait::Hold,
        Some("retry") => Wait::Retry,
        Some(text) => return Err(format!("`@wait(\"{text}\")` is not known: write `hold` or `retry`")),
    };
    let within = policy.annotation("within").map(within).transpose()?;
    let requirement = Requirement { policy: String::new(), groups, approvers };
    Ok(Some(Needs { requirements: vec![requirement], wait, within }))
}

/// What `@break_glass` says; `None` where it is not there.
pub(crate) fn break_glass(policy: &Policy) -> Result<Option<BreakGlass>, String> {
    let Some(group) = policy.annotation("break_glass").map(str::trim) else { return Ok(None) };
    if policy.effect() == Effect::Forbid {
        return Err(
            "`@break_glass` is for permits: its conditions say who may go without an approval".to_owned()
        );
    }
    let reason = policy.annotation("reason").unwrap_or_default();
    if reason.is_empty() {
        return Err("a permit with `@break_glass` needs `@reason(\"..\")`: it stands in the alarm".to_owned());
    }
    let group = match group {
        ANYBODY => None,
        group => {
            check_group("break_glass", group)?;
            Some(group.to_owned())
        }
    };
    Ok(Some(BreakGlass { policy: String::new(), group, reason: reason.to_owned() }))
}

fn check_group(annotation: &str, group: &str) -> Result<(), String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if group.is_empty() || group.len() > MAX_NAME || !group.bytes().all(letter) {
        return Err(format!(
            "`@{annotation}` names the group `{group}`: a name has letters, digits, `.`, `_` and `-`, at most {MAX_NAME}; \
             several stand between commas"
        ));
    }
    Ok(())
}

/// Such as `90s`, `15m`, `2h`, `1d`.
fn within(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "`@within(\"{text}\")` is not known: write a time from 1s to 7d, such as `90s`, `15m`, `2h` or `1d`"
        )
    };
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let time = Duration::from_secs(number.saturating_mul(seconds));
    if time.is_zero() || time > MAX_WITHIN { Err(wrong()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let seconds = |text: &str| within(text).map(|time| time.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "s", "0m", "8d", "1w", "m15", "-1m", "1.5h", "15", "99999999999999999999d", "ä"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn two_policies_ask_for_both_and_the_stricter_time() {
        let needs = |policy: &str, wait, within| Needs {
            requirements: vec![Requirement {
                policy: policy.to_owned(),
                groups: vec!["dba".to_owned()],
                approvers: 1,
            }],
            wait,
            within,
        };
        let both = needs("a", Wait::Hold, Some(Duration::from_secs(9))).and(needs("b", Wait::Retry, None));
        assert_eq!(
            (both.requirements.len(), both.wait, both.within),
            (2, Wait::Retry, Some(Duration::from_secs(9)))
        );
        let same = needs("a", Wait::Hold, None).and(needs("a", Wait::Hold, None));
        assert_eq!(same.requirements.len(), 1);
    }
}
