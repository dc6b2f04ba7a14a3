//! A move away from this node: the vault stops to sign, then the file is written.

use std::collections::BTreeSet;
use std::path::Path;

use keys::{Oid, OnionAddr, UnknownIdentity, crash_point, error_chain};

use super::file_work::blocking;
use super::progress::MoveState;
use crate::api::{ControlError, MoveError};
use crate::backup::{MoveWriter, check_target};
use crate::node::rotation::{VaultOperations, in_vault, internal};
use crate::state_engine::HandoverCursor;
use crate::store::{ScopeId, StoreError};

/// A move away from this node.
pub(super) struct Leaving<'m> {
    pub(super) vault: VaultOperations,
    pub(super) state: &'m MoveState,
    pub(super) identity: Oid,
    pub(super) to: OnionAddr,
    pub(super) out: &'m Path,
}

impl Leaving<'_> {
    pub(super) async fn run(self) -> Result<(), ControlError> {
        self.vault.check_may_write(true).await?;
        let (identity, core) = (self.identity, self.vault.core.clone());
        let (to, own) = (self.to, self.vault.keys.onion());
        let looking = core.read(move |view| {
            let known = view.rows.identity(&identity)?;
            let known = known.filter(|known| known.home == view.this_node());
            let target = match to == own {
                true => Some(view.this_node()),
                false => view.rows.last_peer_at(&to)?.map(|peer| peer.peer_id),
            };
            Ok::<_, StoreError>((known, target))
        });
        let (known, target) = looking.await.map_err(internal)?;
        let known = known.ok_or(MoveError::NotHere)?;
        let target = target.ok_or(MoveError::UnknownNode)?;
        check_target(self.out).map_err(|error| MoveError::Target(error_chain(&error)))?;
        let counter = known.home_counter.saturating_add(1);
        let keys = self.vault.keys.clone();
        in_vault(move || keys.begin_move(identity, (target, counter), &mut rand::rng())).await?;
        crash_point("move: begun");
        tracing::info!(
            identity = identity.short(),
            target = %target,
            "an identity moves to another node and writes nothing here any more"
        );
        self.write_file().await
    }

    async fn write_file(&self) -> Result<(), ControlError> {
        let (keys, identity) = (self.vault.keys.clone(), self.identity);
        let out = self.out.to_owned();
        let mut writer = blocking(move || MoveWriter::begin(&keys, identity, &out)).await?;
        let mut next = Some(HandoverCursor::default());
        while let Some(cursor) = next {
            let reading = self
                .vault
                .core
                .read(move |view| view.handover_page(&identity, cursor));
            let page = reading.await.map_err(internal)?;
            let objects = page.objects;
            let count = objects.len() as u64;
            writer = blocking(move || {
                writer.add(&objects)?;
                Ok(writer)
            })
            .await?;
            self.state.change(|row| row.done_objects += count)?;
            next = page.next;
        }
        writer = self.write_addresses(writer).await?;
        self.state.change(|row| row.step = "checking")?;
        let keys = self.vault.keys.clone();
        blocking(move || writer.finish(&keys)).await.map(drop)
    }

    /// Members of the identity's scopes may know the old home only.
    async fn write_addresses(&self, mut writer: MoveWriter) -> Result<MoveWriter, ControlError> {
        let (identity, mut next) = (self.identity, Some(ScopeId(0)));
        // One record of each node is enough.
        let mut written = BTreeSet::new();
        while let Some(after) = next {
            let reading = self
                .vault
                .core
                .read(move |view| view.moved_addresses(&identity, after));
            let mut page = reading.await.map_err(internal)?;
            for (_, records) in &mut page.scopes {
                records.retain(|record| written.insert(record.onion));
            }
            writer = blocking(move || {
                for (scope, records) in &page.scopes {
                    writer.add_addresses(scope, records)?;
                }
                Ok(writer)
            })
            .await?;
            next = page.last;
        }
        Ok(writer)
    }
}

impl VaultOperations {
    /// Removes the keys of an identity that lives at its new home. Returns whether there were any.
    pub(in crate::node) async fn finish_move(&self, identity: Oid) -> Result<bool, ControlError> {
        let reading = self.core.read(move |view| {
            let known = view.rows.identity(&identity)?;
            Ok::<_, StoreError>(known.map(|it| (it, it.home == view.this_node())))
        });
        let known = reading.await.map_err(internal)?;
        let Some((known, is_here)) = known else {
            let unknown = UnknownIdentity(identity);
            return Err(ControlError::UnknownIdentity(unknown.to_string()));
        };
        let moving = self.keys.moving_identity(&identity);
        let is_behind = moving.is_some_and(|moving| known.key_id < moving.key_id);
        if is_here || is_behind {
            return Err(MoveError::NotMoved.into());
        }
        let keys = self.keys.clone();
        in_vault(move || keys.forget_identity(identity, &mut rand::rng())).await
    }
}
