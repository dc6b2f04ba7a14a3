//! Receiving a package: verifies it against the session and applies it (docs/STORY.md 2.1, 4).
//!
//! Input is the bytes of a package: the reply to a pull or watch, or a push. Output is what was
//! applied.
//! Objects are read only after the package's signature was verified. The core moves the cursor, in
//! the transaction that writes the rows. Invariant: the cursor moves with a package's last part.

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::Epoch;

use super::context::Puller;
use super::fetch::Fetching;
use super::handle::SessionInfo;
use super::message::DomainKey;
use super::parts::apply_parts;
use super::processor_budget::{Charge, ProcessorBudget};
use super::sync_error::SyncError;
use crate::engine::CoreHandle;
use crate::state_engine::{
    AppliedPackage, CheckedObject, Expected, OBJECT_COST, PackageFault, PackageLimits, PackageWork,
    VerifiedPackage, Window,
};
use crate::store::{PullAgain, StoreError};

/// The request that a package replies to.
pub(super) enum Requested<'r> {
    /// Nothing, so that it may be of any domain of the intersection.
    Nothing,
    /// A pull of this domain, and what it pulled again.
    Domain(&'r str, Option<PullAgain>),
    /// A watch of these cursors.
    AnyOf(&'r BTreeMap<DomainKey, u64>),
}

impl Requested<'_> {
    fn permits(&self, domain: &str) -> bool {
        match self {
            Self::Nothing => true,
            Self::Domain(requested, _) => *requested == domain,
            Self::AnyOf(cursors) => cursors.contains_key(&DomainKey(domain.to_owned())),
        }
    }
}

/// A package whose signature, form and domain are right, and which is not applied yet.
pub(super) struct ArrivedPackage<'b> {
    package: VerifiedPackage,
    again: Option<PullAgain>,
    charge: Charge<'b>,
}

/// A package that was verified and applied.
pub(super) struct ReceivedPackage {
    /// The sender's epoch, in which the window counts.
    pub(super) epoch: Epoch,
    pub(super) window: Window,
    /// Whether a further pull gets something at once: the next window, or scopes that the package
    /// names.
    pub(super) more: bool,
    pub(super) applied: AppliedPackage,
}

/// Verifies a push against the session, checks its objects' signatures on every core, and applies
/// it. The package is charged to the peer's `budget` of processor time.
pub(super) async fn receive_push(
    engine: &CoreHandle,
    budget: &ProcessorBudget,
    session: &SessionInfo,
    bytes: &[u8],
) -> Result<ReceivedPackage, SyncError> {
    let arrived = ArrivedPackage::verify(engine, budget, session, Requested::Nothing, bytes);
    arrived.await?.apply(engine, None).await
}

impl<'b> ArrivedPackage<'b> {
    /// Verifies a package against the session and the request that it answers.
    pub(super) async fn verify(
        engine: &CoreHandle,
        budget: &'b ProcessorBudget,
        session: &SessionInfo,
        requested: Requested<'_>,
        bytes: &[u8],
    ) -> Result<Self, SyncError> {
        let (sender, features) = (session.peer, &session.features);
        let known = engine
            .read(move |view| {
                let Some(row) = view.rows.peer(&sender)? else {
                    return Ok(None);
                };
                Ok::<_, StoreError>(
                    view.rows
                        .identity(&row.server_oid)?
                        .map(|server| (server.public_key, row)),
                )
            })
            .await?;
        let (key, known) = known.ok_or(SyncError::NoSession)?;
        let charge = budget.begin(&sender, known.tier, bytes.len());
        let local = engine.context().keys.peer_id();
        let limits = &PackageLimits::PROTOCOL;
        let expected = Expected {
            sender: &sender,
            key: &key,
            recipient: &local,
            epoch: known.epoch,
            features,
        };
        let package = VerifiedPackage::verify(bytes, limits, &expected)?;
        let mut shared = known.domains.iter();
        let is_shared = shared.any(|domain| domain == package.domain());
        if !is_shared || !requested.permits(package.domain()) {
            return Err(PackageFault::Domain.into());
        }
        let again = match requested {
            Requested::Domain(_, again) => again,
            Requested::Nothing | Requested::AnyOf(_) => None,
        };
        Ok(Self {
            package,
            again,
            charge,
        })
    }

    /// The domain of the package.
    pub(super) fn domain(&self) -> &str {
        self.package.domain()
    }

    /// The window of the package.
    pub(super) fn window(&self) -> Window {
        self.package.window()
    }

    /// Fetches the objects that the stubs name and this node lacks. Then checks the objects'
    /// signatures on every core, and applies the package. A push has no `puller` and no stubs.
    pub(super) async fn apply(
        mut self,
        engine: &CoreHandle,
        puller: Option<Puller<'_>>,
    ) -> Result<ReceivedPackage, SyncError> {
        let mut package = self.package;
        let mut fetched = AppliedPackage::default();
        if let Some(stubs) = package.take_stubs() {
            let fetching = Fetching {
                puller: puller.ok_or(PackageFault::Stubs)?,
                package: &package,
                is_again: self.again.is_some(),
            };
            fetched = fetching.run(Arc::new(stubs)).await?;
        }
        let objects = engine.verify_objects(package.take_objects()).await?;
        let costs = objects.iter().map(CheckedObject::cost);
        self.charge.set_objects(costs.sum());
        let (epoch, window) = (package.epoch(), package.window());
        let more = package.more() || package.names_scopes();
        let applied = apply_parts(engine, PackageWork::new(&package, self.again, objects))
            .await
            .map_err(SyncError::Apply)?;
        let added = u32::try_from(applied.added).unwrap_or(u32::MAX);
        self.charge.forgive(OBJECT_COST.saturating_mul(added));
        fetched.add(&applied);
        Ok(ReceivedPackage {
            epoch,
            window,
            more,
            applied: AppliedPackage {
                last_seq: applied.last_seq,
                ..fetched
            },
        })
    }
}
