//! A statement as its client sent it, literals and parameters included: it travels with the [`Statement`] that was read
//! from it, and only where the record is to hold it.
//!
//! INVARIANT: a statement that carries this is one of its own, made of one text: what it says holds of what the server was
//! sent. What was read once for many texts is its `shared`.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Modes, Statement, postgres::MAX_RECORD_TEXT};
use crate::wire::postgres::bind_values;

/// Longest text that is kept, in bytes; of longer ones as much.
const MAX_TEXT: usize = 64 * 1024;
/// Bytes of all parameters that are kept, and of one.
const MAX_VALUES: usize = 64 * 1024;
const MAX_VALUE: usize = 8 * 1024;
/// What a parameter takes beside its bytes.
const VALUE_BYTES: usize = 48;

/// Room for what the statements of one session were sent with.
#[derive(Clone, Debug)]
pub struct Room {
    left: Arc<AtomicUsize>,
}

/// A part of it, given back when dropped.
#[derive(Debug)]
struct Taken {
    left: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    /// Of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)) }
    }

    fn take(&self, bytes: usize) -> Option<Arc<Taken>> {
        let less = |left: usize| left.checked_sub(bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(Arc::new(Taken { left: Arc::clone(&self.left), bytes }))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// A value of a Bind.
#[derive(Clone)]
pub struct Parameter {
    /// As it came, or its beginning; `None` is NULL.
    pub value: Option<Box<[u8]>>,
    /// True length in bytes.
    pub bytes: usize,
    /// In its type's binary form.
    pub binary: bool,
}

/// What a statement was sent with.
#[derive(Clone)]
pub struct Sent {
    shared: Arc<Statement>,
    text: Arc<str>,
    bytes: usize,
    parameters: Arc<[Parameter]>,
    left_out: usize,
    withheld: Option<&'static str>,
    /// What it touches is known, column by column.
    placed: bool,
    _room: [Option<Arc<Taken>>; 2],
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// What is known of what a statement touches, when it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Touched {
    /// Why what it was sent with is not to be kept.
    pub withheld: Option<&'static str>,
    /// Every column of what it writes is known.
    pub placed: bool,
}

impl Sent {
    /// The text, or its beginning.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes of the whole text.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The parameters that are kept.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// How many there were beside these.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Why it is not to be kept.
    pub fn withheld(&self) -> Option<&'static str> {
        self.withheld
    }

    /// Every column of what it writes is known.
    pub fn placed(&self) -> bool {
        self.placed
    }

    /// About what it takes in memory.
    pub fn size(&self) -> usize {
        let values =
            self.parameters.iter().map(|one| VALUE_BYTES + one.value.as_ref().map_or(0, |value| value.len()));
        self.text.len() + values.sum::<usize>()
    }
}

impl Statement {
    /// The text for records is not whole: names may stand behind what there is of it.
    pub fn is_cut(&self) -> bool {
        self.text.len() > MAX_RECORD_TEXT
    }

    /// What was read, which other texts may share. INVARIANT: it decides as this does: who changes a statement takes
    /// `sent` out of it.
    pub fn shared(self: &Arc<Self>) -> &Arc<Self> {
        self.sent.as_ref().map_or(self, |sent| &sent.shared)
    }

    /// The same, as one of its own that was sent as `text`.
    pub fn as_sent(self: &Arc<Self>, text: &[u8], modes: &Modes, touched: Touched, room: &Room) -> Arc<Self> {
        let cut = &text[..text.len().min(MAX_TEXT)];
        let taken = room.take(cut.len());
        let kept: Arc<str> = match &taken {
            // Cut within a letter it is no longer what the encoding allows.
            Some(_) => match modes.client_encoding.decode(cut) {
                Some(text) => text.as_ref().into(),
                None => String::from_utf8_lossy(cut).as_ref().into(),
            },
            None => "".into(),
        };
        let full = taken.is_none().then_some("the session has prepared more than what is kept");
        let sent = Sent {
            shared: Arc::clone(self.shared()),
            text: kept,
            bytes: text.len(),
            parameters: Arc::new([]),
            left_out: 0,
            withheld: touched.withheld.or(full),
            placed: touched.placed,
            _room: [taken, None],
        };
        Arc::new(Self { sent: Some(Box::new(sent)), ..(**self).clone() })
    }

    /// The same with the values of a Bind, as [`bind_values`] reads them; `None` stands for values that are too long to be
    /// looked at. Nothing where they are malformed.
    pub fn with_values(self: &Arc<Self>, values: Option<&[u8]>, room: &Room) -> Option<Arc<Self>> {
        let Some(sent) = &self.sent else { return Some(Arc::clone(self)) };
        let mut sent = (**sent).clone();
        let mut kept = Vec::new();
        let mut bytes = 0;
        match values {
            Some(values) => {
                let count = bind_values(values, |value, binary| {
                    let cut = value.map(|value| &value[..value.len().min(MAX_VALUE)]);
                    let more = VALUE_BYTES + cut.map_or(0, <[u8]>::len);
                    // Those behind one that does not fit are left out as well: each has its place.
                    if bytes + more > MAX_VALUES {
                        bytes = MAX_VALUES;
                        return;
                    }
                    bytes += more;
                    kept.push(Parameter {
                        value: cut.map(Into::into),
                        bytes: value.map_or(0, <[u8]>::len),
                        binary,
                    });
                })?;
                sent.left_out = count - kept.len();
            }
            None => sent.withheld = sent.withheld.or(Some("its parameters are longer than what is kept")),
        }
        sent._room[1] = room.take(bytes);
        if sent._room[1].is_none() {
            kept.clear();
            sent.withheld = sent.withheld.or(Some("the session has bound more than what is kept"));
        }
        sent.parameters = kept.into();
        Some(Arc::new(Self { sent: Some(Box::new(sent)), ..(**self).clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Classifier, Limits};

    fn read(text: &str) -> Arc<Statement> {
        Classifier::new(Limits::default()).classify(text.as_bytes(), &Modes::default())
    }

    fn values(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = vec![0, 0];
        body.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            body.extend(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()).to_be_bytes());
            body.extend(value.unwrap_or_default());
        }
        body.extend([0, 0]);
        body
    }

    #[test]
    fn what_is_shared_stays_shared_and_each_knows_its_own_text() {
        let (room, shared) = (Room::new(1 << 20), read("SELECT 1"));
        let sent = |text: &str| shared.as_sent(text.as_bytes(), &Modes::default(), Touched::default(), &room);
        let (one, two) = (sent("SELECT 1"), sent("SELECT  2"));
        let bound = one.with_values(Some(&values(&[Some(b"ann"), None])), &room).unwrap();
        for own in [&one, &two, &bound] {
            assert!(Arc::ptr_eq(own.shared(), &shared) && !Arc::ptr_eq(own, &shared));
            assert_eq!(own.text, shared.text);
        }
        assert_eq!(two.sent.as_ref().unwrap().text(), "SELECT  2");
        let bound = bound.sent.as_ref().unwrap();
        assert_eq!((bound.text(), bound.parameters().len(), bound.left_out()), ("SELECT 1", 2, 0));
        assert!(!format!("{:?}", one).contains("SELECT 1\""), "no text in debug output of what was sent");
        assert!(one.with_values(Some(b"\0"), &room).is_none(), "malformed");
    }

    #[test]
    fn everything_has_its_bounds_and_room_comes_back() {
        let (room, shared) = (Room::new(100_000), read("SELECT 1"));
        let long = "x".repeat(MAX_TEXT + 10);
        let sent = shared.as_sent(long.as_bytes(), &Modes::default(), Touched::default(), &room);
        let kept = sent.sent.as_ref().unwrap();
        assert_eq!((kept.text().len(), kept.bytes(), kept.withheld()), (MAX_TEXT, MAX_TEXT + 10, None));
        let second = shared.as_sent(long.as_bytes(), &Modes::default(), Touched::default(), &room);
        let kept = second.sent.as_ref().unwrap();
        assert!(kept.text().is_empty() && kept.withheld().is_some_and(|why| why.contains("prepared more")));
        drop((sent, second));
        let sent = shared.as_sent(b"SELECT 1", &Modes::default(), Touched::default(), &room);
        let value = vec![b'v'; MAX_VALUE + 1];
        let bound = sent.with_values(Some(&values(&[Some(&value[..]); 20])), &room).unwrap();
        let kept = bound.sent.as_ref().unwrap();
        assert!(kept.parameters().len() < 8 && kept.parameters().len() + kept.left_out() == 20);
        assert_eq!(kept.parameters()[0].bytes, MAX_VALUE + 1);
        assert!(kept.size() <= MAX_VALUES + 8, "{}", kept.size());
        let unread = sent.with_values(None, &room).unwrap();
        assert!(unread.sent.as_ref().unwrap().withheld().is_some());
        drop((bound, sent, unread));
        assert_eq!(room.left.load(Ordering::Relaxed), 100_000, "all of it has come back");
    }
}
