//! A setting of a session that the server does not always report: what may be in force, through transactions.
//!
//! Changes that were sent enter, with the ends of the transactions that they were sent in; every value that may be in
//! force leaves. What is under way may or may not have taken effect.

use crate::{
    sql::{Roles, SearchPath},
    wire::postgres::TransactionStatus,
};

/// Values of which one is in force.
pub(super) trait Possible: Clone + PartialEq {
    /// What may be either.
    fn or(self, other: &Self) -> Self;
}

impl Possible for SearchPath {
    fn or(self, other: &Self) -> Self {
        Self::or(self, other)
    }
}

impl Possible for Roles {
    fn or(self, other: &Self) -> Self {
        Self::or(self, other)
    }
}

/// One setting.
#[derive(Debug)]
pub(super) struct Followed<T> {
    /// What may be in force.
    now: T,
    /// What is in force if all that is under way succeeds.
    next: T,
    /// What is in force then behind the transaction's end: `next`, without what is local.
    lasting: T,
    /// What holds again when the transaction is undone.
    committed: T,
    /// Everything that was in force since the transaction began.
    seen: T,
}

impl<T: Possible> Followed<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            now: value.clone(),
            next: value.clone(),
            lasting: value.clone(),
            committed: value.clone(),
            seen: value,
        }
    }

    pub(super) fn now(&self) -> &T {
        &self.now
    }

    /// True while it is not what it was when the transaction began.
    pub(super) fn touched(&self) -> bool {
        self.seen != self.committed
    }

    /// A change was sent; a `local` one ends with its transaction.
    pub(super) fn moves(&mut self, to: T, local: bool) {
        self.now = self.now.clone().or(&to);
        self.seen = self.seen.clone().or(&to);
        if !local {
            self.lasting = to.clone();
        }
        self.next = to;
    }

    /// A rollback was sent.
    pub(super) fn rolls_back(&mut self) {
        self.now = self.now.clone().or(&self.seen);
    }

    /// The server says what it is. With `more` under way, that may change it again.
    pub(super) fn reported(&mut self, value: T, more: bool) {
        self.now = if more { value.clone().or(&self.now) } else { value.clone() };
        self.lasting = value.clone();
        self.next = value;
    }

    /// Nothing is under way. `undone`: something failed or was rolled back since the transaction began.
    pub(super) fn settle(&mut self, transaction: TransactionStatus, undone: bool) {
        if transaction != TransactionStatus::Idle {
            self.now = if undone { self.seen.clone().or(&self.next) } else { self.next.clone() };
            return;
        }
        let value = if undone { self.seen.clone().or(&self.committed) } else { self.lasting.clone() };
        *self = Self::new(value);
    }
}
