//! Limits of what the graph accepts.

use crate::object::ObjectLimits;

/// Limits of what the graph accepts. The defaults are the protocol's; tests set others.
#[derive(Debug, Clone, Copy, Default)]
pub struct GraphLimits {
    /// Limits of one object.
    pub object: ObjectLimits,
}
