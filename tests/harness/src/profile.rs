//! The profile of a client without a core.

use bastion::{AppClaim, Internal, LocalProfile, NodeProfile};
use futures::future::BoxFuture;
use keys::{BootId, Epoch, SchemaDigest, SignedObject};

/// The epoch of every client without a core.
pub const EPOCH: Epoch = Epoch::from_bytes([9; 16]);

/// A profile that never changes.
pub struct FixedProfile(pub NodeProfile);

impl FixedProfile {
    /// A profile with these apps, domains and identities, and a fixed epoch.
    pub fn new(
        apps: &[&str],
        sync_domains: &[&str],
        boot_id: BootId,
        identities: Vec<SignedObject>,
    ) -> Self {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Self(NodeProfile {
            apps: apps
                .iter()
                .map(|slug| AppClaim::new(*slug, 1, SchemaDigest::from_bytes([1; 16])))
                .collect(),
            sync_domains: names(sync_domains),
            epoch: EPOCH,
            boot_id,
            identities,
        })
    }
}

impl LocalProfile for FixedProfile {
    fn profile(&self) -> BoxFuture<'_, Result<NodeProfile, Internal>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}
