//! Waiting objects and their causes: an event of the graph lets the objects that need it be tried
//! again (docs/DECISIONS.md 7).
//!
//! Invariant: no object waits for an event that has occurred already. The one writer judges the
//! object and notes the event.

use super::manager::GraphManager;
use crate::store::{Cause, StoreError, WaitingRow};

impl GraphManager<'_> {
    /// Makes an object wait. Returns `false` if the same object of the same peer waits already.
    pub fn put_waiting(&self, waiting: &WaitingRow) -> Result<bool, StoreError> {
        self.cache.borrow_mut().is_any_waiting = Some(true);
        self.tx.put_waiting(waiting, self.env.now)
    }

    /// Notes that a cause has occurred. The objects that wait for it are tried in later
    /// transactions.
    pub(super) fn fulfil(&self, cause: &Cause) -> Result<(), StoreError> {
        let known = self.cache.borrow().is_any_waiting;
        let is_any_waiting = match known {
            Some(known) => known,
            None => self.tx.is_any_waiting()?,
        };
        self.cache.borrow_mut().is_any_waiting = Some(is_any_waiting);
        if is_any_waiting {
            self.tx.fulfil(cause)?;
        }
        Ok(())
    }
}
