//! A move to this node: the objects of a file are stored, then its keys; then all are signed.
//!
//! The file is read twice: once to its end, which authenticates it, and once to store its objects.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use keys::{
    AddressRecord, Handover, MoveFileKey, Oid, SignedObject, VaultError, crash_point, error_chain,
};

use super::file_work::blocking;
use super::progress::MoveState;
use crate::api::{ControlError, MoveError};
use crate::backup::MoveReader;
use crate::engine::EngineError;
use crate::node::rotation::{VaultOperations, in_vault, internal, name_error};
use crate::services::identities;
use crate::state_engine::{HandedOver, HandoverFault, MoveSource, MovedObject};
use crate::store::StoreError;

/// Most entries with addresses that are kept, each of up to 8 records.
const ADDRESS_ENTRIES_MAX: usize = 512;

/// The oid of a scope, and address records of members' nodes.
type ScopeAddresses = (Oid, Vec<AddressRecord>);

/// A move to this node.
pub(super) struct Arriving {
    pub(super) vault: VaultOperations,
    pub(super) state: Arc<MoveState>,
    pub(super) file: PathBuf,
    pub(super) key: Arc<MoveFileKey>,
}

/// The result of reading the file once.
struct Checked {
    handover: Handover,
    /// The record of the identity.
    record: Option<SignedObject>,
    objects: u64,
}

impl Arriving {
    pub(super) async fn run(self) -> Result<(), ControlError> {
        self.vault.check_may_write(true).await?;
        let checked = self.check().await?;
        let identity = checked.handover.identity();
        self.state.change(|row| {
            row.identity = Some(identity.to_hex());
            row.total_objects = checked.objects;
            row.step = "storing";
        })?;
        let source = MoveSource {
            identity,
            old_home: checked.handover.source(),
        };
        self.may_arrive(&checked, source).await?;
        let (taken, addresses) = self.store(&checked.handover, source).await?;
        self.take_addresses(addresses).await?;
        crash_point("move: objects stored");
        let naming = self
            .vault
            .core
            .graph(move |graph| identities::adopt_name(graph, identity));
        naming.await.map_err(name_error)?;
        let keys = self.vault.keys.clone();
        in_vault(move || keys.take_over(&checked.handover, &mut rand::rng())).await?;
        crash_point("move: keys stored");
        self.state.change(|row| {
            row.step = "signing";
            row.left_objects = taken.left as u64;
            row.left_code = taken.first_left;
        })?;
        self.vault.resume_rotation(identity).await
    }

    /// Takes the addresses of members' nodes.
    async fn take_addresses(&self, scopes: Vec<ScopeAddresses>) -> Result<(), ControlError> {
        let core = &self.vault.core;
        for (scope, records) in scopes {
            let verified = core.verify_addresses(records).await.map_err(internal)?;
            // The old home verified them too.
            let Ok(records) = verified else { continue };
            let taking =
                core.write(move |core, now| core.take_moved_addresses(now, &scope, &records));
            taking.await.map_err(internal_store)?;
        }
        Ok(())
    }

    /// Reads the whole file, which authenticates it to its end.
    async fn check(&self) -> Result<Checked, ControlError> {
        let (file, key) = (self.file.clone(), self.key.clone());
        blocking(move || {
            let mut reader = MoveReader::open(&file, &key)?;
            let (mut objects, mut record) = (0, None);
            loop {
                let part = reader.next_part()?;
                if part.is_end() {
                    break;
                }
                objects += part.objects.len() as u64;
                // The record is the first object.
                record = record.or_else(|| part.objects.into_iter().next());
            }
            let handover = reader.into_handover();
            Ok(Checked {
                handover,
                record,
                objects,
            })
        })
        .await
    }

    /// Checks everything that can refuse the identity, before anything is stored.
    async fn may_arrive(&self, checked: &Checked, source: MoveSource) -> Result<(), ControlError> {
        let fits = self.vault.keys.check_handover(&checked.handover);
        fits.map_err(|error| handover_error(&error))?;
        let (chain, counter) = (checked.handover.chain().clone(), checked.handover.counter());
        let record = checked.record.clone();
        let looking = self.vault.core.read(move |view| {
            view.check_handover(&source, (&chain, counter))
                .map_err(ArrivalFault::Fault)?;
            record.map_or(Ok(()), |record| {
                identities::check_moved_name(&view, &record).map_err(ArrivalFault::Name)
            })
        });
        looking.await.map_err(|error| match error {
            EngineError::Work(ArrivalFault::Fault(fault)) => fault_error(fault),
            EngineError::Work(ArrivalFault::Name(error)) => name_error(EngineError::Work(error)),
            EngineError::Stopped(stopped) => internal(stopped),
        })
    }

    /// Stores the objects of the file, in portions. Returns the addresses too.
    async fn store(
        &self,
        handover: &Handover,
        source: MoveSource,
    ) -> Result<(HandedOver, Vec<ScopeAddresses>), ControlError> {
        let core = &self.vault.core;
        let limits = core.context().limits.graph;
        let chain = handover.chain().verify();
        let chain = chain.map_err(|error| MoveError::Obsolete(error_chain(&error)))?;
        let chain = Arc::new(chain);
        let (file, key) = (self.file.clone(), self.key.clone());
        let mut reader = blocking(move || MoveReader::open(&file, &key)).await?;
        let (mut taken, mut addresses) = (HandedOver::default(), Vec::new());
        loop {
            let (back, part) = blocking(move || {
                let part = reader.next_part()?;
                Ok((reader, part))
            })
            .await?;
            reader = back;
            if part.is_end() {
                return Ok((taken, addresses));
            }
            addresses.extend(part.addresses);
            addresses.truncate(ADDRESS_ENTRIES_MAX);
            let part = part.objects;
            let count = part.len() as u64;
            let reading = core.read(move |view| Ok((view.keys_of(&part)?, part)));
            let (known, part) = reading.await.map_err(internal_store)?;
            let chain = chain.clone();
            let checked =
                blocking(move || Ok(MovedObject::check(part, &chain, &known, &limits))).await?;
            let mut rest = VecDeque::from(checked);
            while !rest.is_empty() {
                let write = core.write(move |core, now| {
                    let done = core.take_moved(now, &source, &mut rest)?;
                    Ok((done, rest))
                });
                let (done, left) = write.await.map_err(internal_store)?;
                taken += done;
                rest = left;
                crash_point("move: a portion stored");
            }
            self.state.change(|row| row.done_objects += count)?;
        }
    }
}

/// Why an identity may not arrive.
#[derive(Debug, thiserror::Error)]
enum ArrivalFault {
    #[error(transparent)]
    Fault(HandoverFault),
    #[error(transparent)]
    Name(identities::IdentityError),
}

impl From<StoreError> for ArrivalFault {
    fn from(error: StoreError) -> Self {
        Self::Fault(error.into())
    }
}
fn handover_error(error: &VaultError) -> ControlError {
    let text = error_chain(error);
    match error {
        VaultError::OtherTarget(_) => MoveError::OtherTarget(text).into(),
        VaultError::ForeignChain => MoveError::Obsolete(text).into(),
        VaultError::Full => MoveError::Full(text).into(),
        _ => ControlError::Internal(text),
    }
}

fn fault_error(fault: HandoverFault) -> ControlError {
    let text = error_chain(&fault);
    match fault {
        HandoverFault::UnknownSource | HandoverFault::Purging => {
            MoveError::UnknownSource(text).into()
        }
        HandoverFault::Obsolete | HandoverFault::Forked => MoveError::Obsolete(text).into(),
        HandoverFault::Store(_) => ControlError::Internal(text),
    }
}

fn internal_store(error: EngineError<StoreError>) -> ControlError {
    internal(error)
}
