//! A stream that another task can abort.
//!
//! After its token is cancelled, the stream drops the inner stream, which over Tor releases the
//! circuit. Every read and write then returns `ConnectionReset`, also one that was waiting.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A stream that a token can abort. `K` is dropped together with the stream.
pub(super) struct AbortableStream<S, K = ()> {
    /// `None` after an abort.
    inner: Option<S>,
    token: CancellationToken,
    /// Two, because a read and a write may wait in two tasks, and both must be woken.
    reader_waits: Pin<Box<WaitForCancellationFutureOwned>>,
    writer_waits: Pin<Box<WaitForCancellationFutureOwned>>,
    _keep: K,
}

impl<S> AbortableStream<S> {
    pub(super) fn new(inner: S, token: CancellationToken) -> Self {
        Self::holding(inner, token, ())
    }
}

impl<S, K> AbortableStream<S, K> {
    pub(super) fn holding(inner: S, token: CancellationToken, keep: K) -> Self {
        Self {
            inner: Some(inner),
            reader_waits: Box::pin(token.clone().cancelled_owned()),
            writer_waits: Box::pin(token.clone().cancelled_owned()),
            token,
            _keep: keep,
        }
    }

    fn drop_inner(&mut self) -> io::Error {
        self.inner = None;
        io::Error::from(io::ErrorKind::ConnectionReset)
    }

    /// Polls the inner stream, unless it was aborted.
    fn poll_inner<T>(
        &mut self,
        cx: &mut Context<'_>,
        direction: IoSide,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>>
    where
        S: Unpin,
    {
        if self.token.is_cancelled() {
            return Poll::Ready(Err(self.drop_inner()));
        }
        let Some(inner) = self.inner.as_mut() else {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        };
        if let Poll::Ready(result) = poll(Pin::new(inner), cx) {
            return Poll::Ready(result);
        }
        let waits = match direction {
            IoSide::Read => &mut self.reader_waits,
            IoSide::Write => &mut self.writer_waits,
        };
        match waits.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(self.drop_inner())),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[derive(Clone, Copy)]
enum IoSide {
    Read,
    Write,
}

impl<S: AsyncRead + Unpin, K: Unpin> AsyncRead for AbortableStream<S, K> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut()
            .poll_inner(cx, IoSide::Read, |inner, cx| inner.poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin, K: Unpin> AsyncWrite for AbortableStream<S, K> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_inner(cx, IoSide::Write, |inner, cx| inner.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .poll_inner(cx, IoSide::Write, |inner, cx| inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .poll_inner(cx, IoSide::Write, |inner, cx| inner.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};

    use super::*;

    #[tokio::test]
    async fn abort_wakes_reader_and_writer_and_drops_the_inner_stream() {
        let (near, mut far) = duplex(4);
        let token = CancellationToken::new();
        let (mut reader, mut writer) = split(AbortableStream::new(near, token.clone()));
        let reads = tokio::spawn(async move { reader.read_u8().await.unwrap_err().kind() });
        let writes =
            tokio::spawn(async move { writer.write_all(&[0; 100]).await.unwrap_err().kind() });
        // The first byte shows that the writer has started. The write cannot end, because the pipe
        // holds four bytes.
        far.read_u8().await.unwrap();
        token.cancel();
        assert_eq!(reads.await.unwrap(), io::ErrorKind::ConnectionReset);
        assert_eq!(writes.await.unwrap(), io::ErrorKind::ConnectionReset);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
    }
}
