//! A seed enters, statements leave: dangerous ones in every wrapping that the grammar allows, up to three deep, and
//! then spelled as no person would.
//!
//! The same seed gives the same statements. Whether a statement is one at all the real server says.

mod noise;
mod seeds;
mod wrappings;

use std::collections::HashSet;

use crate::{random::Random, truth::Truth};

/// Most wrappings round one statement.
const DEEPEST: usize = 3;

/// What a text is, and so what can be put round it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An expression that gives a number.
    Expression,
    /// INSERT, UPDATE or DELETE without RETURNING.
    Change,
    /// A query that can stand anywhere.
    Query,
    /// A query with a change in its WITH: it stands at the top alone.
    TopQuery,
    /// Any single statement.
    Statement,
    /// What can only stand alone: several statements.
    Text,
}

/// A dangerous statement in its wrappings.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The text.
    pub text: String,
    /// What it does.
    pub truth: Vec<Truth>,
    /// Part of it lies in code that no text shows.
    pub opaque: bool,
    /// The wrappings, from the inside.
    pub wrappings: Vec<&'static str>,
}

/// `count` different statements.
pub fn generate(seed: u64, count: usize) -> Vec<Generated> {
    let mut random = Random::new(seed);
    let seeds = seeds::all();
    let mut texts = HashSet::new();
    let mut all = Vec::with_capacity(count);
    // Bounded: should the grammar here not hold as many, fewer leave.
    for turn in 0..count.saturating_mul(4) {
        if all.len() == count {
            break;
        }
        let one = wrap(&seeds[turn % seeds.len()], &mut random);
        if texts.insert(one.text.clone()) {
            all.push(one);
        }
    }
    all
}

fn wrap(seed: &seeds::Seed, random: &mut Random) -> Generated {
    let mut one = Generated {
        text: seed.text.to_owned(),
        truth: seed.truth.clone(),
        opaque: seed.opaque,
        wrappings: Vec::new(),
    };
    let mut form = seed.form;
    for _ in 0..random.below(DEEPEST + 1) {
        let fitting: Vec<_> = wrappings::ALL.iter().filter(|wrapping| wrapping.takes(form)).collect();
        if fitting.is_empty() {
            break;
        }
        let wrapping = random.pick(&fitting);
        one.text = wrapping.apply(&one.text);
        one.opaque |= wrapping.hides;
        one.wrappings.push(wrapping.pattern);
        form = wrapping.gives(form);
    }
    if form == Form::Expression {
        one.text = format!("SELECT {}", one.text);
    }
    one.text = noise::spell(&one.text, random);
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_statements() {
        let texts = |seed| generate(seed, 500).into_iter().map(|one| one.text).collect::<Vec<_>>();
        assert_eq!(texts(7), texts(7));
        assert_ne!(texts(7), texts(8));
        assert_eq!(texts(7).len(), 500);
    }

    #[test]
    fn every_wrapping_is_used() {
        let used: HashSet<_> = generate(1, 20_000).into_iter().flat_map(|one| one.wrappings).collect();
        for wrapping in wrappings::ALL {
            assert!(used.contains(wrapping.pattern), "{}", wrapping.pattern);
        }
    }
}
