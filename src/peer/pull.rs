//! Pulling: requests what changed at a peer, and receives the package (docs/STORY.md 2, 4).
//!
//! Input is a domain and this node's cursor in it; output is the window that was applied.
//! Invariant: a pull applies a whole window or changes nothing.

use std::time::Duration;

use keys::{Epoch, PeerId};

use super::handle::{SessionError, SessionHandle};
use super::message::{Pull, SessionMessage};
use super::receive::{ReceivedPackage, SyncError, receive_package};
use crate::engine::CoreHandle;
use crate::state_engine::{AppliedPackage, PackageFault, Window};
use crate::store::Direction;

/// The result of one round of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOutcome {
    /// The domain.
    pub domain: String,
    /// The window that was received; none if this node was up to date.
    pub window: Option<Window>,
    /// How the objects in it were applied.
    pub applied: AppliedPackage,
    /// Whether the peer has a further window ready.
    pub more: bool,
}

/// Up to where this node holds a peer's changes in a domain.
#[derive(Debug, Clone, Copy)]
struct InCursor {
    /// The epoch in which `last_seq` counts; none before the first package.
    epoch: Option<Epoch>,
    last_seq: u64,
}

impl InCursor {
    /// Whether a package brings nothing beyond this cursor. Its sender misbehaves: the next pull
    /// would be the same.
    fn is_repeated_by(&self, package: &ReceivedPackage) -> bool {
        self.epoch == Some(package.epoch) && package.window.to_seq <= self.last_seq
    }
}

async fn in_cursor(engine: &CoreHandle, peer: PeerId, domain: &str) -> Result<InCursor, SyncError> {
    let domain = domain.to_owned();
    let state = engine
        .read(move |view| view.cursor(&peer, &domain, Direction::In))
        .await?;
    Ok(InCursor {
        epoch: state.as_ref().map(|state| state.epoch),
        last_seq: state.map_or(0, |state| state.last_seq),
    })
}

/// Pulls a domain once; the peer may wait up to `wait_s` seconds for a change before it replies.
pub async fn pull_once(
    engine: &CoreHandle,
    handle: &SessionHandle,
    domain: &str,
    wait_s: u32,
) -> Result<PullOutcome, SyncError> {
    let cursor = in_cursor(engine, *handle.peer(), domain).await?;
    let pull = |id| {
        SessionMessage::Pull(Pull {
            id,
            epoch: cursor.epoch,
            domain: domain.to_owned(),
            wait_s,
            peer_id: engine.context().keys.peer_id(),
            last_seq: cursor.last_seq,
        })
    };
    let wait = Duration::from_secs(u64::from(wait_s));
    match handle.request(wait, pull).await? {
        SessionMessage::Package(body) => {
            let package = receive_package(engine, handle.peer(), Some(domain), &body.body).await?;
            if cursor.is_repeated_by(&package) {
                return Err(PackageFault::Window.into());
            }
            Ok(PullOutcome {
                domain: domain.to_owned(),
                window: Some(package.window),
                applied: package.applied,
                more: package.more,
            })
        }
        SessionMessage::UpToDate(_) => Ok(PullOutcome {
            domain: domain.to_owned(),
            window: None,
            applied: AppliedPackage {
                last_seq: cursor.last_seq,
                ..AppliedPackage::default()
            },
            more: false,
        }),
        SessionMessage::Refused(refusal) => Err(SyncError::Refused(refusal.code)),
        _ => Err(SessionError::Misbehaved("a reply of a wrong kind to a pull").into()),
    }
}

#[cfg(test)]
mod tests;
