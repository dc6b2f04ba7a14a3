//! Features: parts of the protocol that both nodes must know before either may use them
//! (docs/PROTOCOL.md 3.6).
//!
//! Each side lists its features in its signed claims; a session has those of both lists. Names that
//! this node does not know are kept and ignored. Invariant: a [`Features`] is a valid list: at most
//! [`FEATURES_MAX`] names that follow the grammar, sorted without repeats. Tested below.

use std::collections::BTreeSet;

use keys::codec;
use keys::protocol::{FEATURE_BYTES_MAX, FEATURES_MAX};
use serde::{Deserialize, Serialize};

/// A feature that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Members of a scope ask each other at which onion services the nodes of members are reached.
    Introduce,
    /// A node states what it applied: the session message `receipt`.
    Receipts,
    /// A package also has objects that its sender received, and stubs.
    Relay,
    /// One request waits for changes of several domains: the session message `watch`.
    Watch,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 4] = [Self::Introduce, Self::Receipts, Self::Relay, Self::Watch];

    /// Returns the name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Introduce => "introduce",
            Self::Receipts => "receipts",
            Self::Relay => "relay",
            Self::Watch => "watch",
        }
    }
}

/// A list of features on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Features(Vec<String>);

/// A list of features is too long, unsorted or has repeats, or a name breaks the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a list of features that breaks a rule")]
pub struct BadFeatures;

impl Features {
    /// Returns the empty list.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Returns whether the list names a feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.0.iter().any(|name| name == feature.as_str())
    }

    /// Returns the features in both lists.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let common = self.0.iter().filter(|name| other.0.contains(name));
        Self(common.cloned().collect())
    }

    /// Returns the canonical encoding, which signatures cover.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        let names: BTreeSet<_> = features.into_iter().map(Feature::as_str).collect();
        Self(names.into_iter().map(str::to_owned).collect())
    }
}

impl TryFrom<Vec<String>> for Features {
    type Error = BadFeatures;

    fn try_from(names: Vec<String>) -> Result<Self, BadFeatures> {
        let is_valid = names.len() <= FEATURES_MAX
            && names.is_sorted_by(|one, next| one < next)
            && names.iter().all(|name| is_feature_name(name));
        if is_valid {
            Ok(Self(names))
        } else {
            Err(BadFeatures)
        }
    }
}

impl From<Features> for Vec<String> {
    fn from(features: Features) -> Self {
        features.0
    }
}

/// Returns whether `name` follows the grammar: `[a-z][a-z0-9-]{0,31}`.
fn is_feature_name(name: &str) -> bool {
    name.len() <= FEATURE_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::Limits;

    fn listed(names: &[&str]) -> Result<Features, BadFeatures> {
        Features::try_from(names.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn list_is_valid_up_to_its_limits() {
        let many: Vec<_> = (10..26).map(|number| format!("f-{number}")).collect();
        assert!(Features::try_from(many.clone()).is_ok());
        assert!(Features::try_from([many, vec!["g".into()]].concat()).is_err());
        assert!(listed(&[&"a".repeat(32)]).is_ok());
        for names in [
            &[&"a".repeat(33)[..]][..],
            &["b", "a"],
            &["a", "a"],
            &[""],
            &["Watch"],
            &["1a"],
            &["-a"],
            &["a_b"],
        ] {
            assert_eq!(listed(names), Err(BadFeatures), "{names:?}");
        }
    }

    #[test]
    fn decoder_refuses_an_invalid_list() {
        let limits = Limits {
            bytes_max: 64,
            depth_max: 1,
            items_max: 3,
        };
        let decode = |names: &[&str]| codec::decode::<Features>(&codec::encode(&names), &limits);
        assert_eq!(
            decode(&["later", "watch"]),
            Ok(listed(&["later", "watch"]).unwrap())
        );
        assert!(decode(&["watch", "later"]).is_err());
    }

    #[test]
    fn session_has_the_known_features_of_both_lists() {
        let ours = Features::from_iter([Feature::Watch, Feature::Watch]);
        let theirs = listed(&["later", "watch"]).unwrap();
        let both = theirs.intersection(&ours);
        assert_eq!(
            (both.clone(), both.encode()),
            (ours.clone(), b"\x81\x65watch".to_vec())
        );
        assert!(both.has(Feature::Watch));
        assert!(!Features::none().intersection(&theirs).has(Feature::Watch));
    }
}
