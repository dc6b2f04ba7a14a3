//! Streams within one process: an address book and narrow pipes.
//!
//! For tests and simulation. Its pipes are narrow so that reads are always partial, and it can cut every connection at
//! once. It must never behave better than Tor does: an unknown address is unreachable, a full one lets dialers wait.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use keys::OnionAddr;
use parking_lot::{Mutex, MutexGuard};
use tokio::{io::duplex, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    AcceptError, BoxFuture, Circuit, DialError, Incoming, Listener, Stream, Transport, cut::Cut,
};

/// A network within this process. Clones are the same network.
#[derive(Debug, Clone)]
pub struct MemoryNet {
    book: Arc<Mutex<Book>>,
    /// Bytes that a pipe holds in each direction.
    width: usize,
}

#[derive(Debug, Default)]
struct Book {
    listeners: BTreeMap<OnionAddr, Entry>,
    /// Tells a listener that was replaced from the one that replaced it.
    listened: u64,
    /// Cancelled to cut everything that is connected now.
    connections: CancellationToken,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    arrivals: mpsc::Sender<Incoming>,
}

impl MemoryNet {
    /// A network with pipes of 64 bytes: less than any message.
    pub fn new() -> Self {
        Self::with_width(64)
    }

    /// A network with pipes of `width` bytes in each direction.
    pub fn with_width(width: usize) -> Self {
        Self {
            book: Arc::default(),
            width: width.max(1),
        }
    }

    /// Listens at an address. Whoever listened there before hears that its service has ended.
    pub fn listen(&self, onion: OnionAddr) -> MemoryListener {
        let (arrivals, arriving) = mpsc::channel(ARRIVALS_MAX);
        let mut book = self.book();
        book.listened += 1;
        let number = book.listened;
        book.listeners.insert(onion, Entry { number, arrivals });
        drop(book);
        MemoryListener {
            net: self.clone(),
            onion,
            number,
            arriving,
        }
    }

    /// A transport that dials in this network.
    pub fn transport(&self) -> MemoryTransport {
        MemoryTransport { net: self.clone() }
    }

    /// Cuts every connection of now. Listeners stay and can be dialled again.
    pub fn cut_all(&self) {
        std::mem::take(&mut self.book().connections).cancel();
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock()
    }
}

impl Default for MemoryNet {
    fn default() -> Self {
        Self::new()
    }
}

/// Listens at one address until it is dropped.
#[derive(Debug)]
pub struct MemoryListener {
    net: MemoryNet,
    onion: OnionAddr,
    number: u64,
    arriving: mpsc::Receiver<Incoming>,
}

impl Listener for MemoryListener {
    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Incoming, AcceptError>> {
        Box::pin(async { self.arriving.recv().await.ok_or(AcceptError::Closed) })
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        let mut book = self.net.book();
        if book
            .listeners
            .get(&self.onion)
            .is_some_and(|entry| entry.number == self.number)
        {
            book.listeners.remove(&self.onion);
        }
    }
}

/// Dials in a [`MemoryNet`].
#[derive(Debug, Clone)]
pub struct MemoryTransport {
    net: MemoryNet,
}

impl Transport for MemoryTransport {
    fn dial<'a>(&'a self, onion: &'a OnionAddr) -> BoxFuture<'a, Result<Stream, DialError>> {
        Box::pin(async {
            let (arrivals, connection) = {
                let book = self.net.book();
                let entry = book.listeners.get(onion).ok_or(DialError::Unreachable)?;
                (entry.arrivals.clone(), book.connections.child_token())
            };
            let (near, far) = duplex(self.net.width);
            let incoming = Incoming {
                stream: Box::new(Cut::new(far, connection.clone())),
                circuit: Circuit::new(connection.clone()),
            };
            match timeout(DIAL_DEADLINE, arrivals.send(incoming)).await {
                Ok(Ok(())) => Ok(Box::new(Cut::new(near, connection)) as Stream),
                Ok(Err(_)) => Err(DialError::Unreachable),
                Err(_) => Err(DialError::Timeout),
            }
        })
    }
}

/// Arrivals that may wait for `accept`.
const ARRIVALS_MAX: usize = 32;

/// How long a dialer waits for room among the arrivals.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use keys::PublicKey;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn onion(n: u8) -> OnionAddr {
        OnionAddr::from_public_key(PublicKey::from_bytes([n; 32]))
    }

    #[tokio::test]
    async fn a_full_listener_lets_dialers_wait_no_longer_than_the_deadline() {
        tokio::time::pause();
        let net = MemoryNet::new();
        let _listener = net.listen(onion(1));
        for _ in 0..ARRIVALS_MAX {
            net.transport().dial(&onion(1)).await.unwrap();
        }
        assert_eq!(
            net.transport().dial(&onion(1)).await.err(),
            Some(DialError::Timeout)
        );
    }

    #[tokio::test]
    async fn a_new_listener_takes_over_and_the_old_one_leaves_it_alone() {
        let net = MemoryNet::new();
        let mut old = net.listen(onion(1));
        let mut new = net.listen(onion(1));
        assert!(matches!(old.accept().await, Err(AcceptError::Closed)));
        drop(old);
        net.transport().dial(&onion(1)).await.unwrap();
        new.accept().await.unwrap();
        drop(new);
        assert_eq!(
            net.transport().dial(&onion(1)).await.err(),
            Some(DialError::Unreachable)
        );
    }

    #[tokio::test]
    async fn cutting_ends_both_sides_of_all_connections_and_no_later_one() {
        let net = MemoryNet::new();
        let mut listener = net.listen(onion(1));
        let mut near = net.transport().dial(&onion(1)).await.unwrap();
        let mut far = listener.accept().await.unwrap().stream;
        net.cut_all();
        assert!(near.read_u8().await.is_err());
        assert!(far.write_all(b"x").await.is_err());

        let mut near = net.transport().dial(&onion(1)).await.unwrap();
        let mut far = listener.accept().await.unwrap().stream;
        near.write_all(b"x").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn shutting_one_stranger_leaves_the_others() {
        let net = MemoryNet::new();
        let mut listener = net.listen(onion(1));
        let mut bad = net.transport().dial(&onion(1)).await.unwrap();
        let mut good = net.transport().dial(&onion(1)).await.unwrap();
        listener.accept().await.unwrap().shut();
        let mut far = listener.accept().await.unwrap().stream;
        assert!(bad.read_u8().await.is_err());
        far.write_all(b"x").await.unwrap();
        assert_eq!(good.read_u8().await.unwrap(), b'x');
    }
}
