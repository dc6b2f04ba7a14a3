//! Claims: the description of a node in a handshake, and its verification.
//!
//! A [`NodeProfile`] becomes the claims that this node sends; verified claims of a peer become
//! [`PeerClaims`]. The objects in `identities` stay unverified: the node verifies them like synced
//! objects. Invariant: [`PeerClaims`] exist only if the key chain verifies and the onion address is
//! signed by its own key. Every name in them follows the grammar, and the lists are sorted without
//! repeats. Tested below, in `handshake/hostile_tests.rs` and by `tests/fuzz`.

use std::fmt;

use keys::codec::{self, Limits};
use keys::protocol::{
    CLAIMED_APPS_MAX, CLAIMED_DOMAINS_MAX, CLAIMED_IDENTITIES_MAX, FEATURES_MAX, KEY_EVENTS_MAX,
    NAME_BYTES_MAX, SCHEMA_VERSION_MAX, UNADMITTED_FRAME_BYTES_MAX,
};
use keys::{
    BootId, Context, Epoch, KeyChain, KeyManager, OnionAddr, PeerId, SchemaDigest, Signature,
    SignedObject, VerifiedChain,
};
use serde::{Deserialize, Serialize};

use crate::error::{HandshakeError, Misbehaviour};
use crate::features::Features;
use crate::messages::HandshakeMessage;

/// An app as a node announces it: which schema its objects follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AppClaimWire", into = "AppClaimWire")]
pub struct AppClaim {
    /// Slug of the app.
    pub slug: String,
    /// Version of its schema, 1 to [`SCHEMA_VERSION_MAX`].
    pub version: u32,
    /// Digest of the part of the schema that travels.
    pub digest: SchemaDigest,
}

/// An [`AppClaim`] on the wire.
#[derive(Serialize, Deserialize)]
struct AppClaimWire(String, u32, SchemaDigest);

impl AppClaim {
    /// Makes the claim of an app.
    pub fn new(slug: impl Into<String>, version: u32, digest: SchemaDigest) -> Self {
        Self {
            slug: slug.into(),
            version,
            digest,
        }
    }
}

impl From<AppClaimWire> for AppClaim {
    fn from(AppClaimWire(slug, version, digest): AppClaimWire) -> Self {
        Self::new(slug, version, digest)
    }
}

impl From<AppClaim> for AppClaimWire {
    fn from(claim: AppClaim) -> Self {
        Self(claim.slug, claim.version, claim.digest)
    }
}

/// The claims of this node without its keys. Built for each handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeProfile {
    /// The active apps, one claim for each slug.
    pub apps: Vec<AppClaim>,
    /// Names of the active sync domains.
    pub sync_domains: Vec<String>,
    /// Epoch of this node's database.
    pub epoch: Epoch,
    /// Identifies this start of the node.
    pub boot_id: BootId,
    /// Objects of the `identities` domain that the peer may see, at most
    /// [`CLAIMED_IDENTITIES_MAX`].
    pub identities: Vec<SignedObject>,
}

/// Claims on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    pub(crate) apps: Vec<AppClaim>,
    pub(crate) node: KeyChain,
    pub(crate) epoch: Epoch,
    pub(crate) onion: OnionAddr,
    pub(crate) boot_id: BootId,
    pub(crate) features: Features,
    pub(crate) identities: Vec<SignedObject>,
    pub(crate) sync_domains: Vec<String>,
    pub(crate) onion_signature: Signature,
}

/// The verified claims of a peer.
#[derive(Clone)]
pub struct PeerClaims {
    /// The peer's verified key chain.
    pub chain: VerifiedChain,
    /// The key chain as received, to be stored.
    pub node: KeyChain,
    /// The peer's active apps, sorted by slug.
    pub apps: Vec<AppClaim>,
    /// Names of the peer's active sync domains, sorted.
    pub sync_domains: Vec<String>,
    /// Epoch of the peer's database.
    pub epoch: Epoch,
    /// Identifies this start of the peer's node.
    pub boot_id: BootId,
    /// Features that the peer offers.
    pub features: Features,
    /// The peer's onion address, whose key has signed the peer id. The signature does not prove
    /// that the peer is reachable there.
    pub onion: OnionAddr,
    /// Unverified objects of the `identities` domain.
    pub identities: Vec<SignedObject>,
}

/// Prints the shortened peer id and nothing else, because claims may reach logs.
impl fmt::Debug for PeerClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerClaims({})", self.peer_id())
    }
}

impl PeerClaims {
    /// Returns the peer's identity.
    pub fn peer_id(&self) -> PeerId {
        self.chain.peer_id()
    }
}

/// Returns this node's claims, encoded as they are signed and sent. Identities that do not fit in
/// `bytes_max` are left out, because every server refuses a frame that is too long; they follow by
/// sync.
pub(crate) fn encode_claims(
    mut profile: NodeProfile,
    features: Features,
    keys: &KeyManager,
    bytes_max: usize,
) -> Vec<u8> {
    profile
        .apps
        .sort_unstable_by(|one, other| one.slug.cmp(&other.slug));
    let onion_signature = keys.sign_as_onion(Context::OnionBinding, &[keys.peer_id().as_bytes()]);
    let mut claims = Claims {
        apps: profile.apps,
        node: keys.node_chain(),
        epoch: profile.epoch,
        onion: keys.onion(),
        boot_id: profile.boot_id,
        features,
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

/// Returns the bytes left for claims in a message of at most `bytes_max` bytes. `without` is the
/// message with empty claims.
pub(crate) fn claims_space(without: &HandshakeMessage, bytes_max: usize) -> usize {
    // The length prefix of the claims takes two bytes more than that of an empty string.
    bytes_max.saturating_sub(without.encode().len() + 2)
}

pub(crate) fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

impl Claims {
    /// Decodes within limits and checks the lists. Verifies no signature.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HandshakeError> {
        let limits = Limits {
            bytes_max: UNADMITTED_FRAME_BYTES_MAX,
            depth_max: 4,
            items_max: 64
                + 4 * CLAIMED_APPS_MAX
                + FEATURES_MAX
                + CLAIMED_DOMAINS_MAX
                + 4 * CLAIMED_IDENTITIES_MAX
                + 8 * KEY_EVENTS_MAX,
        };
        let claims: Self = codec::decode(bytes, &limits)?;
        let slugs = claims.apps.iter().map(|app| app.slug.as_str());
        check_names(slugs, CLAIMED_APPS_MAX, is_slug)?;
        let is_version = |app: &AppClaim| (1..=SCHEMA_VERSION_MAX).contains(&app.version);
        if !claims.apps.iter().all(is_version) {
            return Err(Misbehaviour::Claims("a schema has no valid version").into());
        }
        let domains = claims.sync_domains.iter().map(String::as_str);
        check_names(domains, CLAIMED_DOMAINS_MAX, is_domain_name)?;
        if claims.node.events.len() > KEY_EVENTS_MAX {
            return Err(Misbehaviour::Claims("too many key events").into());
        }
        if claims.identities.len() > CLAIMED_IDENTITIES_MAX {
            return Err(Misbehaviour::Claims("too many identities").into());
        }
        Ok(claims)
    }

    /// Returns the claimed peer id. [`Claims::verify`] proves it.
    pub(crate) fn peer_id(&self) -> PeerId {
        PeerId::from_bytes(*self.node.genesis.first.as_bytes())
    }

    /// Verifies the key chain, then `signature` by the node's current key over `signed`, then the
    /// onion binding.
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
            features: self.features,
            onion: self.onion,
            identities: self.identities,
        })
    }
}

fn check_names<'n>(
    names: impl ExactSizeIterator<Item = &'n str> + Clone,
    count_max: usize,
    grammar: fn(&str) -> bool,
) -> Result<(), Misbehaviour> {
    if names.len() > count_max {
        return Err(Misbehaviour::Claims("too many names"));
    }
    if !names.clone().is_sorted_by(|one, next| one < next) {
        return Err(Misbehaviour::Claims("names are not sorted, or repeat"));
    }
    match names.clone().all(grammar) {
        true => Ok(()),
        false => Err(Misbehaviour::Claims("a name breaks the grammar")),
    }
}

/// Returns whether `name` is the slug of an app: `[a-z][a-z0-9_]*`, at most [`NAME_BYTES_MAX`]
/// bytes.
pub fn is_slug(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Returns whether `name` is the name of a sync domain: a slug or two slugs joined by a dot, at
/// most [`NAME_BYTES_MAX`] bytes (`messages`, `rides.offers`).
pub fn is_domain_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && match name.split_once('.') {
            None => is_slug(name),
            Some((app, rest)) => is_slug(app) && is_slug(rest),
        }
}

/// Returns the sync domains in both lists, sorted. Only these are synced between the two nodes
/// (docs/STORY.md 7.1).
pub fn intersection(local: &[String], remote: &[String]) -> Vec<String> {
    sorted(
        local
            .iter()
            .filter(|name| remote.contains(name))
            .cloned()
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_names_that_follow_the_grammar() {
        for valid in ["messages", "rides.offers", "market.public_offers", "a1"] {
            assert!(is_domain_name(valid), "{valid}");
        }
        for invalid in [
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
            assert!(!is_domain_name(invalid), "{invalid}");
        }
        assert!(is_slug("rides") && !is_slug("rides.offers"));
    }

    #[test]
    fn intersection_is_sorted_without_repeats() {
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
