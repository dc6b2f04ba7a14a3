//! A transport that records the bytes that a node receives and sends.

use std::sync::Arc;

use bastion::transport::memory::{MemoryNet, MemoryTransport};
use bastion::transport::{BoxFuture, DialError, Stream, Transport};
use keys::OnionAddr;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, duplex, split};

use crate::needles::Needle;

/// Bytes that a connection forwards at once.
const CHUNK: usize = 1024;

/// The connections that a node dials on a network of memory pipes, with a record of what arrives.
#[derive(Clone)]
pub struct RecordedTransport {
    memory: MemoryTransport,
    received: Arc<Mutex<Vec<u8>>>,
}

impl RecordedTransport {
    /// A transport that has received nothing.
    pub fn new(net: &MemoryNet) -> Self {
        Self {
            memory: net.transport(),
            received: Arc::default(),
        }
    }

    /// The names of the needles that arrived.
    pub fn found(&self, needles: &[Needle]) -> Vec<String> {
        let received = self.received.lock();
        let is_in = |needle: &&Needle| {
            let mut windows = received.windows(needle.bytes.len());
            windows.any(|window| window == needle.bytes)
        };
        let found = needles.iter().filter(is_in);
        found.map(|needle| needle.name.clone()).collect()
    }
}

impl Transport for RecordedTransport {
    fn dial<'a>(&'a self, onion: &'a OnionAddr) -> BoxFuture<'a, Result<Stream, DialError>> {
        Box::pin(async {
            let (far_in, far_out) = split(self.memory.dial(onion).await?);
            let (near, end) = duplex(CHUNK);
            let (near_in, near_out) = split(end);
            let received = self.received.clone();
            tokio::spawn(forward(near_in, far_out, None));
            tokio::spawn(forward(far_in, near_out, Some(received)));
            Ok(Box::new(near) as Stream)
        })
    }
}

async fn forward<A: tokio::io::AsyncRead, B: tokio::io::AsyncWrite>(
    mut from: ReadHalf<A>,
    mut to: WriteHalf<B>,
    record: Option<Arc<Mutex<Vec<u8>>>>,
) {
    let mut chunk = [0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        if let Some(record) = &record {
            record.lock().extend_from_slice(&chunk[..count]);
        }
        if to.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
    // Best effort: the other end may be gone.
    let _ = to.shutdown().await;
}
