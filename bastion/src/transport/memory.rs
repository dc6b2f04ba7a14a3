//! Streams within one process, over narrow pipes.
//!
//! For tests and simulations. Pipes are narrow, so that reads are always partial, and every
//! connection can be aborted at once. As with Tor, an unknown address is unreachable, and a busy
//! listener makes dials wait.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use keys::OnionAddr;
use parking_lot::{Mutex, MutexGuard};
use tokio::{io::duplex, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    AcceptError, BoxFuture, Circuit, DialError, Incoming, Listener, Stream, Transport,
    abortable::AbortableStream,
};

/// A network within this process. Clones share one network.
#[derive(Debug, Clone)]
pub struct MemoryNet {
    state: Arc<Mutex<NetState>>,
    /// Capacity of a pipe in each direction, in bytes.
    width: usize,
}

#[derive(Debug, Default)]
struct NetState {
    listeners: BTreeMap<OnionAddr, Registration>,
    /// Listeners so far: distinguishes a replaced listener from its successor.
    listened: u64,
    /// Cancelled to abort all current connections.
    connections: CancellationToken,
}

#[derive(Debug)]
struct Registration {
    id: u64,
    arrivals: mpsc::Sender<Incoming>,
}

impl MemoryNet {
    /// Creates a network with pipes of 64 bytes, which is less than any message.
    pub fn new() -> Self {
        Self::with_width(64)
    }

    /// Creates a network with pipes of `width` bytes in each direction.
    pub fn with_width(width: usize) -> Self {
        Self {
            state: Arc::default(),
            width: width.max(1),
        }
    }

    /// Listens at an address. A listener that was there before receives [`AcceptError::Closed`].
    pub fn listen(&self, onion: OnionAddr) -> MemoryListener {
        let (arrivals, arriving) = mpsc::channel(ARRIVALS_MAX);
        let mut state = self.state();
        state.listened += 1;
        let id = state.listened;
        state.listeners.insert(onion, Registration { id, arrivals });
        drop(state);
        MemoryListener {
            net: self.clone(),
            onion,
            id,
            arriving,
        }
    }

    /// A transport that dials in this network.
    pub fn transport(&self) -> MemoryTransport {
        MemoryTransport { net: self.clone() }
    }

    /// Aborts every current connection. Listeners stay and can be dialled again.
    pub fn cut_all(&self) {
        std::mem::take(&mut self.state().connections).cancel();
    }

    fn state(&self) -> MutexGuard<'_, NetState> {
        self.state.lock()
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
    id: u64,
    arriving: mpsc::Receiver<Incoming>,
}

impl Listener for MemoryListener {
    fn accept<'a>(&'a mut self) -> BoxFuture<'a, Result<Incoming, AcceptError>> {
        Box::pin(async { self.arriving.recv().await.ok_or(AcceptError::Closed) })
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        let mut state = self.net.state();
        if state
            .listeners
            .get(&self.onion)
            .is_some_and(|entry| entry.id == self.id)
        {
            state.listeners.remove(&self.onion);
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
                let state = self.net.state();
                let entry = state.listeners.get(onion).ok_or(DialError::Unreachable)?;
                (entry.arrivals.clone(), state.connections.child_token())
            };
            let (near, far) = duplex(self.net.width);
            let incoming = Incoming {
                stream: Box::new(AbortableStream::new(far, connection.clone())),
                circuit: Circuit::new(connection.clone()),
            };
            match timeout(DIAL_DEADLINE, arrivals.send(incoming)).await {
                Ok(Ok(())) => Ok(Box::new(AbortableStream::new(near, connection)) as Stream),
                Ok(Err(_)) => Err(DialError::Unreachable),
                Err(_) => Err(DialError::Timeout),
            }
        })
    }
}

/// Most streams that wait for `accept`.
const ARRIVALS_MAX: usize = 32;

/// Longest wait of a dial for a full listener.
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
    async fn dial_to_a_full_listener_times_out() {
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
    async fn new_listener_replaces_the_old_one() {
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
    async fn cut_all_aborts_current_connections_only() {
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
    async fn shut_of_one_stream_keeps_the_others() {
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
