//! TCP on the loopback interface, for tests and demonstrations with several processes.
//!
//! Every address is a [`LoopbackAddr`], which can only hold a loopback address. Onion addresses are
//! looked up in a directory that all users share.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use keys::{OnionAddr, error_chain};
use parking_lot::RwLock;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    AcceptError, BoxFuture, Circuit, DialError, Incoming, Listener, Stream, Transport,
    abortable::AbortableStream,
};

/// An address on the loopback interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopbackAddr(SocketAddr);

impl LoopbackAddr {
    /// Any free port of 127.0.0.1.
    pub const ANY: Self = Self(SocketAddr::new(
        std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
        0,
    ));

    /// The socket address.
    pub fn socket_addr(self) -> SocketAddr {
        self.0
    }
}

impl TryFrom<SocketAddr> for LoopbackAddr {
    type Error = NotLoopback;

    fn try_from(addr: SocketAddr) -> Result<Self, NotLoopback> {
        if addr.ip().is_loopback() {
            Ok(Self(addr))
        } else {
            Err(NotLoopback)
        }
    }
}

impl FromStr for LoopbackAddr {
    type Err = NotLoopback;

    fn from_str(text: &str) -> Result<Self, NotLoopback> {
        text.parse::<SocketAddr>()
            .map_err(|_| NotLoopback)?
            .try_into()
    }
}

/// The text or address is not on the loopback interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a loopback address with a port, such as 127.0.0.1:9000")]
pub struct NotLoopback;

/// Maps onion addresses to loopback addresses. Clones share one directory.
#[derive(Debug, Clone, Default)]
pub struct LoopbackDirectory {
    entries: Arc<RwLock<BTreeMap<OnionAddr, LoopbackAddr>>>,
}

impl LoopbackDirectory {
    /// Creates a directory with these entries.
    pub fn new(entries: impl IntoIterator<Item = (OnionAddr, LoopbackAddr)>) -> Self {
        Self {
            entries: Arc::new(RwLock::new(entries.into_iter().collect())),
        }
    }

    /// Adds or replaces an address.
    pub fn register(&self, onion: OnionAddr, addr: LoopbackAddr) {
        self.entries.write().insert(onion, addr);
    }

    /// The loopback address of an onion address.
    pub fn find(&self, onion: &OnionAddr) -> Option<LoopbackAddr> {
        self.entries.read().get(onion).copied()
    }

    /// Listens on a free port and registers it for this onion address.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn listen(&self, onion: OnionAddr) -> io::Result<LoopbackListener> {
        let listener = LoopbackListener::bind(LoopbackAddr::ANY).await?;
        self.register(onion, listener.addr());
        Ok(listener)
    }

    /// A transport that uses this directory.
    pub fn transport(&self) -> LoopbackTransport {
        LoopbackTransport {
            directory: self.clone(),
        }
    }
}

/// Listens on one port until it is dropped.
#[derive(Debug)]
pub struct LoopbackListener {
    listener: TcpListener,
    addr: LoopbackAddr,
}

impl LoopbackListener {
    /// Listens at an address; port 0 takes a free one.
    ///
    /// # Errors
    /// If the port is in use or no port is free.
    pub async fn bind(addr: LoopbackAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr.0).await?;
        let addr = LoopbackAddr(listener.local_addr()?);
        Ok(Self { listener, addr })
    }

    /// The address with the actual port.
    pub fn addr(&self) -> LoopbackAddr {
        self.addr
    }
}

impl Listener for LoopbackListener {
    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Incoming, AcceptError>> {
        Box::pin(async {
            let (stream, _) = self.listener.accept().await.map_err(AcceptError::Once)?;
            stream.set_nodelay(true).map_err(AcceptError::Once)?;
            let token = CancellationToken::new();
            Ok(Incoming {
                stream: Box::new(AbortableStream::new(stream, token.clone())),
                circuit: Circuit::new(token),
            })
        })
    }
}

/// Dials the addresses of a [`LoopbackDirectory`].
#[derive(Debug, Clone)]
pub struct LoopbackTransport {
    directory: LoopbackDirectory,
}

impl Transport for LoopbackTransport {
    fn dial<'a>(&'a self, onion: &'a OnionAddr) -> BoxFuture<'a, Result<Stream, DialError>> {
        Box::pin(async {
            let addr = self.directory.find(onion).ok_or(DialError::Unreachable)?;
            let stream = timeout(DIAL_DEADLINE, TcpStream::connect(addr.0))
                .await
                .map_err(|_| DialError::Timeout)?;
            let stream = stream.map_err(|error| match error.kind() {
                // No listener: the equivalent of an onion service that does not run.
                io::ErrorKind::ConnectionRefused => DialError::Unreachable,
                _ => DialError::Failed(error_chain(&error)),
            })?;
            stream
                .set_nodelay(true)
                .map_err(|error| DialError::Failed(error_chain(&error)))?;
            Ok(Box::new(stream) as Stream)
        })
    }
}

/// Loopback connects at once, or its accept queue is full.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use keys::PublicKey;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn loopback_addr_accepts_loopback_addresses_only() {
        for good in ["127.0.0.1:1", "127.8.9.1:9000", "[::1]:9000"] {
            assert!(good.parse::<LoopbackAddr>().is_ok(), "{good}");
        }
        for bad in [
            "0.0.0.0:1",
            "192.168.0.1:9000",
            "[::]:1",
            "[::ffff:10.0.0.1]:1",
            "localhost:1",
            "127.0.0.1",
            "",
        ] {
            assert_eq!(bad.parse::<LoopbackAddr>(), Err(NotLoopback), "{bad}");
        }
    }

    #[tokio::test]
    async fn dial_without_a_listener_is_unreachable() {
        let onion = OnionAddr::from_public_key(PublicKey::from_bytes([1; 32]));
        let directory = LoopbackDirectory::default();
        assert_eq!(
            directory.transport().dial(&onion).await.err(),
            Some(DialError::Unreachable)
        );
        drop(directory.listen(onion).await.unwrap());
        assert_eq!(
            directory.transport().dial(&onion).await.err(),
            Some(DialError::Unreachable)
        );
    }

    #[tokio::test]
    async fn shut_ends_the_accepted_stream() {
        let onion = OnionAddr::from_public_key(PublicKey::from_bytes([1; 32]));
        let directory = LoopbackDirectory::default();
        let mut listener = directory.listen(onion).await.unwrap();
        let mut near = directory.transport().dial(&onion).await.unwrap();
        listener.accept().await.unwrap().shut();
        assert!(near.read_u8().await.is_err());
    }
}
