//! Identities: creating and changing local ones, and listing the known ones.
//!
//! Tested in `tests/core/services.rs` and `tests/net/rotation.rs`.

use keys::{KeyChain, Oid, PeerId, SignedObject};

use crate::graph::{self, GraphManager, IdentityProfile, SaveError, Saved, load_object};
use crate::object::Value;
use crate::schema::{SchemaViolation, Schemas, identities};
use crate::state_engine::View;
use crate::store::StoreError;

/// A known identity, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityCard {
    /// The oid: the digest of the identity's genesis event.
    pub oid: Oid,
    /// The name that the identity gives itself; neither unique nor verified.
    pub name: Option<String>,
    /// The home: the node where the identity lives.
    pub home: PeerId,
    /// Whether the home is this node.
    pub is_local: bool,
    /// The number of its current key: how often the key was rotated.
    pub key_id: u32,
    /// Whether the owner has stopped writing under this identity.
    pub retired: bool,
    /// Whether two homes were claimed for the identity. Its objects are then rejected until its key
    /// is rotated or the operator unfreezes it.
    pub frozen: bool,
}

/// Why an operation on an identity failed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The identity is not local.
    #[error("no identity {} lives on this node", .0.to_hex())]
    NotLocal(Oid),
    /// The identity is not known.
    #[error("no identity {} is known to this node", .0.to_hex())]
    Unknown(Oid),
    /// The identity to unfreeze is not frozen.
    #[error("the identity is not frozen")]
    NotFrozen,
    /// The write failed.
    #[error(transparent)]
    Save(#[from] SaveError),
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        Self::Save(error.into())
    }
}

/// Writes the record of an identity whose keys are in the vault.
pub fn publish(
    graph: &mut GraphManager<'_>,
    identity: Oid,
    name: Option<&str>,
) -> Result<Saved, SaveError> {
    graph.save_identity(identity, name)
}

/// Checks a name against the schema, before an identity is created with it.
pub fn check_name(schemas: &Schemas, name: &str) -> Result<(), SchemaViolation> {
    let schema = schemas.type_(identities::APP, identities::IDENTITY);
    let attr = schema.and_then(|schema| schema.attr(identities::NAME));
    attr.map_or(Ok(()), |attr| attr.check(&[Value::from(name)]))
}

/// Changes or removes the name of a local identity.
pub fn rename(
    graph: &mut GraphManager<'_>,
    identity: Oid,
    name: Option<&str>,
) -> Result<Saved, IdentityError> {
    let profile = IdentityProfile {
        name: name.map(str::to_owned),
        ..own_profile(graph, identity)?
    };
    Ok(graph.save_profile(identity, &profile)?)
}

/// Retires a local identity: its record says so, and further writes are denied. Its objects and
/// keys stay. With `retired` false, the identity may write again.
pub fn retire(
    graph: &mut GraphManager<'_>,
    identity: Oid,
    retired: bool,
) -> Result<Saved, IdentityError> {
    let profile = IdentityProfile {
        retired,
        ..own_profile(graph, identity)?
    };
    Ok(graph.save_profile(identity, &profile)?)
}

/// Accepts objects of a frozen identity again, because the operator has verified the owner of its
/// key.
pub fn unfreeze(graph: &mut GraphManager<'_>, identity: Oid) -> Result<(), IdentityError> {
    let row = graph
        .tx()
        .identity(&identity)?
        .ok_or(IdentityError::Unknown(identity))?;
    if !row.frozen {
        return Err(IdentityError::NotFrozen);
    }
    Ok(graph.unfreeze(&identity)?)
}

/// The profile of a local identity.
fn own_profile(graph: &GraphManager<'_>, identity: Oid) -> Result<IdentityProfile, IdentityError> {
    if graph.keys().identity_chain(identity).is_none() {
        return Err(IdentityError::NotLocal(identity));
    }
    graph
        .profile(&identity)?
        .ok_or(IdentityError::NotLocal(identity))
}

/// All known identities without servers, local ones first, then by oid.
pub fn known(view: &View<'_>) -> Result<Vec<IdentityCard>, StoreError> {
    let mut cards = Vec::new();
    let app = view
        .rows
        .apps()
        .get(identities::APP)
        .ok_or(StoreError::Inconsistent("an app without tables"))?;
    for parent in view
        .rows
        .listing(app, identities::IDENTITY, 0, usize::MAX)?
        .rows
    {
        let Some(row) = view.rows.identity(&parent.oid)? else {
            continue;
        };
        let attrs = view.rows.attrs(app, parent.id)?;
        let name = attrs.iter().find(|(number, _)| *number == identities::NAME);
        let name = name
            .and_then(|(_, value)| value.as_text())
            .map(str::to_owned);
        cards.push(IdentityCard {
            oid: parent.oid,
            name,
            home: row.home,
            is_local: row.home == view.this_node(),
            key_id: row.key_id,
            retired: row.retired,
            frozen: row.frozen,
        });
    }
    cards.sort_by_key(|card| (!card.is_local, card.oid));
    Ok(cards)
}

/// The stored key chain of a node; none if the node is not known.
pub fn known_server_chain(view: &View<'_>, server: &Oid) -> Result<Option<KeyChain>, StoreError> {
    graph::known_server_chain(&view.rows, server)
}

/// The identity objects that a handshake carries: at most `most` local ones that are listed and not
/// retired, by oid (docs/DECISIONS.md 6).
pub fn for_handshake(view: &View<'_>, most: usize) -> Result<Vec<SignedObject>, StoreError> {
    let app = view
        .rows
        .apps()
        .get(identities::APP)
        .ok_or(StoreError::Inconsistent("an app without tables"))?;
    let mask = view.rows.apps().mask(identities::DOMAIN);
    let mut objects = Vec::new();
    for row in view.rows.identities_at(&view.this_node())? {
        let Some(parent) = view.rows.parent(app, &row.oid)? else {
            continue;
        };
        if !row.retired
            && parent.type_number == identities::IDENTITY
            && parent.sync_flags & mask != 0
            && objects.len() < most
        {
            objects.push(load_object(&view.rows, app, &parent)?.1);
        }
    }
    Ok(objects)
}

/// The name that an identity gives itself; `None` if it has none or is not known.
pub fn name_of(view: &View<'_>, identity: &Oid) -> Result<Option<String>, StoreError> {
    let app = view
        .rows
        .apps()
        .get(identities::APP)
        .ok_or(StoreError::Inconsistent("an app without tables"))?;
    let Some(parent) = view.rows.parent(app, identity)? else {
        return Ok(None);
    };
    let attrs = view.rows.attrs(app, parent.id)?;
    let name = attrs
        .into_iter()
        .find(|(number, _)| *number == identities::NAME);
    Ok(name.and_then(|(_, value)| match value {
        Value::Text(text) => Some(text),
        _ => None,
    }))
}
