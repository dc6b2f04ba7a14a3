//! The clock of the core. Modules below `engine` take the time as an argument.

use crate::op_context::Timestamp;

/// The source of time, in milliseconds since 1970. Tests use clocks that stand still.
pub trait Clock: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Timestamp;
}
