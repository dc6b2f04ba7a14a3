//! The clock of the core.

use crate::op_context::Timestamp;

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Timestamp;
}
