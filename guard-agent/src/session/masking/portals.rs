//! Portals of the extended protocol, as far as rows of them have to be told apart: what they show, and in which form.
//!
//! The server describes a portal when it is asked: clients often do, guard does where they have not. What was described
//! holds until the portal is bound anew.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use ahash::RandomState;

use super::{Source, results::Planned};

/// Most portals that are followed; then all are forgotten, and described anew when they run.
const MAX_PORTALS: usize = 4_096;

/// One portal.
#[derive(Debug, Default)]
pub(in super::super) struct Portal {
    /// The server has been asked to describe it.
    pub(in super::super) asked: Cell<bool>,
    /// What is to be done with its rows, once it has been described.
    pub(in super::super) planned: RefCell<Option<Planned>>,
    /// What it shows.
    pub(in super::super) source: RefCell<Source>,
    /// The number of the statement that ran it first.
    pub(in super::super) ordinal: Cell<u64>,
}

/// The portals of one session.
#[derive(Debug, Default)]
pub(in super::super) struct Portals {
    unnamed: Rc<Portal>,
    named: HashMap<Box<[u8]>, Rc<Portal>, RandomState>,
}

impl Portals {
    /// A Bind of `name` was sent.
    pub(in super::super) fn bound(&mut self, name: &[u8]) {
        if !name.is_empty() {
            if self.named.len() >= MAX_PORTALS {
                self.named.clear();
            }
            self.named.insert(name.into(), Rc::default());
            return;
        }
        match Rc::get_mut(&mut self.unnamed) {
            // Nobody waits for an answer about the one before.
            Some(portal) => *portal = Portal::default(),
            None => self.unnamed = Rc::default(),
        }
    }

    /// The portal called `name`. One that is not known, such as a cursor of SQL, may be another one each time.
    pub(in super::super) fn get(&self, name: &[u8]) -> Rc<Portal> {
        if name.is_empty() {
            return Rc::clone(&self.unnamed);
        }
        self.named.get(name).map_or_else(Rc::default, Rc::clone)
    }

    /// The portal called `name` is closed.
    pub(in super::super) fn closed(&mut self, name: &[u8]) {
        if !name.is_empty() {
            self.named.remove(name);
        }
    }

    /// What the names stand for may be something else by now.
    pub(in super::super) fn doubt(&mut self) {
        self.named.clear();
    }

    /// Something failed, or a transaction ended: what is there still is described anew.
    pub(in super::super) fn forget(&mut self) {
        self.named.clear();
        self.unnamed = Rc::default();
    }
}
