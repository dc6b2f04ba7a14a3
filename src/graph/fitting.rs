//! Whether an object of a peer fits the loaded schema, or waits for a later one (docs/PROTOCOL.md
//! 6.4).
//!
//! Invariant: an object that waited already is not refused because the loaded schema lacks
//! something. The cursor has passed such an object, so that no peer sends it again. Tested in
//! `tests/core/schema_versions.rs`.

use keys::PeerId;

use super::error::{ApplyError, Fault};
use super::manager::GraphManager;
use crate::object::{Object, is_core_type};
use crate::schema::{AppSchema, SchemaViolation, TypeSchema};
use crate::store::{AppTable, Cause, StoreError};

/// How an object of a peer came to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// The peer sent it now. The peer's claims tell whether a later schema exists.
    Arrived,
    /// The peer sent it now, because this node fetched it for a stub.
    Fetched,
    /// The object waited already.
    Retried,
    /// The peer sent the record of an identity that may live elsewhere, because it was asked to.
    Relayed,
}

impl<'e> GraphManager<'e> {
    /// The schema and tables of an object of a peer, whose Attrs are checked.
    pub(super) fn schema_of(
        &self,
        object: &Object,
        (peer, trial): (&PeerId, Trial),
    ) -> Result<(&'e AppTable, &'e TypeSchema), ApplyError> {
        if self.schemas().app(&object.app).is_none() {
            return Err(match (self.tx.apps().get(&object.app), trial) {
                // Its app was disabled meanwhile, and can be enabled again.
                (Some(app), Trial::Retried) => {
                    let version = self.tx.schema_version(app)?;
                    Fault::Waits(Cause::Schema(app.id, version)).into()
                }
                _ => Fault::UnknownType.into(),
            });
        }
        let app = self.table(&object.app)?;
        let is_core = is_core_type(object.type_number);
        let unless_later = |fault, may_wait: bool| match may_wait && !is_core {
            true => self.unless_later(app, (peer, trial), fault),
            false => Ok(fault),
        };
        let Some(schema) = self.schemas().type_(&object.app, object.type_number) else {
            return Err(unless_later(Fault::UnknownType, true)?.into());
        };
        let checked = object.attrs.as_ref().map(|attrs| schema.check(attrs));
        if let Some(Err(violation)) = checked {
            let may_wait = match violation {
                SchemaViolation::UnknownAttr(_)
                | SchemaViolation::Count { .. }
                | SchemaViolation::TooLong { .. } => true,
                // No later schema permits them.
                SchemaViolation::Kind { .. } | SchemaViolation::Repeated { .. } => false,
            };
            return Err(unless_later(Fault::Schema(violation), may_wait)?.into());
        }
        Ok((app, schema))
    }

    /// The fault of an object that does not fit the loaded schema. The object waits for the next
    /// version if the peer has a later one, or if the object waited already.
    pub(super) fn unless_later(
        &self,
        app: &AppTable,
        (peer, trial): (&PeerId, Trial),
        fault: Fault,
    ) -> Result<Fault, StoreError> {
        let Some(own) = self.schemas().app(&app.slug) else {
            return Ok(fault);
        };
        let waits = trial == Trial::Retried || self.has_later(peer, app, own)?;
        Ok(match waits {
            true => Fault::Waits(Cause::Schema(app.id, own.version.saturating_add(1))),
            false => fault,
        })
    }

    /// Whether a peer announced a later version of an app, or another text of the same version.
    fn has_later(
        &self,
        peer: &PeerId,
        app: &AppTable,
        own: &AppSchema,
    ) -> Result<bool, StoreError> {
        if let Some(known) = self.cache.borrow().later.get(&(*peer, app.id)) {
            return Ok(*known);
        }
        let claims = self.tx.peer(peer)?.map(|row| row.peer_apps);
        let claim = claims.iter().flatten().find(|it| it.slug == own.slug);
        let is_later = claim.is_some_and(|it| own.of_peer(it).is_some());
        let mut cache = self.cache.borrow_mut();
        cache.later.insert((*peer, app.id), is_later);
        Ok(is_later)
    }
}
