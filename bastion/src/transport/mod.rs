//! Streams to and from onion addresses.
//!
//! A [`Transport`] dials, a [`Listener`] accepts. Three implementations exist:
//!
//! - `memory`: one process, pipes so narrow that reads are always partial
//! - `loopback`: TCP on 127.0.0.1, for tests and demonstrations
//! - with the feature `tor`: onion services
//!
//! A transport does not interpret the bytes, and no error or log line contains a full onion
//! address. A stream proves nothing about its other end: the handshake authenticates it.

mod abortable;
mod hardening;
pub mod loopback;
pub mod memory;
mod redact;
#[cfg(feature = "tor")]
pub mod tor;

use std::{fmt, future::Future, pin::Pin};

use keys::OnionAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use hardening::{CircuitCounts, Hardening, OptionalFeature, TorStatus, TorWatch, Vanguards};
pub use redact::redact_onions;

/// A bidirectional byte stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A stream of any transport. Flush after writing.
///
/// Over Tor an orderly end reads as an error, so no message may depend on how a stream ends.
pub type Stream = Box<dyn Io>;

/// A future that an object-safe trait can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Dials onion addresses.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream to the service at this address. Has its own deadline. Dropping the future
    /// cancels the dial.
    fn dial<'a>(&'a self, onion: &'a OnionAddr) -> BoxFuture<'a, Result<Stream, DialError>>;
}

/// Accepts streams of clients.
pub trait Listener: Send + 'static {
    /// Returns the next stream. Cancel safe: dropping the future loses no stream.
    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Incoming, AcceptError>>;
}

/// An accepted stream.
pub struct Incoming {
    /// The stream itself.
    pub stream: Stream,
    /// The circuit that carries the stream.
    pub circuit: Circuit,
}

impl Incoming {
    /// Ends the stream and all others on the same circuit. For abuse.
    pub fn shut(self) {
        self.circuit.shut();
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}

/// A handle to the circuit of a stream. Dropping it has no effect.
///
/// Over Tor this is a rendezvous circuit, which may carry several streams; elsewhere the stream
/// alone.
#[derive(Debug, Clone)]
pub struct Circuit {
    token: CancellationToken,
}

impl Circuit {
    fn new(token: CancellationToken) -> Self {
        Self { token }
    }

    /// Ends all streams on the circuit at once, and over Tor the circuit too. For abuse.
    pub fn shut(&self) {
        self.token.cancel();
    }
}

/// The error of a dial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The service refused the stream.
    #[error("refused")]
    Refused,
    /// The service does not exist or is not reachable now.
    #[error("unreachable")]
    Unreachable,
    /// The deadline passed.
    #[error("deadline passed")]
    Timeout,
    /// Any other failure: the chain of causes, without onion addresses.
    #[error("dial failed: {0}")]
    Failed(String),
}

/// The error of [`Listener::accept`].
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The service has ended; no further stream will arrive.
    #[error("the service has ended")]
    Closed,
    /// A temporary failure, for example a lack of file descriptors. Pause before the next call.
    #[error("could not accept: {0}")]
    Once(#[source] std::io::Error),
}
