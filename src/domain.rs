//! Sync domains: which types of an app travel together, and which changes a receiver accepts.
//!
//! Plain values; `acl` decides. [`crate::schema::Schemas::sync_domains`] lists them (the story's
//! `SYNC_DOMAINS`). Invariant: a domain made by the schema loader names at least one type of its
//! own app, and no `Local` type.

use serde::Deserialize;

/// Most sync domains of one node: `sync_flags` holds one bit for each in a signed 64-bit integer.
pub const SYNC_DOMAINS_MAX: usize = 63;

/// Which writes a receiver accepts in a domain (docs/DECISIONS.md 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Objects with a new oid only.
    AppendOnly,
    /// Also a higher revision or a deletion of an object whose owner has its home at the sender.
    AllowUpdate,
    /// Each object once; later revisions and deletions are refused.
    NoUpdate,
}

/// A sync domain. An object travels whole, so the domain holds all Attrs of its types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncDomain {
    /// Its name on the wire: the app's slug, alone or followed by `.` and a word.
    pub name: String,
    /// Slug of its app.
    pub app: String,
    /// Numbers of its types (the story's `parent_types`), sorted.
    pub types: Vec<u16>,
    /// Which writes a receiver accepts.
    pub mode: Mode,
}

impl SyncDomain {
    /// Whether objects of this type travel in this domain.
    pub fn has_type(&self, number: u16) -> bool {
        self.types.binary_search(&number).is_ok()
    }
}
