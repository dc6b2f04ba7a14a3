//! Identity records: objects that certify themselves (docs/DECISIONS.md 5).
//!
//! An identity's oid is the digest of its genesis event. Its key chain proves its current key. Its
//! home record, signed by the identity and the node, names its home. Fields that these do not prove
//! are ignored. Invariant: every part of an [`IdentityRecord`] was verified.

use keys::protocol::{IDENTITY_PART_BYTES_MAX, KEY_EVENTS_MAX};
use keys::{ChainError, HomeError, HomeRecord, KeyChain, Limits, PeerId, VerifiedChain, codec};

use crate::object::{Attrs, Object, Value};
use crate::schema::identities;

/// The content of a verified identity object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRecord {
    chain: VerifiedChain,
    home: PeerId,
    home_counter: u64,
    retired: bool,
}

/// Why an identity record is not valid.
#[derive(Debug, thiserror::Error)]
pub enum RecordFault {
    /// A field is missing or malformed.
    #[error("its {0} is missing or malformed")]
    Unreadable(&'static str),
    /// The key chain is not valid.
    #[error("its key chain is not valid")]
    Chain(#[from] ChainError),
    /// The home record is not valid.
    #[error("its home record is not valid")]
    Home(#[from] HomeError),
    /// The oid or the owner is not the digest of the genesis event.
    #[error("its oid is not that of its genesis event")]
    OtherOid,
    /// The public key is not the current one of the chain.
    #[error("its public key is not the current one of its key chain")]
    OtherKey,
}

impl IdentityRecord {
    /// Decodes and verifies the record of an identity object. Returns `None` for other types.
    pub fn read(object: &Object) -> Option<Result<Self, RecordFault>> {
        is_identity(object).then(|| Self::check(object))
    }

    fn check(object: &Object) -> Result<Self, RecordFault> {
        let bytes = |attr, what| {
            object
                .first(attr)
                .and_then(Value::as_bytes)
                .ok_or(RecordFault::Unreadable(what))
        };
        let chain: KeyChain = codec::decode(bytes(identities::CHAIN, "key chain")?, &RECORD_LIMITS)
            .map_err(|_| RecordFault::Unreadable("key chain"))?;
        let chain = chain.verify()?;
        if (chain.oid(), chain.oid()) != (object.oid, object.owner) {
            return Err(RecordFault::OtherOid);
        }
        if bytes(identities::PUBLIC_KEY, "public key")? != chain.current().as_bytes() {
            return Err(RecordFault::OtherKey);
        }
        let home: HomeRecord =
            codec::decode(bytes(identities::HOME, "home record")?, &RECORD_LIMITS)
                .map_err(|_| RecordFault::Unreadable("home record"))?;
        let home = home.verify(&chain)?;
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

    /// The identity's home.
    pub fn home(&self) -> PeerId {
        self.home
    }

    /// The home record's counter. Under one key the record with the highest counter applies.
    pub fn home_counter(&self) -> u64 {
        self.home_counter
    }

    /// Decides between two records of one identity: the later key wins, then the higher counter. A
    /// thief of a key can sign any counter with it, but does not have the key after it.
    pub(super) fn precedence(&self) -> (u32, u64) {
        (self.chain.key_id(), self.home_counter)
    }

    /// Whether the owner has stopped writing under this identity.
    pub fn is_retired(&self) -> bool {
        self.retired
    }
}

/// Whether an object is an identity.
pub(super) fn is_identity(object: &Object) -> bool {
    object.app == identities::APP && object.type_number == identities::IDENTITY
}

/// Decoder limits for a chain or a home record: up to eight items for each event of two chains.
const RECORD_LIMITS: Limits = Limits {
    bytes_max: IDENTITY_PART_BYTES_MAX,
    depth_max: 5,
    items_max: 32 + 8 * 2 * KEY_EVENTS_MAX,
};

/// Decodes the key chain in an Attr of an identity or a server; `None` if it is malformed.
pub(super) fn chain_in(value: &Value) -> Option<KeyChain> {
    codec::decode(value.as_bytes()?, &RECORD_LIMITS).ok()
}

/// Decodes the home record in an Attr of an identity; `None` if it is malformed.
pub(super) fn home_in(value: &Value) -> Option<HomeRecord> {
    codec::decode(value.as_bytes()?, &RECORD_LIMITS).ok()
}

/// The Attrs of a new identity object: listed, not retired.
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
