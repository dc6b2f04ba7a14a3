//! Peers: one session per admitted peer, over which both sides ask, answer and push (docs/DECISIONS.md 7).
//!
//! - [`message`]: what is said. [`session`]: one stream. [`serve`]: answering. [`pull`], [`push`]: asking.
//! - `admit`: what is stored of who comes. [`registry`]: who is here. [`duplicates`]: of two sessions with one peer, which
//!   stays. [`recover`]: epochs, and what comes back after a restore. [`slots`]: who finds a place. [`budget`]: how much a peer may ask. [`timers`]: pulls and pushes that go on by
//!   themselves. [`forget`]: who has been away too long. [`dialler`]: keeping in touch.
//!
//! Never sees an unadmitted stream, and hands nothing to the engine that was not verified. Invariant: at most one live
//! session per peer, each task of it ends with it.

mod admit;
pub mod budget;
pub mod dialler;
pub mod duplicates;
pub mod forget;
pub mod message;
pub mod pull;
pub mod push;
pub mod recover;
pub mod registry;
pub mod serve;
pub mod session;
pub mod slots;
pub mod timers;

pub use admit::AdmitError;
pub use dialler::DialError;
pub use pull::{PullOutcome, SyncError};
pub use push::PushOutcome;
pub use registry::{Peers, SessionStatus};
