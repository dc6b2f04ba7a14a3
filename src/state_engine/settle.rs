//! Settling: waiting objects are tried again when their cause has occurred, portion after portion
//! (docs/DECISIONS.md 7).
//!
//! Each portion is a transaction of its own, so that no cause holds the writer for long. Invariant:
//! a waiting object is tried once for each occurrence of its cause; the position is stored. Tested
//! in `tests/core/waiting.rs`.

use keys::{Oid, TraceId, error_chain};

use super::applied::AppliedPackage;
use super::engine::StateEngine;
use super::ingest::PartIngest;
use super::reclaim::OwnChains;
use super::rejects::RejectLog;
use super::rotation::rotate_some;
use crate::graph::{GraphManager, NextList, SaveError};
use crate::op_context::Timestamp;
use crate::store::{
    Cause, Invitation, ScopeId, SettlingRow, SettlingTurn, SettlingWork, StoreError, WaitingRow,
    WriteMode,
};

/// Most objects of one portion.
const PORTION_OBJECTS_MAX: usize = 64;
/// Largest cost of a portion, unless it has one object only. The unit is a small object.
const PORTION_COST_MAX: usize = 64;
/// Bytes that cost as much as a small object. Key chains of as many bytes have five signatures, and
/// an identity record may have been sent in any domain.
const BYTES_PER_COST: usize = 512;
/// Most that a portion spends ([`GraphManager::spent`]), besides its last object.
const PORTION_SPENT_MAX: usize = 1024;
/// Milliseconds after which an object waits no longer: 30 days.
const WAITING_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;

fn cost(waiting: &WaitingRow) -> usize {
    1 + waiting.object.bytes().len() / BYTES_PER_COST
}

impl StateEngine {
    /// Does one portion of the work that is left. Returns `false` if there was none.
    ///
    /// Rights lists are merged first, because their scope is closed until then. Lists without
    /// identities that left follow other work: a waiting list, or one that a rotation signs again,
    /// may have added the identity again. Neither is written during a recovery.
    pub fn settle_step(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        self.is_purges_turn = !self.is_purges_turn;
        if self.is_purges_turn && self.purge_step(now)? {
            return Ok(true);
        }
        let turn = self.context.memory.flags.next();
        Ok(self.settle_one(now, turn)? || self.purge_step(now)?)
    }

    fn settle_one(&mut self, now: Timestamp, turn: SettlingTurn) -> Result<bool, StoreError> {
        let may_write_lists = self.write_mode.is_none();
        if may_write_lists && let Some(scope) = self.store.rows().next_due_list(true)? {
            self.trace = TraceId(0);
            self.merge_lists(now, scope)?;
            return Ok(true);
        }
        let Some(next) = self.store.rows().next_settling(turn)? else {
            if may_write_lists && let Some(scope) = self.store.rows().next_due_list(false)? {
                self.trace = TraceId(0);
                self.follow_leaves(now, scope)?;
                return Ok(true);
            }
            let may_accept = may_write_lists && turn != SettlingTurn::Start;
            if may_accept && let Some(invitation) = self.store.rows().next_due_accept()? {
                self.trace = TraceId(0);
                self.accept(now, &invitation)?;
                return Ok(true);
            }
            return Ok(self.move_due_home(now)?
                || self.pull_overruled(now)?
                || self.pull_unbanned(now)?);
        };
        self.trace = TraceId(0);
        match next.work {
            SettlingWork::Retry(cause) => self.retry_portion(now, next, cause),
            SettlingWork::Restamp(app, scope) => self.portion(now, next, |graph| {
                graph.restamp_portion((app, scope), (next.after, next.until), true)
            }),
            SettlingWork::Follow(app, scope) => self.portion(now, next, |graph| {
                graph.restamp_portion((app, scope), (next.after, next.until), false)
            }),
            SettlingWork::Open(peer) => self.portion(now, next, |graph| {
                Ok(graph.open_some(&peer)?.then_some(next.after))
            }),
            SettlingWork::Flag(app, bit) => self.portion(now, next, |graph| {
                graph.flag_portion((app, bit), (next.after, next.until))
            }),
            SettlingWork::Depart(identity) => self.portion(now, next, |graph| {
                let done = graph.depart_some(&identity, ScopeId(next.after))?;
                Ok(done.map(|scope| scope.0))
            }),
            SettlingWork::Arrive(identity) => self.portion(now, next, |graph| {
                let done = graph.arrive_some(&identity, ScopeId(next.after))?;
                Ok(done.map(|scope| scope.0))
            }),
            SettlingWork::Rotate(identity) => {
                let may_change = self.write_mode_at(now) == WriteMode::ReadWrite;
                self.portion(now, next, |graph| {
                    // Otherwise the end of the next recovery completes it.
                    let more = may_change && rotate_some(graph, identity)?;
                    Ok(more.then_some(next.after))
                })
            }
        }?;
        Ok(true)
    }

    /// Lets a home count that waited for its day. Returns `false` if none is due.
    fn move_due_home(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        if self.store.rows().next_due_home(now)?.is_none() {
            return Ok(false);
        }
        self.trace = TraceId(0);
        self.write(now, |graph| graph.move_due_home())
    }

    /// Notes one portion of a scope whose deletion was overruled. Returns `false` if none is due.
    fn pull_overruled(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let rows = self.store.rows();
        if rows.is_overruled_ahead(now)? {
            self.trace = TraceId(0);
            return self.write(now, |graph| graph.tx().place_overruled_ahead(now));
        }
        if rows.next_overruled(now)?.is_none() {
            return Ok(false);
        }
        self.trace = TraceId(0);
        self.write(now, |graph| graph.pull_overruled())
    }

    /// Lets one portion of the scopes of an ended ban be pulled again. Returns `false` if there is
    /// none.
    fn pull_unbanned(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        if self.store.rows().next_ended_ban(now)?.is_none() {
            return Ok(false);
        }
        self.trace = TraceId(0);
        self.write(now, |graph| graph.pull_unbanned())
    }

    /// Merges the rights lists of a scope. A merge that fails is put off.
    fn merge_lists(&mut self, now: Timestamp, scope: ScopeId) -> Result<(), StoreError> {
        if let Some((scope, cause)) =
            self.write_due_list(now, scope, |graph, scope| graph.merge_lists(scope))?
        {
            tracing::warn!(
                code = "merge_waits",
                scope = scope.map(|oid| oid.short()),
                cause,
                "could not merge the rights lists of a scope; peers do not receive its objects \
                 until then, and the node tries again every hour"
            );
        }
        Ok(())
    }

    /// Writes the next rights list of a scope that an identity left. One that fails is put off.
    fn follow_leaves(&mut self, now: Timestamp, scope: ScopeId) -> Result<(), StoreError> {
        if let Some((scope, cause)) =
            self.write_due_list(now, scope, |graph, scope| graph.follow_leaves(scope))?
        {
            tracing::warn!(
                code = "leave_waits",
                scope = scope.map(|oid| oid.short()),
                cause,
                "could not write the rights list of a scope without an identity that left; it \
                 remains a member until then, and the node tries again every hour"
            );
        }
        Ok(())
    }

    /// Writes the `accept` of an invitation that the configuration accepts. One that fails is put
    /// off.
    fn accept(&mut self, now: Timestamp, invitation: &Invitation) -> Result<(), StoreError> {
        let written = self.write(now, |graph| {
            let is_written = graph.accept_due(invitation)?;
            if !is_written {
                graph.hold_accept(invitation)?;
            }
            Ok(())
        });
        match written {
            Ok(()) => Ok(()),
            Err(SaveError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(
                    code = "accept_waits",
                    error = %error_chain(&error),
                    "could not write that an identity takes part in a scope; the node tries again \
                     every hour"
                );
                self.write(now, |graph| graph.hold_accept(invitation))
            }
        }
    }

    /// Writes a rights list that is due. If it cannot be written, puts it off and returns the scope
    /// and the cause.
    fn write_due_list(
        &mut self,
        now: Timestamp,
        scope: ScopeId,
        write: impl FnOnce(&mut GraphManager<'_>, ScopeId) -> Result<NextList, SaveError>,
    ) -> Result<Option<(Option<Oid>, String)>, StoreError> {
        let written = self.write(now, |graph| {
            let written = write(graph, scope)?;
            if written != NextList::Done {
                graph.tx().hold_list(scope)?;
            }
            Ok(written)
        });
        Ok(match written {
            Err(SaveError::Store(error)) => return Err(error),
            Ok(NextList::Done | NextList::Ended) => None,
            Ok(NextList::LacksKey(oid)) => {
                Some((Some(oid), "this node lacks the owner's present key".into()))
            }
            Ok(NextList::Useless(oid)) => {
                Some((Some(oid), "the lists do not follow one another".into()))
            }
            Err(error) => {
                self.write(now, |graph| graph.tx().hold_list(scope))?;
                let scope = self.store.rows().scope(scope)?;
                Some((scope.map(|it| it.oid), error_chain(&error)))
            }
        })
    }

    /// Does one portion of work that returns its next position; `None`: it is done. Work that fails
    /// by other causes than the database is given up.
    fn portion(
        &mut self,
        now: Timestamp,
        next: SettlingRow,
        work: impl FnOnce(&mut GraphManager<'_>) -> Result<Option<i64>, SaveError>,
    ) -> Result<(), StoreError> {
        let done = self.write(now, |graph| {
            let position = work(graph)?;
            graph.tx().put_settled(&next.work, position)?;
            Ok::<_, SaveError>(())
        });
        match done {
            Err(SaveError::Store(error)) => Err(error),
            Err(error) => {
                let (work, causes) = (next.work, error_chain(&error));
                tracing::error!(?work, error = %causes, "could not do work that is left");
                self.write(now, |graph| graph.tx().put_settled(&next.work, None))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Tries one portion of the objects that wait for a cause.
    fn retry_portion(
        &mut self,
        now: Timestamp,
        next: SettlingRow,
        cause: Cause,
    ) -> Result<(), StoreError> {
        let limits = self.context.limits;
        self.write(now, |graph| {
            let tx = graph.tx();
            let ids = tx.waiting_for(&cause, (next.after, next.until), PORTION_OBJECTS_MAX)?;
            let (mut done, mut rejects) = (AppliedPackage::default(), RejectLog::default());
            let (mut chains, mut tried, mut costs) = (OwnChains::default(), 0, 0);
            let mut ingest = PartIngest::new(graph, limits, &mut done, &mut rejects);
            for id in &ids {
                let waiting = tx.waiting(*id)?;
                costs += waiting.as_ref().map_or(1, cost);
                let is_enough = costs > PORTION_COST_MAX || ingest.spent() > PORTION_SPENT_MAX;
                if tried > 0 && is_enough {
                    break;
                }
                tried += 1;
                match waiting {
                    Some(waiting) if waiting.is_reclaimed => {
                        ingest.retry_reclaimed(waiting, &mut chains)?;
                    }
                    Some(waiting) => ingest.retry(waiting)?,
                    None => {}
                }
            }
            ingest.finish(true)?;
            let is_all = tried == ids.len() && ids.len() < PORTION_OBJECTS_MAX;
            let position = ids.get(..tried).and_then(<[i64]>::last).copied();
            tx.put_settled(&next.work, position.filter(|_| !is_all))
        })
    }

    /// Does the work that is left when the node starts. The writer does the rest while the node
    /// runs.
    pub(super) fn settle_at_start(&mut self, now: Timestamp) -> Result<(), StoreError> {
        while self.settle_one(now, SettlingTurn::Start)? {
            self.bound_log()?;
        }
        Ok(())
    }

    /// Lets rights lists and `accept` that were put off be tried again. Their cause may have ended.
    pub fn retry_lists(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.write(now, |graph| {
            graph.tx().release_accepts()?;
            graph.tx().release_lists()
        })
    }

    /// Gives up one portion of the objects that have waited for 30 days; they are to be pulled
    /// again. Returned objects of this node wait without limit, because no peer sends them again.
    /// Objects that came while the clock was ahead wait from now on. Returns `false` if there was
    /// nothing to do.
    pub fn expire_step(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        let rows = self.store.rows();
        let last = Timestamp(now.0.saturating_sub(WAITING_MS_MAX));
        let expired = rows.waiting_since((Timestamp(0), last), PORTION_OBJECTS_MAX)?;
        if expired.is_empty() {
            let ahead = (Timestamp(now.0.saturating_add(1)), Timestamp(u64::MAX >> 1));
            let ahead = rows.waiting_since(ahead, PORTION_OBJECTS_MAX)?;
            if ahead.is_empty() {
                return Ok(false);
            }
            self.write(now, |graph| {
                let mut ids = ahead.into_iter();
                ids.try_for_each(|id| graph.tx().put_waiting_since(id, now))
            })?;
            return Ok(true);
        }
        let limits = self.context.limits;
        self.write(now, |graph| {
            let tx = graph.tx();
            let (mut done, mut rejects) = (AppliedPackage::default(), RejectLog::default());
            let mut ingest = PartIngest::new(graph, limits, &mut done, &mut rejects);
            let mut costs = 0;
            for id in expired {
                let Some(waiting) = tx.waiting(id)? else {
                    continue;
                };
                let is_first = costs == 0;
                costs += cost(&waiting);
                let is_enough = costs > PORTION_COST_MAX || ingest.spent() > PORTION_SPENT_MAX;
                if is_enough && !is_first {
                    break;
                }
                ingest.give_up(&waiting)?;
            }
            ingest.finish(true)
        })?;
        Ok(true)
    }
}
