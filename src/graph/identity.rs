//! Records of identities and servers, and the index of their keys and homes (docs/DECISIONS.md 5).
//!
//! A record certifies itself, so that writing one needs no requester. A local record never gets a
//! lower counter than the known one. Invariant: the index holds what the stored record proves.
//! Tested in `tests/core/local_writes.rs` and `tests/core/remote_identities.rs`.

use keys::vault::UnknownIdentity;
use keys::{HomeRecord, KeyChain, Oid, PeerId, Signature, VerifiedChain, codec};

use super::commit::Change;
use super::error::SaveError;
use super::local::Saved;
use super::manager::GraphManager;
use super::record::{IdentityRecord, chain_in, home_in, new_identity_attrs};
use super::resolve::{Resolved, Scope};
use crate::acl::{AclManager, ScopeRight};
use crate::object::{Object, OidProof, Value};
use crate::op_context::{PubkeyAttrId, Timestamp};
use crate::schema::identities;
use crate::store::{
    Account, AppTable, Cause, IdentityRow, ParentRow, Rows, ScopeId, StoreError, StoredValue,
};

/// The highest counter of a home record. Only its owner can have reached it.
const COUNTER_MAX: u64 = i64::MAX.unsigned_abs();

/// The fields of an identity record that its owner chooses; keys and home are not among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityProfile {
    /// The name that people see; neither unique nor verified.
    pub name: Option<String>,
    /// Whether the record is exported to peers.
    pub listed: bool,
    /// Whether the owner has stopped writing under this identity.
    pub retired: bool,
}

impl IdentityProfile {
    /// The profile of a new identity: listed, not retired.
    pub fn named(name: Option<&str>) -> Self {
        Self {
            name: name.map(str::to_owned),
            listed: true,
            retired: false,
        }
    }
}

impl GraphManager<'_> {
    /// Writes the record of a local identity with this name, and keeps the other fields of a known
    /// one. Creates the record, or replaces it with the present name, key chain and home.
    pub fn save_identity(&mut self, identity: Oid, name: Option<&str>) -> Result<Saved, SaveError> {
        let profile = match self.profile(&identity)? {
            Some(known) => IdentityProfile {
                name: name.map(str::to_owned),
                ..known
            },
            None => IdentityProfile::named(name),
        };
        self.save_profile(identity, &profile)
    }

    /// The profile of a known identity.
    pub fn profile(&self, identity: &Oid) -> Result<Option<IdentityProfile>, StoreError> {
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
        Ok(Some(IdentityProfile {
            name: first(identities::NAME)
                .and_then(Value::as_text)
                .map(str::to_owned),
            listed: first(identities::LISTED).and_then(Value::as_integer) != Some(0),
            retired: first(identities::RETIRED).and_then(Value::as_integer) == Some(1),
        }))
    }

    /// Writes the record of a local identity, signed with its current key and countersigned with
    /// the node's.
    pub fn save_profile(
        &mut self,
        identity: Oid,
        profile: &IdentityProfile,
    ) -> Result<Saved, SaveError> {
        let app = self.table(identities::APP)?;
        let existing = self.tx.parent(app, &identity)?;
        self.may_write(existing.is_some())?;
        let chain = self
            .keys()
            .identity_chain(identity)
            .ok_or(UnknownIdentity(identity))?;
        let verified = chain
            .verify()
            .map_err(|_| StoreError::Inconsistent("a key chain of a local identity"))?;
        let home = self
            .keys()
            .home_record(identity, self.next_counter(&identity, &verified)?)?;
        let schemas = self.schemas();
        let schema = schemas
            .type_(identities::APP, identities::IDENTITY)
            .ok_or(SaveError::UnknownType)?;
        let mut attrs = new_identity_attrs(&chain, &verified, &home, profile.name.as_deref());
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
            proof: OidProof::Genesis,
            rights: None,
            attrs: Some(attrs),
        };
        let resolved = self.resolve(app, schema, &object, existing.as_ref())?;
        let granted = AclManager::check_self_certified(&verified);
        self.sign_and_write(app, schema, &object, &resolved, existing, &granted)
    }

    /// The counter of the next home record. The known counter applies while both keys are the same,
    /// and one more after either changed. So no two records with one counter differ. An identity
    /// that moved here has at least the counter that its old home gave.
    fn next_counter(&self, identity: &Oid, chain: &VerifiedChain) -> Result<u64, StoreError> {
        let arrival = self.keys().arrival_counter(identity).min(COUNTER_MAX);
        let Some(known) = self.tx.identity(identity)? else {
            return Ok(arrival.max(1));
        };
        let same_node = self
            .home_of(&known)?
            .is_some_and(|home| home.node == self.keys().node_chain());
        let is_same = same_node && known.key_id == chain.key_id();
        let next = known.home_counter.saturating_add(u64::from(!is_same));
        Ok(next.clamp(arrival, COUNTER_MAX))
    }

    /// Whether the stored record of an identity names the current keys: its own and the node's. The
    /// record of an identity that lives elsewhere is current unless the vault has what precedes it.
    pub fn is_record_current(&self, identity: &Oid) -> Result<bool, StoreError> {
        let (Some(known), Some(chain)) = (
            self.tx.identity(identity)?,
            self.keys().identity_chain(*identity),
        ) else {
            return Ok(true);
        };
        if known.home != self.this_node {
            // The identity moves here, or its home was given up.
            let arrival = (chain.events.len(), self.keys().arrival_counter(identity));
            return Ok(arrival <= (known.key_id as usize, known.home_counter));
        }
        let node = self.keys().node_chain();
        let home = self.home_of(&known)?;
        Ok(known.key_id as usize == chain.events.len()
            && home.is_some_and(|home| home.node == node))
    }

    /// The home record that is stored with an identity.
    fn home_of(&self, known: &IdentityRow) -> Result<Option<HomeRecord>, StoreError> {
        let attrs = self
            .tx
            .attrs(self.table(identities::APP)?, known.parent_id)?;
        let home = attrs.iter().find(|(number, _)| *number == identities::HOME);
        Ok(home.and_then(|(_, home)| home_in(home)))
    }

    /// Writes the server identity of this node, or of a peer whose handshake proved its key chain
    /// (docs/STORY.md 1.1 step 4). A server row is never exported, so it has no signature and no
    /// domain. Returns `None` and writes nothing if `chain` does not continue the known chain: the
    /// peer then uses an old key or a forked chain.
    pub fn save_server(
        &mut self,
        chain: &KeyChain,
        verified: &VerifiedChain,
    ) -> Result<Option<PubkeyAttrId>, StoreError> {
        if let Some(known) = self.tx.identity(&verified.oid())? {
            // Compared as chains: a fork in the last event's commitment has the same current key.
            let stored = self.known_chain(&known)?;
            if !stored.is_some_and(|stored| chain.continues(&stored)) {
                return Ok(None);
            }
            if known.key_id == verified.key_id() {
                return Ok(Some(known.pubkey_attr_id));
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
        let resolved = Resolved {
            attrs,
            scope: Scope::Stored(ScopeId::LOCAL),
            founding: None,
            core: None,
            rights_id: None,
            right: ScopeRight::Open,
        };
        let row = ParentRow {
            id: 0,
            oid: verified.oid(),
            type_number: identities::SERVER,
            owner: verified.oid(),
            scope_id: ScopeId::LOCAL,
            rev: existing.as_ref().map_or(1, |row| row.rev + 1),
            deleted: false,
            key_id: verified.key_id(),
            signature: Signature::from_bytes([0; Signature::LEN]),
            origin: None,
            salt: None,
            rights_id: None,
            created_seq: 0,
            change_seq: 0,
            sync_flags: 0,
            account: Account::Own,
        };
        let granted = AclManager::check_self_certified(verified);
        let change = Change::Content(&resolved, existing.as_ref());
        let row = self.commit_row(&granted, app, row, change)?;
        self.index(&row, verified, (verified.peer_id(), 0), false)
            .map(|identity| Some(identity.pubkey_attr_id))
    }

    /// The stored key chain of an identity or server.
    pub(super) fn known_chain(&self, known: &IdentityRow) -> Result<Option<KeyChain>, StoreError> {
        stored_chain(self.tx, self.table(identities::APP)?, known)
    }

    /// Writes the index row of an identity whose record was just written.
    pub(super) fn note_identity(
        &mut self,
        parent: &ParentRow,
        record: &IdentityRecord,
    ) -> Result<IdentityRow, StoreError> {
        let home = (record.home(), record.home_counter());
        self.index(parent, record.chain(), home, record.is_retired())
    }

    /// Writes the row in the index of keys and homes. A home that does not count yet waits.
    fn index(
        &mut self,
        parent: &ParentRow,
        chain: &VerifiedChain,
        claimed: (PeerId, u64),
        retired: bool,
    ) -> Result<IdentityRow, StoreError> {
        let app = self.table(identities::APP)?;
        let attr = self.tx.attr_id(app, parent.id, identities::PUBLIC_KEY)?;
        let known = self.tx.identity(&parent.oid)?;
        let home = match &known {
            Some(known) => self.home_or_wait(known, chain.key_id(), claimed)?,
            None => claimed.0,
        };
        let row = IdentityRow {
            oid: parent.oid,
            parent_id: parent.id,
            pubkey_attr_id: PubkeyAttrId(
                attr.ok_or(StoreError::Inconsistent("an identity without a key"))?,
            ),
            key_id: chain.key_id(),
            public_key: chain.current(),
            home: known.map_or(home, |known| known.home),
            home_counter: claimed.1,
            retired,
            // A rotation ends a freeze: the new key was committed to in advance, so the thief of
            // the old key does not have it.
            frozen: known.is_some_and(|known| known.frozen && known.key_id == chain.key_id()),
            home_since_seq: known.map_or(0, |known| known.home_since_seq),
            home_since_scope: known.map_or(ScopeId::LOCAL, |known| known.home_since_scope),
            home_moved_at: known.map_or(Timestamp(0), |known| known.home_moved_at),
        };
        if known.is_none() {
            self.remember_identity(&row.oid)?;
        }
        let row = self.put_at_home(row, known.as_ref(), (home, parent.change_seq))?;
        if known.is_none_or(|known| known.key_id < row.key_id) {
            self.fulfil(&Cause::KeyKnown(row.oid, row.key_id))?;
        }
        if known.is_some_and(|known| known.frozen && !row.frozen) {
            self.fulfil(&Cause::Unfrozen(row.oid))?;
        }
        if row.home == self.this_node {
            // A rotation is complete enough, or the identity is not retired or frozen any more.
            self.tx.release_lists()?;
        }
        Ok(row)
    }

    /// Accepts objects of a frozen identity again.
    pub fn unfreeze(&self, identity: &Oid) -> Result<(), StoreError> {
        self.tx.set_frozen(identity, false)?;
        self.cache.borrow_mut().invalidate_identity(identity);
        self.fulfil(&Cause::Unfrozen(*identity))
    }

    /// The number of identities of other nodes that this transaction froze.
    pub fn frozen_elsewhere(&self) -> usize {
        self.cache.borrow().frozen
    }

    /// Lets objects of an identity wait until its key is rotated or the operator unfreezes it.
    /// Identities of other nodes are counted and not logged, because a peer decides how many there
    /// are.
    pub(super) fn freeze(&self, known: &IdentityRow) -> Result<(), StoreError> {
        if known.frozen {
            return Ok(());
        }
        let identity = &known.oid;
        if known.home == self.this_node {
            tracing::error!(
                identity = identity.short(),
                "froze an identity of this node, because another home was claimed for it; its key \
                 was stolen, or its keys were moved: rotate it (`postern identity rotate`)"
            );
        } else {
            self.cache.borrow_mut().frozen += 1;
        }
        self.tx.set_frozen(identity, true)?;
        self.cache.borrow_mut().invalidate_identity(identity);
        Ok(())
    }
}

/// The stored key chain of a node; none if the node is not known.
pub fn known_server_chain(rows: &Rows<'_>, server: &Oid) -> Result<Option<KeyChain>, StoreError> {
    let Some(known) = rows.identity(server)? else {
        return Ok(None);
    };
    let app = rows.apps().get(identities::APP);
    let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
    let chain = stored_chain(rows, app, &known)?;
    chain
        .map(Some)
        .ok_or(StoreError::Inconsistent("a node without a key chain"))
}

/// The key chain of an identity's home node, as its home record has it.
pub fn home_chain(rows: &Rows<'_>, identity: &IdentityRow) -> Result<Option<KeyChain>, StoreError> {
    let app = rows.apps().get(identities::APP);
    let app = app.ok_or(StoreError::Inconsistent("an app without tables"))?;
    let attrs = rows.attrs(app, identity.parent_id)?;
    let home = attrs.iter().find(|(number, _)| *number == identities::HOME);
    let home = home.and_then(|(_, home)| home_in(home));
    Ok(home.map(|home| home.node))
}

fn stored_chain(
    rows: &Rows<'_>,
    app: &AppTable,
    known: &IdentityRow,
) -> Result<Option<KeyChain>, StoreError> {
    let attrs = rows.attrs(app, known.parent_id)?;
    let chain = attrs
        .iter()
        .find(|(number, _)| *number == identities::CHAIN);
    Ok(chain.and_then(|(_, chain)| chain_in(chain)))
}
