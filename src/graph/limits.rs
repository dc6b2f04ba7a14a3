//! Limits of what the graph accepts.

use crate::object::ObjectLimits;

/// Which invitations a node accepts without asking its operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcceptPolicy {
    /// All. The default of the core; the configuration has its own.
    #[default]
    All,
    /// Those of owners that have a name in the address book.
    Contacts,
    /// None.
    Ask,
}

/// Limits of what the graph accepts. The defaults are the protocol's; tests set others.
#[derive(Debug, Clone, Copy, Default)]
pub struct GraphLimits {
    /// Limits of one object.
    pub object: ObjectLimits,
    /// Which invitations are accepted without asking.
    pub accept: AcceptPolicy,
}
