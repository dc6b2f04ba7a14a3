//! Accepts connections, limits them, and closes them all when the node stops.
//!
//! Every user of this machine can connect. Therefore the number of connections is limited, and a
//! request head must arrive in time. Invariant: when [`serve`] returns, all its tasks have ended,
//! so that no task holds the [`CoreHandle`](crate::engine::CoreHandle).

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

/// Longest request head, in bytes. A token, a path and a few headers need less than 1 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Pause after a failed accept, because file descriptors may be short for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits of connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct HttpLimits {
    /// Time for a request's head to arrive. Also the longest idle time between two requests.
    pub(super) head_timeout: Duration,
    /// Time for open requests to end after the node stops.
    pub(super) shutdown_timeout: Duration,
    /// Connections at the same time. Further ones wait in the system's queue.
    pub(super) connections_max: usize,
}

impl HttpLimits {
    /// - Head: 10 s, because it comes from this machine.
    /// - Shutdown: 3 s, because acknowledged writes are on disk already.
    /// - Connections: 4 for each request slot, because frontends keep idle ones open.
    fn new(requests_max: usize) -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(3),
            connections_max: requests_max.saturating_mul(4),
        }
    }
}

/// Serves the API until the state's token is cancelled.
///
/// # Errors
/// `InvalidInput` if the listener's address is not loopback.
pub async fn serve(listener: TcpListener, state: ApiState) -> io::Result<()> {
    let limits = HttpLimits::new(state.config.requests_max);
    serve_with(listener, state, limits).await
}

pub(super) async fn serve_with(
    listener: TcpListener,
    state: ApiState,
    limits: HttpLimits,
) -> io::Result<()> {
    check_loopback(listener.local_addr()?)?;
    let stop = state.stop.clone();
    let router = router(state);
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => {}
            accepted = accept(&listener, &slots) => match accepted {
                Ok((stream, slot)) => {
                    let router = router.clone();
                    open.spawn(serve_connection(stream, slot, router, limits, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(
                        error = %keys::error_chain(&error),
                        "local API failed to accept a connection"
                    );
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let all = async { while open.join_next().await.is_some() {} };
    if timeout(limits.shutdown_timeout, all).await.is_err() {
        open.shutdown().await;
    }
    Ok(())
}

pub(super) fn check_loopback(address: SocketAddr) -> io::Result<()> {
    if address.ip().is_loopback() {
        Ok(())
    } else {
        let why = format!("the local API must listen on a loopback address, not on {address}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }
}

/// Waits for a connection slot before accepting, so that further connections wait in the system's
/// queue and use no memory of the node.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = slots
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn serve_connection(
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
    router: Router,
    limits: HttpLimits,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
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
    // Logged at debug, because clients that close, stall or send garbage need no action.
    if let Err(error) = ended {
        tracing::debug!(error = %keys::error_chain(&error), "local API connection ended early");
    }
}
