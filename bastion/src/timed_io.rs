//! Reads and writes one frame within a deadline. Used by both sides of the handshake.

use std::time::Duration;

use tokio::time::timeout;

use crate::error::{HandshakeError, HandshakeStep};
use crate::frames::Session;

/// Reads the next frame. Fails after `deadline`, and when the stream ends or fails.
pub(crate) async fn receive(
    session: &mut Session,
    step: HandshakeStep,
    deadline: Duration,
) -> Result<Vec<u8>, HandshakeError> {
    match timeout(deadline, session.reader.read()).await {
        Ok(Ok(Some(frame))) => Ok(frame),
        Ok(Ok(None)) => Err(HandshakeError::HungUp(step)),
        Ok(Err(error)) => Err(HandshakeError::from_frame(error, step)),
        Err(_) => Err(HandshakeError::Timeout(step)),
    }
}

/// Writes one frame. Fails after `deadline`, and when the stream fails.
pub(crate) async fn send(
    session: &mut Session,
    frame: &[u8],
    deadline: Duration,
) -> Result<(), HandshakeError> {
    match timeout(deadline, session.writer.write(frame)).await {
        Ok(written) => {
            written.map_err(|error| HandshakeError::from_frame(error, HandshakeStep::Send))
        }
        Err(_) => Err(HandshakeError::Timeout(HandshakeStep::Send)),
    }
}
