//! Pushing: sends a peer what changed, without a request (docs/STORY.md 5, the timer).
//!
//! A push carries everything since the acknowledged sequence number, as the reply to a pull does.
//! Invariant: `acked_seq` is what the peer itself last reported that it holds.

use std::time::Duration;

use keys::{Epoch, PeerId};

use super::handle::{SessionError, SessionHandle};
use super::message::{PackageBody, RequestRefusal, SessionMessage};
use super::sync_error::SyncError;
use crate::engine::CoreHandle;
use crate::state_engine::{BuildError, PullReply, PullRequest, Window};
use crate::store::Direction;

/// The result of one push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOutcome {
    /// The domain.
    pub domain: String,
    /// The window that was sent; none if nothing was new.
    pub window: Option<Window>,
    /// Number of objects that were sent.
    pub objects: usize,
    /// Sequence number up to which the peer acknowledged.
    pub acked_seq: u64,
    /// Whether a further window is ready, or the peer asked for an earlier one.
    pub more: bool,
}

/// How the peer replied to a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PushReply {
    /// The peer holds everything up to here.
    Acked(u64),
    /// The peer holds less than this node believed: the next push starts behind this.
    RestartAfter(u64),
}

/// Judges the reply to a push of `window` in `epoch`.
fn judge_ack(reply: SessionMessage, epoch: Epoch, window: Window) -> Result<PushReply, SyncError> {
    match reply {
        SessionMessage::Ack(ack) if ack.epoch == epoch && ack.last_seq >= window.to_seq => {
            Ok(PushReply::Acked(ack.last_seq))
        }
        SessionMessage::Refused(RequestRefusal { code, last_seq, .. }) if code == "gap" => {
            let held = last_seq.unwrap_or(0);
            if held.saturating_add(1) >= window.from_seq {
                // The window that follows what the peer holds was just sent: every retry would get
                // the same reply.
                return Err(SessionError::Misbehaved("a gap where there is none").into());
            }
            Ok(PushReply::RestartAfter(held))
        }
        SessionMessage::Refused(refusal) => Err(SyncError::Refused(refusal.code)),
        _ => Err(SessionError::Misbehaved("a reply of a wrong kind to a push").into()),
    }
}

/// Returns the sequence number up to which `peer` acknowledged in this node's present epoch.
async fn acked_seq(engine: &CoreHandle, peer: PeerId, domain: &str) -> Result<u64, SyncError> {
    let (domain, epoch) = (domain.to_owned(), engine.context().epoch);
    let state = engine
        .read(move |view| view.cursor(&peer, &domain, Direction::Out))
        .await?;
    let state = state.filter(|state| state.epoch == epoch);
    Ok(state.map_or(0, |state| state.acked_seq))
}

/// Pushes a domain once.
pub async fn push_once(
    engine: &CoreHandle,
    handle: &SessionHandle,
    domain: &str,
) -> Result<PushOutcome, SyncError> {
    let (peer, epoch) = (*handle.peer(), engine.context().epoch);
    let acked_seq = acked_seq(engine, peer, domain).await?;
    let request = PullRequest {
        again: None,
        peer,
        domain: domain.to_owned(),
        last_seq: acked_seq,
        epoch: Some(epoch),
        features: handle.features().clone(),
        // A push has no stubs.
        whole_after: None,
    };
    let built = request.clone();
    let built = engine.read(move |view| {
        // Both of one snapshot.
        let examined = view.examined(&built.domain)?;
        Ok::<_, BuildError>((view.build_package(&built)?, examined))
    });
    let (reply, examined) = built.await.map_err(SyncError::Build)?;
    let PullReply::Package {
        window,
        objects,
        more,
        bytes,
    } = reply
    else {
        let name = domain.to_owned();
        engine
            .write(move |core, now| core.clear_outbox(now, &peer, &name, examined))
            .await?;
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
    let push = |id| SessionMessage::Push(PackageBody { id, body: bytes });
    let reply = handle.request(Duration::ZERO, push).await?;
    let (acked_seq, more) = match judge_ack(reply, epoch, window)? {
        PushReply::Acked(seq) => (seq, more),
        PushReply::RestartAfter(seq) => (seq, true),
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

#[cfg(test)]
mod tests;
