//! What this node says of itself to strangers that it dials or admits, and whom it lets in.
//!
//! Never tells a stranger that was not admitted anything. Invariant: claims are made anew for each handshake, from one
//! committed state.

use bastion::{Applicant, Decision, Gatekeeper, Internal, Profile, RefusalCode};
use futures::future::BoxFuture;
use keys::BootId;

use crate::config::{AdmissionConfig, Policy};
use crate::peer::Peers;
use crate::services::identities;
use crate::store::{StoreError, Tier};

/// The node's part in a handshake.
pub struct Doorkeeper {
    /// Who is here, and the engine behind.
    pub peers: Peers,
    /// Whom to let in.
    pub admission: AdmissionConfig,
    /// This start of the node.
    pub boot_id: BootId,
    /// Most identities that our claims carry.
    pub identities_max: usize,
}

impl Gatekeeper for Doorkeeper {
    fn profile(&self) -> BoxFuture<'_, Result<Profile, Internal>> {
        Box::pin(async {
            let ground = self.peers.engine().ground();
            let most = self.identities_max;
            let identities = self
                .peers
                .engine()
                .read(move |view| identities::for_handshake(&view, most))
                .await;
            Ok(Profile {
                apps: ground.schemas.apps().map(|app| app.slug.clone()).collect(),
                sync_domains: ground
                    .schemas
                    .sync_domains()
                    .map(|domain| domain.name.clone())
                    .collect(),
                epoch: ground.epoch,
                boot_id: self.boot_id,
                identities: identities.map_err(|error| Internal(error.to_string()))?,
            })
        })
    }

    fn decide<'a>(&'a self, applicant: Applicant<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async {
            let peer = applicant.claims.peer_id();
            let known = self.peers.engine().read(move |view| view.rows.peer(&peer)).await;
            let trusted = match known {
                Ok(row) => row.is_some_and(|row| row.tier == Tier::Trusted) || self.admission.allow.contains(&peer),
                Err(error) => {
                    let error: &crate::engine::EngineError<StoreError> = &error;
                    tracing::error!(%error, "could not look up a peer");
                    return Decision::Refuse(RefusalCode::Internal);
                }
            };
            // Those whom the operator knows find a place however many strangers have taken all: the newest of these goes.
            if trusted && self.peers.is_full_without(&peer, bastion::Tier::Trusted) {
                Decision::Refuse(RefusalCode::Busy)
            } else if trusted {
                Decision::Admit(bastion::Tier::Trusted)
            } else if self.peers.is_full_without(&peer, bastion::Tier::Worked) {
                Decision::Refuse(RefusalCode::Busy)
            } else if self.admission.policy == Policy::Open {
                Decision::Admit(bastion::Tier::Worked)
            } else {
                Decision::Refuse(RefusalCode::Policy)
            }
        })
    }
}
