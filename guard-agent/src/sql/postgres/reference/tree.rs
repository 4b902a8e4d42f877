//! The serialised tree enters; nodes that can be walked without recursion leave.
//!
//! Every message of the tree becomes a node, whatever its kind: nothing can hide in a kind that nobody thought of. The
//! wrappers around nodes are left out.

use super::messages::{Kind, MESSAGES, Message};

/// A tree.
#[derive(Debug)]
pub struct Tree {
    bytes: Vec<u8>,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    /// Under which it hangs in its parent.
    field: &'static str,
    start: u32,
    end: u32,
    first_child: u32,
    children: u32,
}

/// One field of a message as it stands in the bytes.
enum Value {
    Number(u64),
    Bytes(u32, u32),
}

impl Tree {
    /// `None` where the bytes are not a tree of the known shape.
    pub fn read(bytes: Vec<u8>) -> Option<Self> {
        let end = u32::try_from(bytes.len()).ok()?;
        let root = Node { kind: MESSAGES.root, field: "", start: 0, end, first_child: 0, children: 0 };
        let mut tree = Self { bytes, nodes: vec![root] };
        let mut index = 0;
        while let Some(node) = tree.nodes.get(index) {
            let (kind, mut at, end) = (node.kind, node.start, node.end);
            let first_child = u32::try_from(tree.nodes.len()).ok()?;
            let message = MESSAGES.get(kind)?;
            while at < end {
                let (number, value) = tree.field(&mut at, end)?;
                let Value::Bytes(start, stop) = value else { continue };
                let field = message.field(number)?;
                if let Some(kind) = field.message
                    && let Some(child) = tree.child(kind, field.name, start, stop)?
                {
                    tree.nodes.push(child);
                }
            }
            let children = u32::try_from(tree.nodes.len()).ok()? - first_child;
            if let Some(node) = tree.nodes.get_mut(index) {
                (node.first_child, node.children) = (first_child, children);
            }
            index += 1;
        }
        Some(tree)
    }

    /// Where the walk begins.
    pub fn root(&self) -> At<'_> {
        At { tree: self, index: 0 }
    }

    /// A child of `kind`, without its wrapper; `Some(None)` where the wrapper is empty, as an absent list element is.
    fn child(&self, kind: Kind, field: &'static str, start: u32, end: u32) -> Option<Option<Node>> {
        let node = |kind, start, end| Node { kind, field, start, end, first_child: 0, children: 0 };
        if kind != MESSAGES.node {
            return Some(Some(node(kind, start, end)));
        }
        if start == end {
            return Some(None);
        }
        let mut at = start;
        let (number, value) = self.field(&mut at, end)?;
        let Value::Bytes(start, stop) = value else { return None };
        let kind = MESSAGES.get(kind)?.field(number)?.message?;
        Some(Some(node(kind, start, stop)))
    }

    /// The next field before `end`.
    fn field(&self, at: &mut u32, end: u32) -> Option<(u64, Value)> {
        let tag = self.varint(at, end)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint(at, end)?),
            1 => self.skip(at, end, 8)?,
            5 => self.skip(at, end, 4)?,
            2 => {
                let length = u32::try_from(self.varint(at, end)?).ok()?;
                self.skip(at, end, length)?
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn skip(&self, at: &mut u32, end: u32, length: u32) -> Option<Value> {
        let start = *at;
        let stop = start.checked_add(length).filter(|stop| *stop <= end)?;
        *at = stop;
        Some(Value::Bytes(start, stop))
    }

    fn varint(&self, at: &mut u32, end: u32) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes.get(*at as usize).filter(|_| *at < end)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

/// A node of a tree.
#[derive(Clone, Copy, Debug)]
pub struct At<'t> {
    tree: &'t Tree,
    index: u32,
}

impl<'t> At<'t> {
    fn node(self) -> Option<&'t Node> {
        self.tree.nodes.get(self.index as usize)
    }

    fn message(self) -> Option<&'static Message> {
        MESSAGES.get(self.node()?.kind)
    }

    /// The kind of node, as PostgreSQL calls it.
    pub fn name(self) -> &'static str {
        self.message().map_or("", |message| message.name)
    }

    /// The field of its parent that it hangs under.
    pub fn field(self) -> &'static str {
        self.node().map_or("", |node| node.field)
    }

    /// All nodes right below.
    pub fn children(self) -> impl DoubleEndedIterator<Item = At<'t>> + Clone {
        let tree = self.tree;
        let (first, count) = self.node().map_or((0, 0), |node| (node.first_child, node.children));
        (first..first + count).map(move |index| At { tree, index })
    }

    /// The nodes of a list, absent ones left out.
    pub fn list(self, field: &'static str) -> impl DoubleEndedIterator<Item = At<'t>> + Clone {
        self.children().filter(move |child| child.field() == field)
    }

    /// The node under `field`.
    pub fn get(self, field: &'static str) -> Option<At<'t>> {
        self.list(field).next()
    }

    fn scalar(self, name: &str) -> Option<Value> {
        let (node, wanted) = (self.node()?, self.message()?.number(name)?);
        let mut at = node.start;
        while at < node.end {
            let (number, value) = self.tree.field(&mut at, node.end)?;
            if number == wanted {
                return Some(value);
            }
        }
        None
    }

    /// Whether a field is there, be it empty.
    pub fn has(self, name: &str) -> bool {
        self.scalar(name).is_some()
    }

    /// A text; empty where there is none.
    pub fn text(self, name: &str) -> &'t str {
        match self.scalar(name) {
            Some(Value::Bytes(start, end)) => self
                .tree
                .bytes
                .get(start as usize..end as usize)
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .unwrap_or(""),
            _ => "",
        }
    }

    /// A number, an enum's value or a flag; 0 where there is none.
    pub fn number(self, name: &str) -> u64 {
        match self.scalar(name) {
            Some(Value::Number(number)) => number,
            _ => 0,
        }
    }

    /// A flag.
    pub fn flag(self, name: &str) -> bool {
        self.number(name) != 0
    }

    /// The text of a `String` node, or the literal that a constant is.
    pub fn string(self) -> Option<&'t str> {
        match self.name() {
            "String" => Some(self.text("sval")),
            "A_Const" => self.get("sval").map(|value| value.text("sval")),
            _ => None,
        }
    }

    /// The names of a dotted name.
    pub fn names(self, field: &'static str) -> Vec<&'t str> {
        self.list(field).filter_map(At::string).collect()
    }

    /// Whether two trees are the same, literals and places aside.
    pub fn same(self, other: Self) -> bool {
        let mut pairs = vec![(self, other)];
        while let Some((left, right)) = pairs.pop() {
            if left.name() != right.name() {
                return false;
            }
            if left.name() == "A_Const" {
                // TRUE, FALSE and NULL are words; what other constants say is not looked at.
                let word =
                    |at: Self| (at.get("boolval").map(|value| value.flag("boolval")), at.flag("isnull"));
                if word(left) != word(right) {
                    return false;
                }
                continue;
            }
            let below = || left.children().zip(right.children());
            if left.children().count() != right.children().count()
                || !left.same_scalars(right)
                || below().any(|(left, right)| left.field() != right.field())
            {
                return false;
            }
            pairs.extend(below());
        }
        true
    }

    fn same_scalars(self, other: Self) -> bool {
        let Some(message) = self.message() else { return false };
        message.plain().all(|(name, place)| {
            place
                || match (self.scalar(name), other.scalar(name)) {
                    (None, None) => true,
                    (Some(Value::Number(left)), Some(Value::Number(right))) => left == right,
                    (Some(Value::Bytes(..)), Some(Value::Bytes(..))) => self.text(name) == other.text(name),
                    _ => false,
                }
        })
    }
}
