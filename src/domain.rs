//! Sync domains: which types of an app travel together, and under which rule a receiver applies them.
//!
//! the story's `SYNC_DOMAINS` is [`crate::schema::Schemas::sync_domains`]. Plain values; never decides anything itself
//! (`acl` does). Invariant: a domain made by the schema loader names at least one type of its own app, none `Local`.

use serde::Deserialize;

/// Most sync domains of one node: `sync_flags` has one bit for each in SQLite's signed 64-bit integer.
pub const SYNC_DOMAINS_MAX: usize = 63;

/// What a receiver takes of a domain (docs/DECISIONS.md 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// New oids only.
    AppendOnly,
    /// Also a higher rev, or a soft delete, of an object whose owner is homed at the sender.
    AllowUpdate,
    /// An object arrives once and stays as it is.
    NoUpdate,
}

/// Who may author the objects of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writers {
    /// Any identity homed at the sender, for what it owns.
    Owner,
    /// As `Owner`, and the author must be among the participants of the scope.
    Participants,
}

/// A sync domain: all Attrs of the objects of its types, since an object travels whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncDomain {
    /// Its name on the wire: the app's slug, alone or with `.word`.
    pub name: String,
    /// Slug of its app.
    pub app: String,
    /// Numbers of its types (the story's `parent_types`), sorted.
    pub types: Vec<u16>,
    /// What a receiver takes.
    pub mode: Mode,
    /// Who may author.
    pub writers: Writers,
}

impl SyncDomain {
    /// Whether objects of this type travel in this domain.
    pub fn has_type(&self, number: u16) -> bool {
        self.types.binary_search(&number).is_ok()
    }
}
