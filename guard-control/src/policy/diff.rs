//! What differs between two versions of the policies, line by line. Files enter, changes with some lines around them leave.

use std::collections::BTreeMap;

/// Lines that are shown around a change.
const AROUND: usize = 3;
/// Pairs of lines that are compared; where there would be more, everything between the first and the last change is one.
const MOST_PAIRS: usize = 4_000_000;

/// A line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// In both.
    Same(&'a str),
    /// In the older one alone.
    Removed(&'a str),
    /// In the newer one alone.
    Added(&'a str),
    /// So many lines that are in both are left out here.
    LeftOut(usize),
}

/// What became of a file.
#[derive(Debug)]
pub struct File<'a> {
    /// Its name.
    pub name: &'a str,
    /// What of it is shown.
    pub lines: Vec<Line<'a>>,
}

/// The files that differ.
pub fn between<'a>(old: &'a BTreeMap<String, String>, new: &'a BTreeMap<String, String>) -> Vec<File<'a>> {
    let mut names: Vec<&str> = old.keys().chain(new.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let text = |files: &'a BTreeMap<String, String>, name: &str| files.get(name).map_or("", String::as_str);
    let changed = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed.map(|name| File { name, lines: shortened(lines(text(old, name), text(new, name))) }).collect()
}

/// All lines of both.
fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let before = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let after = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(old, new)| old == new).count();
    let mut all: Vec<Line<'a>> = old[..before].iter().map(|line| Line::Same(line)).collect();
    middle(&old_rest[..old_rest.len() - after], &new_rest[..new_rest.len() - after], &mut all);
    all.extend(old_rest[old_rest.len() - after..].iter().map(|line| Line::Same(line)));
    all
}

/// By the longest common subsequence.
fn middle<'a>(old: &[&'a str], new: &[&'a str], all: &mut Vec<Line<'a>>) {
    let (mut at_old, mut at_new) = (0, 0);
    if old.len().saturating_mul(new.len()) <= MOST_PAIRS {
        let width = new.len() + 1;
        // How long it is from here on.
        let mut longest = vec![0_u32; (old.len() + 1) * width];
        for i in (0..old.len()).rev() {
            for j in (0..new.len()).rev() {
                longest[i * width + j] = match old[i] == new[j] {
                    true => longest[(i + 1) * width + j + 1] + 1,
                    false => longest[(i + 1) * width + j].max(longest[i * width + j + 1]),
                };
            }
        }
        while at_old < old.len() && at_new < new.len() {
            if old[at_old] == new[at_new] {
                all.push(Line::Same(old[at_old]));
                (at_old, at_new) = (at_old + 1, at_new + 1);
            } else if longest[(at_old + 1) * width + at_new] >= longest[at_old * width + at_new + 1] {
                all.push(Line::Removed(old[at_old]));
                at_old += 1;
            } else {
                all.push(Line::Added(new[at_new]));
                at_new += 1;
            }
        }
    }
    all.extend(old[at_old..].iter().map(|line| Line::Removed(line)));
    all.extend(new[at_new..].iter().map(|line| Line::Added(line)));
}

/// Leaves out what is far from any change.
fn shortened(all: Vec<Line<'_>>) -> Vec<Line<'_>> {
    let mut near = vec![false; all.len()];
    for (at, _) in all.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Same(_))) {
        let to = (at + AROUND + 1).min(all.len());
        near[at.saturating_sub(AROUND)..to].fill(true);
    }
    let mut shown = Vec::new();
    for (line, near) in all.into_iter().zip(near) {
        match (near, shown.last_mut()) {
            (true, _) => shown.push(line),
            (false, Some(Line::LeftOut(count))) => *count += 1,
            (false, _) => shown.push(Line::LeftOut(1)),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn changes_are_shown_with_what_is_around_them() {
        let old = files(&[("a", "1\n2\n3\n4\n5\n6\n7\n8\n9"), ("same", "x"), ("gone", "y")]);
        let new = files(&[("a", "1\n2\n3\n4\n5\nsix\n7\n8\n9"), ("same", "x"), ("new", "z")]);
        let found = between(&old, &new);
        let names: Vec<_> = found.iter().map(|file| file.name).collect();
        assert_eq!(names, ["a", "gone", "new"]);
        use Line::{Added, LeftOut, Removed, Same};
        let wanted = [
            LeftOut(2),
            Same("3"),
            Same("4"),
            Same("5"),
            Removed("6"),
            Added("six"),
            Same("7"),
            Same("8"),
            Same("9"),
        ];
        assert_eq!(found[0].lines, wanted);
        assert_eq!(found[1].lines, [Removed("y")]);
        assert_eq!(found[2].lines, [Added("z")]);
        assert!(between(&new, &new).is_empty());
    }

    #[test]
    fn both_texts_can_be_told_from_a_difference_even_from_a_large_one() {
        let text = |step: usize| (0..3_000).map(|n| format!("{}\n", n / step)).collect::<String>();
        for (old, new) in
            [("a\nb\nc\nd", "b\nx\nd\ne"), ("", "a"), (&*text(1), &*text(2)), ("a\na\na", "a\na")]
        {
            let all = lines(old, new);
            let told = |wanted: fn(&Line<'_>) -> bool| -> Vec<String> {
                let kept = all.iter().filter(|line| wanted(line));
                kept.map(|line| match line {
                    Line::Same(text) | Line::Removed(text) | Line::Added(text) => (*text).to_owned(),
                    Line::LeftOut(_) => unreachable!("nothing is left out yet"),
                })
                .collect()
            };
            assert_eq!(told(|line| !matches!(line, Line::Added(_))), old.lines().collect::<Vec<_>>());
            assert_eq!(told(|line| !matches!(line, Line::Removed(_))), new.lines().collect::<Vec<_>>());
        }
    }
}
