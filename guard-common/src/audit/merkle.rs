//! Merkle trees in the form of RFC 9162, section 2.1: hashes of leaves enter, roots and proofs leave, and whether a proof
//! holds. Does no I/O: who keeps the tree is asked for complete subtrees by their place.

use sha2::{Digest, Sha256};

use super::chain::{HASH_LEN, Hash};

/// A complete subtree: 2^level leaves, the first of which is leaf `number << level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// 0 for a leaf.
    pub level: u32,
    /// Counts the subtrees of this level from 0.
    pub number: u64,
}

/// The hash of a leaf.
pub fn leaf(data: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(data);
    hasher.finalize().into()
}

/// The hash of a node over its two halves.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 1 + 2 * HASH_LEN];
    bytes[1..=HASH_LEN].copy_from_slice(left);
    bytes[1 + HASH_LEN..].copy_from_slice(right);
    Sha256::digest(bytes).into()
}

/// The root of a tree without leaves.
pub fn empty() -> Hash {
    Sha256::digest([]).into()
}

/// The complete subtrees that cover the leaves `from..to`, from left to right. `from` is a place where the RFC's recursion
/// divides: 0, or the beginning of a right half.
pub fn subtrees(mut from: u64, to: u64) -> Vec<Place> {
    let mut places = Vec::new();
    while from < to {
        let fits = (to - from).ilog2();
        let level = if from == 0 { fits } else { fits.min(from.trailing_zeros()) };
        places.push(Place { level, number: from >> level });
        from += 1 << level;
    }
    places
}

/// The hash over subtrees that lie side by side, as [`subtrees`] lists them.
pub fn fold(hashes: &[Hash]) -> Hash {
    let Some((last, before)) = hashes.split_last() else { return empty() };
    before.iter().rev().fold(*last, |right, left| node(left, &right))
}

/// The root over these leaves' hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    let at = |place: &Place| complete(leaves, *place);
    fold(&subtrees(0, leaves.len() as u64).iter().map(at).collect::<Vec<_>>())
}

fn complete(leaves: &[Hash], place: Place) -> Hash {
    let count = 1_usize << place.level;
    let first = usize::try_from(place.number << place.level).unwrap_or(usize::MAX);
    let mut row = leaves[first..first + count].to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node(&pair[0], &pair[1])).collect();
    }
    row[0]
}

/// Leaves that one element of a proof covers.
pub type Span = (u64, u64);

/// What an inclusion proof of leaf `index` in a tree of `size` leaves is made of; nothing where there is no such leaf.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Span>> {
    let mut spans = Vec::new();
    let (mut from, mut to) = (0, size);
    if index >= size {
        return None;
    }
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            spans.push((middle, to));
            to = middle;
        } else {
            spans.push((from, middle));
            from = middle;
        }
    }
    spans.reverse();
    Some(spans)
}

/// What a proof is made of that the first `old` leaves of a tree of `size` leaves are those of the tree of before; nothing
/// where there is none.
pub fn consistency(old: u64, size: u64) -> Option<Vec<Span>> {
    if old == 0 || old > size {
        return None;
    }
    let mut spans = Vec::new();
    let (mut from, mut to, mut whole) = (0, size, true);
    while old != to {
        let middle = from + split(to - from);
        if old <= middle {
            spans.push((middle, to));
            to = middle;
        } else {
            spans.push((from, middle));
            from = middle;
            whole = false;
        }
    }
    if !whole {
        spans.push((from, to));
    }
    spans.reverse();
    Some(spans)
}

/// The largest power of two that is smaller than `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// The proof that leaf `index` is among these leaves.
pub fn prove(leaves: &[Hash], index: u64) -> Option<Vec<Hash>> {
    let spans = inclusion(index, leaves.len() as u64)?;
    let over = |(from, to): Span| {
        let places = subtrees(from, to);
        fold(&places.iter().map(|place| complete(leaves, *place)).collect::<Vec<_>>())
    };
    Some(spans.into_iter().map(over).collect())
}

/// Whether `path` proves that `leaf` is leaf `index` of the tree of `size` leaves with this root (RFC 9162, 2.1.3.2).
pub fn includes(leaf: &Hash, (index, size): (u64, u64), path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut number, mut last, mut hash) = (index, size - 1, *leaf);
    for step in path {
        if last == 0 {
            return false;
        }
        if number & 1 == 1 || number == last {
            hash = node(step, &hash);
            while number & 1 == 0 && number != 0 {
                number >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, step);
        }
        number >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` proves that the tree of `sizes.1` leaves begins with the one of `sizes.0` leaves (RFC 9162, 2.1.4.2).
pub fn extends(sizes: (u64, u64), roots: (&Hash, &Hash), path: &[Hash]) -> bool {
    let (old, size) = sizes;
    if old == 0 || old > size {
        return false;
    }
    if old == size {
        return path.is_empty() && roots.0 == roots.1;
    }
    let whole = old.is_power_of_two();
    let Some(first) = (if whole { Some(roots.0) } else { path.first() }) else { return false };
    let rest = if whole { path } else { &path[1..] };
    let (mut number, mut last) = (old - 1, size - 1);
    while number & 1 == 1 {
        number >>= 1;
        last >>= 1;
    }
    let (mut before, mut after) = (*first, *first);
    for step in rest {
        if last == 0 {
            return false;
        }
        if number & 1 == 1 || number == last {
            before = node(step, &before);
            after = node(step, &after);
            while number & 1 == 0 && number != 0 {
                number >>= 1;
                last >>= 1;
            }
        } else {
            after = node(&after, step);
        }
        number >>= 1;
        last >>= 1;
    }
    last == 0 && before == *roots.0 && after == *roots.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|n| leaf(format!("leaf {n}").as_bytes())).collect()
    }

    /// The RFC's own definition.
    fn defined(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty(),
            [one] => *one,
            more => {
                let middle = usize::try_from(split(more.len() as u64)).unwrap();
                node(&defined(&more[..middle]), &defined(&more[middle..]))
            }
        }
    }

    #[test]
    fn roots_are_those_of_the_definition() {
        for count in 0..70 {
            let leaves = leaves(count);
            assert_eq!(root(&leaves), defined(&leaves), "{count}");
        }
        // RFC 9162 gives no vectors; this one is that of RFC 6962's reference implementation: the empty leaf.
        let known = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(hex::encode(leaf(b"")), known);
    }

    #[test]
    fn every_leaf_is_proved_and_nothing_else() {
        for count in 1..40_u64 {
            let all = leaves(count as usize);
            let root = root(&all);
            for index in 0..count {
                let path = prove(&all, index).unwrap();
                let hash = &all[index as usize];
                assert!(includes(hash, (index, count), &path, &root), "{index} of {count}");
                assert!(!includes(&leaf(b"other"), (index, count), &path, &root));
                assert!(!includes(hash, (index, count), &path, &leaf(b"other")));
                for other in (0..count + 2).filter(|other| *other != index) {
                    assert!(!includes(hash, (other, count), &path, &root), "{index} as {other} of {count}");
                }
                for at in 0..path.len() {
                    let mut bent = path.clone();
                    bent[at][3] ^= 1;
                    assert!(!includes(hash, (index, count), &bent, &root));
                    let mut short = path.clone();
                    short.remove(at);
                    assert!(!includes(hash, (index, count), &short, &root));
                }
                let longer = [&path[..], &[root]].concat();
                assert!(!includes(hash, (index, count), &longer, &root));
            }
            assert_eq!(prove(&all, count), None);
        }
    }

    #[test]
    fn a_tree_extends_those_before_it_and_no_others() {
        for count in 1..40_u64 {
            let all = leaves(count as usize);
            let now = root(&all);
            for old in 1..=count {
                let over = |(from, to): Span| defined(&all[from as usize..to as usize]);
                let path: Vec<_> = consistency(old, count).unwrap().into_iter().map(over).collect();
                let before = root(&all[..old as usize]);
                assert!(extends((old, count), (&before, &now), &path), "{old} of {count}");
                let mut changed = all[..old as usize].to_vec();
                changed[0] = leaf(b"changed");
                assert!(!extends((old, count), (&root(&changed), &now), &path), "{old} of {count}");
                for at in 0..path.len() {
                    let mut bent = path.clone();
                    bent[at][9] ^= 1;
                    assert!(!extends((old, count), (&before, &now), &bent));
                }
                if old < count {
                    assert!(!extends((old, count), (&before, &now), &[]));
                    assert!(!extends((count, old), (&now, &before), &path));
                }
            }
        }
        assert_eq!((consistency(0, 3), consistency(4, 3)), (None, None));
    }
}
