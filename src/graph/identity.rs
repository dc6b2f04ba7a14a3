//! Records of identities and servers: written, and noted in the index of keys and homes (docs/DECISIONS.md 5).
//!
//! They prove themselves, so that no requester stands behind them. Never writes a record that goes back behind one that is
//! known. Invariant: the index says what the record beside it proves.

use keys::vault::UnknownIdentity;
use keys::{HomeRecord, KeyChain, Oid, PeerId, Signature, VerifiedChain, codec};

use super::place::{Place, Scope};
use super::record::{IdentityRecord, chain_in, home_in};
use super::{GraphManager, SaveError, Saved};
use crate::acl::{AclManager, ScopeRight};
use crate::object::{Object, Value};
use crate::op_context::PubkeyAttrId;
use crate::schema::identities;
use crate::store::{IdentityRow, ParentRow, StoreError, StoredValue};

/// What an identity says of itself besides its keys and its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name for people.
    pub name: Option<String>,
    /// Whether every peer is shown it.
    pub listed: bool,
    /// Whether its owner writes no more.
    pub retired: bool,
}

impl Profile {
    /// Of a new identity.
    pub fn named(name: Option<&str>) -> Self {
        Self {
            name: name.map(str::to_owned),
            listed: true,
            retired: false,
        }
    }
}

impl GraphManager<'_> {
    /// Writes the identity object of an identity that lives here: new, renamed, or with a new chain or home record.
    pub fn save_identity(&mut self, identity: Oid, name: Option<&str>) -> Result<Saved, SaveError> {
        let profile = match self.profile(&identity)? {
            Some(known) => Profile {
                name: name.map(str::to_owned),
                ..known
            },
            None => Profile::named(name),
        };
        self.save_profile(identity, &profile)
    }

    /// What an identity that is known here says of itself.
    pub fn profile(&self, identity: &Oid) -> Result<Option<Profile>, StoreError> {
        let app = self.table(identities::APP)?;
        let Some(parent) = self.tx.parent(app, identity)? else {
            return Ok(None);
        };
        let attrs = self.tx.attrs(app, parent.id)?;
        let first = |number| {
            attrs
                .iter()
                .find(|(it, _)| *it == number)
                .map(|(_, value)| value)
        };
        Ok(Some(Profile {
            name: first(identities::NAME)
                .and_then(Value::as_text)
                .map(str::to_owned),
            listed: first(identities::LISTED).and_then(Value::as_integer) != Some(0),
            retired: first(identities::RETIRED).and_then(Value::as_integer) == Some(1),
        }))
    }

    /// Writes the record of an identity that lives here, signed with its key of now and countersigned with the node's.
    pub fn save_profile(&mut self, identity: Oid, profile: &Profile) -> Result<Saved, SaveError> {
        let app = self.table(identities::APP)?;
        let existing = self.tx.parent(app, &identity)?;
        self.may_write(existing.is_some())?;
        let chain = self
            .keys()
            .identity_chain(identity)
            .ok_or(UnknownIdentity(identity))?;
        let verified = chain
            .verify()
            .map_err(|_| StoreError::Inconsistent("a key chain of our own"))?;
        let home = self
            .keys()
            .home_record(identity, self.next_counter(&identity, &verified)?)?;
        let schemas = self.schemas();
        let schema = schemas
            .type_(identities::APP, identities::IDENTITY)
            .ok_or(SaveError::UnknownType)?;
        let mut attrs =
            super::new_identity_attrs(&chain, &verified, &home, profile.name.as_deref());
        if !profile.listed {
            attrs.insert(identities::LISTED, vec![Value::from(0)]);
        }
        if profile.retired {
            attrs.insert(identities::RETIRED, vec![Value::from(1)]);
        }
        schema.check(&attrs)?;
        let rev = existing.as_ref().map_or(1, |row| row.rev + 1);
        let object = Object {
            app: identities::APP.into(),
            type_number: identities::IDENTITY,
            oid: identity,
            owner: identity,
            rev,
            attrs: Some(attrs),
        };
        let place = self.place(app, schema, &object)?;
        let granted = AclManager::check_self_certified(&verified);
        self.sign_and_write(app, schema, &object, &place, existing, &granted)
    }

    /// The counter of the next home record: the same while nothing changes, one more with another key of either side, so
    /// that no two records of one counter differ.
    fn next_counter(&self, identity: &Oid, chain: &VerifiedChain) -> Result<u64, StoreError> {
        let Some(known) = self.tx.identity(identity)? else {
            return Ok(1);
        };
        let same_node = self
            .home_of(&known)?
            .is_some_and(|home| home.node == self.keys().node_chain());
        let is_same = same_node && known.key_id == chain.key_id();
        Ok(known.home_counter + u64::from(!is_same))
    }

    /// Whether the record of an identity that lives here is of the keys of now: its own and the node's.
    pub fn is_record_current(&self, identity: &Oid) -> Result<bool, StoreError> {
        let (Some(known), Some(chain)) = (
            self.tx.identity(identity)?,
            self.keys().identity_chain(*identity),
        ) else {
            return Ok(true);
        };
        let node = self.keys().node_chain();
        let home = self.home_of(&known)?;
        Ok(known.key_id as usize == chain.events.len()
            && home.is_some_and(|home| home.node == node))
    }

    fn home_of(&self, known: &IdentityRow) -> Result<Option<HomeRecord>, StoreError> {
        let attrs = self
            .tx
            .attrs(self.table(identities::APP)?, known.parent_id)?;
        let home = attrs.iter().find(|(number, _)| *number == identities::HOME);
        Ok(home.and_then(|(_, home)| home_in(home, self.limits().key_events_max)))
    }

    /// Notes a node's server identity in the graph: our own, or a peer's whose handshake proved its chain
    /// (docs/STORY.md 1.1 step 4). Never leaves this node, so it carries no signature and no domain.
    /// `None` where another chain is known, or more of it: then nothing is written, and the node is not who it says.
    pub fn save_server(
        &mut self,
        chain: &KeyChain,
        verified: &VerifiedChain,
    ) -> Result<Option<PubkeyAttrId>, StoreError> {
        if let Some(known) = self.tx.identity(&verified.oid())? {
            if known.public_key == verified.current() {
                return Ok(Some(known.pubkey_attr_id));
            }
            if !self
                .known_chain(&known)?
                .is_some_and(|known| chain.continues(&known))
            {
                return Ok(None);
            }
        }
        let app = self.table(identities::APP)?;
        let existing = self.tx.parent(app, &verified.oid())?;
        let key = Value::Bytes(verified.current().as_bytes().to_vec());
        let chain = Value::Bytes(codec::encode(chain));
        let attrs = vec![
            (identities::PUBLIC_KEY, 0, StoredValue::Plain(&key)),
            (identities::CHAIN, 0, StoredValue::Plain(&chain)),
        ];
        let place = Place {
            attrs,
            scope: Scope::None,
            right: ScopeRight::Open,
        };
        let row = ParentRow {
            id: 0,
            oid: verified.oid(),
            type_number: identities::SERVER,
            owner: verified.oid(),
            scope_id: None,
            rev: existing.as_ref().map_or(1, |row| row.rev + 1),
            deleted: false,
            key_id: verified.key_id(),
            signature: Signature::from_bytes([0; Signature::LEN]),
            origin: None,
            change_seq: self.stamp(),
            sync_flags: 0,
        };
        let granted = AclManager::check_self_certified(verified);
        let row = self.write(app, row, &place, existing.as_ref(), &granted)?;
        self.index(&row, verified, (verified.peer_id(), 0), false)
            .map(|identity| Some(identity.pubkey_attr_id))
    }

    /// The key chain of an identity or server that is known here.
    pub(super) fn known_chain(&self, known: &IdentityRow) -> Result<Option<KeyChain>, StoreError> {
        let attrs = self
            .tx
            .attrs(self.table(identities::APP)?, known.parent_id)?;
        let chain = attrs
            .iter()
            .find(|(number, _)| *number == identities::CHAIN);
        Ok(chain.and_then(|(_, chain)| chain_in(chain, self.limits().key_events_max)))
    }

    /// Keeps the index of keys and homes beside an identity's Parent.
    pub(super) fn note_identity(
        &self,
        parent: &ParentRow,
        record: &IdentityRecord,
    ) -> Result<IdentityRow, StoreError> {
        let home = (record.home(), record.home_counter());
        self.index(parent, record.chain(), home, record.is_retired())
    }

    fn index(
        &self,
        parent: &ParentRow,
        chain: &VerifiedChain,
        (home, home_counter): (PeerId, u64),
        retired: bool,
    ) -> Result<IdentityRow, StoreError> {
        let app = self.table(identities::APP)?;
        let attr = self.tx.attr_id(app, parent.id, identities::PUBLIC_KEY)?;
        let known = self.tx.identity(&parent.oid)?;
        let row = IdentityRow {
            oid: parent.oid,
            parent_id: parent.id,
            pubkey_attr_id: PubkeyAttrId(
                attr.ok_or(StoreError::Inconsistent("an identity without a key"))?,
            ),
            key_id: chain.key_id(),
            public_key: chain.current(),
            home,
            home_counter,
            retired,
            // A key that was committed to beforehand is its owner's: who had stolen the one before does not have it.
            frozen: known.is_some_and(|known| known.frozen && known.key_id == chain.key_id()),
        };
        self.tx.put_identity(&row)?;
        self.memory.borrow_mut().forget_identity(&row.oid);
        Ok(row)
    }

    /// Takes what an identity signs again.
    pub fn thaw(&self, identity: &Oid) -> Result<(), StoreError> {
        self.tx.set_frozen(identity, false)?;
        self.memory.borrow_mut().forget_identity(identity);
        Ok(())
    }

    /// Takes nothing more of an identity until its key is rotated, or until the operator says so.
    pub(super) fn freeze(&self, identity: &Oid) -> Result<(), StoreError> {
        let why = "two homes were claimed for an identity: it is frozen. If it is yours, somebody has its key: rotate it \
                   (`postern identity rotate`)";
        tracing::error!(identity = %identity, why);
        self.tx.set_frozen(identity, true)?;
        self.memory.borrow_mut().forget_identity(identity);
        Ok(())
    }
}
