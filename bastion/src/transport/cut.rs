//! A stream that somebody else can end.
//!
//! Once its token is cancelled it never touches the inner stream again: it drops it (over Tor this is what lets the
//! circuit go) and answers `ConnectionReset`, also to a read or write that was waiting.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A stream with a cord to pull. `K` is held as long as the stream.
pub(super) struct Cut<S, K = ()> {
    /// `None` once it is cut.
    inner: Option<S>,
    token: CancellationToken,
    /// Two, since a read and a write may wait in two tasks, each to be woken.
    reader_waits: Pin<Box<WaitForCancellationFutureOwned>>,
    writer_waits: Pin<Box<WaitForCancellationFutureOwned>>,
    _keep: K,
}

impl<S> Cut<S> {
    pub(super) fn new(inner: S, token: CancellationToken) -> Self {
        Self::keeping(inner, token, ())
    }
}

impl<S, K> Cut<S, K> {
    pub(super) fn keeping(inner: S, token: CancellationToken, keep: K) -> Self {
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

    /// Asks the inner stream, unless it is cut.
    fn ask<T>(
        &mut self,
        cx: &mut Context<'_>,
        side: Side,
        ask: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
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
        if let Poll::Ready(answer) = ask(Pin::new(inner), cx) {
            return Poll::Ready(answer);
        }
        let waits = match side {
            Side::Read => &mut self.reader_waits,
            Side::Write => &mut self.writer_waits,
        };
        match waits.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(self.drop_inner())),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Read,
    Write,
}

impl<S: AsyncRead + Unpin, K: Unpin> AsyncRead for Cut<S, K> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut()
            .ask(cx, Side::Read, |inner, cx| inner.poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin, K: Unpin> AsyncWrite for Cut<S, K> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .ask(cx, Side::Write, |inner, cx| inner.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .ask(cx, Side::Write, |inner, cx| inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .ask(cx, Side::Write, |inner, cx| inner.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};

    use super::*;

    #[tokio::test]
    async fn cutting_wakes_a_waiting_reader_and_a_waiting_writer_and_drops_the_stream() {
        let (near, mut far) = duplex(4);
        let token = CancellationToken::new();
        let (mut reader, mut writer) = split(Cut::new(near, token.clone()));
        let reads = tokio::spawn(async move { reader.read_u8().await.unwrap_err().kind() });
        let writes =
            tokio::spawn(async move { writer.write_all(&[0; 100]).await.unwrap_err().kind() });
        // The writer has begun once its first bytes arrive; it cannot end, since the pipe holds four.
        far.read_u8().await.unwrap();
        token.cancel();
        assert_eq!(reads.await.unwrap(), io::ErrorKind::ConnectionReset);
        assert_eq!(writes.await.unwrap(), io::ErrorKind::ConnectionReset);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
    }
}
