//! [`ScopeId`]: the number of a scope in this database.

/// Local id of a scope. Other nodes use other ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScopeId(pub i64);

impl ScopeId {
    /// Objects that never leave this node.
    pub const LOCAL: Self = Self(0);
    /// Objects that every peer with the domain may read.
    pub const PUBLIC: Self = Self(1);

    /// Whether readers decide, so that the scope is neither local nor public.
    pub fn has_readers(self) -> bool {
        self > Self::PUBLIC
    }
}
