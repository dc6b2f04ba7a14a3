//! The accept loop of an onion service: from rendezvous requests to streams.
//!
//! A request costs a stranger one cell and us a whole circuit, so the loop takes them at its own pace: a bounded number
//! of circuits is being built or held, and what it does not take in time arti drops. It must never accept another
//! command than BEGIN or another port than ours: that shuts the circuit.
//! Invariant: everything here ends with the [`TorListener`], except streams that were handed out.

use std::{fmt, sync::Arc};

use futures::{StreamExt as _, stream::BoxStream};
use keys::OnionAddr;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tor_cell::relaycell::msg::Connected;
use tor_hsservice::{RendRequest, RunningOnionService, StreamRequest};
use tor_proto::stream::IncomingStreamRequest;

use super::TorLimits;
use crate::transport::{AcceptError, BoxFuture, Circuit, Incoming, Listener, cut::Cut};

/// An onion service of ours. Dropping it ends the service; streams that it gave live on.
pub struct TorListener {
    onion: OnionAddr,
    arriving: mpsc::Receiver<Incoming>,
    _service: Arc<RunningOnionService>,
    _accepting: AbortOnDropHandle<()>,
}

impl TorListener {
    pub(super) fn new(
        onion: OnionAddr,
        port: u16,
        service: Arc<RunningOnionService>,
        requests: BoxStream<'static, RendRequest>,
        limits: &TorLimits,
    ) -> Self {
        let (arrivals, arriving) = mpsc::channel(limits.arrivals_max.max(1));
        let desk = Desk {
            port,
            limits: *limits,
            arrivals,
        };
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept_circuits(requests, desk)));
        Self {
            onion,
            arriving,
            _service: service,
            _accepting: accepting,
        }
    }

    /// The service's address.
    pub fn onion(&self) -> OnionAddr {
        self.onion
    }
}

impl Listener for TorListener {
    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Incoming, AcceptError>> {
        Box::pin(async { self.arriving.recv().await.ok_or(AcceptError::Closed) })
    }
}

impl fmt::Debug for TorListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TorListener")
            .field("onion", &self.onion)
            .finish_non_exhaustive()
    }
}

/// What every circuit's task knows.
#[derive(Clone)]
struct Desk {
    port: u16,
    limits: TorLimits,
    arrivals: mpsc::Sender<Incoming>,
}

/// Takes rendezvous requests as long as the service runs and somebody listens.
async fn accept_circuits(mut requests: BoxStream<'static, RendRequest>, desk: Desk) {
    let building = Arc::new(Semaphore::new(desk.limits.accepts_max.max(1)));
    let mut circuits = JoinSet::new();
    loop {
        while circuits.len() >= desk.limits.circuits_max.max(1) {
            circuits.join_next().await;
        }
        let Ok(slot) = building.clone().acquire_owned().await else {
            return;
        };
        let request = loop {
            tokio::select! {
                request = requests.next() => break request,
                Some(_) = circuits.join_next() => {}
            }
        };
        let Some(request) = request else { break };
        circuits.spawn(serve_circuit(request, slot, desk.clone()));
    }
    // The service has ended. Streams live on, each holding its circuit; dropping the set ends what is left here.
}

/// Builds the circuit to where the stranger waits and hands over the streams that it opens there.
async fn serve_circuit(request: RendRequest, slot: OwnedSemaphorePermit, desk: Desk) {
    let accepted = timeout(desk.limits.accept_deadline, request.accept()).await;
    drop(slot);
    let mut streams = match accepted {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => {
            tracing::debug!(error = super::chain(&error), "a rendezvous failed");
            return;
        }
        Err(_) => {
            tracing::debug!("a rendezvous took too long");
            return;
        }
    };
    let cut = CancellationToken::new();
    // Cloned into every stream: how many are open.
    let open = Arc::new(());
    loop {
        let next = tokio::select! {
            () = cut.cancelled() => return,
            next = timeout(desk.limits.circuit_idle, streams.next()) => next,
        };
        match next {
            Ok(Some(request)) => {
                if !serve_stream(request, &desk, &cut, &open).await {
                    return;
                }
            }
            Ok(None) => return,
            Err(_) if Arc::strong_count(&open) == 1 => return,
            Err(_) => {}
        }
    }
}

/// Accepts one stream and hands it over; `false` when the circuit is to end.
async fn serve_stream(request: StreamRequest, desk: &Desk, cut: &CancellationToken, open: &Arc<()>) -> bool {
    let wanted = match request.request() {
        IncomingStreamRequest::Begin(begin) => begin.port() == desk.port,
        _ => false,
    };
    if !wanted {
        tracing::debug!("a stranger asked for what is not served: its circuit is shut");
        cut.cancel();
        // Fails only for a circuit that is gone.
        let _ = request.shutdown_circuit();
        return false;
    }
    // Room first: a stream that is accepted is handed over.
    let Ok(Ok(room)) = timeout(desk.limits.circuit_idle, desk.arrivals.reserve()).await else {
        return false;
    };
    match timeout(desk.limits.accept_deadline, request.accept(Connected::new_empty())).await {
        Ok(Ok(stream)) => {
            let stream = Cut::keeping(stream, cut.clone(), open.clone());
            room.send(Incoming {
                stream: Box::new(stream),
                circuit: Circuit::new(cut.clone()),
            });
            true
        }
        Ok(Err(error)) => {
            tracing::debug!(error = super::chain(&error), "a stream could not be accepted");
            true
        }
        Err(_) => false,
    }
}
