//! The gate: the server side of handshakes on real streams, bounded in number, time and work.
//!
//! - `shared`: the [`Gate`] and its state. `status`: a snapshot of it.
//! - `serve`: the accept loop. `admit`: one handshake, from the first byte to admission or refusal.
//! - `slots`: how many handshakes are open, and which one is evicted.
//! - `pool`: the threads that verify. `reply_cache`: the replies to solutions.
//!
//! [`crate::handshake`] checks the messages, [`crate::policy`] decides about the applicant.
//! Invariant: at most `open_handshakes_max` handshakes without a ticket are open, each step has a
//! deadline, and at most `verify_workers` verifications run.

mod admit;
mod pool;
mod reply_cache;
mod serve;
mod shared;
mod slots;
mod status;

pub use shared::Gate;
pub use slots::HandshakeCounts;
pub use status::GateStatus;

#[cfg(test)]
mod tests;
