//! Streams to and from onion addresses, and nothing about what is said on them.
//!
//! A [`Transport`] dials, a [`Listener`] is where strangers arrive. The same code above runs over three: `memory`
//! (in one process, pipes so narrow that reads are always partial), `loopback` (TCP on 127.0.0.1, for tests and
//! demonstrations) and, with the feature `tor`, onion services. This module must never look into the bytes, and never
//! let an onion address out in full in an error or a log.
//! Invariant: a stream proves nothing about who is at its other end; the Bastion finds that out.

mod cut;
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

pub use hardening::{CircuitCounts, Extra, Hardening, TorStatus, TorWatch, Vanguards};
pub use redact::redact_onions;

/// The port at which every node's onion service answers. A virtual port: nothing on the host listens there.
pub const ONION_PORT: u16 = 1984;

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A stream of whatever transport. Flush after writing. How it ends says nothing: over Tor an orderly end reads as an
/// error, so the end of a message may never be told by the end of a stream.
pub type Stream = Box<dyn Io>;

/// A future that an object-safe trait can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Dials onion addresses.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream to the service at this address. Has its own deadline; dropping the future gives up.
    fn dial<'a>(&'a self, onion: &'a OnionAddr) -> BoxFuture<'a, Result<Stream, DialError>>;
}

/// Where strangers arrive.
pub trait Listener: Send + 'static {
    /// The next stranger. Cancel safe: dropping the future loses nobody.
    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Incoming, AcceptError>>;
}

/// A stranger's stream.
pub struct Incoming {
    /// The bytes.
    pub stream: Stream,
    /// What the stream came on.
    pub circuit: Circuit,
}

impl Incoming {
    /// Ends the stream and whatever else came on the same circuit: for abuse.
    pub fn shut(self) {
        self.circuit.shut();
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}

/// A handle on what a stream came on: over Tor a rendezvous circuit, which may carry several streams; elsewhere the
/// stream alone. Dropping it does nothing.
#[derive(Debug, Clone)]
pub struct Circuit {
    cut: CancellationToken,
}

impl Circuit {
    fn new(cut: CancellationToken) -> Self {
        Self { cut }
    }

    /// Ends all streams on the circuit, now, and over Tor the circuit too: for abuse.
    pub fn shut(&self) {
        self.cut.cancel();
    }
}

/// Why a dial gave no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Something answered for that address and would not have us.
    #[error("refused")]
    Refused,
    /// There is no such service, or it cannot be reached now.
    #[error("unreachable")]
    Unreachable,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Something between did not work: the chain of causes, without onion addresses.
    #[error("could not dial: {0}")]
    Failed(String),
}

/// Why nobody was accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The service has ended: nobody will come any more.
    #[error("the service has ended")]
    Closed,
    /// This once it failed, for want of a file descriptor for example. Pause before accepting again.
    #[error("could not accept: {0}")]
    Once(#[source] std::io::Error),
}
