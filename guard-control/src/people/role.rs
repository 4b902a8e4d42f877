//! Roles and what they let people do. One table says it all: pages, API and command line ask it.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// What somebody is here for. One person may be several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Sees what happens.
    Viewer,
    /// Decides on statements that wait.
    Approver,
    /// Takes the record along, and sees what people did.
    Auditor,
    /// Says who may do what, and hands out policies.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Approver, Self::Auditor, Self::Admin];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// In one line.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Viewer => "sees what happens",
            Self::Approver => "decides on statements that wait",
            Self::Auditor => "exports the record and sees what people did",
            Self::Admin => "says who may do what, and hands out policies",
        }
    }

    fn may(self, right: Right) -> bool {
        match right {
            Right::See => true,
            Right::Decide => self == Self::Approver,
            Right::Export | Right::SeePeoplesActions => matches!(self, Self::Auditor | Self::Admin),
            Right::Administer => self == Self::Admin,
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.name() == name);
        found.ok_or_else(|| format!("`{name}` is no role: use viewer, approver, auditor or admin"))
    }
}

/// Something that not everybody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Look at decisions, agents, approvals.
    See,
    /// Approve and deny.
    Decide,
    /// Take records along.
    Export,
    /// See what people did here.
    SeePeoplesActions,
    /// Add people, change roles, make tokens for machines; hand out policies.
    Administer,
}

impl Right {
    /// Whom to ask for it.
    pub fn held_by(self) -> &'static str {
        match self {
            Self::See => "everybody who has signed in",
            Self::Decide => "approvers",
            Self::Export | Self::SeePeoplesActions => "auditors and admins",
            Self::Administer => "admins",
        }
    }
}

/// The roles of one person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// Whether one of them carries the right.
    pub fn may(&self, right: Right) -> bool {
        self.0.iter().any(|role| role.may(right))
    }

    /// Whether it is among them.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Role> {
        self.0.iter().copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that `other` has as well.
    pub fn within(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().collect())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|role| role.name()).collect();
        to.write_str(&names.join(" "))
    }
}

/// Names between spaces or commas; all of them have to be roles.
impl FromStr for Roles {
    type Err = String;

    fn from_str(names: &str) -> Result<Self, String> {
        names.split([' ', ',']).filter(|name| !name.is_empty()).map(str::parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_is_held_by_whom_it_names_and_nobody_else() {
        let holders = |right: Right| -> Vec<&str> {
            let holding = Role::ALL.into_iter().filter(|role| role.may(right));
            holding.map(Role::name).collect()
        };
        assert_eq!(holders(Right::See), ["viewer", "approver", "auditor", "admin"]);
        assert_eq!(holders(Right::Decide), ["approver"]);
        assert_eq!(holders(Right::Export), ["auditor", "admin"]);
        assert_eq!(holders(Right::SeePeoplesActions), ["auditor", "admin"]);
        assert_eq!(holders(Right::Administer), ["admin"]);
        assert!(!Roles::default().may(Right::See), "somebody without a role sees nothing");
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        let roles: Roles = "admin, viewer".parse().unwrap();
        assert_eq!(roles.to_string(), "viewer admin");
        assert_eq!(roles.to_string().parse::<Roles>().unwrap(), roles);
        assert!("root".parse::<Roles>().is_err());
    }
}
