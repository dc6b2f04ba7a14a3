//! The counters of the one writer: the last `change_seq` and the last local id of each app.

use std::collections::BTreeMap;

use crate::store::AppTable;

/// The counters that the one writer keeps in memory: `GLOBAL_CHANGE_SEQ` and the last local ids.
///
/// They never go back, also if a transaction fails, because a number may be skipped but not reused.
#[derive(Debug)]
pub struct Counters {
    /// `GLOBAL_CHANGE_SEQ`: the last number that a change group took.
    pub change_seq: u64,
    ids: BTreeMap<String, i64>,
}

impl Counters {
    /// Continues from the highest numbers in the database: `Rows::heads`.
    pub fn new((change_seq, ids): (u64, Vec<(String, i64)>)) -> Self {
        Self {
            change_seq,
            ids: ids.into_iter().collect(),
        }
    }

    /// The next local id of a Parent in an app's tables.
    pub(super) fn next_id(&mut self, app: &AppTable) -> i64 {
        let last = self.ids.entry(app.slug.clone()).or_default();
        *last += 1;
        *last
    }
}
