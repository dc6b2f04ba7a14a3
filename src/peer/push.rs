//! Pushing: sending a peer what changed without being asked (docs/STORY.md 5, the timer).
//!
//! What is pushed is everything since the acknowledged sequence number, as in a pull. Never frees or skips what was not
//! acknowledged. Invariant: `acked_seq` is what the peer itself last said that it holds.

use std::time::Duration;

use super::message::{Message, PackageBody, Refused};
use super::pull::SyncError;
use super::session::{Handle, SessionError};
use crate::engine::CoreHandle;
use crate::state_engine::{PullReply, PullRequest, Window};
use crate::store::Direction;

/// What one push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOutcome {
    /// The domain.
    pub domain: String,
    /// The window that was sent; none: there was nothing new.
    pub window: Option<Window>,
    /// How many objects were sent.
    pub objects: usize,
    /// What the peer acknowledged, up to and including.
    pub acked_seq: u64,
    /// Whether more is ready, or the peer asked to start earlier.
    pub more: bool,
}

/// One push of one domain.
pub async fn push_once(
    engine: &CoreHandle,
    handle: &Handle,
    domain: &str,
) -> Result<PushOutcome, SyncError> {
    let (peer, name, ours) = (*handle.peer(), domain.to_owned(), engine.context().epoch);
    let state = engine
        .read(move |view| view.cursor(&peer, &name, Direction::Out))
        .await?;
    let acked_seq = state
        .filter(|state| state.epoch == ours)
        .map_or(0, |state| state.acked_seq);
    let request = PullRequest {
        peer,
        domain: domain.to_owned(),
        last_seq: acked_seq,
        epoch: Some(ours),
    };
    let asked = request.clone();
    let answer = engine
        .read(move |view| view.build_package(&asked))
        .await
        .map_err(SyncError::Build)?;
    let PullReply::Package {
        window,
        objects,
        more,
        bytes,
    } = answer
    else {
        return Ok(PushOutcome {
            domain: domain.to_owned(),
            window: None,
            objects: 0,
            acked_seq,
            more: false,
        });
    };
    engine
        .write(move |core, now| core.record_sent(now, &request, Some(window)))
        .await?;
    let answer = handle
        .request(Duration::ZERO, |id| {
            Message::Push(PackageBody { id, body: bytes })
        })
        .await?;
    let (acked_seq, more) = match answer {
        Message::Ack(ack) if ack.epoch == ours && ack.last_seq >= window.to_seq => {
            (ack.last_seq, more)
        }
        // The peer is further back than we believed: start again where it says.
        Message::Refused(Refused { code, last_seq, .. }) if code == "gap" => {
            let held = last_seq.unwrap_or(0);
            if held.saturating_add(1) >= window.from_seq {
                // What follows what it holds was just sent: it would be sent for ever.
                return Err(SessionError::Misbehaved("a gap where there is none").into());
            }
            (held, true)
        }
        Message::Refused(refused) => return Err(SyncError::Refused(refused.code)),
        _ => {
            return Err(SessionError::Misbehaved("a push was answered with something else").into());
        }
    };
    let name = domain.to_owned();
    engine
        .write(move |core, now| core.record_ack(now, &peer, &name, acked_seq))
        .await?;
    Ok(PushOutcome {
        domain: domain.to_owned(),
        window: Some(window),
        objects,
        acked_seq,
        more,
    })
}
