//! Identities of this node: their records in the graph, and who is known.

use keys::{Oid, PeerId, SignedObject};

use crate::graph::{GraphManager, IdentityProfile, SaveError, Saved, load_object};
use crate::object::Value;
use crate::schema::{SchemaViolation, Schemas, identities};
use crate::state_engine::View;
use crate::store::StoreError;

/// An identity as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityCard {
    /// Its name in the protocol.
    pub oid: Oid,
    /// Its name for people, as it says itself; not unique, not proven.
    pub name: Option<String>,
    /// The node where it lives.
    pub home: PeerId,
    /// Whether that is this node.
    pub here: bool,
    /// How often its key was rotated.
    pub key_id: u32,
    /// Whether its owner says that it writes no more.
    pub retired: bool,
    /// Whether two homes were claimed for it: nothing of it is taken until its key is rotated, or the operator thaws it.
    pub frozen: bool,
}

/// Why a verb on an identity was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nobody of that oid lives here.
    #[error("no identity {0} lives on this node")]
    NotHere(Oid),
    /// Nobody of that oid is known here.
    #[error("no identity {0} is known here")]
    Unknown(Oid),
    /// It is so already.
    #[error("the identity is not frozen")]
    NotFrozen,
    /// The write did not happen.
    #[error(transparent)]
    Save(#[from] SaveError),
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        Self::Save(error.into())
    }
}

/// Writes the record of an identity whose keys the vault holds already.
pub fn publish(
    graph: &mut GraphManager<'_>,
    identity: Oid,
    name: Option<&str>,
) -> Result<Saved, SaveError> {
    graph.save_identity(identity, name)
}

/// Whether that may be an identity's name, before anything is made that would bear it.
pub fn check_name(schemas: &Schemas, name: &str) -> Result<(), SchemaViolation> {
    let schema = schemas.type_(identities::APP, identities::IDENTITY);
    let attr = schema.and_then(|schema| schema.attr(identities::NAME));
    attr.map_or(Ok(()), |attr| attr.check(&[Value::from(name)]))
}

/// Gives an identity that lives here another name, or none.
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

/// Says to everybody that an identity that lives here writes no more, and lets it write no more. What it wrote stays, and
/// so do its keys: with `retired` false it is taken back.
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

/// Takes what a frozen identity signs again: the operator knows whose key it is.
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

fn own_profile(graph: &GraphManager<'_>, identity: Oid) -> Result<IdentityProfile, IdentityError> {
    if graph.keys().identity_chain(identity).is_none() {
        return Err(IdentityError::NotHere(identity));
    }
    graph
        .profile(&identity)?
        .ok_or(IdentityError::NotHere(identity))
}

/// All identities known here, ours first. Servers are not among them.
pub fn known(view: &View<'_>) -> Result<Vec<IdentityCard>, StoreError> {
    let mut cards = Vec::new();
    let app = view
        .rows
        .apps()
        .get(identities::APP)
        .ok_or(StoreError::Inconsistent("an app without tables"))?;
    for parent in view
        .rows
        .listing(app, identities::IDENTITY, 0, usize::MAX >> 1)?
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
            here: row.home == view.this_node(),
            key_id: row.key_id,
            retired: row.retired,
            frozen: row.frozen,
        });
    }
    cards.sort_by_key(|card| (!card.here, card.oid));
    Ok(cards)
}

/// The identity objects that a handshake carries: the listed ones that live here and write, by oid (docs/DECISIONS.md 6).
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

/// The name that an identity gives itself.
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
