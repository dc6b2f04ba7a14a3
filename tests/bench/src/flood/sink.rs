//! The sink: takes what the victim would take, and thinks nothing.
//!
//! Accepts, reads frames, answers a hello with a challenge that is always the same and anything else with a refusal, so
//! that the system's own share of a flood is the same for both. Never decodes, hashes or keeps anything.
//! Invariant: it answers every whole frame with one frame of the size that the victim's would have.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bastion::messages::{HandshakeMessage, Refusal};
use bastion::{RefusalCode, Session};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::bogus;
use super::reach::{Ground, circuits};
use super::role::{commands, say};
use crate::nodes::Node;

/// Seed of the sink's keys: an address that has nothing to do with the victim's.
pub(super) const SINK: u64 = 3;
/// As long as the gate waits for a refusal to be read.
const LINGER: Duration = Duration::from_secs(2);
/// As long as the gate waits for a frame at most.
const PATIENCE: Duration = Duration::from_secs(30);
const FRAME_BYTES_MAX: usize = 8192;

struct Words {
    challenge: Vec<u8>,
    refused: Vec<u8>,
}

/// Serves until the end of its input.
pub(super) async fn run(setting: &Value) -> Result<()> {
    let refused = HandshakeMessage::Refused(Refusal {
        code: RefusalCode::Malformed,
        retry_s: None,
    });
    let words = Arc::new(Words {
        challenge: bogus::challenge()?,
        refused: refused.encode(),
    });
    let (ground, keys) = (Ground::join(setting).await?, Node::new(SINK)?.keys);
    let served = ground.listen(&keys).await?;
    let mut listener = served.listener;
    tokio::spawn(async move {
        loop {
            // A failed accept is a connection that is gone again; the generator counts what it reached.
            if let Ok(incoming) = listener.accept().await {
                let words = words.clone();
                tokio::spawn(async move {
                    serve(Session::new(incoming.stream, FRAME_BYTES_MAX), &words).await
                });
            }
        }
    });
    ground.reachable(&keys.onion()).await?;
    say(&json!({ "port": served.port }))?;
    let mut commands = commands();
    while commands.recv().await.is_some() {
        say(&json!({ "circuits": circuits(served.watch.as_ref()) }))?;
    }
    Ok(())
}

/// One connection, to its end.
async fn serve(mut session: Session, words: &Words) -> Option<()> {
    let mut frame = read(&mut session).await?;
    if frame.starts_with(bogus::HELLO) {
        session.writer.write(&words.challenge).await.ok()?;
        frame = read(&mut session).await?;
    }
    drop(frame);
    session.writer.write(&words.refused).await.ok()?;
    session.writer.close().await.ok()?;
    let _ = timeout(LINGER, session.reader.read()).await;
    Some(())
}

async fn read(session: &mut Session) -> Option<Vec<u8>> {
    timeout(PATIENCE, session.reader.read()).await.ok()?.ok()?
}
