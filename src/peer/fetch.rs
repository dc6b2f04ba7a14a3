//! Fetching: requests the objects that the stubs of a package name and this node lacks
//! (docs/PROTOCOL.md 5.7).
//!
//! Input is a verified package; output is the number of objects that were applied. The package's
//! own work, which moves the cursor, follows. Invariant: by then the peer was asked for every
//! object that this node lacks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use keys::{Oid, SignedObject};
use tokio::time::{Instant, sleep};

use super::context::Puller;
use super::handle::SessionError;
use super::message::{Fetch, SessionMessage};
use super::parts::apply_parts;
use super::sync_error::SyncError;
use crate::state_engine::{
    AppliedPackage, CheckedObject, Lacking, OBJECT_COST, PackageWork, Stubs, VerifiedPackage,
};

/// Most owners whose records one request asks for.
const OWNERS_MAX: usize = 64;

/// The owners that stubs name for objects.
fn owners_of(stubs: &Stubs, objects: &[Oid]) -> BTreeSet<Oid> {
    let objects: BTreeSet<Oid> = objects.iter().copied().collect();
    let named = stubs.iter().filter(|stub| objects.contains(&stub.oid));
    named.map(|stub| stub.owner).collect()
}

/// Pause between two looks for what other sessions brought meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The session and the package that fetches share.
pub(super) struct Fetching<'f> {
    pub(super) puller: Puller<'f>,
    pub(super) package: &'f VerifiedPackage,
    pub(super) is_again: bool,
}

impl Fetching<'_> {
    /// Fetches and applies what this node lacks, records of owners first. A stub that brings
    /// nothing is charged as an object that is stored already.
    pub(super) async fn run(&self, stubs: Arc<Stubs>) -> Result<AppliedPackage, SyncError> {
        let lacking = self.look(&stubs).await?;
        let lacking = self.wait(&stubs, lacking).await?;
        self.charge_idle(stubs.len() - lacking.objects.len());
        let _in_progress = self.puller.elsewhere.begin(&lacking.objects);
        let mut sum = AppliedPackage::default();
        for owners in lacking.owners.chunks(OWNERS_MAX) {
            let to_work = |objects| PackageWork::records(self.package, objects);
            let of = Some(owners_of(&stubs, owners));
            sum.add(&self.fetch_all(owners.to_vec(), of, to_work).await?);
        }
        let to_work = |objects| PackageWork::fetched(self.package, self.is_again, objects);
        sum.add(&self.fetch_all(lacking.objects, None, to_work).await?);
        Ok(sum)
    }

    async fn look(&self, stubs: &Arc<Stubs>) -> Result<Lacking, SyncError> {
        let (domain, stubs) = (self.package.domain().to_owned(), stubs.clone());
        let (peer, now) = (*self.puller.handle.peer(), self.puller.engine.now());
        let looking = self
            .puller
            .engine
            .read(move |view| view.lacking(&peer, &domain, &stubs, now));
        Ok(looking.await?)
    }

    /// Waits as long as other sessions may bring lacking objects. All waits of a session together
    /// last at most 10 s. Returns those that are lacking then.
    async fn wait(&self, stubs: &Arc<Stubs>, mut lacking: Lacking) -> Result<Lacking, SyncError> {
        let (handle, domain) = (self.puller.handle, self.package.domain());
        let mut changes = self.puller.engine.changes();
        let may_come = |lacking: &Lacking| {
            lacking.homes.iter().any(|object| {
                let elsewhere = self.puller.elsewhere;
                elsewhere.may_bring(handle.peer(), object, domain)
            })
        };
        while may_come(&lacking) && !handle.wait_left().is_zero() {
            let start = Instant::now();
            let changed = async {
                sleep(LOOK_PAUSE).await;
                // The core runs as long as its handle exists.
                let _ = changes.changed().await;
            };
            tokio::select! {
                biased;
                () = handle.closed().cancelled() => return Err(SessionError::Over.into()),
                () = sleep(handle.wait_left()) => {}
                () = changed => {}
            }
            handle.spend_wait(start.elapsed());
            self.charge_idle(stubs.len());
            lacking = self.look(stubs).await?;
        }
        Ok(lacking)
    }

    /// Fetches objects, or the records of their `owners`, until the peer has looked up all of them.
    async fn fetch_all(
        &self,
        mut oids: Vec<Oid>,
        owners: Option<BTreeSet<Oid>>,
        to_work: impl Fn(Vec<CheckedObject>) -> PackageWork,
    ) -> Result<AppliedPackage, SyncError> {
        let mut sum = AppliedPackage::default();
        while !oids.is_empty() {
            let records = owners.is_some();
            let (objects, looked_up) = self.fetch_once(&oids, records).await?;
            let wanted: BTreeSet<Oid> = oids.drain(..looked_up).collect();
            if !records {
                self.charge_idle(looked_up - objects.len());
            }
            let mut charge = self.puller.budget.begin(
                self.puller.handle.peer(),
                self.puller.handle.info().tier,
                objects.iter().map(|it| it.bytes().len()).sum(),
            );
            let checked = self.puller.engine.verify_objects(objects).await?;
            charge.set_objects(checked.iter().map(CheckedObject::cost).sum());
            let wanted = owners.as_ref().unwrap_or(&wanted);
            let is_wanted = |it: &CheckedObject| it.oid().is_some_and(|oid| wanted.contains(&oid));
            if !checked.iter().all(is_wanted) {
                return Err(SessionError::Misbehaved("an object that was not fetched").into());
            }
            let applied = apply_parts(self.puller.engine, to_work(checked)).await;
            let applied = applied.map_err(SyncError::Apply)?;
            let added = u32::try_from(applied.added).unwrap_or(u32::MAX);
            charge.forgive(OBJECT_COST.saturating_mul(added));
            sum.add(&applied);
        }
        Ok(sum)
    }

    /// Charges stubs that bring nothing.
    fn charge_idle(&self, stubs: usize) {
        let (peer, tier) = (self.puller.handle.peer(), self.puller.handle.info().tier);
        self.puller.budget.charge_stubs(peer, tier, stubs);
    }

    /// Sends one fetch. Returns the objects, and how many oids they answer: at least one.
    async fn fetch_once(
        &self,
        oids: &[Oid],
        records: bool,
    ) -> Result<(Vec<SignedObject>, usize), SyncError> {
        let fetch = |id| {
            SessionMessage::Fetch(Fetch {
                id,
                oids: oids.to_vec(),
                domain: self.package.domain().to_owned(),
                records,
            })
        };
        tokio::select! {
            biased;
            () = self.puller.handle.closed().cancelled() => return Err(SessionError::Over.into()),
            () = self.puller.budget.wait(self.puller.handle.peer()) => {}
        }
        match self.puller.handle.request(Duration::ZERO, fetch).await? {
            SessionMessage::Fetched(batch) => {
                let looked_up = usize::try_from(batch.looked_up).unwrap_or(usize::MAX);
                let objects = batch.objects().map_err(SessionError::from)?;
                if !(1..=oids.len()).contains(&looked_up) || objects.len() > looked_up {
                    return Err(SessionError::Misbehaved("a fetch that answers nothing").into());
                }
                Ok((objects, looked_up))
            }
            SessionMessage::Refused(refusal) => Err(SyncError::Refused(refusal.code)),
            _ => Err(SessionError::Misbehaved("a reply of a wrong kind to a fetch").into()),
        }
    }
}
