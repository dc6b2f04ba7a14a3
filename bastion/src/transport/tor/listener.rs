//! The accept loop of an onion service: from rendezvous requests to streams.
//!
//! A request costs a stranger one cell and us a whole circuit, so the loop takes them at its own pace: so many are built
//! at a time, so many stand, so many wait, and [`book`](super::book) says who makes room for whom. It must never accept
//! another command than BEGIN or another port than ours: that shuts the circuit, as do too many streams.
//! Invariant: everything here ends with the [`TorListener`], except streams that were handed out. A circuit that is shut
//! or shed really ends, and with it all its streams.

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

use super::TorLimits;
use super::book::{Book, End, Line, Number};
use crate::transport::{
    AcceptError, BoxFuture, Circuit, Incoming, Listener, TorStatus, TorWatch, cut::Cut,
};

/// An onion service of ours. Dropping it ends the service; streams that it gave live on.
pub struct TorListener {
    onion: OnionAddr,
    arriving: mpsc::Receiver<Incoming>,
    ledger: Arc<Ledger>,
    /// What does not change.
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
        let ledger = Arc::new(Ledger {
            book: Mutex::new(Book::new(*limits)),
            changed: Notify::new(),
        });
        let desk = Desk {
            port,
            limits: *limits,
            arrivals,
            // Tor then keeps the line, by effort.
            keeps_line: !status.pow.on,
            ledger: ledger.clone(),
        };
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept_circuits(requests, desk)));
        Self {
            onion,
            arriving,
            ledger,
            status,
            _service: service,
            _accepting: accepting,
        }
    }

    /// The service's address.
    pub fn onion(&self) -> OnionAddr {
        self.onion
    }

    /// Tells how the service does, also when the listener is in other hands.
    pub fn watch(&self) -> TorWatch {
        let (ledger, status) = (self.ledger.clone(), self.status);
        Arc::new(move || TorStatus {
            circuits: ledger.book().counts(),
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

/// What every circuit's task knows.
#[derive(Clone)]
struct Desk {
    port: u16,
    limits: TorLimits,
    arrivals: mpsc::Sender<Incoming>,
    keeps_line: bool,
    ledger: Arc<Ledger>,
}

/// What streams and status know as well.
struct Ledger {
    book: Mutex<Book>,
    /// Told whenever there may be room for another circuit.
    changed: Notify,
}

impl Ledger {
    /// Every change of the book is whole before anything could panic.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock()
    }
}

/// Takes rendezvous requests as long as the service runs and somebody listens.
///
/// Requests that find no room wait here and not in Tor, which would keep the oldest and drop the newest, or (in builds
/// with Tor's proof of work, while that is off) keep them all. With proof of work on, Tor's own line is the better one.
async fn accept_circuits(mut requests: BoxStream<'static, RendRequest>, desk: Desk) {
    let mut circuits = JoinSet::new();
    let mut line = Line::new(&desk.limits);
    loop {
        let now = Instant::now();
        {
            let mut book = desk.ledger.book();
            book.refused(line.expire(now));
            while !line.is_empty()
                && let Some((number, cut)) = book.begin(now)
            {
                if let Some(request) = line.pop() {
                    circuits.spawn(serve_circuit(request, number, cut, desk.clone()));
                }
            }
            book.waiting(line.len());
        }
        tokio::select! {
            request = requests.next(), if desk.keeps_line || line.is_empty() => {
                let Some(request) = request else { break };
                let turned_away = line.push(request, Instant::now());
                desk.ledger.book().refused(usize::from(turned_away.is_some()));
            }
            Some(_) = circuits.join_next() => {}
            () = desk.ledger.changed.notified() => {}
            () = sleep(LOOK_AGAIN), if !line.is_empty() => {}
        }
    }
    // The service has ended. Streams live on, each holding its circuit; dropping the set ends what is left here.
}

/// While somebody waits: how often is looked whether a slow circuit may be given up by now.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Builds the circuit to where the stranger waits, hands over the streams that it opens there, and ends it.
async fn serve_circuit(request: RendRequest, number: Number, cut: CancellationToken, desk: Desk) {
    let mut control = None;
    let end = tokio::select! {
        () = cut.cancelled() => End::Cut,
        end = hold_circuit(request.accept(), number, &cut, &desk, &mut control) => end,
    };
    if matches!(end, End::Abuse | End::Cut) {
        // Its streams notice now. That they are dropped would end the circuit, but only once their owners look.
        cut.cancel();
        if let Some(tunnel) = control.and_then(|control| control.tunnel()) {
            tunnel.terminate();
        }
    }
    desk.ledger.book().ended(number, end);
    desk.ledger.changed.notify_one();
}

/// From request to end; `control` is set as soon as there is something by which the circuit can be ended.
async fn hold_circuit<R: Stream<Item = StreamRequest> + Unpin, E: std::error::Error + 'static>(
    accepting: impl Future<Output = Result<R, E>>,
    number: Number,
    cut: &CancellationToken,
    desk: &Desk,
    control: &mut Option<Arc<ClientDataStreamCtrl>>,
) -> End {
    let mut streams = match timeout(desk.limits.accept_deadline, accepting).await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => {
            tracing::debug!(error = super::chain(&error), "a rendezvous failed");
            return End::NotBuilt;
        }
        Err(_) => return End::NotBuilt,
    };
    if !desk.ledger.book().built(number, Instant::now()) {
        return End::Cut;
    }
    desk.ledger.changed.notify_one();
    loop {
        match timeout(desk.limits.circuit_idle, streams.next()).await {
            Ok(Some(request)) => match serve_stream(request, number, cut, desk).await {
                Ok(Some(found)) => *control = Some(found),
                Ok(None) => {}
                Err(end) => return end,
            },
            Ok(None) => return End::Gone,
            Err(_) if desk.ledger.book().is_idle(number, Instant::now()) => return End::Idle,
            Err(_) => {}
        }
    }
}

/// Accepts one stream and hands it over; an error when the circuit is to end.
async fn serve_stream(
    request: StreamRequest,
    number: Number,
    cut: &CancellationToken,
    desk: &Desk,
) -> Result<Option<Arc<ClientDataStreamCtrl>>, End> {
    let is_served = match request.request() {
        IncomingStreamRequest::Begin(begin) => begin.port() == desk.port,
        _ => false,
    };
    let is_fair = desk.ledger.book().stream_asked(number, Instant::now());
    if !is_served || !is_fair {
        tracing::debug!(is_served, is_fair, "a circuit is shut on abuse");
        // Fails only for a circuit that is gone.
        let _ = request.shutdown_circuit();
        return Err(End::Abuse);
    }
    // Room first: a stream that is accepted is handed over. One that finds none is refused as it is dropped.
    let room = match timeout(desk.limits.accept_deadline, desk.arrivals.reserve()).await {
        Ok(Ok(room)) => room,
        Ok(Err(_)) => return Err(End::Gone),
        Err(_) => {
            desk.ledger.book().refused(1);
            return Ok(None);
        }
    };
    let is_fair = desk.ledger.book().stream_opened(number);
    let opened = Opened {
        number,
        ledger: desk.ledger.clone(),
    };
    if !is_fair {
        tracing::debug!("a circuit with too many streams is shut");
        let _ = request.shutdown_circuit();
        return Err(End::Abuse);
    }
    match timeout(
        desk.limits.accept_deadline,
        request.accept(Connected::new_empty()),
    )
    .await
    {
        Ok(Ok(stream)) => {
            let control = stream.client_stream_ctrl().cloned();
            room.send(Incoming {
                stream: Box::new(Cut::keeping(stream, cut.clone(), opened)),
                circuit: Circuit::new(cut.clone()),
            });
            Ok(control)
        }
        Ok(Err(error)) => {
            tracing::debug!(
                error = super::chain(&error),
                "a stream could not be accepted"
            );
            Ok(None)
        }
        Err(_) => Ok(None),
    }
}

/// Held by a stream: the book is told when it ends.
struct Opened {
    number: Number,
    ledger: Arc<Ledger>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.ledger.book().stream_ended(self.number, Instant::now());
        self.ledger.changed.notify_one();
    }
}
