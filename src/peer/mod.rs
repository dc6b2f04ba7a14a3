//! Peers: one session per admitted peer, on which both sides send requests, replies and pushes
//! (docs/DECISIONS.md 7).
//!
//! - [`message`]: the wire format. [`handle`]: requesting. [`session`]: one stream. [`serve`]:
//!   replying. `outgoing`: what is still to be written.
//! - [`pull`], [`push`], `receive`: packages. `recover`: epochs, and reclaiming after a restore.
//!   `timers`: both at intervals. `watch`: all domains with one waiting request. `again`: what is
//!   pulled once more. `outbox`: pushes that a commit causes.
//! - [`registry`]: the live sessions. [`duplicates`] and [`slots`]: its rules. [`service`]: what
//!   runs them. `admit`: what is stored of a peer. `maintenance`: what belongs to no session.
//! - [`dialler`]: outgoing sessions. `introducer`: those with nodes of members. `end_code`: why a
//!   session ends. [`token_bucket`], `processor_budget`, `quota_log`, `backoff`: limits.
//!
//! Inputs are streams that the gate has admitted; the core gets nothing that was not verified.
//! Invariants: at most one live session per peer; every task of a session ends with it.

mod admit;
mod again;
mod backoff;
mod context;
pub mod dialler;
pub mod duplicates;
mod elsewhere;
mod end_code;
mod fetch;
pub mod handle;
#[cfg(test)]
pub(crate) mod handshake_testing;
mod introducer;
#[cfg(test)]
pub(crate) mod log_testing;
mod maintenance;
pub mod message;
mod outbox;
mod outgoing;
mod parts;
mod processor_budget;
pub mod pull;
pub mod push;
mod quota_log;
mod receipts;
mod receive;
mod recover;
pub mod registry;
pub mod serve;
pub mod service;
pub mod session;
#[cfg(test)]
mod session_testing;
pub mod slots;
mod sync_error;
#[cfg(test)]
pub(crate) mod testing;
mod timers;
pub mod token_bucket;
mod watch;

pub use admit::AdmitError;
pub use dialler::PeerDialError;
pub use end_code::EndCode;
pub use handle::SessionError;
pub use pull::PullOutcome;
pub use push::PushOutcome;
pub use registry::{SessionRegistry, SessionStatus};
pub use service::SyncService;
pub use sync_error::SyncError;
