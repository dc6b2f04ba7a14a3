//! The features and sizes of one run, drawn from the seed.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use postern::config::SyncConfig;
use postern::state_engine::{AsideLimits, CoreLimits, PackageLimits};
use rand::RngExt as _;
use rand_chacha::ChaCha20Rng;

use super::net::Weather;

/// A kind of event that may happen in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Feature {
    /// Conversations of more than two.
    Groups,
    /// Conversations with members whose nodes have not met, and references to objects of others.
    FarMembers,
    /// Identities that are created while others write to them.
    LateIdentities,
    /// An own app with references between objects of several owners.
    OwnApps,
    /// Deletions of objects to which none refers.
    Deletions,
    /// With [`Feature::Deletions`]: also of scopes, and of objects to which others refer.
    ScopeDeletions,
    /// Rotations of the keys of identities and nodes.
    Rotations,
    /// Crashes after any commit, and orderly restarts.
    Crashes,
    /// Restores from a backup.
    Restores,
    /// An older copy of the database put in place.
    Rollbacks,
    /// Links that are cut within a frame, or fall silent.
    Cuts,
    /// Links that both sides dial.
    Duplicates,
    /// Pushes beside pulls.
    Pushes,
    /// Changes of who may read and write in a scope, by its owner.
    Memberships,
    /// Members that leave a scope.
    Leaves,
    /// Little room for waiting objects.
    SmallRoom,
    /// Long stretches in which parts of the network are unreachable.
    Quiet,
    /// A hostile peer.
    Hostile,
    /// A hostile peer that takes the oids of others.
    OidThieves,
    /// A hostile peer that owns scopes with honest readers.
    HostileScopes,
    /// Packages that are applied in many parts.
    SmallParts,
    /// Stretches of more than 31 days, after which waiting objects expire.
    LongQuiet,
    /// Writes that are undone after they have written rows.
    FailedWrites,
    /// With [`Feature::Memberships`]: also changes of who may read a contact card.
    CardMembers,
    /// Identities that move to another node.
    Moves,
    /// With [`Feature::OwnApps`]: nodes with different versions of the own app, which upgrade.
    SchemaVersions,
    /// Changes that are pushed at once beside pulls.
    Outbox,
    /// Nodes that offer the protocol feature `watch`, beside nodes that do not.
    Watch,
    /// Nodes that offer the protocol feature `relay`, beside nodes that do not.
    Relay,
    /// Scopes with members at nodes that are not linked. Linked nodes that meet only in the end.
    Apart,
    /// Operators that are asked about invitations, beside some that accept all.
    Consent,
    /// Nodes that offer the protocol feature `introduce`, beside nodes that do not.
    Introduce,
    /// Nodes that offer the protocol feature `receipts`, beside nodes that do not.
    Receipts,
    /// Operators that ban and remove peers, with and without a purge.
    Purges,
    /// A hostile peer that lists members on nodes that nothing serves.
    DeadNodes,
}

/// Every feature with its name on the command line.
const NAMES: [(Feature, &str); 35] = [
    (Feature::Groups, "groups"),
    (Feature::FarMembers, "far-members"),
    (Feature::LateIdentities, "late-identities"),
    (Feature::OwnApps, "own-apps"),
    (Feature::Deletions, "deletions"),
    (Feature::ScopeDeletions, "scope-deletions"),
    (Feature::Rotations, "rotations"),
    (Feature::Crashes, "crashes"),
    (Feature::Restores, "restores"),
    (Feature::Rollbacks, "rollbacks"),
    (Feature::Cuts, "cuts"),
    (Feature::Duplicates, "duplicates"),
    (Feature::Pushes, "pushes"),
    (Feature::Memberships, "memberships"),
    (Feature::Leaves, "leaves"),
    (Feature::SmallRoom, "small-room"),
    (Feature::Quiet, "quiet"),
    (Feature::Hostile, "hostile"),
    (Feature::OidThieves, "oid-thieves"),
    (Feature::HostileScopes, "hostile-scopes"),
    (Feature::SmallParts, "small-parts"),
    (Feature::LongQuiet, "long-quiet"),
    (Feature::FailedWrites, "failed-writes"),
    (Feature::CardMembers, "card-members"),
    (Feature::Moves, "moves"),
    (Feature::SchemaVersions, "schema-versions"),
    (Feature::Outbox, "outbox"),
    (Feature::Watch, "watch"),
    (Feature::Relay, "relay"),
    (Feature::Apart, "apart"),
    (Feature::Consent, "consent"),
    (Feature::Introduce, "introduce"),
    (Feature::Receipts, "receipts"),
    (Feature::Purges, "purges"),
    (Feature::DeadNodes, "dead-nodes"),
];

/// Features that a run may contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features(BTreeSet<Feature>);

impl Features {
    /// Every feature.
    pub fn all() -> Self {
        Self(NAMES.iter().map(|(feature, _)| *feature).collect())
    }

    /// No feature: writes, pulls and nothing else.
    pub fn none() -> Self {
        Self(BTreeSet::new())
    }

    pub(super) fn has(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }

    /// Each feature is in a run with a chance of two thirds. The draw does not depend on which
    /// features are permitted.
    fn drawn(&self, rng: &mut ChaCha20Rng) -> Self {
        let drawn = NAMES.iter().map(|(feature, _)| *feature);
        let drawn: BTreeSet<_> = drawn.filter(|_| rng.random_bool(0.66)).collect();
        Self(drawn.intersection(&self.0).copied().collect())
    }
}

impl FromStr for Features {
    type Err = String;

    /// `all`, `none`, or the names of features, separated by commas.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::all()),
            "none" => Ok(Self::none()),
            names => names
                .split(',')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .map(Self),
        }
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        let names = names.join(",");
        f.write_str(if names.is_empty() { "none" } else { &names })
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(feature, _)| feature == self);
        f.write_str(name.unwrap().1)
    }
}

impl FromStr for Feature {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|(_, known)| *known == name);
        let names = || NAMES.map(|(_, name)| name).join(", ");
        found
            .map(|(feature, _)| *feature)
            .ok_or_else(|| format!("no feature {name}; the features are {}", names()))
    }
}

/// The sizes and settings of one run.
pub(super) struct Scenario {
    pub(super) features: Features,
    pub(super) nodes: usize,
    /// Chance that two nodes are linked which are no neighbours.
    pub(super) density: f64,
    pub(super) steps: usize,
    pub(super) limits: CoreLimits,
    pub(super) weather: Weather,
    /// Capacity of a pipe, in bytes.
    pub(super) width: usize,
}

impl Scenario {
    pub(super) fn draw(permitted: &Features, rng: &mut ChaCha20Rng) -> Self {
        let features = permitted.drawn(rng);
        let nodes = match rng.random_range(0..100) {
            0 => rng.random_range(30..=50),
            1..4 => rng.random_range(10..=16),
            4..40 => 3,
            _ => rng.random_range(4..=7),
        };
        // A large network is sparse, so that its number of links grows with its nodes.
        let density: f64 = rng.random_range(0.4..=1.0);
        let is_chain = rng.random_bool(0.5) && features.has(Feature::Apart);
        let density = match is_chain {
            true => 0.0,
            false => density.min(4.0 / nodes as f64),
        };
        let room = rng.random_range(5..=20);
        let part_objects_max = rng.random_range(1..=4);
        let package = PackageLimits {
            bytes_max: 16 * 1024,
            objects_max: rng.random_range(2..=20),
        };
        let mut limits = CoreLimits {
            package,
            ..CoreLimits::default()
        };
        if features.has(Feature::SmallRoom) {
            limits.aside = AsideLimits {
                waiting_per_peer_max: room,
                ..limits.aside
            };
        }
        if features.has(Feature::SmallParts) {
            limits.part_objects_max = part_objects_max;
        }
        let bytes_max = rng.random_range(2_000..=60_000);
        let weather = Weather {
            delay_ms_max: rng.random_range(1..=400),
            bytes_max: features.has(Feature::Cuts).then_some(bytes_max),
            silent: 0.2,
        };
        Self {
            nodes,
            density,
            steps: rng.random_range(30..=120) + nodes * 4,
            limits,
            weather,
            width: [64, 300, 2000][rng.random_range(0..3)],
            features,
        }
    }

    /// Protocol features that one node offers.
    pub(super) fn offered(&self, rng: &mut ChaCha20Rng) -> bastion::Features {
        let watches = rng.random_bool(0.7) && self.features.has(Feature::Watch);
        let relays = rng.random_bool(0.8) && self.features.has(Feature::Relay);
        let watch = watches.then_some(bastion::Feature::Watch);
        let relay = relays.then_some(bastion::Feature::Relay);
        let introduces = rng.random_bool(0.8) && self.features.has(Feature::Introduce);
        let introduce = introduces.then_some(bastion::Feature::Introduce);
        let receipts = rng.random_bool(0.8) && self.features.has(Feature::Receipts);
        let receipts = receipts.then_some(bastion::Feature::Receipts);
        let others = introduce.into_iter().chain(receipts);
        watch.into_iter().chain(relay).chain(others).collect()
    }

    /// Timers of one node.
    pub(super) fn sync(&self, rng: &mut ChaCha20Rng) -> SyncConfig {
        let push_interval_s = [0, 9, 25][rng.random_range(0..3)];
        SyncConfig {
            pull_interval_s: 20,
            pull_wait_s: [0, 45, 45][rng.random_range(0..3)],
            push_interval_s: if self.features.has(Feature::Pushes) {
                push_interval_s
            } else {
                0
            },
            backoff_s_min: 1,
            backoff_s_max: 20,
            has_jitter: false,
            ping_interval_s: 20,
            reply_deadline_s: 40,
            silence_s_max: 80,
            dials_max: 8,
            introduce_look_ms: 10_000,
            introduce_delay_ms_max: 30_000,
            introduce_repeat_s_max: 60,
            ..SyncConfig::default()
        }
    }
}
