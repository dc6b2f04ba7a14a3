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
mod tor;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use control::{
    AdmissionStatus, BackupRow, Control, ControlError, DialRow, Dialled, KeyOwner, NodeStatus,
    SessionEffect, SessionRow, SyncDirection, SyncReport,
};
pub use routes::router;
pub use server::serve;

use crate::config::ApiConfig;
use crate::engine::CoreHandle;

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    engine: CoreHandle,
    control: Arc<dyn Control>,
    config: Arc<ApiConfig>,
    /// Places for requests that are worked on.
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl ApiState {
    /// State over the engine and the node.
    pub fn new(
        engine: CoreHandle,
        control: Arc<dyn Control>,
        config: ApiConfig,
        stop: CancellationToken,
    ) -> Self {
        let places = Arc::new(Semaphore::new(config.requests_max));
        Self {
            engine,
            control,
            config: Arc::new(config),
            places,
            stop,
        }
    }
}

#[cfg(test)]
mod tests;
