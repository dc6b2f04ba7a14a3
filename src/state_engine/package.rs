//! A package: what changed in one domain, for one recipient, signed by the sending node
//! (docs/STORY.md 2.1 step 5).
//!
//! A package is a COSE_Sign1 over the exact bytes sent. Its signature is verified before its
//! payload is decoded, and its header must agree with the session. Invariant: a [`VerifiedPackage`]
//! is signed by the session's peer for this node. Tested in `tests/core/packages.rs`.

use bastion::{Feature, Features};
use keys::cose::Sign1;
use keys::protocol::{
    PACKAGE_BYTES_MAX, PACKAGE_OBJECTS_MAX, PACKAGE_VERSION, SCOPES_NAMED_MAX, STUBS_MAX,
};
use keys::{
    Context, Epoch, KeyManager, Limits, Malformed, Oid, PeerId, PublicKey, SignedObject, codec,
    cose,
};
use serde::{Deserialize, Serialize};

use super::stubs::Stubs;

/// Limits of a package.
#[derive(Debug, Clone, Copy)]
pub struct PackageLimits {
    /// Largest package in bytes, including its envelope. A package must fit into a frame.
    pub bytes_max: usize,
    /// Largest number of objects, and so the largest change group, because groups are never split.
    pub objects_max: usize,
}

impl PackageLimits {
    /// The protocol's limits. Every node accepts packages up to these limits, even if it builds
    /// smaller ones itself.
    pub const PROTOCOL: Self = Self {
        bytes_max: PACKAGE_BYTES_MAX,
        objects_max: PACKAGE_OBJECTS_MAX,
    };
}

impl Default for PackageLimits {
    fn default() -> Self {
        Self::PROTOCOL
    }
}

/// The sequence numbers that a package covers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first number; 0 in the first window.
    pub from_seq: u64,
    /// The last number that was scanned.
    pub to_seq: u64,
}

/// The signed payload. Its fields are in canonical order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Whether the next window is ready.
    pub more: bool,
    /// The sender's epoch, in which the window's numbers count.
    pub epoch: Epoch,
    /// Objects that the recipient may have from elsewhere. `None`: there is none. Only in a session
    /// with the feature `relay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stubs: Option<Stubs>,
    /// The sync domain.
    pub domain: String,
    /// The scopes that became readable in the window. Their earlier changes come by a pull that
    /// asks for them again. `None`: the whole domain.
    pub scopes: Option<Vec<Oid>>,
    /// The sending node.
    pub sender: PeerId,
    /// The last sequence number that was scanned.
    pub to_seq: u64,
    /// Whole objects with their owners' signatures, in `change_seq` order.
    pub objects: Vec<SignedObject>,
    /// The version of the format, 1.
    pub version: u32,
    /// The first sequence number; 0 in the first window.
    pub from_seq: u64,
    /// The receiving node.
    pub recipient: PeerId,
}

/// Why a whole package is rejected. Neither rows nor cursor change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageFault {
    /// The bytes are not a package in canonical form.
    #[error("the package is malformed")]
    Malformed(#[from] Malformed),
    /// The sender's signature is not valid.
    #[error("the package is not signed by its sender")]
    BadSignature,
    /// The format has another version.
    #[error("the package has version {0}")]
    Version(u32),
    /// The sender is not the session's peer.
    #[error("the package names another sender")]
    Sender,
    /// The recipient is another node.
    #[error("the package is for another node")]
    Recipient,
    /// The domain was not requested, or is outside the intersection.
    #[error("the package is for another domain")]
    Domain,
    /// The epoch is not the one with which the peer was admitted.
    #[error("the package counts in another epoch than the peer's")]
    Epoch,
    /// The window is empty or inverted.
    #[error("the package's window is empty or inverted")]
    Window,
    /// The package has more objects than [`PackageLimits::objects_max`], or names too many scopes.
    #[error("the package has too many objects")]
    TooManyObjects,
    /// The package has stubs without the feature, too many, or one without place or owner.
    #[error("the package has stubs that break a rule")]
    Stubs,
}

impl PackageFault {
    /// The stable code, which is sent to the peer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::BadSignature => "signature",
            Self::Version(_) => "version",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::Domain => "domain",
            Self::Epoch => "epoch",
            Self::Window => "window",
            Self::TooManyObjects => "too_many_objects",
            Self::Stubs => "stubs",
        }
    }
}

/// The session with which a package must agree.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'s> {
    /// The session's peer.
    pub sender: &'s PeerId,
    /// The peer's current key.
    pub key: &'s PublicKey,
    /// This node.
    pub recipient: &'s PeerId,
    /// The epoch with which the peer was admitted.
    pub epoch: Epoch,
    /// The features of the session.
    pub features: &'s Features,
}

/// A package whose sender, signature and recipient are valid. Its objects are not verified yet.
#[derive(Debug, Clone)]
pub struct VerifiedPackage {
    package: Package,
}

/// Decoder limits for a package. Each object has four items: array, number, two byte strings. Each
/// stub has nine, and up to two for its place and its owner.
fn decoder_limits(limits: &PackageLimits, has_stubs: bool) -> Limits {
    let stubs_max = if has_stubs { STUBS_MAX } else { 0 };
    Limits {
        bytes_max: limits.bytes_max,
        depth_max: if has_stubs { 4 } else { 3 },
        items_max: 36 + SCOPES_NAMED_MAX + 11 * stubs_max + 4 * limits.objects_max,
    }
}

impl Package {
    /// Signs the package as this node, for a session with these features.
    pub fn sign(&self, keys: &KeyManager, features: &Features) -> Vec<u8> {
        let features = features.encode();
        keys.sign1_as_node(Context::Package, &[&features], &codec::encode(self))
    }

    /// Bytes that an object adds to a package, at most.
    pub fn object_bytes(object: &SignedObject) -> usize {
        // Array head, key number (at most 5), two byte-string heads (5 and 2), bytes, signature.
        1 + 5 + 5 + object.bytes().len() + 2 + 64
    }

    /// Bytes that a named scope adds to a package.
    pub const NAME_BYTES: usize = 1 + Oid::LEN;

    /// Largest number of bytes of a package without objects, including its envelope.
    pub const EMPTY_BYTES_MAX: usize = cose::OVERHEAD_BYTES + 384;
}

impl VerifiedPackage {
    /// Verifies a received package: size, envelope, signature by the sender's key over the
    /// session's features, then the header against the session.
    pub fn verify(
        bytes: &[u8],
        limits: &PackageLimits,
        expected: &Expected<'_>,
    ) -> Result<Self, PackageFault> {
        let features = expected.features.encode();
        let payload = Sign1::parse(bytes, limits.bytes_max)?
            .verify(expected.key, Context::Package, &[&features])
            .map_err(|_| PackageFault::BadSignature)?;
        let may_have_stubs = expected.features.has(Feature::Relay);
        let package: Package = codec::decode(&payload, &decoder_limits(limits, may_have_stubs))?;
        if package.version != PACKAGE_VERSION {
            return Err(PackageFault::Version(package.version));
        }
        if package.sender != *expected.sender {
            return Err(PackageFault::Sender);
        }
        if package.recipient != *expected.recipient {
            return Err(PackageFault::Recipient);
        }
        if package.epoch != expected.epoch {
            return Err(PackageFault::Epoch);
        }
        if package.to_seq == 0 || package.from_seq > package.to_seq {
            return Err(PackageFault::Window);
        }
        let named = package.scopes.as_ref().map_or(0, Vec::len);
        if package.objects.len() > limits.objects_max || named > SCOPES_NAMED_MAX {
            return Err(PackageFault::TooManyObjects);
        }
        let has_faulty_stubs = |it: &Stubs| !may_have_stubs || it.is_empty() || !it.is_valid();
        if package.stubs.as_ref().is_some_and(has_faulty_stubs) {
            return Err(PackageFault::Stubs);
        }
        Ok(Self { package })
    }

    /// The window that the package covers.
    pub fn window(&self) -> Window {
        Window {
            from_seq: self.package.from_seq,
            to_seq: self.package.to_seq,
        }
    }

    /// The scopes to pull again from the beginning; `None`: the whole domain.
    pub fn scopes(&self) -> Option<&[Oid]> {
        self.package.scopes.as_deref()
    }

    /// The sync domain.
    pub fn domain(&self) -> &str {
        &self.package.domain
    }

    /// The sender's epoch.
    pub fn epoch(&self) -> Epoch {
        self.package.epoch
    }

    /// The sending node.
    pub fn sender(&self) -> PeerId {
        self.package.sender
    }

    /// Whether the next window is ready.
    pub fn more(&self) -> bool {
        self.package.more
    }

    /// Whether scopes are to be pulled again from the beginning.
    pub fn names_scopes(&self) -> bool {
        self.scopes().is_none_or(|scopes| !scopes.is_empty())
    }

    /// Moves the stubs out.
    pub fn take_stubs(&mut self) -> Option<Stubs> {
        self.package.stubs.take()
    }

    /// Moves the objects out, to be verified concurrently with the writer.
    pub fn take_objects(&mut self) -> Vec<SignedObject> {
        std::mem::take(&mut self.package.objects)
    }
}
