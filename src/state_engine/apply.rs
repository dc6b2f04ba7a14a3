//! Packages in: parts of a package are applied, and the last one moves the cursor
//! (docs/STORY.md 2.1 step 8, docs/DECISIONS.md 7).
//!
//! Each part is a transaction of its own, so that no package holds the writer for long. A fault of
//! a part undoes that part and stops the package; the cursor then stays, and the package comes
//! again. A fault of one object rejects it or makes it wait, and the others are applied.
//! Invariants: no window is applied twice or over a gap; the inbound cursor is the last sequence
//! number whose objects are committed. Tested in `tests/core/packages.rs` and
//! `tests/core/parts.rs`.

use keys::{Epoch, Oid, PeerId};

use super::applied::{AppliedPackage, ApplyPackageError, WindowFault};
use super::checked::CheckedObject;
use super::engine::StateEngine;
use super::ingest::PartIngest;
use super::package::{VerifiedPackage, Window};
use super::rejects::RejectLog;
use super::source::PackageSource;
use crate::op_context::Timestamp;
use crate::schema::identities;
use crate::store::{
    Cursor, Direction, PullAgain, PullAgainCause, PullAgainNote, StoreError, SyncStateRow, WriteTx,
};

/// Most named scopes that are noted together with objects. Noting as many takes some 2 ms.
const NAMED_WITH_OBJECTS_MAX: usize = 256;

/// The position that a package moves.
#[derive(Debug)]
enum Route {
    /// None: identities of a handshake.
    Handshake,
    /// The cursor of the domain.
    News,
    /// The position of scopes that are pulled again.
    Again(PullAgain),
    /// None: objects that the stubs of a package name. Its own work follows.
    Fetched {
        /// Whether the package was pulled again.
        is_again: bool,
    },
    /// None: identity records of the owners of such objects.
    Records,
}

/// A package whose objects were verified, on its way into the database.
#[derive(Debug)]
pub struct PackageWork {
    sender: PeerId,
    domain: String,
    epoch: Epoch,
    window: Window,
    route: Route,
    /// The scopes that the peer named; `None`: the whole domain.
    named: Box<Option<Vec<Oid>>>,
    rest: std::vec::IntoIter<CheckedObject>,
    done: AppliedPackage,
    rejects: RejectLog,
}

/// The state of a package after one part.
#[derive(Debug)]
pub enum PackageProgress {
    /// Further parts follow.
    More(PackageWork),
    /// Every object is applied and the cursor has moved.
    Done(AppliedPackage),
}

impl PackageWork {
    /// A package whose objects were taken out and verified. `again` is what the request pulled
    /// again; `None` for a pull of what is new, and for a push.
    pub fn new(
        package: &VerifiedPackage,
        again: Option<PullAgain>,
        objects: Vec<CheckedObject>,
    ) -> Self {
        let (sender, epoch, window) = (package.sender(), package.epoch(), package.window());
        let route = again.map_or(Route::News, Route::Again);
        Self {
            window,
            route,
            named: Box::new(package.scopes().map(<[Oid]>::to_vec)),
            ..Self::identities(sender, epoch, objects).of_domain(package.domain())
        }
    }

    /// Identity objects that arrived in a handshake, before the first pull brings the same ones
    /// (docs/DECISIONS.md 6).
    pub fn identities(sender: PeerId, epoch: Epoch, objects: Vec<CheckedObject>) -> Self {
        Self {
            sender,
            domain: identities::DOMAIN.to_owned(),
            epoch,
            window: Window {
                from_seq: 0,
                to_seq: 0,
            },
            route: Route::Handshake,
            named: Box::new(Some(Vec::new())),
            done: AppliedPackage {
                objects: objects.len(),
                ..AppliedPackage::default()
            },
            rest: objects.into_iter(),
            rejects: RejectLog::default(),
        }
    }

    /// Objects that the stubs of a package name, in the domain and window of the package.
    pub fn fetched(package: &VerifiedPackage, is_again: bool, objects: Vec<CheckedObject>) -> Self {
        let (sender, epoch, window) = (package.sender(), package.epoch(), package.window());
        Self {
            window,
            route: Route::Fetched { is_again },
            ..Self::identities(sender, epoch, objects).of_domain(package.domain())
        }
    }

    /// Identity records of the owners of such objects.
    pub fn records(package: &VerifiedPackage, objects: Vec<CheckedObject>) -> Self {
        Self {
            route: Route::Records,
            ..Self::identities(package.sender(), package.epoch(), objects)
        }
    }

    fn of_domain(self, domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            ..self
        }
    }

    /// Whether noting the named scopes is a part of its own.
    fn names_many(&self) -> bool {
        let named = self.named.as_ref().as_ref();
        named.is_some_and(|scopes| scopes.len() > NAMED_WITH_OBJECTS_MAX)
    }

    fn cursor(&self) -> Cursor<'_> {
        Cursor {
            peer: &self.sender,
            domain: &self.domain,
            direction: Direction::In,
        }
    }

    /// Moves the position to the end of the window.
    fn move_position(&self, tx: &WriteTx<'_>, now: Timestamp) -> Result<(), StoreError> {
        let (peer, domain, to_seq) = (&self.sender, &self.domain, self.window.to_seq);
        match &self.route {
            Route::Handshake | Route::Fetched { .. } | Route::Records => Ok(()),
            Route::Again(again) => tx.move_pull_again(peer, domain, again, Some(to_seq), now),
            Route::News => {
                let before = tx.sync_state(self.cursor())?;
                if before.is_none_or(|before| before.epoch != self.epoch) {
                    tx.enter_epoch_again(peer, domain, &self.epoch, None)?;
                }
                let state = SyncStateRow {
                    epoch: self.epoch,
                    last_seq: to_seq,
                    acked_seq: to_seq,
                };
                tx.put_sync_state(self.cursor(), &state)?;
                self.note_named(tx, now)
            }
        }
    }

    /// Notes that the scopes which the peer named are pulled again from the beginning.
    fn note_named(&self, tx: &WriteTx<'_>, now: Timestamp) -> Result<(), StoreError> {
        let note = PullAgainNote {
            peer: &self.sender,
            domain: &self.domain,
            scope: None,
            epoch: self.epoch,
            until_seq: self.window.to_seq,
            cause: PullAgainCause::Named,
            is_again: false,
            is_own: true,
        };
        match &*self.named {
            Some(scopes) => tx.note_scopes_again(&note, scopes, now),
            None => tx.note_pull_again(&note, now),
        }
    }
}

impl StateEngine {
    /// Applies a whole package, part after part. A session applies each part in a job of its own
    /// instead, so that other writes run between them.
    pub fn apply_package(
        &mut self,
        now: Timestamp,
        package: &VerifiedPackage,
        objects: Vec<CheckedObject>,
    ) -> Result<AppliedPackage, ApplyPackageError> {
        self.apply_all_parts(now, PackageWork::new(package, None, objects))
    }

    /// Applies identity objects that arrived in a handshake.
    pub fn apply_identities(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        epoch: Epoch,
        objects: Vec<CheckedObject>,
    ) -> Result<AppliedPackage, ApplyPackageError> {
        self.apply_all_parts(now, PackageWork::identities(peer, epoch, objects))
    }

    fn apply_all_parts(
        &mut self,
        now: Timestamp,
        mut work: PackageWork,
    ) -> Result<AppliedPackage, ApplyPackageError> {
        loop {
            let progress = self.apply_part(now, work)?;
            self.bound_log()?;
            match progress {
                PackageProgress::More(rest) => work = rest,
                PackageProgress::Done(applied) => return Ok(applied),
            }
        }
    }

    /// Applies the next part of a package in one transaction; the last part moves the position. A
    /// window that was applied before is only acknowledged.
    pub fn apply_part(
        &mut self,
        now: Timestamp,
        mut work: PackageWork,
    ) -> Result<PackageProgress, ApplyPackageError> {
        // Checked for each part, because another package may have moved the position meanwhile.
        if let Some(last_seq) = self.applied_before(now, &work)? {
            let left = work.rest.len();
            return Ok(PackageProgress::Done(AppliedPackage {
                last_seq,
                already_stored: work.done.already_stored + left,
                ..work.done
            }));
        }
        let limits = self.context.limits;
        let to_seq = work.window.to_seq;
        let is_last = self.write(now, |graph| {
            let (peer, domain, epoch) = (work.sender, &work.domain, work.epoch);
            let source = PackageSource::find(graph, peer, domain, epoch, to_seq)?;
            let source = source.ok_or(ApplyPackageError::UnknownPeer)?;
            let source = match work.route {
                Route::Again(_) => source.again(true),
                Route::Fetched { is_again } => source.again(is_again).fetched(),
                Route::Records => source.relayed(),
                Route::Handshake | Route::News => source,
            };
            let names_later = !work.rest.as_slice().is_empty() && work.names_many();
            let mut ingest = PartIngest::new(graph, limits, &mut work.done, &mut work.rejects);
            ingest.apply_some(&source, &mut work.rest)?;
            let is_last = work.rest.as_slice().is_empty() && !names_later;
            ingest.finish(is_last)?;
            if is_last {
                work.move_position(graph.tx(), now)?;
            }
            Ok::<_, ApplyPackageError>(is_last)
        })?;
        Ok(if is_last {
            PackageProgress::Done(AppliedPackage {
                last_seq: to_seq,
                ..work.done
            })
        } else {
            PackageProgress::More(work)
        })
    }

    /// The position, if it stands at or behind the end of the window. Fails if the window leaves a
    /// gap.
    fn applied_before(
        &mut self,
        now: Timestamp,
        work: &PackageWork,
    ) -> Result<Option<u64>, ApplyPackageError> {
        let last_seq = match &work.route {
            Route::Handshake | Route::Fetched { .. } | Route::Records => return Ok(None),
            Route::News => {
                let state = self.store.rows().sync_state(work.cursor())?;
                let state = state.filter(|state| state.epoch == work.epoch);
                state.map_or(0, |state| state.last_seq)
            }
            Route::Again(again) => {
                let (peer, domain) = (&work.sender, &work.domain);
                if again.epoch != work.epoch {
                    let cursor = self.store.rows().sync_state(work.cursor())?;
                    let cursor = cursor.filter(|state| state.epoch == work.epoch);
                    let cursor = cursor.map(|state| state.last_seq);
                    self.write(now, |graph| {
                        let tx = graph.tx();
                        tx.enter_epoch_again(peer, domain, &work.epoch, cursor)
                    })?;
                    return Ok(Some(again.cursor));
                }
                let rows = self.store.rows();
                if !rows.is_pull_again_current(peer, domain, again)? {
                    return Ok(Some(again.cursor));
                }
                again.cursor
            }
        };
        let Window { from_seq, to_seq } = work.window;
        if to_seq <= last_seq {
            return Ok(Some(last_seq));
        }
        if from_seq > last_seq + 1 {
            return Err(WindowFault::Gap { last_seq }.into());
        }
        Ok(None)
    }

    /// Notes that a peer has nothing left of what is pulled again.
    pub fn finish_pull_again(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        domain: &str,
        again: &PullAgain,
    ) -> Result<(), StoreError> {
        self.write(now, |graph| {
            graph.tx().move_pull_again(peer, domain, again, None, now)
        })
    }

    /// Puts off what is to be pulled again of a domain, because a request failed.
    pub fn postpone_pull_again(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        domain: &str,
    ) -> Result<(), StoreError> {
        self.write(now, |graph| {
            graph.tx().postpone_pull_again(peer, domain, now)
        })
    }
}
