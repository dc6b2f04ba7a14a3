//! The state of the API's handlers, and the state of one request.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use keys::TraceId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::control::Control;
use crate::config::ApiConfig;
use crate::engine::CoreHandle;

/// The state that all handlers share. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub(super) engine: CoreHandle,
    pub(super) control: Arc<dyn Control>,
    pub(super) config: Arc<ApiConfig>,
    /// One permit for each request slot.
    pub(super) slots: Arc<Semaphore>,
    /// One permit for each request that may wait for news: half of the slots.
    pub(super) waiting: Arc<Semaphore>,
    pub(super) stop: CancellationToken,
}

impl ApiState {
    /// Creates the state of a node's API. The server ends when `stop` is cancelled.
    pub fn new(
        engine: CoreHandle,
        control: Arc<dyn Control>,
        config: ApiConfig,
        stop: CancellationToken,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(config.requests_max));
        let waiting = Arc::new(Semaphore::new(config.requests_max / 2));
        Self {
            engine,
            control,
            config: Arc::new(config),
            slots,
            waiting,
            stop,
        }
    }
}

/// Extracts the state for one request: its reads and writes carry the request's trace id, which
/// `auth::gate` generates.
pub(super) struct Traced(pub(super) ApiState);

impl FromRequestParts<ApiState> for Traced {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &ApiState,
    ) -> Result<Self, Self::Rejection> {
        let mut state = state.clone();
        if let Some(trace) = parts.extensions.get::<TraceId>() {
            state.engine = state.engine.traced(*trace);
        }
        Ok(Self(state))
    }
}
