//! The core's handle: the only way from async code to data.
//!
//! One handle type has two drivers. The node uses a writer thread with reading connections. Tests
//! and simulation use the inline driver: the caller's thread does the work, and a seed decides
//! everything. No lock is held across an `await`.
//! Invariants: there is one writer, so commit order is `change_seq` order; a caller gets its result
//! after the commit. Tested in `tests/core/engines.rs`.

mod clock;
mod error;
mod handle;
mod news;
mod verify;

pub use clock::Clock;
#[cfg(test)]
pub(crate) use clock::TestClock;
pub use error::{CoreStopped, EngineError};
pub use handle::{CoreHandle, WriterThread};
pub use news::News;
