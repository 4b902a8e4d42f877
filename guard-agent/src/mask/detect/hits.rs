//! What a scan found, in a buffer that the next scan uses again.

use guard_policy::vocabulary::DataKind;

use super::{Evidence, context::WordMemory, key_names::KeyNames};

/// More than this stays allocated for no cell.
const KEPT: usize = 1024;

/// Something sensitive in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// What it is.
    pub kind: DataKind,
    /// Offset of its first byte; on a boundary of characters.
    pub start: usize,
    /// Offset behind its last byte; on a boundary of characters.
    pub end: usize,
    /// Why.
    pub evidence: Evidence,
}

/// The hits of one cell: sorted, without overlaps.
#[derive(Debug, Default)]
pub struct Hits {
    list: Vec<Hit>,
    pub(super) keys: KeyNames,
    pub(super) words: WordMemory,
}

impl Hits {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The hits, in order.
    pub fn as_slice(&self) -> &[Hit] {
        &self.list
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.list.clear();
        self.list.shrink_to(KEPT);
    }

    /// Adds one. Whoever adds them out of order, or some that overlap, settles them.
    pub fn push(&mut self, kind: DataKind, span: std::ops::Range<usize>, evidence: Evidence) {
        if span.start < span.end {
            self.list.push(Hit { kind, start: span.start, end: span.end, evidence });
        }
    }

    /// Sorts, and makes one of those that overlap: nothing that one of them covers stays uncovered.
    pub(super) fn settle(&mut self) {
        if self.list.len() < 2 {
            return;
        }
        self.list.sort_unstable_by_key(|hit| (hit.start, std::cmp::Reverse(hit.end), rank(hit.kind)));
        self.list.dedup_by(|next, before| {
            if next.start >= before.end {
                return false;
            }
            let same = next.start == before.start && next.end == before.end;
            let outgrows = next.end > before.end;
            if !same && outgrows && rank(next.kind) < rank(before.kind) {
                (before.kind, before.evidence) = (next.kind, next.evidence);
            }
            before.end = before.end.max(next.end);
            true
        });
    }
}

impl Hits {
    /// Digits of `cell` within hits whose form is so strong that no number in them is of another kind.
    pub(super) fn strong_digits(&self, cell: &[u8]) -> u32 {
        let strong = self.list.iter().filter(|hit| rank(hit.kind) <= rank(DataKind::Email));
        let spans = strong.filter_map(|hit| cell.get(hit.start..hit.end));
        spans.flatten().map(|byte| u32::from(byte.is_ascii_digit())).sum()
    }
}

impl<'a> IntoIterator for &'a Hits {
    type Item = &'a Hit;
    type IntoIter = std::slice::Iter<'a, Hit>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// Which of two kinds a span is when both fit: the one with the stronger form.
fn rank(kind: DataKind) -> u8 {
    use DataKind as K;
    match kind {
        K::PrivateKey => 0,
        K::Jwt | K::CloudKey | K::PasswordHash => 1,
        K::AccessToken | K::Password => 2,
        K::Iban | K::Email => 3,
        K::PaymentCard => 4,
        K::NationalId | K::Device => 5,
        K::IpAddress => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_hits_become_one() {
        let mut hits = Hits::new();
        hits.push(DataKind::Phone, 10..20, Evidence::Format);
        hits.push(DataKind::Email, 0..5, Evidence::Format);
        hits.push(DataKind::Iban, 15..30, Evidence::Checksum);
        hits.push(DataKind::Phone, 11..12, Evidence::Format);
        hits.push(DataKind::Phone, 3..3, Evidence::Format);
        hits.settle();
        let spans: Vec<_> = hits.into_iter().map(|hit| (hit.kind, hit.start, hit.end)).collect();
        assert_eq!(spans, [(DataKind::Email, 0, 5), (DataKind::Iban, 10, 30)]);
    }
}
