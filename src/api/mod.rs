//! The local HTTP API: what people and frontends of this node can do (docs/STORY.md 3, docs/DECISIONS.md 8).
//!
//! - [`auth`]: who may ask at all. [`routes`]: what can be asked. [`messages`], [`identities`], [`objects`], [`node`],
//!   [`tor`], [`admission`], [`recovery`], [`backups`]: the answers. [`server`]: connections. [`control`]: what the node
//!   must do for the API that is
//!   not data.
//!   [`error`]: how it says no.
//!
//! Never listens beyond loopback, never answers a page of another origin, never logs a body. Works before and without
//! Tor. Invariant: every route but `/healthz` demands the operator's token.

mod admission;
mod auth;
mod backups;
mod control;
mod error;
mod identities;
mod messages;
mod node;
mod objects;
mod read;
mod recovery;
mod routes;
mod server;
mod state;
mod tor;

pub use control::{
    AdmissionStatus, BackupRow, Control, ControlError, DialRow, Dialled, KeyOwner, NodeStatus,
    SessionEffect, SessionRow, SyncDirection, SyncReport,
};
pub use routes::router;
pub use server::serve;
pub use state::ApiState;

#[cfg(test)]
mod tests;
