//! Identity records: objects that prove themselves (docs/DECISIONS.md 5).
//!
//! An identity's oid is the digest of its genesis, its chain gives its key, and its home record, signed by both sides,
//! says where it lives. Never trusts a field that these do not prove. Invariant: an [`IdentityRecord`] was checked whole.

use keys::{ChainError, HomeError, HomeRecord, KeyChain, Limits, PeerId, VerifiedChain, codec};

use crate::object::{Attrs, Object, Value};
use crate::schema::identities;

/// What a verified identity object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRecord {
    chain: VerifiedChain,
    home: PeerId,
    home_counter: u64,
    retired: bool,
}

/// Why an identity object proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecordFault {
    /// A field is missing or cannot be read.
    #[error("its {0} cannot be read")]
    Unreadable(&'static str),
    /// The chain does not hold.
    #[error("its key chain does not hold")]
    Chain(#[from] ChainError),
    /// The home record does not hold.
    #[error("its home record does not hold")]
    Home(#[from] HomeError),
    /// The oid or the owner is not the one that the genesis gives.
    #[error("its oid is not that of its genesis")]
    OtherOid,
    /// The public key is not the chain's current one.
    #[error("its public key is not the current one of its chain")]
    OtherKey,
}

impl IdentityRecord {
    /// Reads and checks an identity object. `None` where the object is of another type.
    pub fn read(object: &Object, key_events_max: usize) -> Option<Result<Self, RecordFault>> {
        let is_identity =
            object.app == identities::APP && object.type_number == identities::IDENTITY;
        is_identity.then(|| Self::check(object, key_events_max))
    }

    fn check(object: &Object, key_events_max: usize) -> Result<Self, RecordFault> {
        let bytes = |attr, what| {
            object
                .first(attr)
                .and_then(Value::as_bytes)
                .ok_or(RecordFault::Unreadable(what))
        };
        let limits = record_limits(key_events_max);
        let chain: KeyChain = codec::decode(bytes(identities::CHAIN, "key chain")?, &limits)
            .map_err(|_| RecordFault::Unreadable("key chain"))?;
        let chain = chain.verify()?;
        if (chain.oid(), chain.oid()) != (object.oid, object.owner) {
            return Err(RecordFault::OtherOid);
        }
        if bytes(identities::PUBLIC_KEY, "public key")? != chain.current().as_bytes() {
            return Err(RecordFault::OtherKey);
        }
        let home: HomeRecord = codec::decode(bytes(identities::HOME, "home record")?, &limits)
            .map_err(|_| RecordFault::Unreadable("home record"))?;
        let home = home.verify(&chain)?;
        if home.counter() > i64::MAX as u64 {
            return Err(RecordFault::Unreadable("home record's counter"));
        }
        Ok(Self {
            chain,
            home: home.node(),
            home_counter: home.counter(),
            retired: object
                .first(identities::RETIRED)
                .and_then(Value::as_integer)
                == Some(1),
        })
    }

    /// The verified key chain.
    pub fn chain(&self) -> &VerifiedChain {
        &self.chain
    }

    /// The node where the identity lives.
    pub fn home(&self) -> PeerId {
        self.home
    }

    /// The home record's counter: the highest under one key wins.
    pub fn home_counter(&self) -> u64 {
        self.home_counter
    }

    /// Whether the identity says that it writes no more.
    pub fn is_retired(&self) -> bool {
        self.retired
    }
}

fn record_limits(key_events_max: usize) -> Limits {
    Limits {
        bytes_max: 16 * 1024,
        depth_max: 5,
        items_max: 32 + 8 * 2 * key_events_max,
    }
}

/// The chain in an Attr of an identity or a server.
pub(super) fn chain_in(value: &Value, key_events_max: usize) -> Option<KeyChain> {
    codec::decode(value.as_bytes()?, &record_limits(key_events_max)).ok()
}

/// The home record in an Attr of an identity.
pub(super) fn home_in(value: &Value, key_events_max: usize) -> Option<HomeRecord> {
    codec::decode(value.as_bytes()?, &record_limits(key_events_max)).ok()
}

/// The Attrs of an identity object.
pub fn new_identity_attrs(
    chain: &KeyChain,
    verified: &VerifiedChain,
    home: &HomeRecord,
    name: Option<&str>,
) -> Attrs {
    let mut attrs = Attrs::from([
        (
            identities::PUBLIC_KEY,
            vec![Value::Bytes(verified.current().as_bytes().to_vec())],
        ),
        (identities::CHAIN, vec![Value::Bytes(codec::encode(chain))]),
        (identities::HOME, vec![Value::Bytes(codec::encode(home))]),
    ]);
    if let Some(name) = name {
        attrs.insert(identities::NAME, vec![Value::from(name)]);
    }
    attrs
}
