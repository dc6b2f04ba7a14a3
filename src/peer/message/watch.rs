//! The message `watch`: one request that waits for changes of several domains
//! (docs/PROTOCOL.md 4).
//!
//! Invariant: cursors are ordered as canonical CBOR orders keys. Tested below.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use keys::Epoch;
use keys::protocol::WATCH_CURSORS_MAX;
use serde::{Deserialize, Serialize};

/// Waits for what changes in any of several domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Id of the request.
    pub id: u64,
    /// The epoch in which all cursors count; none before the first package.
    pub epoch: Option<Epoch>,
    /// Seconds that the reply may wait for a change, at most 60.
    pub wait_s: u32,
    /// Highest sequence number that the requesting side holds of each domain, 1 to 64.
    pub cursors: BTreeMap<DomainKey, u64>,
}

/// A domain as the key of a map on the wire, ordered as canonical CBOR orders keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DomainKey(pub String);

impl Ord for DomainKey {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for DomainKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Watch {
    /// Whether there are 1 to [`WATCH_CURSORS_MAX`] cursors, each of a valid name.
    pub(super) fn has_valid_cursors(&self, is_name: impl Fn(&str) -> bool) -> bool {
        (1..=WATCH_CURSORS_MAX).contains(&self.cursors.len())
            && self.cursors.keys().all(|domain| is_name(&domain.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{IdOnly, SessionMessage};
    use super::*;

    fn watch(epoch: Option<Epoch>, domains: &[&str]) -> SessionMessage {
        let cursors = (1..).zip(domains);
        SessionMessage::Watch(Watch {
            id: 1,
            epoch,
            wait_s: 30,
            cursors: cursors
                .map(|(seq, domain)| (DomainKey(domain.to_string()), seq))
                .collect(),
        })
    }

    #[test]
    fn watch_encodes_as_documented_and_names_1_to_64_domains() {
        let bytes = watch(None, &["messages", "rides"]).encode();
        assert_eq!(
            bytes,
            b"\xa1\x65watch\xa4\x62id\x01\x65epoch\xf6\x66wait_s\x18\x1e\
              \x67cursors\xa2\x65rides\x02\x68messages\x01"
        );
        for epoch in [None, Some(Epoch::from_bytes([1; 16]))] {
            let message = watch(epoch, &["messages", "contacts", "rides.offers"]);
            assert_eq!(SessionMessage::decode(&message.encode()), Ok(message));
        }
        let decoded = |domains: &[&str]| SessionMessage::decode(&watch(None, domains).encode());
        let unchanged = SessionMessage::Unchanged(IdOnly { id: 1 });
        assert_eq!(SessionMessage::decode(&unchanged.encode()), Ok(unchanged));
        let names: Vec<_> = (10..75).map(|number| format!("d{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert!(decoded(&names[..64]).is_ok());
        assert!(decoded(&names).is_err() && decoded(&[]).is_err());
        assert!(decoded(&[&"a".repeat(64)]).is_ok());
        assert!(decoded(&[&"a".repeat(65)]).is_err());
        assert!(decoded(&["new\nline"]).is_err());
    }
}
