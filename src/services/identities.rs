//! Identities: creating and changing local ones, and listing the known ones.
//!
//! Tested in `tests/core/services.rs` and `tests/net/rotation.rs`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bastion::Tier;
use keys::{KeyChain, Oid, PeerId, SignedObject};

use super::contacts::{self, ContactError};
use super::people::{self, Person};
use crate::graph::{
    self, ConfirmHomeError, GraphManager, IdentityProfile, SaveError, Saved, load_object,
};
use crate::object::{Object, Value};
use crate::schema::identities;
use crate::state_engine::View;
use crate::store::{IdentityRow, PendingHome, StoreError};

/// Most identities of untrusted peers that are counted.
pub const UNTRUSTED_COUNTED_MAX: usize = 100_000;

/// A known identity, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityCard {
    /// The identity with its petname and its claim.
    pub person: Person,
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
    /// A home that a record proves and that does not count yet.
    pub pending_home: Option<PendingHome>,
    /// The node to which an identity of this node moves. Its keys sign nothing here any more.
    pub moves_to: Option<PeerId>,
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
    /// The name cannot be used, because it is also the petname on this node.
    #[error(transparent)]
    Name(#[from] ContactError),
    /// The home was not confirmed.
    #[error(transparent)]
    Home(#[from] ConfirmHomeError),
    /// The write failed.
    #[error(transparent)]
    Save(#[from] SaveError),
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        Self::Save(error.into())
    }
}

/// Writes the record of an identity whose keys are in the vault. Its name is its petname here.
pub fn publish(
    graph: &mut GraphManager<'_>,
    identity: Oid,
    name: Option<&str>,
) -> Result<Saved, IdentityError> {
    contacts::set_own(graph.tx(), &identity, name)?;
    Ok(graph.save_identity(identity, name)?)
}

/// Makes the name of an identity that moves here its petname, before its keys come. A petname and a
/// note that the operator gave stay.
pub fn adopt_name(graph: &GraphManager<'_>, identity: Oid) -> Result<(), IdentityError> {
    if graph.tx().contact(&identity)?.is_some() {
        return Ok(());
    }
    let profile = graph.profile(&identity)?;
    let name = profile.and_then(|profile| profile.name);
    Ok(contacts::set_own(graph.tx(), &identity, name.as_deref())?)
}

/// Checks the name of an identity that moves here, which its record gives. Verifies no signature.
pub fn check_moved_name(view: &View<'_>, record: &SignedObject) -> Result<(), IdentityError> {
    let limits = &view.context.limits.graph.object;
    let Ok(record) = Object::from_bytes(record.bytes(), limits) else {
        return Ok(());
    };
    if view.rows.contact(&record.oid)?.is_some() {
        return Ok(());
    }
    if let Some(name) = record.first(identities::NAME).and_then(Value::as_text) {
        contacts::free_name(&view.rows, &record.oid, name)?;
    }
    Ok(())
}

/// Checks the name of a new identity, before its keys are made. Stores nothing.
pub fn check_new_name(view: &View<'_>, name: &str) -> Result<(), IdentityError> {
    let new = Oid::from_bytes([0; Oid::LEN]);
    contacts::free_name(&view.rows, &new, name)?;
    Ok(())
}

/// Changes or removes the name of a local identity, which is also its petname.
pub fn rename(
    graph: &mut GraphManager<'_>,
    identity: Oid,
    name: Option<&str>,
) -> Result<Saved, IdentityError> {
    let profile = IdentityProfile {
        name: name.map(str::to_owned),
        ..own_profile(graph, identity)?
    };
    contacts::set_own(graph.tx(), &identity, name)?;
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

/// Lets the home of an identity count that waits for the operator or for its day. `shown` is the
/// home that the operator saw.
pub fn confirm_home(
    graph: &mut GraphManager<'_>,
    identity: Oid,
    shown: PeerId,
) -> Result<(), IdentityError> {
    if graph.tx().identity(&identity)?.is_none() {
        return Err(IdentityError::Unknown(identity));
    }
    Ok(graph.confirm_home(&identity, &shown)?)
}

/// The profile of a local identity.
fn own_profile(graph: &GraphManager<'_>, identity: Oid) -> Result<IdentityProfile, IdentityError> {
    if graph.keys().moving_identity(&identity).is_some() {
        return Err(SaveError::Moves(identity).into());
    }
    if !graph.is_local(&identity)? || graph.keys().identity_chain(identity).is_none() {
        return Err(IdentityError::NotLocal(identity));
    }
    graph
        .profile(&identity)?
        .ok_or(IdentityError::NotLocal(identity))
}

/// Identities of untrusted peers: without a petname, and neither of this node nor of a trusted
/// peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UntrustedIdentities {
    /// Some of them, by oid.
    pub cards: Vec<IdentityCard>,
    /// Whether more follow.
    pub more: bool,
}

/// A page of the identities of untrusted peers: at most `limit` after an oid.
pub fn untrusted(
    view: &View<'_>,
    after: Option<Oid>,
    limit: usize,
) -> Result<UntrustedIdentities, StoreError> {
    let this_node = view.this_node();
    let found = view
        .rows
        .untrusted_identities(&this_node, after, limit + 1)?;
    let more = found.len() > limit;
    let cards = found.iter().take(limit);
    let cards = cards.map(|row| card(view, row));
    Ok(UntrustedIdentities {
        cards: cards.collect::<Result<_, _>>()?,
        more,
    })
}

/// The number of identities of untrusted peers; at most [`UNTRUSTED_COUNTED_MAX`].
pub fn untrusted_count(view: &View<'_>) -> Result<usize, StoreError> {
    let this_node = view.this_node();
    view.rows
        .untrusted_identity_count(&this_node, UNTRUSTED_COUNTED_MAX)
}

/// A known identity. `None`: it is not known, or a server.
pub fn card_of(view: &View<'_>, identity: &Oid) -> Result<Option<IdentityCard>, StoreError> {
    let row = people::known(&view.rows, identity)?;
    row.map(|row| card(view, &row)).transpose()
}

fn card(view: &View<'_>, row: &IdentityRow) -> Result<IdentityCard, StoreError> {
    Ok(IdentityCard {
        person: people::person(&view.rows, &row.oid)?,
        home: row.home,
        is_local: row.home == view.this_node(),
        key_id: row.key_id,
        retired: row.retired,
        frozen: row.frozen,
        pending_home: view.rows.pending_home(&row.oid)?,
        moves_to: view.moves_to(&row.oid),
    })
}

/// The known identities without servers and without those of untrusted peers. Local ones come
/// first, then by oid.
pub fn known(view: &View<'_>) -> Result<Vec<IdentityCard>, StoreError> {
    let mut trusted: BTreeMap<PeerId, bool> = BTreeMap::new();
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
        let is_trusted = match trusted.entry(row.home) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let home = view.rows.peer(&row.home)?;
                let is_trusted = home.is_some_and(|home| home.tier == Tier::Trusted);
                *new.insert(is_trusted || row.home == view.this_node())
            }
        };
        if is_trusted || view.rows.contact(&row.oid)?.is_some() {
            cards.push(card(view, &row)?);
        }
    }
    cards.sort_by_key(|card| (!card.is_local, card.person.oid));
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
