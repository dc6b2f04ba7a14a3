//! The accept loop of an onion service: from rendezvous requests to streams.
//!
//! A request costs a client one cell and this node a circuit. The loop therefore bounds builds,
//! open circuits and waiting requests, and [`circuit_table`](super::circuit_table) decides about
//! evictions. Any command except BEGIN, any other port and too many streams shut the circuit.
//!
//! Invariant: everything here ends with the [`TorListener`], except streams that were handed out. A
//! circuit that is shut or evicted ends with all its streams.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, stream::BoxStream};
use keys::OnionAddr;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tor_cell::relaycell::msg::Connected;
use tor_hsservice::{RendRequest, RunningOnionService, StreamRequest};
use tor_proto::client::stream::{ClientDataStreamCtrl, ClientStreamCtrl as _};
use tor_proto::stream::IncomingStreamRequest;

use super::circuit_table::{CircuitEnd, CircuitId, CircuitTable, RequestQueue};
use super::error::chain;
use super::limits::TorLimits;
use crate::transport::{
    AcceptError, BoxFuture, Circuit, Incoming, Listener, TorStatus, TorWatch,
    abortable::AbortableStream,
};

/// A running onion service. Dropping it ends the service; streams that it returned stay open.
pub struct TorListener {
    onion: OnionAddr,
    arriving: mpsc::Receiver<Incoming>,
    shared: Arc<SharedCircuits>,
    /// The constant part of the status.
    status: TorStatus,
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
        status: TorStatus,
    ) -> Self {
        let (arrivals, arriving) = mpsc::channel(limits.arrivals_max.max(1));
        let shared = Arc::new(SharedCircuits {
            table: Mutex::new(CircuitTable::new(*limits)),
            changed: Notify::new(),
        });
        let context = AcceptContext {
            port,
            limits: *limits,
            arrivals,
            // With proof of work, Tor queues the requests by effort.
            queues_requests: !status.pow.on,
            shared: shared.clone(),
        };
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept_circuits(requests, context)));
        Self {
            onion,
            arriving,
            shared,
            status,
            _service: service,
            _accepting: accepting,
        }
    }

    /// The service's address.
    pub fn onion(&self) -> OnionAddr {
        self.onion
    }

    /// Returns a handle to the status that works without access to the listener.
    pub fn watch(&self) -> TorWatch {
        let (shared, status) = (self.shared.clone(), self.status);
        Arc::new(move || TorStatus {
            circuits: shared.table().counts(),
            ..status
        })
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

/// Shared by the tasks of all circuits.
#[derive(Clone)]
struct AcceptContext {
    port: u16,
    limits: TorLimits,
    arrivals: mpsc::Sender<Incoming>,
    queues_requests: bool,
    shared: Arc<SharedCircuits>,
}

/// Shared by circuits, streams and status.
struct SharedCircuits {
    table: Mutex<CircuitTable>,
    /// Notified when a slot for another circuit may be free.
    changed: Notify,
}

impl SharedCircuits {
    fn table(&self) -> MutexGuard<'_, CircuitTable> {
        self.table.lock()
    }
}

/// Accepts rendezvous requests as long as the service and the listener exist.
///
/// Requests without a free slot wait here and not in Tor. Tor would keep the oldest and drop the
/// newest, or (in builds with Tor's proof of work, while that is off) keep them all. With proof of
/// work on, Tor's own queue is used.
async fn accept_circuits(mut requests: BoxStream<'static, RendRequest>, context: AcceptContext) {
    let mut circuits = JoinSet::new();
    let mut queue = RequestQueue::new(&context.limits);
    loop {
        let now = Instant::now();
        {
            let mut table = context.shared.table();
            table.refused(queue.expire(now));
            while !queue.is_empty()
                && let Some((id, token)) = table.begin(now)
            {
                if let Some(request) = queue.pop() {
                    circuits.spawn(serve_circuit(request, id, token, context.clone()));
                }
            }
            table.waiting(queue.len());
        }
        tokio::select! {
            request = requests.next(), if context.queues_requests || queue.is_empty() => {
                let Some(request) = request else { break };
                let turned_away = queue.push(request, Instant::now());
                context.shared.table().refused(usize::from(turned_away.is_some()));
            }
            Some(_) = circuits.join_next() => {}
            () = context.shared.changed.notified() => {}
            () = sleep(RECHECK_INTERVAL), if !queue.is_empty() => {}
        }
    }
    // The service has ended. Streams stay open, each with its circuit; dropping the set ends all
    // other tasks.
}

/// While requests wait: interval of the check whether a slow build may be evicted.
const RECHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Builds the circuit to the rendezvous point, hands over its streams, and ends it.
async fn serve_circuit(
    request: RendRequest,
    id: CircuitId,
    token: CancellationToken,
    context: AcceptContext,
) {
    let mut control = None;
    let end = tokio::select! {
        () = token.cancelled() => CircuitEnd::Aborted,
        end = hold_circuit(request.accept(), id, &token, &context, &mut control) => end,
    };
    if matches!(end, CircuitEnd::Abuse | CircuitEnd::Aborted) {
        // Ends the streams now. Dropping them would end the circuit only when their owners poll
        // them.
        token.cancel();
        if let Some(tunnel) = control.and_then(|control| control.tunnel()) {
            tunnel.terminate();
        }
    }
    context.shared.table().ended(id, end);
    context.shared.changed.notify_one();
}

/// Runs the circuit from request to end. Sets `control` as soon as the circuit can be ended with
/// it.
async fn hold_circuit<R: Stream<Item = StreamRequest> + Unpin, E: std::error::Error + 'static>(
    accepting: impl Future<Output = Result<R, E>>,
    id: CircuitId,
    token: &CancellationToken,
    context: &AcceptContext,
    control: &mut Option<Arc<ClientDataStreamCtrl>>,
) -> CircuitEnd {
    let mut streams = match timeout(context.limits.accept_deadline, accepting).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "rendezvous failed");
            return CircuitEnd::NotBuilt;
        }
        Err(_) => return CircuitEnd::NotBuilt,
    };
    if !context.shared.table().built(id, Instant::now()) {
        return CircuitEnd::Aborted;
    }
    context.shared.changed.notify_one();
    loop {
        match timeout(context.limits.circuit_idle, streams.next()).await {
            Ok(Some(request)) => match serve_stream(request, id, token, context).await {
                Ok(Some(found)) => *control = Some(found),
                Ok(None) => {}
                Err(end) => return end,
            },
            Ok(None) => return CircuitEnd::Gone,
            Err(_) if context.shared.table().is_idle(id, Instant::now()) => {
                return CircuitEnd::Idle;
            }
            Err(_) => {}
        }
    }
}

/// Accepts one stream and hands it over. Returns an error if the circuit must end.
async fn serve_stream(
    request: StreamRequest,
    id: CircuitId,
    token: &CancellationToken,
    context: &AcceptContext,
) -> Result<Option<Arc<ClientDataStreamCtrl>>, CircuitEnd> {
    let is_served = match request.request() {
        IncomingStreamRequest::Begin(begin) => begin.port() == context.port,
        _ => false,
    };
    let is_fair = context.shared.table().stream_requested(id, Instant::now());
    if !is_served || !is_fair {
        tracing::debug!(is_served, is_fair, "shut a circuit for abuse");
        // Fails only if the circuit has ended already.
        let _ = request.shutdown_circuit();
        return Err(CircuitEnd::Abuse);
    }
    // Reserves a slot first, so that every accepted stream is handed over. Dropping the request
    // refuses the stream.
    let slot = match timeout(context.limits.accept_deadline, context.arrivals.reserve()).await {
        Ok(Ok(slot)) => slot,
        Ok(Err(_)) => return Err(CircuitEnd::Gone),
        Err(_) => {
            context.shared.table().refused(1);
            return Ok(None);
        }
    };
    let is_fair = context.shared.table().stream_opened(id);
    let guard = StreamGuard {
        id,
        shared: context.shared.clone(),
    };
    if !is_fair {
        tracing::debug!("shut a circuit with too many streams");
        let _ = request.shutdown_circuit();
        return Err(CircuitEnd::Abuse);
    }
    match timeout(
        context.limits.accept_deadline,
        request.accept(Connected::new_empty()),
    )
    .await
    {
        Ok(Ok(stream)) => {
            let control = stream.client_stream_ctrl().cloned();
            slot.send(Incoming {
                stream: Box::new(AbortableStream::holding(stream, token.clone(), guard)),
                circuit: Circuit::new(token.clone()),
            });
            Ok(control)
        }
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "could not accept a stream");
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}

/// Held by a stream: counts its end when dropped.
struct StreamGuard {
    id: CircuitId,
    shared: Arc<SharedCircuits>,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.shared.table().stream_ended(self.id, Instant::now());
        self.shared.changed.notify_one();
    }
}
