//! Applying objects inside one transaction: each is written, waits, or is rejected.
//!
//! Used for the parts of packages and for waiting objects; `aside.rs` has the objects that wait.
//! Invariant: the usage that is charged equals what the transaction stored. Tested in
//! `tests/core/packages.rs`, `tests/core/quotas.rs` and `tests/core/relayed_quotas.rs`.

use std::collections::BTreeMap;

use keys::{Epoch, Oid, PeerId, SignedObject};

use super::applied::{AppliedPackage, ApplyPackageError};
use super::checked::{CheckedObject, known_keys};
use super::limits::CoreLimits;
use super::quota::QuotaLedger;
use super::rejects::RejectLog;
use super::source::PackageSource;
use crate::graph::{
    AccountRoom, Applied, ApplyError, DecodedObject, Fault, Freed, GraphManager, PurgedFate,
    VerifiedObject,
};
use crate::store::{Account, Cause, RejectRow, StoreError, Usage, WaitingCount};

/// Most that a part spends ([`GraphManager::spent`]), besides its last object. Takes some 20 ms if
/// all of it are readers.
const PART_SPENT_MAX: usize = 2048;

/// An object that has to wait.
pub(super) struct Unsettled {
    pub(super) oid: Oid,
    /// The scope in which it lies, if any.
    pub(super) scope: Option<Oid>,
    pub(super) cause: Cause,
    pub(super) account: Account,
    pub(super) object: SignedObject,
}

/// An object that was refused, as far as it could be read.
struct Refused {
    oid: Option<Oid>,
    type_name: Option<String>,
    /// Whether the peer relayed it, so that the peer is not to blame.
    is_relayed: bool,
}

/// A change of the usage of an account of the sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct AccountChange {
    pub(super) account: Account,
    pub(super) usage: Usage,
}

impl AccountChange {
    /// Nothing is charged.
    pub(super) const NONE: Self = Self {
        account: Account::Own,
        usage: Usage {
            objects: 0,
            bytes: 0,
        },
    };

    /// An object of `bytes` bytes is charged.
    pub(super) fn one(account: Account, bytes: usize) -> Self {
        let usage = Usage::one(bytes);
        Self { account, usage }
    }
}

/// The outcome for one object.
pub(super) enum Judged {
    /// Nothing of it waits.
    Settled(AccountChange),
    /// The object has to wait.
    Waits(Unsettled),
    /// Its account has no room.
    NoRoom {
        /// The scope in which it lies.
        scope: Option<Oid>,
        /// Whether the peer did not relay it.
        is_own: bool,
    },
}

/// Applies the objects of one transaction one after the other.
pub(super) struct PartIngest<'a, 'g> {
    pub(super) graph: &'a mut GraphManager<'g>,
    pub(super) limits: CoreLimits,
    pub(super) quotas: QuotaLedger,
    pub(super) done: &'a mut AppliedPackage,
    rejects: &'a mut RejectLog,
    pub(super) waiting: BTreeMap<PeerId, WaitingCount>,
    /// Objects that were refused, for the receipts of their senders.
    pub(super) refused_now: RefusedNow,
}

/// Objects that were refused, by sender, domain and epoch. `refused.rs` writes them.
type RefusedNow = BTreeMap<(PeerId, String, Epoch), RefusedObjects>;

/// Refused objects of one sender.
#[derive(Default)]
pub(super) struct RefusedObjects {
    /// Objects that the sender did not relay, with their scopes.
    pub(super) own: Vec<(Oid, Option<Oid>)>,
    /// Objects that it relayed.
    pub(super) relayed: Vec<Oid>,
    /// The end of the last window.
    pub(super) seq: u64,
    /// Whether one of them came while the domain was pulled again.
    pub(super) is_again: bool,
}

impl<'a, 'g> PartIngest<'a, 'g> {
    pub(super) fn new(
        graph: &'a mut GraphManager<'g>,
        limits: CoreLimits,
        done: &'a mut AppliedPackage,
        rejects: &'a mut RejectLog,
    ) -> Self {
        Self {
            graph,
            limits,
            quotas: QuotaLedger::new(limits.quotas),
            done,
            rejects,
            waiting: BTreeMap::new(),
            refused_now: RefusedNow::new(),
        }
    }

    /// [`GraphManager::spent`].
    pub(super) fn spent(&self) -> usize {
        self.graph.spent()
    }

    /// Applies objects until the transaction has done enough, and charges the quotas. At least one
    /// is applied.
    pub(super) fn apply_some(
        &mut self,
        source: &PackageSource<'_>,
        objects: &mut std::vec::IntoIter<CheckedObject>,
    ) -> Result<(), ApplyPackageError> {
        for object in objects.take(self.limits.part_objects_max) {
            let AccountChange { account, usage } = match self.judge(source, object)? {
                Judged::Settled(stored) => stored,
                Judged::Waits(unsettled) => self.put_aside(source, unsettled)?,
                Judged::NoRoom { scope, is_own } => {
                    self.done.waiting += 1;
                    self.note_no_room(source, scope, is_own)?;
                    AccountChange::NONE
                }
            };
            let change = (account, &usage);
            self.quotas.count(self.graph.tx(), &source.peer, change)??;
            if self.spent() >= PART_SPENT_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Writes the changed usage and the refused objects, and after the last part the
    /// rejects. Logs the frozen identities then.
    pub(super) fn finish(mut self, is_last: bool) -> Result<(), StoreError> {
        self.done.frozen += self.graph.frozen_elsewhere();
        self.write_refused()?;
        if is_last {
            log_frozen(self.done.frozen);
            let rows_max = self.limits.aside.rejects_per_peer_max;
            self.rejects
                .write(self.graph.tx(), &mut self.quotas, rows_max)?;
        }
        self.quotas.settle(self.graph.tx())
    }

    /// Writes one object, rejects it, or returns the cause for which it has to wait.
    pub(super) fn judge(
        &mut self,
        source: &PackageSource<'_>,
        object: CheckedObject,
    ) -> Result<Judged, StoreError> {
        let (refused, (scope, account), fault, signed) = match self.verify_again(object)? {
            CheckedObject::Verified(verified) => {
                let arrival = source.arrival(self.room(source, &verified)?);
                let applied = self
                    .graph
                    .apply_message(&source.context, &verified, arrival);
                if let Some(code) = applied.as_ref().ok().and_then(Applied::code) {
                    let refused = self.refused(source, &verified)?;
                    self.record(source, refused, code);
                }
                match applied {
                    Ok(applied) => return self.settled(source, &verified, applied),
                    Err(ApplyError::Store(error)) => return Err(error),
                    Err(ApplyError::Fault(fault)) => (
                        self.refused(source, &verified)?,
                        (
                            verified.object().scope(),
                            self.graph.account_aside(verified.object(), source.from())?,
                        ),
                        fault,
                        Some(verified.into_signed()),
                    ),
                }
            }
            CheckedObject::Failed {
                oid,
                fault,
                decoded,
            } => {
                let place = match &decoded {
                    Some(decoded) => (
                        decoded.scope(),
                        self.graph.account_aside(decoded.object(), source.from())?,
                    ),
                    None => (None, Account::Own),
                };
                let refused = Refused {
                    oid,
                    type_name: decoded
                        .as_ref()
                        .and_then(|it| it.type_name(self.graph.schemas())),
                    is_relayed: place.1 != Account::Own,
                };
                let fate = match (&fault, &decoded) {
                    (Fault::Waits(_), Some(decoded)) => {
                        self.graph.purged_fate(decoded.object(), place.0)?
                    }
                    _ => None,
                };
                let fault = match fate {
                    None => fault,
                    Some(PurgedFate::Refused) => Fault::ScopeRemoved,
                    Some(PurgedFate::Dropped) => {
                        self.done.already_stored += 1;
                        return Ok(Judged::Settled(AccountChange::NONE));
                    }
                };
                let signed = decoded.map(DecodedObject::into_signed);
                (refused, place, fault, signed)
            }
        };
        Ok(match (fault, refused.oid, signed) {
            // The form under the later key follows, or its owner deleted it.
            (Fault::OldKey, ..) => {
                self.done.already_stored += 1;
                Judged::Settled(AccountChange::NONE)
            }
            (Fault::Waits(cause), Some(oid), Some(object)) => Judged::Waits(Unsettled {
                oid,
                scope,
                cause,
                account,
                object,
            }),
            (fault, ..) => {
                self.done.rejected += 1;
                self.note_refused(source, (refused.oid, scope), refused.is_relayed);
                self.record(source, refused, fault.code());
                Judged::Settled(AccountChange::NONE)
            }
        })
    }

    /// Counts an object that was applied.
    fn settled(
        &mut self,
        source: &PackageSource<'_>,
        verified: &VerifiedObject,
        applied: Applied,
    ) -> Result<Judged, StoreError> {
        let bytes = verified.charged_bytes();
        Ok(match applied {
            Applied::Written {
                replaced, account, ..
            } => {
                self.done.written += 1;
                let mut stored = AccountChange::one(account, bytes);
                match replaced {
                    Some(freed) => stored.usage += self.release(source, account, &freed)?,
                    None => self.done.added += 1,
                }
                Judged::Settled(stored)
            }
            Applied::Forked {
                kept: Some(account),
            } => {
                self.done.added += 1;
                Judged::Settled(AccountChange::one(account, bytes))
            }
            Applied::AlreadyStored | Applied::Forked { kept: None } => {
                self.done.already_stored += 1;
                if applied != Applied::AlreadyStored {
                    let object = verified.object();
                    let is_relayed = self.graph.is_relayed(object, source.from())?;
                    let place = (Some(object.oid), verified.own_or_outer_scope());
                    self.note_refused(source, place, is_relayed);
                }
                Judged::Settled(AccountChange::NONE)
            }
            Applied::NoRoom => Judged::NoRoom {
                scope: verified.own_or_outer_scope(),
                is_own: !self.graph.is_relayed(verified.object(), source.from())?,
            },
        })
    }

    /// The room that the sender's accounts have for an object. An object that waited was charged
    /// then.
    fn room(
        &mut self,
        source: &PackageSource<'_>,
        verified: &VerifiedObject,
    ) -> Result<AccountRoom, StoreError> {
        let object = verified.object();
        let is_bounded = !source.is_retried()
            && (source.passes_without_room() || self.graph.is_relayed(object, source.from())?);
        if !is_bounded {
            return Ok(AccountRoom::UNLIMITED);
        }
        self.quotas
            .room(self.graph.tx(), &source.peer, Some(object.owner))
    }

    /// Releases what a replaced revision counted. Returns the part that its new sender had counted
    /// in the same account, so that an update of a peer above its quota fits.
    fn release(
        &mut self,
        source: &PackageSource<'_>,
        account: Account,
        freed: &Freed,
    ) -> Result<Usage, StoreError> {
        let usage = -Usage::one(freed.bytes);
        if (freed.origin, freed.account) == (source.origin, account) {
            return Ok(usage);
        }
        if let Some(peer) = self.graph.tx().peer_by_number(freed.origin)? {
            let change = (freed.account, &usage);
            let fits = self.quotas.count(self.graph.tx(), &peer, change)?;
            debug_assert!(fits.is_ok(), "less fits every quota");
        }
        Ok(Usage::default())
    }

    /// Verifies an object again whose owner or owner's key was missing. The missing one may have
    /// been written since the first verification, and nothing would release an object that waits
    /// for it.
    fn verify_again(&self, object: CheckedObject) -> Result<CheckedObject, StoreError> {
        match object {
            CheckedObject::Failed {
                fault: Fault::Waits(_) | Fault::OldKey,
                decoded: Some(decoded),
                ..
            } => {
                let known = known_keys(self.graph.tx(), &[decoded.owner()])?;
                Ok(CheckedObject::verify(decoded, &known))
            }
            object => Ok(object),
        }
    }

    fn refused(
        &self,
        source: &PackageSource<'_>,
        verified: &VerifiedObject,
    ) -> Result<Refused, StoreError> {
        let object = verified.object();
        Ok(Refused {
            oid: Some(object.oid),
            type_name: verified.type_name(self.graph.schemas()),
            is_relayed: self.graph.is_relayed(object, source.from())?,
        })
    }

    /// Notes a rejected object, or one that forked.
    fn record(&mut self, source: &PackageSource<'_>, refused: Refused, code: &str) {
        let Refused {
            oid,
            type_name,
            is_relayed,
        } = refused;
        tracing::debug!(
            app_id = source.context.app_id().0,
            trace_id = %source.context.trace_id(),
            domain = source.domain,
            oid = oid.map(|oid| oid.short()),
            code,
            "recorded an object of a package as rejected or forked"
        );
        self.rejects.add(RejectRow {
            peer: (!is_relayed).then_some(source.peer),
            domain: source.domain.to_owned(),
            epoch: source.epoch,
            seq: source.seq,
            oid,
            type_name,
            code: code.to_owned(),
            at: self.graph.now(),
        });
    }
}

/// Logs the frozen identities of a package in one line.
fn log_frozen(identities: usize) {
    if identities > 0 {
        tracing::error!(
            identities,
            "froze identities of other nodes, because two homes were claimed for each"
        );
    }
}
