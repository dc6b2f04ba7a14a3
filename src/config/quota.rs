//! The tables `[quota.untrusted]` and `[quota.trusted]`: what peers of each tier may store here and ask for.
//!
//! Plain values, with one set of keys for both tiers and the documentation of each default beside the other. Invariant: as
//! in `sections.rs`, documentation and defaults agree (tested).

use serde::{Deserialize, Serialize};

use crate::state_engine::{Quotas, TierQuota};

/// What peers may store here and ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    /// Peers that were admitted for their work.
    pub untrusted: UntrustedQuota,
    /// Peers that the operator knows.
    pub trusted: TrustedQuota,
}

/// Of peers that were admitted for their work alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UntrustedQuota {
    /// Bytes that one peer may store, as objects are sent; what waits for other objects counts. Default 16777216: its
    /// 10000 objects at 1.6 KiB, which is a long message.
    pub stored_bytes_max: u64,
    /// Objects that one peer may store. Default 10000: small ones cost more than their bytes, in rows and indexes.
    pub stored_objects_max: u64,
    /// Bytes that all untrusted peers may store together. Default 536870912: 32 full peers, and no full disk.
    pub total_bytes_max: u64,
    /// Objects that all untrusted peers may store together. Default 500000: 50 full peers.
    pub total_objects_max: u64,
    /// Pulls and pushes of one peer in a minute; as many may come at once. Default 120: five domains pulled every half
    /// minute, and ten times that while something is going on.
    pub requests_per_minute_max: u32,
}

/// Of peers that were approved, listed, or dialled by us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustedQuota {
    /// Bytes that one peer may store, as objects are sent; what waits for other objects counts. Default 17179869184: a
    /// fault of a friend's node ends before the disk does.
    pub stored_bytes_max: u64,
    /// Objects that one peer may store. Default 10000000: what a node of many people makes in years.
    pub stored_objects_max: u64,
    /// Bytes that all trusted peers may store together. Default 68719476736: four full peers; set it to what your disk has.
    pub total_bytes_max: u64,
    /// Objects that all trusted peers may store together. Default 40000000: four full peers.
    pub total_objects_max: u64,
    /// Pulls and pushes of one peer in a minute; as many may come at once. Default 6000: a first sync over a fast line
    /// never waits, and a node in a loop does.
    pub requests_per_minute_max: u32,
}

impl QuotaConfig {
    /// As the core and the sessions take them.
    pub fn quotas(&self) -> Quotas {
        let (untrusted, trusted) = (&self.untrusted, &self.trusted);
        Quotas {
            untrusted: TierQuota {
                stored_bytes_max: untrusted.stored_bytes_max,
                stored_objects_max: untrusted.stored_objects_max,
                total_bytes_max: untrusted.total_bytes_max,
                total_objects_max: untrusted.total_objects_max,
                requests_per_minute_max: untrusted.requests_per_minute_max,
            },
            trusted: TierQuota {
                stored_bytes_max: trusted.stored_bytes_max,
                stored_objects_max: trusted.stored_objects_max,
                total_bytes_max: trusted.total_bytes_max,
                total_objects_max: trusted.total_objects_max,
                requests_per_minute_max: trusted.requests_per_minute_max,
            },
        }
    }
}

impl Default for UntrustedQuota {
    fn default() -> Self {
        let TierQuota {
            stored_bytes_max,
            stored_objects_max,
            total_bytes_max,
            total_objects_max,
            requests_per_minute_max,
        } = Quotas::default().untrusted;
        Self {
            stored_bytes_max,
            stored_objects_max,
            total_bytes_max,
            total_objects_max,
            requests_per_minute_max,
        }
    }
}

impl Default for TrustedQuota {
    fn default() -> Self {
        let TierQuota {
            stored_bytes_max,
            stored_objects_max,
            total_bytes_max,
            total_objects_max,
            requests_per_minute_max,
        } = Quotas::default().trusted;
        Self {
            stored_bytes_max,
            stored_objects_max,
            total_bytes_max,
            total_objects_max,
            requests_per_minute_max,
        }
    }
}
