//! The local HTTP API for the operator and frontends (`docs/STORY.md` 3, `docs/DECISIONS.md` 8).
//!
//! - `server`: connections.
//! - `routes`: the table of routes.
//! - `auth`: checks that apply to every request.
//! - `messages`, `conversations`, `rights`, `identities`, `people`, `contacts`, `objects`, `node`,
//!   `tor`, `admission`, `recovery`, `backups`: the handlers.
//! - `read`: request bodies, queries and ids.
//! - `control`: the operations that the node implements for the API.
//! - `error`: error responses.
//!
//! The API listens on loopback only, refuses pages of other origins, logs no bodies, and works
//! without Tor. Invariant: every route except `/healthz` requires the operator's token
//! (`src/api/tests/access.rs`).

mod admission;
mod auth;
mod backups;
mod contacts;
mod control;
mod conversations;
mod delivery;
mod error;
mod identities;
mod invitations;
mod messages;
mod move_row;
mod moves;
mod node;
mod objects;
mod people;
mod read;
mod recovery;
mod rejects;
mod removals;
mod rights;
mod routes;
mod server;
mod state;
mod tor;

pub use control::{
    AdmissionStatus, BackupRow, Control, ControlError, DialRow, Dialled, KeyOwner, NodeStatus,
    SessionEffect, SessionRow, SyncDirection, SyncReport,
};
pub use move_row::{MoveError, MoveRow};
pub use routes::router;
pub use server::serve;
pub use state::ApiState;

#[cfg(test)]
mod tests;
