//! TCP on the loopback interface, for tests and demonstrations of several processes.
//!
//! It must never reach another machine or be reached by one: every address is a [`LoopbackAddr`], and none can be made
//! of anything but a loopback address. Onion addresses are looked up in a directory that its users share.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use keys::OnionAddr;
use parking_lot::RwLock;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    AcceptError, BoxFuture, Circuit, DialError, Incoming, Listener, Stream, Transport, cut::Cut,
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

    /// The address.
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

/// What was given is not an address on the loopback interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a loopback address with a port, such as 127.0.0.1:9000")]
pub struct NotLoopback;

/// Which onion address answers where. Clones are the same directory.
#[derive(Debug, Clone, Default)]
pub struct LoopbackDirectory {
    entries: Arc<RwLock<BTreeMap<OnionAddr, LoopbackAddr>>>,
}

impl LoopbackDirectory {
    /// A directory with these entries.
    pub fn new(entries: impl IntoIterator<Item = (OnionAddr, LoopbackAddr)>) -> Self {
        Self {
            entries: Arc::new(RwLock::new(entries.into_iter().collect())),
        }
    }

    /// Enters or replaces an address.
    pub fn register(&self, onion: OnionAddr, addr: LoopbackAddr) {
        self.entries.write().insert(onion, addr);
    }

    /// Where an onion address answers.
    pub fn find(&self, onion: &OnionAddr) -> Option<LoopbackAddr> {
        self.entries.read().get(onion).copied()
    }

    /// Listens on a free port and enters it for this onion address.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn listen(&self, onion: OnionAddr) -> io::Result<LoopbackListener> {
        let listener = LoopbackListener::bind(LoopbackAddr::ANY).await?;
        self.register(onion, listener.addr());
        Ok(listener)
    }

    /// A transport that looks its addresses up here.
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
    /// When the port is taken or none can be had.
    pub async fn bind(addr: LoopbackAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr.0).await?;
        let addr = LoopbackAddr(listener.local_addr()?);
        Ok(Self { listener, addr })
    }

    /// Where it listens, with the port that it was given.
    pub fn addr(&self) -> LoopbackAddr {
        self.addr
    }
}

impl Listener for LoopbackListener {
    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Incoming, AcceptError>> {
        Box::pin(async {
            let (stream, _) = self.listener.accept().await.map_err(AcceptError::Once)?;
            stream.set_nodelay(true).map_err(AcceptError::Once)?;
            let cut = CancellationToken::new();
            Ok(Incoming {
                stream: Box::new(Cut::new(stream, cut.clone())),
                circuit: Circuit::new(cut),
            })
        })
    }
}

/// Dials what a [`LoopbackDirectory`] knows.
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
                // Nobody listens there any more: what Tor calls a service that is not running.
                io::ErrorKind::ConnectionRefused => DialError::Unreachable,
                _ => DialError::Failed(error.to_string()),
            })?;
            stream
                .set_nodelay(true)
                .map_err(|error| DialError::Failed(error.to_string()))?;
            Ok(Box::new(stream) as Stream)
        })
    }
}

/// Loopback answers at once, or its queue is full.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use keys::PublicKey;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn only_loopback_addresses_exist() {
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
    async fn an_address_without_a_listener_is_unreachable() {
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
    async fn shutting_ends_the_strangers_stream() {
        let onion = OnionAddr::from_public_key(PublicKey::from_bytes([1; 32]));
        let directory = LoopbackDirectory::default();
        let mut listener = directory.listen(onion).await.unwrap();
        let mut near = directory.transport().dial(&onion).await.unwrap();
        listener.accept().await.unwrap().shut();
        assert!(near.read_u8().await.is_err());
    }
}
