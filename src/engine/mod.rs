//! The core's handle: the only way from async code to data.
//!
//! One handle type has two drivers. The node uses a writer thread with reading connections. Tests
//! and simulation use the inline driver: the caller's thread does the work, and a seed decides
//! everything. No lock is held across an `await`. A checkpoint thread copies the write-ahead log
//! into the database, so that no commit does.
//! Invariants: there is one writer, so commit order is `change_seq` order; a caller gets its result
//! after the commit. Tested in `tests/core/engines.rs`.

mod checkpoints;
mod clock;
mod deliveries;
mod error;
mod handle;
mod news;
mod verify;
mod writer;

pub use clock::Clock;
#[cfg(test)]
pub(crate) use clock::TestClock;
pub use deliveries::DeliveryChange;
pub use error::{CoreStopped, EngineError};
pub use handle::CoreHandle;
pub use news::News;
pub use writer::{Holds, WriterThread};
