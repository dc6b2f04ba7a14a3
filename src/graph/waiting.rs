//! Waiting objects and their causes: an event of the graph lets the objects that need it be tried
//! again (docs/DECISIONS.md 7).
//!
//! Invariant: no object waits for an event that has occurred already. The one writer judges the
//! object and notes the event.

use super::manager::GraphManager;
use super::version::Tombstone;
use crate::store::{Cause, ParentRow, StoreError, WaitingRow};

impl GraphManager<'_> {
    /// Makes an object wait. Returns `false` if the same object of the same peer waits already.
    pub fn put_waiting(&self, waiting: &WaitingRow) -> Result<bool, StoreError> {
        self.cache.borrow_mut().is_any_waiting = Some(true);
        self.tx.put_waiting(waiting, self.env.now)
    }

    /// Notes that a cause has occurred. The objects that wait for it are tried in later
    /// transactions.
    pub(super) fn fulfil(&self, cause: &Cause) -> Result<(), StoreError> {
        if self.is_any_waiting()? {
            self.tx.fulfil(cause)?;
        }
        Ok(())
    }

    fn is_any_waiting(&self) -> Result<bool, StoreError> {
        let known = self.cache.borrow().is_any_waiting;
        let is_any_waiting = match known {
            Some(known) => known,
            None => self.tx.is_any_waiting()?,
        };
        self.cache.borrow_mut().is_any_waiting = Some(is_any_waiting);
        Ok(is_any_waiting)
    }

    /// Notes a tombstone that was written, so that the waiting versions that it precedes are
    /// deleted.
    pub(super) fn note_tombstone(&mut self, row: &ParentRow) -> Result<(), StoreError> {
        if self.is_any_waiting()? {
            // A version that is written precedes the stored one.
            self.tombstones.insert(row.oid, Tombstone::of(row));
        }
        Ok(())
    }

    /// The greatest tombstone of each object that this transaction deleted while objects waited.
    pub fn take_tombstones(&mut self) -> impl Iterator<Item = Tombstone> + use<> {
        std::mem::take(&mut self.tombstones).into_values()
    }
}
