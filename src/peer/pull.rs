//! Pulling: requests what changed at a peer, and receives the package (docs/STORY.md 2, 4).
//!
//! Input is a domain and this node's cursor in it; output is the window that was applied.
//! Invariant: the cursor moves by whole windows.

use std::time::Duration;

use super::context::{Puller, SessionContext};
use super::handle::SessionError;
use super::message::{Pull, SessionMessage};
use super::receive::{ArrivedPackage, ReceivedPackage, Requested};
use super::sync_error::SyncError;
use crate::state_engine::{AppliedPackage, NextPull, PackageFault, Window};

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

/// Whether a package brings nothing beyond the requested position. Its sender misbehaves: the next
/// pull would be the same.
fn is_repeated(next: &NextPull, package: &ReceivedPackage) -> bool {
    next.epoch == Some(package.epoch) && package.window.to_seq <= next.last_seq
}

/// Pulls a domain once; the peer may wait up to `wait_s` seconds for a change before it replies.
///
/// Scopes that are to be pulled again come first, without waiting. If their request fails, they are
/// put off, so that they do not block what is new.
pub(super) async fn pull_once(
    puller: Puller<'_>,
    domain: &str,
    wait_s: u32,
) -> Result<PullOutcome, SyncError> {
    let Puller { engine, handle, .. } = puller;
    let (peer, name, now) = (*handle.peer(), domain.to_owned(), engine.now());
    let next = engine
        .read(move |view| view.next_pull(&peer, &name, now))
        .await?;
    if next.again.is_some() {
        pull_again_at(puller, domain, next).await
    } else {
        pull_at(puller, domain, wait_s, next).await
    }
}

/// Pulls what is new of a domain once; the peer may wait up to `wait_s` seconds.
pub(super) async fn pull_news(
    session: &SessionContext,
    domain: &str,
    wait_s: u32,
) -> Result<PullOutcome, SyncError> {
    let (engine, handle) = (&session.core, &session.handle);
    let (peer, name) = (*handle.peer(), domain.to_owned());
    let next = engine
        .read(move |view| view.next_news(&peer, &name))
        .await?;
    pull_at(session.puller(), domain, wait_s, next).await
}

/// Pulls scopes of a domain again, once; none if none are due.
pub(super) async fn pull_again(
    session: &SessionContext,
    domain: &str,
) -> Result<Option<PullOutcome>, SyncError> {
    let (engine, handle) = (&session.core, &session.handle);
    let (peer, name, now) = (*handle.peer(), domain.to_owned(), engine.now());
    let next = engine
        .read(move |view| view.next_pull(&peer, &name, now))
        .await?;
    if next.again.is_none() {
        return Ok(None);
    }
    let pulled = pull_again_at(session.puller(), domain, next).await;
    pulled.map(Some)
}

/// Pulls scopes again from a position. If that fails, they are put off.
async fn pull_again_at(
    puller: Puller<'_>,
    domain: &str,
    next: NextPull,
) -> Result<PullOutcome, SyncError> {
    let Puller { engine, handle, .. } = puller;
    let pulled = pull_at(puller, domain, 0, next).await;
    let is_over = matches!(pulled, Err(SyncError::Session(SessionError::Over)));
    if pulled.is_err() && !is_over {
        let (peer, name) = (*handle.peer(), domain.to_owned());
        engine
            .write(move |core, now| core.postpone_pull_again(now, &peer, &name))
            .await?;
    }
    pulled
}

/// Pulls a domain once from a position.
async fn pull_at(
    puller: Puller<'_>,
    domain: &str,
    wait_s: u32,
    next: NextPull,
) -> Result<PullOutcome, SyncError> {
    let Puller { engine, handle, .. } = puller;
    let pull = |id| {
        SessionMessage::Pull(Pull {
            id,
            again: next.again.as_ref().map(|again| again.scopes.clone()),
            epoch: next.epoch,
            domain: domain.to_owned(),
            wait_s,
            peer_id: engine.context().keys.peer_id(),
            last_seq: next.last_seq,
        })
    };
    let wait = Duration::from_secs(u64::from(wait_s));
    tokio::select! {
        biased;
        () = handle.closed().cancelled() => return Err(SessionError::Over.into()),
        () = puller.budget.wait(handle.peer()) => {}
    }
    match handle.request(wait, pull).await? {
        SessionMessage::Package(body) => {
            let requested = Requested::Domain(domain, next.again.clone());
            let arrived =
                ArrivedPackage::verify(engine, puller.budget, handle.info(), requested, &body.body);
            let package = arrived.await?.apply(engine, Some(puller)).await?;
            if is_repeated(&next, &package) {
                return Err(PackageFault::Window.into());
            }
            Ok(PullOutcome {
                domain: domain.to_owned(),
                window: Some(package.window),
                applied: package.applied,
                more: package.more || next.again.is_some(),
            })
        }
        SessionMessage::UpToDate(_) => {
            let (last_seq, more) = (next.last_seq, next.again.is_some());
            if let Some(again) = next.again {
                let (peer, name) = (*handle.peer(), domain.to_owned());
                engine
                    .write(move |core, now| core.finish_pull_again(now, &peer, &name, &again))
                    .await?;
            }
            Ok(PullOutcome {
                domain: domain.to_owned(),
                window: None,
                applied: AppliedPackage {
                    last_seq,
                    ..AppliedPackage::default()
                },
                more,
            })
        }
        SessionMessage::Refused(refusal) => Err(SyncError::Refused(refusal.code)),
        _ => Err(SessionError::Misbehaved("a reply of a wrong kind to a pull").into()),
    }
}

#[cfg(test)]
mod tests;
