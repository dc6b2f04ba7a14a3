//! The accept loop: strangers in, one task each.
//!
//! Never waits for a stranger before accepting the next: who finds no slot is told `busy` and let go. Invariant: when
//! it returns, no unadmitted stream is left.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Gate;
use crate::frames::Session;
use crate::handshake::Admitted;
use crate::transport::{AcceptError, Incoming, Listener};

/// Pause after an accept that failed, so that a lack of descriptors does not become a lack of processor.
const PAUSE: Duration = Duration::from_millis(200);

impl Gate {
    /// Admits whoever comes, until `stop` or the end of the listener. `on_admitted` takes over the session and must
    /// not block.
    pub async fn serve(
        &self,
        mut listener: Box<dyn Listener>,
        on_admitted: impl Fn(Session, Admitted) + Send + Sync + 'static,
        stop: CancellationToken,
    ) {
        let on_admitted = Arc::new(on_admitted);
        let mut strangers = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = strangers.join_next() => continue,
                incoming = listener.accept() => incoming,
            };
            match incoming {
                Ok(incoming) => {
                    let (gate, on_admitted) = (self.clone(), on_admitted.clone());
                    strangers.spawn(async move {
                        if let Some((session, admitted)) = gate.receive_stranger(incoming).await {
                            on_admitted(session, admitted);
                        }
                    });
                }
                Err(AcceptError::Once(error)) => {
                    tracing::warn!(%error, "could not accept a stream");
                    sleep(PAUSE).await;
                }
                Err(AcceptError::Closed) => {
                    tracing::warn!("the listener has ended: no stranger can come any more");
                    break;
                }
            }
        }
        strangers.shutdown().await;
    }

    async fn receive_stranger(&self, incoming: Incoming) -> Option<(Session, Admitted)> {
        let Incoming { stream, circuit } = incoming;
        match self.admit(stream).await {
            Ok(admitted) => Some(admitted),
            Err(error) => {
                tracing::debug!(%error, "a stranger was not admitted");
                if error.is_abuse() {
                    circuit.shut();
                }
                None
            }
        }
    }
}
