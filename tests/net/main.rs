//! Whole nodes over memory pipes: handshakes, sessions, admission, recovery, and peers that
//! misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod admission;
mod clone;
mod conversations;
mod deadlines;
mod forked_node;
mod hostile_restore;
mod hostile_sessions;
mod introductions;
mod late_domains;
mod protocol_forms;
mod protocol_session;
mod pulling;
mod push;
mod receipts;
mod relay;
mod restore;
mod rights;
mod rollback;
mod rotation;
mod schema_versions;
mod sessions;
mod tiers;
mod waiting;
mod watch;
