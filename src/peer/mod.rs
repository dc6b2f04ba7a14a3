//! Peers: one session per admitted peer, over which both sides ask, answer and push (DESIGN 7).
//!
//! - [`message`]: what is said. [`session`]: one stream. [`serve`]: answering. [`pull`], [`push`]: asking.
//! - `admit`: what is stored of who comes. [`registry`]: who is here; of two sessions with one peer, which stays.
//!   [`dialler`]: keeping in touch.
//!
//! Never sees an unadmitted stream, and hands nothing to the engine that was not verified. Invariant: at most one live
//! session per peer, each task of it ends with it.

mod admit;
pub mod dialler;
pub mod message;
pub mod pull;
pub mod push;
pub mod registry;
pub mod serve;
pub mod session;

pub use admit::AdmitError;
pub use dialler::DialError;
pub use pull::{PullOutcome, SyncError};
pub use push::PushOutcome;
pub use registry::{Peers, SessionStatus};
