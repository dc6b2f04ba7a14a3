//! Limits of the gate: effort of the puzzle, handshake slots, deadlines, tickets.
//!
//! Plain values, passed to the gate by reference. The node's configuration file sets five of them
//! (`docs/CONFIG.md`, table `[bastion]`); the others are fixed in [`GateConfig::DEFAULT`] or
//! derived from those five. Numbers that two nodes must share are in `keys::protocol`.
//!
//! Invariant: for all values that the file accepts, memory, processor time and waits are bounded.
//! Tested below and in `src/config/tests.rs`.

use std::time::Duration;

use crate::features::Features;

/// Limits of the gate, as server and as client of handshakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateConfig {
    /// Effort of challenges while idle, in expected evaluations of the work function.
    ///
    /// Default 8: about 7 ms of one core.
    pub effort_idle: u64,
    /// Effort of challenges as soon as the load exceeds `idle_load_percent`, in evaluations.
    ///
    /// Default 1,024: about 0.8 s of one core, which is short beside a first dial over Tor. This is
    /// 2,500 times the cost of rejecting the most expensive bogus solution.
    pub effort_base: u64,
    /// Highest effort of a challenge, in evaluations.
    ///
    /// Default 131,072: the most that a default client accepts, about 110 s of one core.
    pub effort_max: u64,
    /// Highest effort that this node solves to be admitted elsewhere, in evaluations at 13 inner
    /// bits. More inner bits count as more effort.
    ///
    /// Default 131,072: about 110 s of one core. One dial may take two such puzzles, or three if
    /// its ticket was void.
    pub effort_accept_max: u64,
    /// Load, in percent of the capacity, up to which the gate counts as idle.
    ///
    /// Default 20: a few clients at once are no attack.
    pub idle_load_percent: u8,
    /// Shortest time in which the effort doubles under load, in seconds.
    ///
    /// Default 1: the effort follows an attack within seconds.
    pub effort_doubling_s: u64,
    /// Time in which the effort halves after the load ended, in seconds.
    ///
    /// Default 60: a short pause of an attack does not lower the effort.
    pub effort_halving_s: u64,
    /// Failed solutions per minute that count as full load.
    ///
    /// Default 600: ten failures per second do not happen by accident.
    pub failures_per_minute_max: u64,
    /// Clients judged after a valid solution, per minute, that count as full load.
    ///
    /// Counts admitted and refused clients. Default 120: two per second exceed the new peers of
    /// any node.
    pub admissions_per_minute_max: u64,
    /// Leading zero bits of the inner condition, which is cheap to verify.
    ///
    /// Default 13: a bogus nonce by trial costs the client 0.5 ms. Its evaluation of the work
    /// function costs the server 0.3 ms, which is less.
    pub inner_bits: u8,
    /// Most inner bits that this node accepts as a client.
    ///
    /// Default 16: each further bit doubles the hashing per evaluation.
    pub inner_bits_accept_max: u8,
    /// Time in which a challenge may be solved, in seconds.
    ///
    /// Default 600: one core of a phone solves the highest effort in this time.
    pub cookie_lifetime_s: u64,
    /// Challenges per sealing key; the gate then takes a new key.
    ///
    /// Default 4,194,304: the bitmap of used serials stays below 512 KiB per key. A flood of first
    /// messages does not use up the serials within the lifetime of a cookie.
    pub serials_max: u32,
    /// Handshake slots for clients without a ticket.
    ///
    /// Default 512: each takes at most 8 KiB and a task, together about 10 MiB. When all slots are
    /// taken, a new client evicts one that is not being verified.
    pub open_handshakes_max: usize,
    /// Handshake slots for untrusted clients with a ticket, in addition to the slots above.
    ///
    /// Derived: `open_handshakes_max` / 8.
    pub ticket_handshakes_max: usize,
    /// Handshake slots for trusted clients with a ticket, in addition to all slots above, because
    /// other clients must not be able to use them up.
    ///
    /// Derived: `open_handshakes_max` / 8.
    pub trusted_handshakes_max: usize,
    /// Threads that verify solutions.
    ///
    /// Default 2: leaves cores for sessions.
    pub verify_workers: usize,
    /// Scheduling niceness (0 to 19) of the verification threads.
    ///
    /// Default 5: open sessions come first, and verification still gets a quarter of a busy core.
    pub verify_niceness: u8,
    /// Solutions that wait to be verified; a full queue drops the one of the lowest effort.
    ///
    /// Default 64: at 0.3 ms each, the last one waits 10 ms with two threads.
    pub verify_queue_max: usize,
    /// Replies to solutions in the reply cache, for clients whose stream broke before the reply.
    ///
    /// Derived: `open_handshakes_max` / 2. Each takes at most 24 KiB and was paid for with effort.
    pub cached_replies_max: usize,
    /// Lifetime of tickets that this node issues, in seconds; 0 issues none.
    ///
    /// Default 2,592,000: 30 days. A peer that was away longer solves a puzzle once.
    pub ticket_lifetime_s: u64,
    /// Uses of the tickets of one peer per minute.
    ///
    /// Default 6: allows for a peer that loses its stream often. Further attempts need a puzzle.
    pub ticket_uses_per_minute_max: u32,
    /// Peers of each tier whose ticket uses are counted at the same time.
    ///
    /// Default 4,096: about 300 KiB. Further peers need a puzzle.
    pub ticket_peers_max: usize,
    /// Time for the first message of a client, in seconds; shrinks to a quarter under load.
    ///
    /// Default 20: a few round trips of a slow circuit.
    pub hello_deadline_s: u64,
    /// Time for which the server keeps a stream open for the solution, in seconds; shrinks to a
    /// quarter under load.
    ///
    /// Default 30: a client that solves longer presents its solution on a new stream.
    pub solution_deadline_s: u64,
    /// Time for verification, decision and reply, in seconds.
    ///
    /// Default 30: the database of the node may be busy.
    pub decision_deadline_s: u64,
    /// Time for writing one message, in seconds.
    ///
    /// Default 20: a peer that does not read is disconnected.
    pub send_deadline_s: u64,
    /// Time for reaching a node, in seconds.
    ///
    /// Default 60: Tor builds three circuits for a dial and may have to retry each.
    pub dial_deadline_s: u64,
    /// Time that this node, as a client, waits for each reply of the server, in seconds.
    ///
    /// Derived: `decision_deadline_s` + 30, because a server of the same settings must have time
    /// to decide.
    pub reply_deadline_s: u64,
    /// Time that this node solves one puzzle at most, in seconds.
    ///
    /// Derived: `cookie_lifetime_s`, because the cookie is worthless afterwards.
    pub solve_deadline_s: u64,
    /// Attempts to request a challenge, and to present its solution, while the server is busy or
    /// closes the stream.
    ///
    /// Default 8: with the delays that a busy server asks for, half a minute.
    pub attempts_max: u32,
    /// Longest delay that a busy server may ask for before the next attempt, in seconds.
    ///
    /// Default 30: a dial ends within minutes, whatever the server asks for.
    pub retry_delay_s_max: u64,
    /// Threads that solve puzzles; 0 uses all cores.
    ///
    /// Default 0.
    pub solver_threads: usize,
    /// Features that this node offers to its peers, as server and as client.
    ///
    /// Default none. Not a key: the program decides, and tests leave features out.
    pub features: Features,
    /// Whether the calling task solves and verifies, instead of threads, and retries have no
    /// jitter.
    ///
    /// Default false. With one thread and a paused clock, true makes handshakes deterministic, for
    /// simulations.
    pub is_inline: bool,
}

/// Smallest time beyond the server's decision that a client waits for a reply, in seconds.
const REPLY_MARGIN_S: u64 = 30;

impl GateConfig {
    /// The defaults; each field documents its reason.
    pub const DEFAULT: Self = Self {
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
        open_handshakes_max: 512,
        ticket_handshakes_max: 512 / 8,
        trusted_handshakes_max: 512 / 8,
        verify_workers: 2,
        verify_niceness: 5,
        verify_queue_max: 64,
        cached_replies_max: 512 / 2,
        ticket_lifetime_s: 30 * 24 * 3600,
        ticket_uses_per_minute_max: 6,
        ticket_peers_max: 4096,
        hello_deadline_s: 20,
        solution_deadline_s: 30,
        decision_deadline_s: 30,
        send_deadline_s: 20,
        dial_deadline_s: 60,
        reply_deadline_s: 30 + REPLY_MARGIN_S,
        solve_deadline_s: 600,
        attempts_max: 8,
        retry_delay_s_max: 30,
        solver_threads: 0,
        features: Features::none(),
        is_inline: false,
    };

    /// Sets `effort_max`, and lowers the idle and base effort where they exceed it.
    #[must_use]
    pub fn with_effort_max(mut self, effort_max: u64) -> Self {
        self.effort_max = effort_max;
        self.effort_base = self.effort_base.min(effort_max);
        self.effort_idle = self.effort_idle.min(effort_max);
        self
    }

    /// Sets `open_handshakes_max` and the limits that are derived from it, at least 1 each.
    #[must_use]
    pub fn with_open_handshakes_max(mut self, open_handshakes_max: usize) -> Self {
        self.open_handshakes_max = open_handshakes_max;
        self.ticket_handshakes_max = (open_handshakes_max / 8).max(1);
        self.trusted_handshakes_max = (open_handshakes_max / 8).max(1);
        self.cached_replies_max = (open_handshakes_max / 2).max(1);
        self
    }

    /// Handshakes at the same time, of clients with and without a ticket.
    pub fn handshakes_max(&self) -> usize {
        self.open_handshakes_max + self.ticket_handshakes_max + self.trusted_handshakes_max
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

    /// Delay before the next attempt: what a busy server asks for, within this node's limit.
    pub(crate) fn retry_delay(&self, retry_s: Option<u32>) -> Duration {
        Duration::from_secs(u64::from(retry_s.unwrap_or(1)).min(self.retry_delay_s_max))
    }

    pub(crate) fn solve_deadline(&self) -> Duration {
        Duration::from_secs(self.solve_deadline_s)
    }
}

impl Default for GateConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_client_accepts_the_challenges_of_a_default_server() {
        let config = GateConfig::DEFAULT;
        assert!(config.effort_max <= config.effort_accept_max);
        assert!(config.inner_bits <= config.inner_bits_accept_max);
        assert!(config.reply_deadline_s > config.decision_deadline_s);
        assert_eq!(config.solve_deadline_s, config.cookie_lifetime_s);
    }

    #[test]
    fn defaults_equal_the_values_derived_from_the_default_keys() {
        let config = GateConfig::DEFAULT;
        let derived = config
            .clone()
            .with_effort_max(config.effort_max)
            .with_open_handshakes_max(config.open_handshakes_max);
        assert_eq!(derived, config);
    }

    #[test]
    fn efforts_stay_in_order_for_every_highest_effort() {
        for effort_max in [1, 2, 7, 8, 9, 1023, 1024, 1025, 1 << 40] {
            let config = GateConfig::DEFAULT.with_effort_max(effort_max);
            let efforts = [config.effort_idle, config.effort_base, config.effort_max];
            assert!(
                efforts.is_sorted() && config.effort_idle >= 1,
                "{efforts:?}"
            );
            assert_eq!(config.effort_max, effort_max);
        }
    }

    #[test]
    fn every_group_of_clients_has_a_slot() {
        for open in [1, 7, 8, 64, 1 << 20] {
            let config = GateConfig::DEFAULT.with_open_handshakes_max(open);
            assert_eq!(config.open_handshakes_max, open);
            assert!(config.ticket_handshakes_max >= 1 && config.trusted_handshakes_max >= 1);
            assert!(config.cached_replies_max >= 1);
        }
    }
}
