//! Frames on a stream: a length of 4 bytes (big-endian), then that many bytes.
//!
//! Memory grows with the bytes that have arrived, not with the declared length. Invariant: the
//! reader returns only whole frames within the limit. An end between two frames is clean, an end
//! inside a frame is an error. Tested below and by `tests/fuzz`.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes that are allocated before they arrive.
const CHUNK_BYTES: usize = 16 * 1024;
/// Up to this size, length and body are joined, so that a small message takes one write.
const JOIN_BYTES_MAX: usize = 16 * 1024;

/// The error of reading or writing a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than the current limit.
    #[error("a frame of {declared} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Declared length in bytes.
        declared: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The frame has no bytes.
    #[error("an empty frame")]
    Empty,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The transport failed.
    #[error("the stream failed")]
    Io(#[source] io::Error),
}

/// Reads frames from the incoming half of a stream.
pub struct FrameReader {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    bytes_max: usize,
    /// The received part of the current frame. Kept here, so that dropping a pending read loses
    /// nothing.
    head: Vec<u8>,
    body: Vec<u8>,
}

impl FrameReader {
    /// Creates a reader for frames of at most `bytes_max` bytes.
    pub fn new(stream: impl AsyncRead + Send + Unpin + 'static, bytes_max: usize) -> Self {
        Self {
            stream: Box::new(stream),
            bytes_max,
            head: Vec::with_capacity(4),
            body: Vec::new(),
        }
    }

    /// Sets the limit for the following frames, in bytes.
    pub fn set_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Discards incoming bytes until the stream ends or `bytes_max` bytes have arrived.
    pub(crate) async fn drain(&mut self, bytes_max: usize) {
        let mut drained = 0;
        let mut scratch = Vec::new();
        while drained < bytes_max {
            scratch.clear();
            match fill(&mut self.stream, &mut scratch, CHUNK_BYTES).await {
                Ok(count) if count > 0 => drained += count,
                _ => return,
            }
        }
    }

    /// Reads the next frame. Returns `None` when the stream ends between two frames. Cancel safe:
    /// dropping the future loses no byte.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        while self.head.len() < 4 {
            let missing = 4 - self.head.len();
            if fill(&mut self.stream, &mut self.head, missing).await? == 0 {
                return if self.head.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated)
                };
            }
        }
        let declared = self
            .head
            .iter()
            .fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
        if declared > self.bytes_max {
            return Err(FrameError::TooLong {
                declared,
                limit: self.bytes_max,
            });
        }
        if declared == 0 {
            return Err(FrameError::Empty);
        }
        while self.body.len() < declared {
            let missing = declared - self.body.len();
            if fill(&mut self.stream, &mut self.body, missing).await? == 0 {
                return Err(FrameError::Truncated);
            }
        }
        self.head.clear();
        Ok(Some(std::mem::take(&mut self.body)))
    }
}

/// Appends the next bytes, at most `missing` and at most one chunk. Returns 0 at the end of the
/// stream.
async fn fill(
    stream: &mut (dyn AsyncRead + Send + Unpin),
    into: &mut Vec<u8>,
    missing: usize,
) -> Result<usize, FrameError> {
    let wanted = missing.min(CHUNK_BYTES);
    into.reserve(wanted);
    stream
        .take(wanted as u64)
        .read_buf(into)
        .await
        .map_err(FrameError::Io)
}

/// Writes frames to the outgoing half of a stream.
pub struct FrameWriter {
    stream: Box<dyn AsyncWrite + Send + Unpin>,
    bytes_max: usize,
}

impl FrameWriter {
    /// Creates a writer for frames of at most `bytes_max` bytes.
    pub fn new(stream: impl AsyncWrite + Send + Unpin + 'static, bytes_max: usize) -> Self {
        Self {
            stream: Box::new(stream),
            bytes_max,
        }
    }

    /// Sets the limit for the following frames, in bytes.
    pub fn set_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Writes one frame and flushes it. Not cancel safe: after a dropped write the stream is
    /// unusable.
    pub async fn write(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        if frame.is_empty() {
            return Err(FrameError::Empty);
        }
        let head = match u32::try_from(frame.len()) {
            Ok(length) if frame.len() <= self.bytes_max => length.to_be_bytes(),
            _ => {
                return Err(FrameError::TooLong {
                    declared: frame.len(),
                    limit: self.bytes_max,
                });
            }
        };
        let written = async {
            if frame.len() <= JOIN_BYTES_MAX {
                self.stream.write_all(&[&head, frame].concat()).await?;
            } else {
                self.stream.write_all(&head).await?;
                self.stream.write_all(frame).await?;
            }
            self.stream.flush().await
        };
        written.await.map_err(FrameError::Io)
    }

    /// Closes the outgoing half of the stream.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        self.stream.shutdown().await.map_err(FrameError::Io)
    }
}

/// Both halves of a framed stream.
pub struct Session {
    /// Reads the peer's frames.
    pub reader: FrameReader,
    /// Writes this node's frames.
    pub writer: FrameWriter,
}

impl Session {
    /// Splits a stream. Both directions carry frames of at most `bytes_max` bytes.
    pub fn new(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        bytes_max: usize,
    ) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: FrameReader::new(reader, bytes_max),
            writer: FrameWriter::new(writer, bytes_max),
        }
    }

    /// Sets the limit of both directions, in bytes.
    pub fn set_max(&mut self, bytes_max: usize) {
        self.reader.set_max(bytes_max);
        self.writer.set_max(bytes_max);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::duplex;

    async fn read_all(bytes: &[u8], bytes_max: usize) -> Vec<Result<Option<Vec<u8>>, FrameError>> {
        let mut reader = FrameReader::new(std::io::Cursor::new(bytes.to_vec()), bytes_max);
        let mut results = Vec::new();
        loop {
            let result = reader.read().await;
            let last = !matches!(result, Ok(Some(_)));
            results.push(result);
            if last {
                return results;
            }
        }
    }

    #[tokio::test]
    async fn frames_cross_a_narrow_pipe_whole() {
        let (near, far) = duplex(64);
        let mut writer = FrameWriter::new(near, 1 << 20);
        let frames = [vec![1; 1], vec![2; 63], vec![3; 100_000], vec![4; 5]];
        let sent = frames.clone();
        let sending = tokio::spawn(async move {
            for frame in &sent {
                writer.write(frame).await.unwrap();
            }
            writer.close().await.unwrap();
        });
        let mut reader = FrameReader::new(far, 1 << 20);
        for frame in frames {
            assert_eq!(reader.read().await.unwrap(), Some(frame));
        }
        assert!(reader.read().await.unwrap().is_none());
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn end_inside_a_frame_is_an_error() {
        for cut in [&[0u8, 0][..], &[0, 0, 0, 5, 1, 2]] {
            assert!(
                matches!(read_all(cut, 100).await[..], [Err(FrameError::Truncated)]),
                "{cut:?}"
            );
        }
        assert!(matches!(read_all(&[], 100).await[..], [Ok(None)]));
    }

    #[tokio::test]
    async fn rejects_too_long_and_empty_frames_before_their_body() {
        assert!(matches!(
            read_all(&[0, 0, 0, 101], 100).await[..],
            [Err(FrameError::TooLong {
                declared: 101,
                limit: 100
            })]
        ));
        assert!(matches!(
            read_all(&[0, 0, 0, 0, 7], 100).await[..],
            [Err(FrameError::Empty)]
        ));
        let mut writer = FrameWriter::new(tokio::io::sink(), 100);
        assert!(matches!(
            writer.write(&[0; 101]).await,
            Err(FrameError::TooLong { .. })
        ));
        assert!(matches!(writer.write(&[]).await, Err(FrameError::Empty)));
    }

    #[tokio::test]
    async fn declared_length_allocates_no_memory() {
        let (mut near, far) = duplex(64);
        let mut reader = FrameReader::new(far, 1 << 30);
        near.write_all(&(1u32 << 30).to_be_bytes()).await.unwrap();
        near.write_all(&[1; 10]).await.unwrap();
        drop(near);
        assert!(matches!(reader.read().await, Err(FrameError::Truncated)));
        assert!(
            reader.body.capacity() <= 2 * CHUNK_BYTES,
            "{}",
            reader.body.capacity()
        );
    }

    #[tokio::test]
    async fn dropped_read_loses_no_byte() {
        let (mut near, far) = duplex(64);
        let mut reader = FrameReader::new(far, 100);
        for part in [&[0u8, 0][..], &[0, 3, 1], &[2]] {
            near.write_all(part).await.unwrap();
            assert!(futures::FutureExt::now_or_never(reader.read()).is_none());
        }
        near.write_all(&[3]).await.unwrap();
        assert_eq!(reader.read().await.unwrap(), Some(vec![1, 2, 3]));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let results = runtime.block_on(read_all(&bytes, 64));
            for frame in results.into_iter().flatten().flatten() {
                prop_assert!(!frame.is_empty() && frame.len() <= 64);
            }
        }
    }
}
