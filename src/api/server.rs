//! Connections: accepted, bounded, and all over when serving ends.
//!
//! Any user of this machine can connect, so a connection must show a whole request head in time and has a place among
//! a few. Never listens beyond loopback. Invariant: when [`serve`] returns no task of it is left, so that nothing holds
//! the engine, whatever the other ends do.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::routes::router;
use super::state::ApiState;

/// Longest request head, in bytes. A token, a path and a few headers need less than one.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long to wait when a connection could not be accepted: descriptors may be short for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections are allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a request's head to arrive, and for a kept connection to ask again.
    pub(super) head: Duration,
    /// For open requests to end once the node stops.
    pub(super) farewell: Duration,
    /// Connections at once; further ones wait to be accepted.
    pub(super) connections_max: usize,
}

impl Patience {
    /// 10 s for a head: it comes at once from this machine. 3 s at the end: what was acknowledged is on disk already.
    /// Four connections for each request that is worked on: frontends keep some open between requests.
    fn new(requests_max: usize) -> Self {
        Self {
            head: Duration::from_secs(10),
            farewell: Duration::from_secs(3),
            connections_max: requests_max.saturating_mul(4),
        }
    }
}

/// Serves the API until the state's token is cancelled.
///
/// # Errors
/// Where the listener is not on loopback.
pub async fn serve(listener: TcpListener, state: ApiState) -> io::Result<()> {
    let patience = Patience::new(state.config.requests_max);
    serve_with(listener, state, patience).await
}

pub(super) async fn serve_with(
    listener: TcpListener,
    state: ApiState,
    patience: Patience,
) -> io::Result<()> {
    check_loopback(listener.local_addr()?)?;
    let stop = state.stop.clone();
    let router = router(state);
    let places = Arc::new(Semaphore::new(patience.connections_max));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => {}
            accepted = accept(&listener, &places) => match accepted {
                Ok((stream, place)) => _ = open.spawn(converse(stream, place, router.clone(), patience, stop.clone())),
                Err(error) => {
                    tracing::warn!(%error, "the local API could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let all = async { while open.join_next().await.is_some() {} };
    if timeout(patience.farewell, all).await.is_err() {
        open.shutdown().await;
    }
    Ok(())
}

pub(super) fn check_loopback(address: SocketAddr) -> io::Result<()> {
    if address.ip().is_loopback() {
        Ok(())
    } else {
        let why =
            format!("the local API must not listen on {address}: other machines could reach it");
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }
}

/// A place first, so that who finds none waits in the system's queue and not in our memory.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = places
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn converse(
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    router: Router,
    patience: Patience,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Clients that leave, stall or talk nonsense are no event for the operator.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the local API ended early");
    }
}
