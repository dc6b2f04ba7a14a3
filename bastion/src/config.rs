//! Every limit of the gate, each with its unit, default and reason. It is the `[bastion]` table of the node's config.
//!
//! Never read from anywhere else: pure code takes a `&GateConfig`. Unknown keys are fatal.
//! Invariant: a config that [`GateConfig::check`] accepts keeps memory, processor and waiting bounded.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The `[bastion]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateConfig {
    /// Effort asked of strangers in calm times, in expected evaluations of the work function. Default 8: about 7 ms of
    /// one core, nearly nothing.
    pub effort_idle: u64,
    /// Effort asked as soon as it is no longer calm, in evaluations. Default 1024: about 0.8 s on one core, little beside
    /// a first dial over Tor, and some 2,500 times what the dearest bogus solution costs us.
    pub effort_base: u64,
    /// Most effort ever asked, in evaluations. Default 131072: what a default client accepts, about 110 s on one core.
    pub effort_max: u64,
    /// Most effort of one puzzle that we solve to be admitted elsewhere, in evaluations at 13 inner bits; more bits count
    /// as more. Default 131072: about 110 s of one core. A dial may take two such puzzles, three where a ticket was void.
    pub effort_accept_max: u64,
    /// Load, in percent of what there is room for, up to which it is calm. Default 20: a few strangers at once are no
    /// attack.
    pub idle_load_percent: u8,
    /// Seconds in which the effort doubles at most, under load. Default 1: an attack is answered in seconds.
    pub effort_doubling_s: u64,
    /// Seconds in which the effort halves once the load is gone. Default 60: an attacker who pauses gains nothing.
    pub effort_halving_s: u64,
    /// Failed solutions within a minute that weigh as much as places that are all taken. Default 600: ten a second are
    /// no accident.
    pub failures_per_minute_max: u64,
    /// Strangers judged for work that held, admitted or not, within a minute that count as full load. Default 120: two a
    /// second are more than any node's new acquaintances.
    pub admissions_per_minute_max: u64,
    /// Leading zero bits of the cheap inner condition. Default 13: passing it by trial (0.5 ms) costs a bogus sender more
    /// than one evaluation of the work function costs us (0.3 ms).
    pub inner_bits: u8,
    /// Most inner bits we accept from others. Default 16: each bit doubles our hashing per evaluation.
    pub inner_bits_accept_max: u8,
    /// Seconds that a challenge may be answered in. Default 600: a phone's core solves the greatest effort in time.
    pub cookie_lifetime_s: u64,
    /// Challenges per sealing key; then a new key takes over. Default 4194304: the bitmap of used serials stays
    /// below 512 KiB a key, and a flood of hellos does not outrun the cookies' lifetime.
    pub serials_max: u32,
    /// Longest frame before admission, in bytes. Default 8192: a solution with eight identities fits.
    pub unadmitted_frame_bytes_max: usize,
    /// Longest frame after admission, in bytes. Default 1048576: a package's cap.
    pub frame_bytes_max: usize,
    /// Strangers in a handshake at once. Default 512: at most 8 KiB and a task each, about 10 MiB. When all places are
    /// taken and another comes, one who only waits has to go.
    pub open_handshakes_max: usize,
    /// Peers with a ticket in a handshake at once, beside the strangers. Default 64.
    pub ticket_handshakes_max: usize,
    /// Trusted peers with a ticket in a handshake at once, beside all others. Default 64: no crowd takes their places.
    pub trusted_handshakes_max: usize,
    /// Solutions verified at once, each on a thread of its own. Default 2: leaves cores to the peers' work.
    pub verify_workers: usize,
    /// How much the threads that verify stand back behind all others, 0 to 19 as of `nice`. Default 5: what peers do in
    /// open sessions comes first, and a quarter of a busy core is left for strangers.
    pub verify_niceness: u8,
    /// Solutions waiting to be verified. Default 64: at 0.3 ms each the last waits 10 ms; a full queue drops the lowest effort.
    pub verify_queue_max: usize,
    /// Answers to solutions that are remembered, so that a peer whose stream broke gets the same one again. Default 256:
    /// at most 24 KiB each, and each was paid for with work.
    pub cached_replies_max: usize,
    /// Seconds that a ticket of ours spares a peer the work; 0 gives none. Default 2592000: a month; a peer that was away
    /// longer works once more.
    pub ticket_lifetime_s: u64,
    /// Uses of one peer's tickets within a minute. Default 6: a peer that loses its stream often; more, and it works like
    /// a stranger.
    pub ticket_uses_per_minute_max: u32,
    /// Peers of each tier whose uses of tickets are counted at once. Default 4096: about 300 KiB; more, and further ones
    /// work.
    pub ticket_peers_max: usize,
    /// Seconds for a stranger's first message. Default 20: a slow circuit's round trips; shrinks to 5 under pressure.
    pub hello_deadline_s: u64,
    /// Seconds that we hold a stream open for the solution. Default 30: longer solving comes back on a new stream.
    pub solution_deadline_s: u64,
    /// Seconds to wait for our turn to verify, decide and answer. Default 30: the node's database may be busy.
    pub decision_deadline_s: u64,
    /// Seconds for writing one message. Default 20: a peer that does not read is let go.
    pub send_deadline_s: u64,
    /// Seconds for reaching a node. Default 60: over Tor three circuits are built for it, each of which may have to be
    /// tried again.
    pub dial_deadline_s: u64,
    /// Seconds, when dialling, for each of the other side's answers. Default 60: above its own decision deadline.
    pub reply_deadline_s: u64,
    /// Seconds that we solve at most. Default 600: a cookie's lifetime; then it is worthless.
    pub solve_deadline_s: u64,
    /// Times that a solution is presented, or a knock repeated, while the other side is busy or hangs up. Default 8: with
    /// the pauses that a busy node asks for, half a minute.
    pub attempts_max: u32,
    /// Longest pause, in seconds, that a busy node may ask of us before we come again. Default 30.
    pub retry_delay_s_max: u64,
    /// Threads that solve. Default 0: as many as there are cores.
    pub solver_threads: usize,
    /// Identities a peer may present in its claims. Default 8: they must fit the frame; more travel by sync.
    pub identities_max: usize,
    /// Apps a peer may claim. Default 64.
    pub apps_max: usize,
    /// Sync domains a peer may claim. Default 64: `sync_flags` has 63 bits.
    pub sync_domains_max: usize,
    /// Rotations in a node's key chain. Default 32: at 140 bytes each they leave room in the frame; each costs a signature check.
    pub key_events_max: usize,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            effort_idle: 8,
            effort_base: 1024,
            effort_max: 131_072,
            effort_accept_max: 131_072,
            idle_load_percent: 20,
            effort_doubling_s: 1,
            effort_halving_s: 60,
            failures_per_minute_max: 600,
            admissions_per_minute_max: 120,
            inner_bits: 13,
            inner_bits_accept_max: 16,
            cookie_lifetime_s: 600,
            serials_max: 4_194_304,
            unadmitted_frame_bytes_max: 8192,
            frame_bytes_max: 1 << 20,
            open_handshakes_max: 512,
            ticket_handshakes_max: 64,
            trusted_handshakes_max: 64,
            verify_workers: 2,
            verify_niceness: 5,
            verify_queue_max: 64,
            cached_replies_max: 256,
            ticket_lifetime_s: 30 * 24 * 3600,
            ticket_uses_per_minute_max: 6,
            ticket_peers_max: 4096,
            hello_deadline_s: 20,
            solution_deadline_s: 30,
            decision_deadline_s: 30,
            send_deadline_s: 20,
            dial_deadline_s: 60,
            reply_deadline_s: 60,
            solve_deadline_s: 600,
            attempts_max: 8,
            retry_delay_s_max: 30,
            solver_threads: 0,
            identities_max: 8,
            apps_max: 64,
            sync_domains_max: 64,
            key_events_max: 32,
        }
    }
}

/// A value that makes no sense, alone or beside another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bastion.{key}: {why}")]
pub struct BadGateConfig {
    /// The key in the table.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
}

impl GateConfig {
    /// Refuses values with which the gate could not do its work.
    pub fn check(&self) -> Result<(), BadGateConfig> {
        let rules = [
            (self.effort_idle >= 1, "effort_idle", "must be at least 1"),
            (
                self.effort_base >= self.effort_idle,
                "effort_base",
                "is below effort_idle",
            ),
            (
                self.effort_max >= self.effort_base,
                "effort_max",
                "is below effort_base",
            ),
            (
                self.effort_max <= 1 << 40,
                "effort_max",
                "nobody could solve it: at most 2^40",
            ),
            (
                self.effort_accept_max <= 1 << 40,
                "effort_accept_max",
                "nobody could solve it: at most 2^40",
            ),
            (
                self.idle_load_percent < 100,
                "idle_load_percent",
                "must be below 100",
            ),
            (
                self.effort_doubling_s >= 1,
                "effort_doubling_s",
                "must be at least 1",
            ),
            (
                self.effort_halving_s >= 1,
                "effort_halving_s",
                "must be at least 1",
            ),
            (
                self.failures_per_minute_max >= 1,
                "failures_per_minute_max",
                "must be at least 1",
            ),
            (
                self.admissions_per_minute_max >= 1,
                "admissions_per_minute_max",
                "must be at least 1",
            ),
            (
                self.inner_bits <= 32,
                "inner_bits",
                "nobody could solve it: at most 32",
            ),
            (
                self.inner_bits_accept_max <= 32,
                "inner_bits_accept_max",
                "at most 32",
            ),
            (
                self.cookie_lifetime_s >= 1,
                "cookie_lifetime_s",
                "must be at least 1",
            ),
            (
                (64..=1 << 28).contains(&self.serials_max),
                "serials_max",
                "must be 64 to 2^28: the bitmap grows to a bit for each",
            ),
            (
                self.unadmitted_frame_bytes_max >= 1024,
                "unadmitted_frame_bytes_max",
                "claims do not fit: at least 1024",
            ),
            (
                self.unadmitted_frame_bytes_max <= 65536,
                "unadmitted_frame_bytes_max",
                "at most 65536 for strangers",
            ),
            (
                self.frame_bytes_max >= self.unadmitted_frame_bytes_max,
                "frame_bytes_max",
                "is below unadmitted_frame_bytes_max",
            ),
            (
                self.frame_bytes_max <= 1 << 26,
                "frame_bytes_max",
                "at most 64 MiB",
            ),
            (
                self.open_handshakes_max >= 1,
                "open_handshakes_max",
                "must be at least 1",
            ),
            (
                self.trusted_handshakes_max >= 1,
                "trusted_handshakes_max",
                "must be at least 1",
            ),
            (
                (1..=1024).contains(&self.verify_workers),
                "verify_workers",
                "must be 1 to 1024",
            ),
            (
                self.verify_niceness <= 19,
                "verify_niceness",
                "must be 0 to 19",
            ),
            (
                self.cached_replies_max >= 1,
                "cached_replies_max",
                "must be at least 1",
            ),
            (self.attempts_max >= 1, "attempts_max", "must be at least 1"),
            (
                self.verify_queue_max >= 1,
                "verify_queue_max",
                "must be at least 1",
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, key, why)) => Err(BadGateConfig { key, why }),
            None => self.check_ranges(),
        }
    }

    /// What is waited for and counted stays far from where reckoning with it would overflow, and nobody is given no time.
    fn check_ranges(&self) -> Result<(), BadGateConfig> {
        let times = [
            (self.hello_deadline_s, "hello_deadline_s"),
            (self.solution_deadline_s, "solution_deadline_s"),
            (self.decision_deadline_s, "decision_deadline_s"),
            (self.send_deadline_s, "send_deadline_s"),
            (self.dial_deadline_s, "dial_deadline_s"),
            (self.reply_deadline_s, "reply_deadline_s"),
            (self.solve_deadline_s, "solve_deadline_s"),
            (self.retry_delay_s_max, "retry_delay_s_max"),
        ];
        if let Some((_, key)) = times
            .into_iter()
            .find(|(time_s, _)| !(1..=86_400).contains(time_s))
        {
            let why = "must be 1 to 86400, a day";
            return Err(BadGateConfig { key, why });
        }
        let counts = [
            (self.open_handshakes_max, "open_handshakes_max"),
            (self.ticket_handshakes_max, "ticket_handshakes_max"),
            (self.trusted_handshakes_max, "trusted_handshakes_max"),
            (self.verify_queue_max, "verify_queue_max"),
            (self.cached_replies_max, "cached_replies_max"),
            (self.ticket_peers_max, "ticket_peers_max"),
            (self.identities_max, "identities_max"),
            (self.apps_max, "apps_max"),
            (self.sync_domains_max, "sync_domains_max"),
            (self.key_events_max, "key_events_max"),
        ];
        match counts.into_iter().find(|(count, _)| *count > 1 << 20) {
            Some((_, key)) => {
                let why = "at most 1048576";
                Err(BadGateConfig { key, why })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn hello_deadline(&self) -> Duration {
        Duration::from_secs(self.hello_deadline_s)
    }

    pub(crate) fn solution_deadline(&self) -> Duration {
        Duration::from_secs(self.solution_deadline_s)
    }

    pub(crate) fn decision_deadline(&self) -> Duration {
        Duration::from_secs(self.decision_deadline_s)
    }

    pub(crate) fn send_deadline(&self) -> Duration {
        Duration::from_secs(self.send_deadline_s)
    }

    pub(crate) fn dial_deadline(&self) -> Duration {
        Duration::from_secs(self.dial_deadline_s)
    }

    pub(crate) fn reply_deadline(&self) -> Duration {
        Duration::from_secs(self.reply_deadline_s)
    }

    /// The pause that a busy node asks for, as far as we go along.
    pub(crate) fn retry_delay(&self, retry_s: Option<u32>) -> Duration {
        Duration::from_secs(u64::from(retry_s.unwrap_or(1)).min(self.retry_delay_s_max))
    }

    pub(crate) fn solve_deadline(&self) -> Duration {
        Duration::from_secs(self.solve_deadline_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_a_default_client_accepts_what_a_default_gate_asks() {
        let config = GateConfig::default();
        assert_eq!(config.check(), Ok(()));
        assert!(config.effort_max <= config.effort_accept_max);
        assert!(config.inner_bits <= config.inner_bits_accept_max);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        let config = GateConfig {
            effort_max: 1,
            ..GateConfig::default()
        };
        let error = config.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "bastion.effort_max: is below effort_base"
        );
    }

    #[test]
    fn what_would_overflow_or_let_nobody_in_is_refused() {
        type Change = fn(&mut GateConfig);
        let table: [(&str, Change); 9] = [
            ("hello_deadline_s", |config| config.hello_deadline_s = 0),
            ("hello_deadline_s", |config| {
                config.hello_deadline_s = i64::MAX as u64
            }),
            ("reply_deadline_s", |config| {
                config.reply_deadline_s = 86_401
            }),
            ("solve_deadline_s", |config| config.solve_deadline_s = 0),
            ("retry_delay_s_max", |config| {
                config.retry_delay_s_max = u64::MAX
            }),
            ("ticket_handshakes_max", |config| {
                config.ticket_handshakes_max = usize::MAX
            }),
            ("key_events_max", |config| {
                config.key_events_max = usize::MAX
            }),
            ("serials_max", |config| config.serials_max = u32::MAX),
            ("effort_accept_max", |config| {
                config.effort_accept_max = u64::MAX
            }),
        ];
        for (key, change) in table {
            let mut config = GateConfig::default();
            change(&mut config);
            assert_eq!(config.check().map_err(|error| error.key), Err(key));
        }
    }
}
