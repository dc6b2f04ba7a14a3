//! The accept loop: one task for each accepted stream.
//!
//! The loop does not wait for a handshake before it accepts the next stream. A client that finds no
//! slot receives `busy`. Invariant: when [`Gate::serve`] returns, no unadmitted stream is left.

use std::sync::Arc;
use std::time::Duration;

use keys::{TraceId, error_chain};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::shared::Gate;
use crate::frames::Session;
use crate::handshake::Admitted;
use crate::transport::{AcceptError, Incoming, Listener};

/// Pause after a failed accept. Without it, a lack of file descriptors would use a whole core.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

impl Gate {
    /// Runs a handshake on every accepted stream, until `stop` is cancelled or the listener ends.
    /// `on_admitted` takes over the session, runs in the handshake's span and must not block.
    pub async fn serve(
        &self,
        mut listener: Box<dyn Listener>,
        on_admitted: impl Fn(Session, Admitted) + Send + Sync + 'static,
        stop: CancellationToken,
    ) {
        let on_admitted = Arc::new(on_admitted);
        let mut handshakes = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = handshakes.join_next() => continue,
                incoming = listener.accept() => incoming,
            };
            match incoming {
                Ok(incoming) => {
                    let (gate, on_admitted) = (self.clone(), on_admitted.clone());
                    let trace = TraceId(rand::random());
                    let span = tracing::info_span!("handshake", side = "server", %trace);
                    let handshake = async move {
                        if let Some((session, admitted)) = gate.run_handshake(trace, incoming).await
                        {
                            on_admitted(session, admitted);
                        }
                    };
                    handshakes.spawn(handshake.instrument(span));
                }
                Err(AcceptError::Once(error)) => {
                    tracing::warn!(error = %error_chain(&error), "could not accept a stream");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
                Err(AcceptError::Closed) => {
                    tracing::warn!("the listener has ended; no further stream is accepted");
                    break;
                }
            }
        }
        handshakes.shutdown().await;
    }

    async fn run_handshake(
        &self,
        trace: TraceId,
        incoming: Incoming,
    ) -> Option<(Session, Admitted)> {
        let Incoming { stream, circuit } = incoming;
        match self.admit_traced(trace, stream).await {
            Ok(admitted) => Some(admitted),
            Err(error) => {
                tracing::debug!(error = %error_chain(&error), "handshake ended without admission");
                if error.is_abuse() {
                    circuit.shut();
                }
                None
            }
        }
    }
}
