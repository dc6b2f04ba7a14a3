//! Claims: what a node says of itself in a handshake, and what is checked before anybody believes it.
//!
//! A [`Profile`] goes out, [`PeerClaims`] come in. Never looks inside the identities' objects: the node does, through
//! the same door as for synced ones. Invariant: [`PeerClaims`] exist only where the key chain holds, the onion
//! address is signed by its own key, every name follows the grammar, and the lists are sorted and without repeats.

use std::fmt;

use keys::codec::{self, Limits};
use keys::{
    BootId, Context, Epoch, KeyChain, KeyManager, OnionAddr, PeerId, Signature, SignedObject,
    VerifiedChain,
};
use serde::{Deserialize, Serialize};

use crate::config::GateConfig;
use crate::error::{HandshakeError, Misbehaviour};
use crate::messages::Message;

/// Longest name of an app or a sync domain, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// What we claim of ourselves beside our keys; made anew for each handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Slugs of the apps that are on.
    pub apps: Vec<String>,
    /// Names of the sync domains that are on.
    pub sync_domains: Vec<String>,
    /// The database's epoch.
    pub epoch: Epoch,
    /// This start of the node.
    pub boot_id: BootId,
    /// Objects of the `identities` domain that the other side may see, at most `identities_max`.
    pub identities: Vec<SignedObject>,
}

/// Claims as they travel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    pub(crate) apps: Vec<String>,
    pub(crate) node: KeyChain,
    pub(crate) epoch: Epoch,
    pub(crate) onion: OnionAddr,
    pub(crate) boot_id: BootId,
    pub(crate) identities: Vec<SignedObject>,
    pub(crate) sync_domains: Vec<String>,
    pub(crate) onion_signature: Signature,
}

/// What a peer has proved or claimed. The identities are still unverified objects.
#[derive(Clone)]
pub struct PeerClaims {
    /// The node's keys, verified.
    pub chain: VerifiedChain,
    /// The chain as it travelled, to be stored.
    pub node: KeyChain,
    /// Slugs of the apps that are on there, sorted.
    pub apps: Vec<String>,
    /// Names of the sync domains that are on there, sorted.
    pub sync_domains: Vec<String>,
    /// The database's epoch there.
    pub epoch: Epoch,
    /// That start of the node.
    pub boot_id: BootId,
    /// The node's onion address; its key has signed the peer id. Whether it answers is another matter.
    pub onion: OnionAddr,
    /// Objects of the `identities` domain, unverified.
    pub identities: Vec<SignedObject>,
}

/// For logs: who it is, shortened; nothing of what it brought.
impl fmt::Debug for PeerClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerClaims({})", self.peer_id())
    }
}

impl PeerClaims {
    /// The peer's name.
    pub fn peer_id(&self) -> PeerId {
        self.chain.peer_id()
    }
}

/// Our claims, encoded as they are signed and sent, with as many of the identities as leave them within `bytes_max`: a
/// frame that is too long would keep us out everywhere, and the rest travels by sync.
pub(crate) fn claims_of(profile: Profile, keys: &KeyManager, bytes_max: usize) -> Vec<u8> {
    let onion_signature = keys.sign_as_onion(Context::OnionBinding, &[keys.peer_id().as_bytes()]);
    let mut claims = Claims {
        apps: sorted(profile.apps),
        node: keys.node_chain(),
        epoch: profile.epoch,
        onion: keys.onion(),
        boot_id: profile.boot_id,
        identities: profile.identities,
        sync_domains: sorted(profile.sync_domains),
        onion_signature,
    };
    loop {
        let encoded = codec::encode(&claims);
        if encoded.len() <= bytes_max || claims.identities.pop().is_none() {
            return encoded;
        }
    }
}

/// Bytes that are left for claims in a message of at most `bytes_max` bytes that has everything else.
pub(crate) fn room_for_claims(without: &Message, bytes_max: usize) -> usize {
    // The length of a longer string takes two bytes more.
    bytes_max.saturating_sub(without.encode().len() + 2)
}

pub(crate) fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

impl Claims {
    /// Decodes within limits and checks the lists: everything that is cheap.
    pub(crate) fn decode(bytes: &[u8], config: &GateConfig) -> Result<Self, HandshakeError> {
        let limits = Limits {
            bytes_max: config.unadmitted_frame_bytes_max,
            depth_max: 4,
            items_max: 64
                + config.apps_max
                + config.sync_domains_max
                + 4 * config.identities_max
                + 8 * config.key_events_max,
        };
        let claims: Self = codec::decode(bytes, &limits)?;
        check_names(&claims.apps, config.apps_max, is_slug)?;
        check_names(
            &claims.sync_domains,
            config.sync_domains_max,
            is_domain_name,
        )?;
        if claims.identities.len() > config.identities_max {
            return Err(Misbehaviour::Claims("too many identities").into());
        }
        Ok(claims)
    }

    /// The name claimed. Unproved, but whatever is proved later is proved of this name.
    pub(crate) fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(*self.node.genesis.first.as_bytes())
    }

    /// Verifies the chain, then `signature` by the node's current key, then the onion's. Costs signature checks.
    pub(crate) fn verify(
        self,
        context: Context,
        signed: &[&[u8]],
        signature: &Signature,
    ) -> Result<PeerClaims, HandshakeError> {
        let chain = self.node.verify().map_err(Misbehaviour::KeyChain)?;
        chain
            .current()
            .verify(context, signed, signature)
            .map_err(|_| Misbehaviour::Signature)?;
        let peer_id = chain.peer_id();
        self.onion
            .public_key()
            .verify(
                Context::OnionBinding,
                &[peer_id.as_bytes()],
                &self.onion_signature,
            )
            .map_err(|_| Misbehaviour::OnionUnproved)?;
        Ok(PeerClaims {
            chain,
            node: self.node,
            apps: self.apps,
            sync_domains: self.sync_domains,
            epoch: self.epoch,
            boot_id: self.boot_id,
            onion: self.onion,
            identities: self.identities,
        })
    }
}

fn check_names(
    names: &[String],
    count_max: usize,
    grammar: fn(&str) -> bool,
) -> Result<(), Misbehaviour> {
    if names.len() > count_max {
        return Err(Misbehaviour::Claims("too many names"));
    }
    if !names.is_sorted_by(|one, next| one < next) {
        return Err(Misbehaviour::Claims("names are not sorted, or repeat"));
    }
    match names.iter().all(|name| grammar(name)) {
        true => Ok(()),
        false => Err(Misbehaviour::Claims("a name breaks the grammar")),
    }
}

/// `[a-z][a-z0-9_]*`, at most [`NAME_BYTES_MAX`] bytes: an app.
pub fn is_slug(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
}

/// A slug, or two joined by a dot, at most [`NAME_BYTES_MAX`] bytes: a sync domain (`messages`, `rides.offers`).
pub fn is_domain_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && match name.split_once('.') {
            None => is_slug(name),
            Some((app, rest)) => is_slug(app) && is_slug(rest),
        }
}

/// The domains in both lists, sorted: what is synced between the two nodes (docs/STORY.md 7.1).
pub fn intersection(ours: &[String], theirs: &[String]) -> Vec<String> {
    sorted(
        ours.iter()
            .filter(|name| theirs.contains(name))
            .cloned()
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        for good in ["messages", "rides.offers", "market.public_offers", "a1"] {
            assert!(is_domain_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a.b.c",
            "Messages",
            "1a",
            "a b",
            "_a",
            "ä",
            &"a".repeat(65),
        ] {
            assert!(!is_domain_name(bad), "{bad}");
        }
        assert!(is_slug("rides") && !is_slug("rides.offers"));
    }

    #[test]
    fn the_intersection_is_sorted_and_without_repeats() {
        let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(
            intersection(
                &names(&["rides.offers", "messages", "messages", "market"]),
                &names(&["messages", "rides.offers", "x"])
            ),
            names(&["messages", "rides.offers"])
        );
    }
}
