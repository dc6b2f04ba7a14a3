//! Epochs and recovery: shows a peer this node's epochs, and after a restore requests this node's
//! own objects from it (docs/DECISIONS.md 2, 5).
//!
//! Input is a session that has started; outputs are the objects that the peer holds of this node,
//! reclaimed into the graph. Invariants: a peer counts as asked for its domains only after all
//! their batches were reclaimed; the task ends with its session.

use std::collections::VecDeque;
use std::time::Duration;

use keys::{Oid, SignedObject, error_chain};

use super::backoff::Backoff;
use super::context::SessionContext;
use super::end_code::EndCode;
use super::handle::SessionError;
use super::message::{EpochNote, ReclaimRequest, ReclaimedBatch, SessionMessage};
use super::sync_error::SyncError;
use crate::schema::identities;
use crate::state_engine::{OBJECT_COST, ReclaimSummary, StateEngine};
use crate::store::{PeerEpoch, StoreError, WriteMode};

/// Most batches for one domain: a bound against a peer that always names a next one.
const BATCHES_MAX: usize = 100_000;

/// Most objects that one write reclaims. Most of the time goes into their signatures.
const RECLAIM_PART: usize = 64;
/// Most bytes of the objects that one write reclaims, unless it is one object. Key chains of as
/// many bytes have some 150 signatures, and each is verified up to three times.
const RECLAIM_BYTES: usize = 16 * 1024;

/// Shows the peer this node's epochs, then reclaims this node's objects from it after a restore.
/// Retries until all is done or the session ends.
pub(super) async fn keep_recovering(session: &SessionContext) {
    let mut backoff = Backoff::new(&session.config);
    let mut are_shown = false;
    loop {
        let done = async {
            if !are_shown {
                show_epochs(session).await?;
                are_shown = true;
            }
            recover(session).await
        };
        match done.await {
            Ok(()) | Err(SyncError::Session(SessionError::Over)) => return,
            Err(SyncError::Session(
                error @ (SessionError::Malformed(_) | SessionError::Misbehaved(_)),
            )) => {
                // Do not retry: a misbehaving peer would give the same reply on every retry.
                tracing::warn!(
                    error = %error_chain(&error),
                    "ended the session with a peer that misbehaved"
                );
                session.handle.end(EndCode::Misbehaviour);
                return;
            }
            Err(error) => {
                tracing::warn!(
                    error = %error_chain(&error),
                    "could not exchange epochs or reclaim objects"
                )
            }
        }
        if session.pause(backoff.next()).await.is_err() {
            return;
        }
    }
}

/// Sends this node's epoch, and each epoch that the peer once signed as its own.
async fn show_epochs(session: &SessionContext) -> Result<(), SyncError> {
    let peer = *session.handle.peer();
    let read = session.core.read(move |view| {
        // The peer's present epoch is sent too: its sequence number may have been higher once.
        let heard = view.rows.peer_epochs(&peer)?;
        Ok::<_, StoreError>((view.own_epoch()?, heard))
    });
    let (own, heard) = read.await?;
    show_epoch(session, |id| SessionMessage::Epoch(note(id, own))).await?;
    for heard in heard {
        show_epoch(session, |id| SessionMessage::Heard(note(id, heard))).await?;
    }
    Ok(())
}

async fn show_epoch(
    session: &SessionContext,
    make: impl FnOnce(u64) -> SessionMessage,
) -> Result<(), SyncError> {
    match session.handle.request(Duration::ZERO, make).await? {
        SessionMessage::Noted(_) => Ok(()),
        SessionMessage::Refused(refusal) => {
            // Do not retry: the peer would refuse the same epoch again.
            tracing::warn!(code = refusal.code, "the peer refused an epoch");
            Ok(())
        }
        _ => Err(SessionError::Misbehaved("a reply of a wrong kind to an epoch").into()),
    }
}

/// Reclaims this node's objects from the peer, if this node was restored and has not asked this
/// peer yet for some shared domain.
async fn recover(session: &SessionContext) -> Result<(), SyncError> {
    let (peer, shared) = (*session.handle.peer(), session.domains.clone());
    let looking = session
        .core
        .read(move |view| view.domains_to_reclaim(&peer, &shared));
    let Some(domains) = looking.await? else {
        return Ok(());
    };
    let mut backoff = Backoff::new(&session.config);
    loop {
        let sum = reclaim_all(session, &domains).await?;
        tracing::info!(
            written = sum.written,
            already_stored = sum.already_stored,
            waiting = sum.waiting,
            missing = sum.missing,
            later_schema = sum.later_schema,
            refused = sum.refused,
            "reclaimed what a peer holds of this node"
        );
        if sum.later_schema > 0 {
            // The peer does not count as asked, so that the node asks again after its upgrade.
            tracing::warn!(
                objects = sum.later_schema,
                "a peer holds objects of this node that need a later schema; install the later \
                 file and restart"
            );
            return Ok(());
        }
        if sum.missing == 0 {
            break;
        }
        if !is_recovering(session).await? {
            // The next session asks again.
            return Ok(());
        }
        // Missing objects arrive with pulls from this or another peer; until then this peer does
        // not count as asked.
        session.pause(backoff.next()).await?;
    }
    let is_over = session
        .core
        .write(move |core, now| core.note_reclaimed_from(now, &peer, &domains))
        .await?;
    if is_over {
        tracing::info!(
            "the recovery has ended: every peer has returned this node's objects, and existing \
             objects can be changed again"
        );
    }
    Ok(())
}

async fn is_recovering(session: &SessionContext) -> Result<bool, SyncError> {
    let now = session.core.now();
    let write_mode = session.core.read(move |view| view.write_mode_at(now));
    Ok(write_mode.await? == WriteMode::NewObjectsOnly)
}

/// Reclaims this node's objects in the domains. Identities come first, because the other objects
/// are signed with their keys.
async fn reclaim_all(
    session: &SessionContext,
    domains: &[String],
) -> Result<ReclaimSummary, SyncError> {
    let (mut sum, mut backoff) = (ReclaimSummary::default(), Backoff::new(&session.config));
    let (first, rest): (Vec<_>, Vec<_>) = domains
        .iter()
        .partition(|domain| *domain == identities::DOMAIN);
    for domain in first.into_iter().chain(rest) {
        sum += reclaim_domain(session, domain, BATCHES_MAX, &mut backoff).await?;
    }
    Ok(sum)
}

/// Reclaims this node's objects in one domain, in at most `batches_max` batches.
async fn reclaim_domain(
    session: &SessionContext,
    domain: &str,
    batches_max: usize,
    backoff: &mut Backoff,
) -> Result<ReclaimSummary, SyncError> {
    let mut sum = ReclaimSummary::default();
    let mut after: Option<Oid> = None;
    for _ in 0..batches_max {
        let Some(batch) = request_batch(session, domain, after).await? else {
            // The retry asks for the same batch: a peer may hold more batches than it sends in a
            // minute.
            session.pause(backoff.next()).await?;
            continue;
        };
        let objects = batch.objects().map_err(SessionError::Malformed)?;
        let (peer, tier) = (*session.handle.peer(), session.handle.tier());
        tokio::select! {
            biased;
            () = session.handle.closed().cancelled() => return Err(SessionError::Over.into()),
            () = session.budget.wait(&peer) => {}
        }
        let mut charge = session.budget.begin(&peer, tier, batch.body.len());
        let (mut taken, count) = (ReclaimSummary::default(), objects.len());
        for part in parts(objects) {
            let mut rest = VecDeque::from(part);
            while !rest.is_empty() {
                let reclaim = move |core: &mut StateEngine, now| {
                    let some = core.reclaim_some(now, peer, &mut rest)?;
                    Ok::<_, StoreError>((some, rest))
                };
                let (some, left) = session.core.write(reclaim).await?;
                taken += some;
                rest = left;
            }
        }
        if taken.refused == 0 {
            let known = u32::try_from(count.saturating_sub(taken.written)).unwrap_or(u32::MAX);
            charge.set_objects(OBJECT_COST.saturating_mul(known));
        }
        drop(charge);
        taken.log_refused();
        sum += taken;
        match batch.next {
            None => return Ok(sum),
            // Object ids ascend, so that the batches have an end.
            next if next <= after => {
                return Err(SessionError::Misbehaved("recovery batches do not ascend").into());
            }
            next => after = next,
        }
    }
    Err(SessionError::Misbehaved("recovery batches have no end").into())
}

/// Divides objects into parts, each for one write.
fn parts(objects: Vec<SignedObject>) -> Vec<Vec<SignedObject>> {
    let (mut parts, mut bytes) = (Vec::new(), 0);
    for object in objects {
        bytes += object.bytes().len();
        let is_full = |part: &Vec<_>| part.len() == RECLAIM_PART || bytes > RECLAIM_BYTES;
        match parts.last_mut().filter(|part| !is_full(part)) {
            Some(part) => part.push(object),
            None => {
                bytes = object.bytes().len();
                parts.push(vec![object]);
            }
        }
    }
    parts
}

/// Requests one batch of this node's objects behind `after`; none if the peer is busy.
async fn request_batch(
    session: &SessionContext,
    domain: &str,
    after: Option<Oid>,
) -> Result<Option<ReclaimedBatch>, SyncError> {
    let reclaim = |id| {
        SessionMessage::Reclaim(ReclaimRequest {
            id,
            after,
            domain: domain.to_owned(),
        })
    };
    match session.handle.request(Duration::ZERO, reclaim).await? {
        SessionMessage::Reclaimed(batch) => Ok(Some(batch)),
        SessionMessage::Refused(refusal) if refusal.code == "busy" => Ok(None),
        SessionMessage::Refused(refusal) => Err(SyncError::Refused(refusal.code)),
        _ => Err(SessionError::Misbehaved("a reply of a wrong kind to a reclaim").into()),
    }
}

fn note(id: u64, heard: PeerEpoch) -> EpochNote {
    EpochNote {
        id,
        head: heard.head,
        epoch: heard.epoch,
        key_id: heard.key_id,
        signature: heard.signature,
    }
}

#[cfg(test)]
mod tests;
