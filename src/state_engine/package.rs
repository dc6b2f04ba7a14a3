//! A package: what changed in one domain, for one recipient, signed by the sending node (docs/STORY.md 2.1 step 5).
//!
//! COSE_Sign1 over the exact bytes sent; the signature is verified before anything inside is looked at. Never trusts a
//! header field that contradicts the session. Invariant: a [`VerifiedPackage`] is from that sender, for this node.

use keys::cose::Sign1;
use keys::protocol::{PACKAGE_BYTES_MAX, PACKAGE_OBJECTS_MAX};
use keys::{
    Context, Epoch, KeyManager, Limits, Malformed, PeerId, PublicKey, SignedObject, codec, cose,
};
use serde::{Deserialize, Serialize};

/// Version of the package's form.
pub(super) const VERSION: u32 = 1;

/// Limits of a package.
#[derive(Debug, Clone, Copy)]
pub struct PackageLimits {
    /// Longest package in bytes, envelope included. It must fit a frame.
    pub bytes_max: usize,
    /// Most objects, and so the most that one change group may have: groups are never split.
    pub objects_max: usize,
}

impl PackageLimits {
    /// What the protocol allows, and so what every node takes, however small the packages are that it builds itself.
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

/// Which sequence numbers a package stands for, both ends included. `from_seq` is 0 in the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first.
    pub from_seq: u64,
    /// The last that was scanned.
    pub to_seq: u64,
}

/// The signed content (fields in canonical order).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Whether a further window is ready behind this one.
    pub more: bool,
    /// The sender's epoch, in which the window counts.
    pub epoch: Epoch,
    /// The domain.
    pub domain: String,
    /// The sending node.
    pub sender: PeerId,
    /// Last sequence number scanned.
    pub to_seq: u64,
    /// Whole objects with their owners' signatures, in `change_seq` order.
    pub objects: Vec<SignedObject>,
    /// [`VERSION`].
    pub version: u32,
    /// First sequence number, 0 in the first window.
    pub from_seq: u64,
    /// The node that it is for.
    pub recipient: PeerId,
}

/// A fault of the whole package: it is rejected and moves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageFault {
    /// It cannot be read.
    #[error("the package is malformed")]
    Malformed(#[from] Malformed),
    /// The sender's signature does not hold.
    #[error("the package is not signed by its sender")]
    BadSignature,
    /// Of another version.
    #[error("the package has version {0}")]
    Version(u32),
    /// It names another sender than the session's peer.
    #[error("the package names another sender")]
    Sender,
    /// It is for another node.
    #[error("the package is for another node")]
    Recipient,
    /// Of another domain than was asked for, or of one outside the intersection.
    #[error("the package is of another domain")]
    Domain,
    /// Its window is no window.
    #[error("the package's window is empty or inverted")]
    Window,
    /// More objects than the limit.
    #[error("the package has too many objects")]
    TooManyObjects,
}

impl PackageFault {
    /// A short stable word, which the peer may see.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::BadSignature => "signature",
            Self::Version(_) => "version",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::Domain => "domain",
            Self::Window => "window",
            Self::TooManyObjects => "too_many_objects",
        }
    }
}

/// A package whose sender, signature and recipient held. Its objects are not judged yet.
#[derive(Debug, Clone)]
pub struct VerifiedPackage {
    package: Package,
}

/// What the scan allows of a package: each object is four items (array, number, two byte strings).
fn package_limits_wire(limits: &PackageLimits) -> Limits {
    Limits {
        bytes_max: limits.bytes_max,
        depth_max: 3,
        items_max: 32 + 4 * limits.objects_max,
    }
}

impl Package {
    /// Signs the package as this node.
    pub fn sign(&self, keys: &KeyManager) -> Vec<u8> {
        keys.sign1_as_node(Context::Package, &codec::encode(self))
    }

    /// Bytes that an object adds to a package.
    pub fn object_bytes(object: &SignedObject) -> usize {
        // Array head, key number (5 at most), two byte-string heads (5 and 2), the bytes, the signature.
        1 + 5 + 5 + object.bytes().len() + 2 + 64
    }

    /// Bytes of a package without objects, envelope included, at most.
    pub const EMPTY_BYTES_MAX: usize = cose::OVERHEAD_BYTES + 384;
}

impl VerifiedPackage {
    /// Checks a package as it came: size, envelope, signature by `sender_key`, then the header against the session.
    pub fn verify(
        bytes: &[u8],
        limits: &PackageLimits,
        sender: (&PeerId, &PublicKey),
        recipient: &PeerId,
    ) -> Result<Self, PackageFault> {
        let payload = Sign1::parse(bytes, limits.bytes_max)?
            .verify(sender.1, Context::Package)
            .map_err(|_| PackageFault::BadSignature)?;
        let package: Package = codec::decode(&payload, &package_limits_wire(limits))?;
        if package.version != VERSION {
            return Err(PackageFault::Version(package.version));
        }
        if package.sender != *sender.0 {
            return Err(PackageFault::Sender);
        }
        if package.recipient != *recipient {
            return Err(PackageFault::Recipient);
        }
        if package.to_seq == 0
            || package.from_seq > package.to_seq
            || package.to_seq > i64::MAX as u64
        {
            return Err(PackageFault::Window);
        }
        if package.objects.len() > limits.objects_max {
            return Err(PackageFault::TooManyObjects);
        }
        Ok(Self { package })
    }

    /// Its window.
    pub fn window(&self) -> Window {
        Window {
            from_seq: self.package.from_seq,
            to_seq: self.package.to_seq,
        }
    }

    /// Its domain.
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

    /// Whether a further window is ready.
    pub fn more(&self) -> bool {
        self.package.more
    }

    /// Takes the objects out, to be verified beside the writer.
    pub fn take_objects(&mut self) -> Vec<SignedObject> {
        std::mem::take(&mut self.package.objects)
    }
}
