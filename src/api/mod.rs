//! The local HTTP API: what people and frontends of this node can do (SEED 3, DESIGN 8).
//!
//! - [`auth`]: who may ask at all. [`routes`]: what can be asked. [`messages`], [`identities`], [`objects`], [`node`]:
//!   the answers. [`control`]: what the node must do for the API that is not data. [`error`]: how it says no.
//!
//! Never listens beyond loopback, never answers a page of another origin, never logs a body. Works before and without
//! Tor. Invariant: every route but `/healthz` demands the operator's token.

mod auth;
mod control;
mod error;
mod identities;
mod messages;
mod node;
mod objects;
mod read;
mod routes;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use control::{Control, ControlError, Dialled, NodeStatus, SessionRow, SyncDirection, SyncReport};
pub use routes::router;

use crate::config::ApiConfig;
use crate::engine::Engine;

/// How long open requests may take to end once the node stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    engine: Engine,
    control: Arc<dyn Control>,
    config: Arc<ApiConfig>,
    /// Places for requests that are worked on.
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl ApiState {
    /// State over the engine and the node.
    pub fn new(engine: Engine, control: Arc<dyn Control>, config: ApiConfig, stop: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(config.requests_max));
        Self { engine, control, config: Arc::new(config), places, stop }
    }
}

/// Serves the API until the state's token is cancelled.
///
/// # Errors
/// Where the listener fails for good.
pub async fn serve(listener: TcpListener, state: ApiState) -> io::Result<()> {
    let stop = state.stop.clone();
    let ended = state.stop.clone();
    let serving = axum::serve(listener, router(state)).with_graceful_shutdown(async move { ended.cancelled().await });
    let mut serving = std::pin::pin!(serving.into_future());
    tokio::select! {
        biased;
        result = &mut serving => return result,
        () = stop.cancelled() => {}
    }
    // Who still holds a connection open is cut off: everything that was acknowledged is on disk.
    timeout(FAREWELL, serving).await.unwrap_or(Ok(()))
}
