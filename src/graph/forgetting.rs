//! Forgets identities with their peer, unless something of them is kept.
//!
//! Kept is an identity with a petname, with a stored object, or in a conversation in which an
//! identity of this node takes part. Of an identity that was rotated or moved, the key number, the
//! digest of the key chain and the counter of the home stay. Otherwise the thief of an earlier key,
//! or an earlier home, could introduce the identity again
//! (docs/DECISIONS.md 6). Tested in `tests/core/forgetting.rs`.

use keys::{Digest, KeyChain, PeerId, codec};

use super::error::{ApplyError, Fault};
use super::manager::GraphManager;
use super::purge::{PORTION_SPENT_MAX, RemovedObjects};
use super::record::{IdentityRecord, chain_in};
use super::verify::VerifiedObject;
use crate::schema::identities;
use crate::store::{
    Account, ForgottenKey, IdentityRow, ParentRow, PurgeStep, Purged, PurgedIdentity, StoreError,
    Usage,
};

/// The counter of the first home of an identity.
const FIRST_COUNTER: u64 = 1;
/// Most scopes that one query reads.
const SCOPES_READ_MAX: usize = 64;

/// Whether an identity is forgotten.
enum Fate {
    /// Something of it is kept.
    Kept,
    /// Nothing is.
    Forgotten(Box<(IdentityRow, ParentRow)>),
    /// The portion ended before all of its scopes were looked at.
    Unknown,
}

impl GraphManager<'_> {
    /// Forgets one portion of the identities of which nothing is kept. Returns whether all are
    /// forgotten.
    pub(super) fn forget_identities(
        &mut self,
        removed: &mut RemovedObjects,
    ) -> Result<bool, StoreError> {
        if !self.keep_up(PurgeStep::Forgetting)? {
            return Ok(false);
        }
        while let Some(noted) = self.tx.next_purged_identity()? {
            if self.spent() > PORTION_SPENT_MAX {
                return Ok(false);
            }
            self.look_at(1);
            match self.fate(&noted)? {
                Fate::Unknown => return Ok(false),
                Fate::Kept => {}
                Fate::Forgotten(of) => self.forget(&noted, (&of.0, &of.1), removed)?,
            }
            self.tx.drop_purged_identity(&noted.oid)?;
        }
        Ok(true)
    }

    fn fate(&self, noted: &PurgedIdentity) -> Result<Fate, StoreError> {
        let app = self.table(identities::APP)?;
        let (known, row) = (self.identity(&noted.oid)?, self.tx.parent(app, &noted.oid)?);
        let (Some(known), Some(row)) = (known, row) else {
            return Ok(Fate::Kept);
        };
        let peer = self.purged_peer(noted.peer_no)?;
        let is_record = row.type_number == identities::IDENTITY && row.origin.is_some();
        // A record may name any node. One of another peer is the other peer's.
        let is_of_peer = known.home == peer
            || row.origin == Some(noted.peer_no) && self.tx.peer(&known.home)?.is_none();
        let is_here = known.home == self.this_node;
        // Its record may come from the node to which it moves, which sends it once.
        let is_moving = self.tx.pending_home(&noted.oid)?.is_some();
        if is_here
            || is_moving
            || self.is_back(noted.peer_no, &peer)?
            || !is_record
            || !is_of_peer
            || self.tx.contact(&noted.oid)?.is_some()
        {
            return Ok(Fate::Kept);
        }
        Ok(match self.shares_scope(noted)? {
            None => Fate::Unknown,
            Some(true) => Fate::Kept,
            Some(false) => Fate::Forgotten(Box::new((known, row))),
        })
    }

    /// Whether a peer whose identities alone were to be forgotten was admitted again meanwhile.
    fn is_back(&self, peer_no: i64, peer: &PeerId) -> Result<bool, StoreError> {
        let purge = self.tx.purge_of(peer_no)?;
        let takes_objects = purge.is_some_and(|purge| purge.order.takes_objects);
        let is_admitted =
            self.tx.peer(peer)?.is_some() && !self.tx.is_banned(peer, self.env.now)?;
        Ok(!takes_objects && is_admitted)
    }

    /// Whether an identity reads a scope in which an identity of this node takes part. `None`: the
    /// portion ended before all scopes were looked at, and the position is stored.
    fn shares_scope(&self, noted: &PurgedIdentity) -> Result<Option<bool>, StoreError> {
        let mut after = noted.after_scope;
        loop {
            let scopes = self
                .tx
                .some_scopes_read_by(&noted.oid, after, SCOPES_READ_MAX)?;
            let Some(last) = scopes.last().map(|scope| scope.id) else {
                return Ok(Some(false));
            };
            for scope in scopes {
                if self.is_read_here(scope.id)? {
                    return Ok(Some(true));
                }
            }
            after = last;
            if self.spent() > PORTION_SPENT_MAX {
                self.tx.put_purged_identity_scope(&noted.oid, after)?;
                return Ok(None);
            }
        }
    }

    /// Forgets an identity with its record.
    fn forget(
        &mut self,
        noted: &PurgedIdentity,
        (known, row): (&IdentityRow, &ParentRow),
        removed: &mut RemovedObjects,
    ) -> Result<(), StoreError> {
        let app = self.table(identities::APP)?;
        let change_seq = self.keep_numbers(removed)?;
        let peer = self.purged_peer(noted.peer_no)?;
        if known.key_id > 0 || known.home_counter > FIRST_COUNTER {
            let chain = self.known_chain(known)?;
            let chain = chain.ok_or(StoreError::Inconsistent("an identity without a key chain"))?;
            let key = ForgottenKey {
                peer_no: noted.peer_no,
                key_id: known.key_id,
                home_counter: known.home_counter,
                chain: digest_of(&chain),
            };
            self.tx.put_forgotten_key(&noted.oid, &key)?;
            self.tx.add_usage(&peer, Account::Own, &Usage::one(0))?;
        }
        let bytes = self.bytes_of(app, row)?;
        self.remove_charged(app, row, bytes, removed)?;
        self.tx.remove_identity(&noted.oid)?;
        self.cache.borrow_mut().invalidate_identity(&noted.oid);
        self.touch_readers_of(known.home, change_seq);
        *removed.identities.entry(noted.peer_no).or_default() += 1;
        if known.home != peer {
            return Ok(());
        }
        let purge = self.tx.purge_of(noted.peer_no)?;
        if purge.is_some_and(|purge| purge.order.takes_objects) {
            self.tx
                .remember_purged(noted.peer_no, &noted.oid, Purged::Object)?;
        }
        // The record comes again when the peer is admitted again.
        self.tx.restart_sync_in(&peer, identities::DOMAIN)
    }

    /// Refuses a record of a forgotten identity that does not continue the chain that was known.
    pub(super) fn check_forgotten(
        &self,
        verified: &VerifiedObject,
        record: &IdentityRecord,
    ) -> Result<(), ApplyError> {
        let Some(kept) = self.tx.forgotten_key(&verified.object.oid)? else {
            return Ok(());
        };
        if record.chain().key_id() < kept.key_id {
            return Err(Fault::OldKey.into());
        }
        if record.precedence() < (kept.key_id, kept.home_counter) {
            return Err(Fault::OldHome.into());
        }
        let chain = verified.object.first(identities::CHAIN).and_then(chain_in);
        let known = chain.map(|mut chain| {
            chain.events.truncate(kept.key_id as usize);
            digest_of(&chain)
        });
        match known == Some(kept.chain) {
            true => Ok(()),
            false => Err(Fault::ChainForked.into()),
        }
    }

    /// Deletes the kept key of an identity that is known again, and what it counted.
    pub(super) fn remember_identity(&self, identity: &keys::Oid) -> Result<(), StoreError> {
        let Some(kept) = self.tx.forgotten_key(identity)? else {
            return Ok(());
        };
        let peer = self.purged_peer(kept.peer_no)?;
        self.tx.add_usage(&peer, Account::Own, &-Usage::one(0))?;
        self.tx.remove_forgotten_key(identity)
    }
}

fn digest_of(chain: &KeyChain) -> Digest {
    Digest::of(&codec::encode(chain))
}
