//! The roles in whose name a session's statements may run.
//!
//! Roles that were named enter, all that may be in force leave: until it is certain which one it is, every one counts.

/// More roles at once count as any.
const MAX_ROLES: usize = 8;

/// Roles of which one is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roles {
    /// Nobody knows which.
    Any,
    /// One of these: sorted, without repeats.
    Of(Vec<String>),
}

impl Roles {
    /// The role called `name`; `*` may be any.
    pub fn of(name: &str) -> Self {
        if name == "*" { Self::Any } else { Self::Of(vec![name.to_owned()]) }
    }

    /// One of either.
    pub fn or(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => Self::Any,
            (Self::Of(mut roles), Self::Of(others)) => {
                roles.extend(others.iter().cloned());
                roles.sort_unstable();
                roles.dedup();
                if roles.len() > MAX_ROLES { Self::Any } else { Self::Of(roles) }
            }
        }
    }

    /// Their names; `*` stands for any.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Any => vec!["*"],
            Self::Of(roles) => roles.iter().map(String::as_str).collect(),
        }
    }

    /// A key that no other set of roles has.
    pub fn as_key(&self) -> String {
        self.names().iter().map(|name| format!("{}:{name}", name.len())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_may_be_in_force_and_too_many_are_any() {
        let both = Roles::of("b").or(&Roles::of("a")).or(&Roles::of("b"));
        assert_eq!(both.names(), ["a", "b"]);
        assert_eq!(both.clone().or(&Roles::of("*")), Roles::Any);
        let many = (0..20).fold(both, |roles, number| roles.or(&Roles::of(&number.to_string())));
        assert_eq!(many.names(), ["*"]);
    }

    #[test]
    fn keys_differ() {
        assert_ne!(Roles::of("a1:b").as_key(), Roles::of("a").or(&Roles::of("b")).as_key());
        // A role that is called so is refused by the server's grammar only without quotes.
        assert_eq!(Roles::of("*"), Roles::Any);
    }
}
