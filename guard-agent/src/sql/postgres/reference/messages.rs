//! The shapes of the tree's messages: which field of which message holds another one.

use std::{collections::HashMap, sync::LazyLock};

/// A kind of message by its place in the list.
pub type Kind = u16;

/// A field that has a name.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds, where that is a message.
    pub message: Option<Kind>,
}

/// A kind of message.
#[derive(Debug)]
pub struct Message {
    /// Its name.
    pub name: &'static str,
    /// By number less one.
    fields: Vec<Option<Field>>,
}

impl Message {
    /// The field with this number.
    pub fn field(&self, number: u64) -> Option<Field> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.fields.get(index).copied().flatten()
    }

    /// Names of the fields that hold no message, and whether they say where in the text something stands.
    pub fn plain(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let plain = self.fields.iter().flatten().filter(|field| field.message.is_none());
        plain.map(|field| (field.name, field.name.contains("location") || field.name.contains("list_")))
    }

    /// The number of the field called `name`.
    pub fn number(&self, name: &str) -> Option<u64> {
        let index = self.fields.iter().position(|field| field.is_some_and(|field| field.name == name))?;
        u64::try_from(index + 1).ok()
    }
}

/// All kinds.
#[derive(Debug)]
pub struct Messages {
    all: Vec<Message>,
    /// The root of every tree.
    pub root: Kind,
    /// Wraps one of the others.
    pub node: Kind,
}

impl Messages {
    /// The kind's shape.
    pub fn get(&self, kind: Kind) -> Option<&Message> {
        self.all.get(usize::from(kind))
    }
}

/// The shapes of this version's trees.
pub static MESSAGES: LazyLock<Messages> = LazyLock::new(|| {
    let lines = || {
        include_str!("messages.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('|'))
    };
    let kinds: HashMap<&str, Kind> = lines().map(|(name, _)| name).zip(0..).collect();
    let kind = |name| kinds.get(name).copied().unwrap_or(Kind::MAX);
    let all = lines()
        .map(|(name, fields)| {
            let mut message = Message { name, fields: Vec::new() };
            for (number, field) in fields.split(',').filter_map(|field| field.split_once(' ')) {
                let Ok(number) = number.parse::<usize>() else { continue };
                let (name, holds) = field.split_once(':').map_or((field, None), |(n, t)| (n, Some(kind(t))));
                message.fields.resize(message.fields.len().max(number), None);
                if let Some(slot) = message.fields.get_mut(number - 1) {
                    *slot = Some(Field { name, message: holds });
                }
            }
            message
        })
        .collect();
    Messages { all, root: kind("ParseResult"), node: kind("Node") }
});
