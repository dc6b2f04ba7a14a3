//! Limits and intervals of sync: the `[sync]` table of the node's config.
//!
//! Never read from anywhere else. Invariant: a config that [`SyncConfig::check`] accepts bounds memory and waiting.

use serde::{Deserialize, Serialize};

use crate::state_engine::PackageLimits;

/// The `[sync]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncConfig {
    /// Seconds between two pulls of a domain. Default 30: people notice minutes, links notice seconds. 0: never by itself.
    pub pull_interval_s: u64,
    /// Seconds that our pulls ask the other side to wait for something new, at most 60. Default 30: a message then
    /// arrives within a round trip. 0: answer at once.
    pub pull_wait_s: u32,
    /// Seconds between two pushes of a domain (SEED 5). Default 0: off; a waiting pull is as quick and simpler.
    pub push_interval_s: u64,
    /// Seconds before a failed pull, push or dial is tried again, at first. Default 30: a service that restarts is
    /// not locked out by asking too often (Tor keeps its old descriptor for minutes).
    pub backoff_min_s: u64,
    /// Most seconds between two tries; each failure doubles the wait up to here. Default 900.
    pub backoff_max_s: u64,
    /// Peers with a session at once. Default 128: a few hundred KiB each.
    pub sessions_max: usize,
    /// Dials under way at once. Default 4: each builds circuits and may solve a puzzle.
    pub dials_max: usize,
    /// Requests of one peer that are worked on or wait at once. Default 64: 63 domains and one to spare.
    pub requests_max: usize,
    /// Seconds for the answer to a request, beyond what it may wait. Default 120: a full package over a slow circuit.
    pub answer_deadline_s: u64,
    /// Seconds for sending one frame. Default 120: the same.
    pub send_deadline_s: u64,
    /// Seconds of silence after which the other side is asked for a sign of life; after twice as long the session ends.
    /// Default 60.
    pub ping_interval_s: u64,
    /// Longest package in bytes, at most the frame limit less 1 KiB. Default 983040 (960 KiB): fits a frame of 1 MiB.
    pub package_bytes_max: usize,
    /// Most objects in a package. Default 4096: at 200 bytes each they fill it.
    pub package_objects_max: usize,
    /// Objects of one peer that wait for another object. Default 1000.
    pub parked_per_peer_max: u64,
    /// Refusals of one peer that are remembered. Default 1000: the oldest are forgotten.
    pub rejects_per_peer_max: u64,
}

impl Default for SyncConfig {
    fn default() -> Self {
        let package = PackageLimits::default();
        Self {
            pull_interval_s: 30,
            pull_wait_s: 30,
            push_interval_s: 0,
            backoff_min_s: 30,
            backoff_max_s: 900,
            sessions_max: 128,
            dials_max: 4,
            requests_max: 64,
            answer_deadline_s: 120,
            send_deadline_s: 120,
            ping_interval_s: 60,
            package_bytes_max: package.bytes_max,
            package_objects_max: package.objects_max,
            parked_per_peer_max: 1000,
            rejects_per_peer_max: 1000,
        }
    }
}

/// Longest wait that a pull may ask for, in seconds.
pub const WAIT_S_MAX: u32 = 60;

impl SyncConfig {
    /// Names the first value that makes no sense, and why.
    pub fn check(&self, frame_bytes_max: usize) -> Result<(), (&'static str, &'static str)> {
        let rules = [
            (self.pull_wait_s <= WAIT_S_MAX, "pull_wait_s", "must be at most 60"),
            (self.backoff_min_s >= 1, "backoff_min_s", "must be at least 1"),
            (self.backoff_max_s >= self.backoff_min_s, "backoff_max_s", "is below backoff_min_s"),
            (self.sessions_max >= 1, "sessions_max", "must be at least 1"),
            (self.dials_max >= 1, "dials_max", "must be at least 1"),
            (self.requests_max >= 1, "requests_max", "must be at least 1"),
            (self.answer_deadline_s >= 1, "answer_deadline_s", "must be at least 1"),
            (self.send_deadline_s >= 1, "send_deadline_s", "must be at least 1"),
            (self.ping_interval_s >= 1, "ping_interval_s", "must be at least 1"),
            (self.package_bytes_max >= 128 * 1024, "package_bytes_max", "must be at least 131072, or a single object may not fit"),
            (self.package_bytes_max + 1024 <= frame_bytes_max, "package_bytes_max", "must be 1024 below bastion.frame_bytes_max"),
            (self.package_objects_max >= 16, "package_objects_max", "must be at least 16, or a single change group may not fit"),
        ];
        rules.into_iter().find(|(holds, ..)| !holds).map_or(Ok(()), |(_, key, why)| Err((key, why)))
    }
}
