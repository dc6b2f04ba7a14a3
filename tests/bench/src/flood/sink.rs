//! The sink: a server that accepts the same connections as the victim, without a gate.
//!
//! Replies to a hello with a constant challenge, and to any other frame with a refusal. The cost of
//! the operating system is therefore the same as for the victim. Nothing is decoded, hashed or
//! stored. Invariant: each complete frame gets one reply of the same size as the victim's reply.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bastion::messages::{HandshakeMessage, Refusal};
use bastion::{RefusalCode, Session};
use keys::protocol::UNADMITTED_FRAME_BYTES_MAX;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::access::{NetworkAccess, circuits};
use super::bogus;
use super::role::{commands, reply};
use crate::nodes::Node;

/// Seed of the sink's keys, which are unrelated to the victim's.
pub(super) const SINK: u64 = 3;
/// The gate's time limit for the client to close the stream after a refusal.
const LINGER: Duration = Duration::from_secs(2);
/// The gate's longest time limit for a frame.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// The encoded replies.
struct Replies {
    challenge: Vec<u8>,
    refused: Vec<u8>,
}

/// Serves until standard input ends.
pub(super) async fn run(setting: &Value) -> Result<()> {
    let refused = HandshakeMessage::Refused(Refusal {
        code: RefusalCode::Malformed,
        retry_s: None,
        versions: None,
    });
    let replies = Arc::new(Replies {
        challenge: bogus::challenge()?,
        refused: refused.encode(),
    });
    let (access, keys) = (NetworkAccess::join(setting).await?, Node::new(SINK)?.keys);
    let service = access.listen(&keys).await?;
    let mut listener = service.listener;
    tokio::spawn(async move {
        loop {
            // A failed accept is a closed connection; the generator counts the successful ones.
            if let Ok(incoming) = listener.accept().await {
                let replies = replies.clone();
                tokio::spawn(async move {
                    serve(
                        Session::new(incoming.stream, UNADMITTED_FRAME_BYTES_MAX),
                        &replies,
                    )
                    .await
                });
            }
        }
    });
    access.reachable(&keys.onion()).await?;
    reply(&json!({ "port": service.port }))?;
    let mut commands = commands();
    while commands.recv().await.is_some() {
        reply(&json!({ "circuits": circuits(service.watch.as_ref()) }))?;
    }
    Ok(())
}

/// Serves one connection until it ends.
async fn serve(mut session: Session, replies: &Replies) -> Option<()> {
    let mut frame = read(&mut session).await?;
    if frame.starts_with(bogus::HELLO) {
        session.writer.write(&replies.challenge).await.ok()?;
        frame = read(&mut session).await?;
    }
    drop(frame);
    session.writer.write(&replies.refused).await.ok()?;
    session.writer.close().await.ok()?;
    let _ = timeout(LINGER, session.reader.read()).await;
    Some(())
}

async fn read(session: &mut Session) -> Option<Vec<u8>> {
    timeout(FRAME_TIMEOUT, session.reader.read())
        .await
        .ok()?
        .ok()?
}
