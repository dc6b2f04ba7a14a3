//! The circuits of an onion service: admission, eviction, abuse.
//!
//! Pure bookkeeping: time is an argument, and cancelling a token ends a circuit. Circuits have
//! numbers of this table only, because an onion service sees no source addresses.
//!
//! Invariant: open circuits and builds stay within the limits, and a circuit with an open stream is
//! never evicted. Tested below and in the echo tests over Tor.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::TorLimits;
use crate::transport::CircuitCounts;

/// A circuit's id in the table. Not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CircuitId(u64);

/// All circuits of one service.
pub(super) struct CircuitTable {
    limits: TorLimits,
    circuits: BTreeMap<CircuitId, Entry>,
    next: u64,
    /// The totals. Current counts are computed on request.
    counts: CircuitCounts,
}

struct Entry {
    stage: CircuitStage,
    token: CancellationToken,
}

enum CircuitStage {
    Building { since: Instant },
    Open(Open),
}

struct Open {
    streams: u32,
    /// The end of the last stream, or the end of the build.
    idle_since: Instant,
    rate: StreamRate,
}

/// Streams requested within the current minute.
struct StreamRate {
    since: Instant,
    requested: u32,
}

/// The reason why a circuit's task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CircuitEnd {
    /// The client or the service ended the circuit.
    Gone,
    /// The circuit had no stream for too long.
    Idle,
    /// The build failed or missed its deadline.
    NotBuilt,
    /// The client requested an unsupported port or command, or too many streams.
    Abuse,
    /// The token was cancelled: evicted if the circuit is no longer in the table, else shut by the
    /// holder of one of its streams.
    Aborted,
}

impl CircuitTable {
    pub(super) fn new(limits: TorLimits) -> Self {
        Self {
            limits,
            circuits: BTreeMap::new(),
            next: 0,
            counts: CircuitCounts::default(),
        }
    }

    /// Adds a circuit that is about to be built, if a slot is free or can be freed by an eviction.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(CircuitId, CancellationToken)> {
        if self.building() >= self.limits.accepts_max.max(1) {
            let slow = self.slowest(now)?;
            self.evict(slow);
        }
        if self.circuits.len() >= self.limits.circuits_max.max(1) {
            let victim = self.longest_idle().or_else(|| self.slowest(now))?;
            self.evict(victim);
        }
        let id = CircuitId(self.next);
        self.next += 1;
        let token = CancellationToken::new();
        let entry = Entry {
            stage: CircuitStage::Building { since: now },
            token: token.clone(),
        };
        self.circuits.insert(id, entry);
        Some((id, token))
    }

    /// Marks the circuit as built. Returns `false` if it was evicted meanwhile.
    pub(super) fn built(&mut self, id: CircuitId, now: Instant) -> bool {
        let Some(entry) = self.circuits.get_mut(&id) else {
            return false;
        };
        entry.stage = CircuitStage::Open(Open {
            streams: 0,
            idle_since: now,
            rate: StreamRate {
                since: now,
                requested: 0,
            },
        });
        self.counts.built_total += 1;
        true
    }

    /// Counts a stream request. Returns `false` above the limit per minute, which is abuse.
    pub(super) fn stream_requested(&mut self, id: CircuitId, now: Instant) -> bool {
        let most = self.limits.streams_per_minute_max;
        // An evicted circuit has a cancelled token, which is handled next.
        self.open(id).is_none_or(|open| open.rate.ask(now) <= most)
    }

    /// Counts a stream before it is accepted. Returns `false` above the limit, which is abuse.
    /// `stream_ended` balances the count.
    pub(super) fn stream_opened(&mut self, id: CircuitId) -> bool {
        let most = self.limits.streams_per_circuit_max;
        let Some(open) = self.open(id) else {
            return true;
        };
        open.streams += 1;
        open.streams <= most
    }

    /// Counts the end of a stream.
    pub(super) fn stream_ended(&mut self, id: CircuitId, now: Instant) {
        if let Some(open) = self.open(id) {
            open.streams = open.streams.saturating_sub(1);
            open.idle_since = now;
        }
    }

    /// Whether the circuit has had no stream for the longest allowed time.
    pub(super) fn is_idle(&self, id: CircuitId, now: Instant) -> bool {
        match self.circuits.get(&id).map(|entry| &entry.stage) {
            Some(CircuitStage::Open(open)) => {
                open.streams == 0 && now - open.idle_since >= self.limits.circuit_idle
            }
            Some(CircuitStage::Building { .. }) | None => false,
        }
    }

    /// Removes the circuit at the end of its task.
    pub(super) fn ended(&mut self, id: CircuitId, why: CircuitEnd) {
        if self.circuits.remove(&id).is_none() {
            return;
        }
        match why {
            CircuitEnd::Gone | CircuitEnd::Idle => {}
            CircuitEnd::NotBuilt => self.counts.failed_total += 1,
            CircuitEnd::Abuse | CircuitEnd::Aborted => self.counts.abused_total += 1,
        }
    }

    /// Counts requests or streams refused for lack of slots.
    pub(super) fn refused(&mut self, how_many: usize) {
        self.counts.refused_total += how_many as u64;
    }

    /// Sets the number of waiting requests.
    pub(super) fn waiting(&mut self, how_many: usize) {
        self.counts.waiting = how_many;
    }

    pub(super) fn counts(&self) -> CircuitCounts {
        let building = self.building();
        CircuitCounts {
            open: self.circuits.len() - building,
            building,
            ..self.counts
        }
    }

    fn open(&mut self, id: CircuitId) -> Option<&mut Open> {
        match &mut self.circuits.get_mut(&id)?.stage {
            CircuitStage::Open(open) => Some(open),
            CircuitStage::Building { .. } => None,
        }
    }

    fn building(&self) -> usize {
        let stages = self.circuits.values().map(|entry| &entry.stage);
        stages
            .filter(|stage| matches!(stage, CircuitStage::Building { .. }))
            .count()
    }

    /// The slowest build, if it is slow enough to be evicted.
    fn slowest(&self, now: Instant) -> Option<CircuitId> {
        let building = self
            .circuits
            .iter()
            .filter_map(|(id, entry)| match entry.stage {
                CircuitStage::Building { since }
                    if now - since >= self.limits.accept_deadline_pressed =>
                {
                    Some((since, *id))
                }
                _ => None,
            });
        building.min().map(|(_, id)| id)
    }

    /// The circuit that is without a stream for the longest time.
    fn longest_idle(&self) -> Option<CircuitId> {
        let idle = self
            .circuits
            .iter()
            .filter_map(|(id, entry)| match &entry.stage {
                CircuitStage::Open(open) if open.streams == 0 => Some((open.idle_since, *id)),
                _ => None,
            });
        idle.min().map(|(_, id)| id)
    }

    fn evict(&mut self, id: CircuitId) {
        if let Some(entry) = self.circuits.remove(&id) {
            entry.token.cancel();
            self.counts.evicted_total += 1;
        }
    }
}

impl StreamRate {
    /// Counts a request and returns the number within the current minute.
    fn ask(&mut self, now: Instant) -> u32 {
        if now - self.since >= MINUTE {
            *self = Self {
                since: now,
                requested: 0,
            };
        }
        self.requested = self.requested.saturating_add(1);
        self.requested
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Requests that wait for a build, oldest first.
///
/// When the queue is full the oldest request is dropped, because its client gives up first.
pub(super) struct RequestQueue<T> {
    waiting: VecDeque<(Instant, T)>,
    max: usize,
    wait: Duration,
}

impl<T> RequestQueue<T> {
    pub(super) fn new(limits: &TorLimits) -> Self {
        Self {
            waiting: VecDeque::new(),
            max: limits.requests_waiting_max.max(1),
            wait: limits.request_wait,
        }
    }

    /// Appends a request. Returns the dropped oldest one if the queue was full.
    pub(super) fn push(&mut self, item: T, now: Instant) -> Option<T> {
        let out = if self.waiting.len() >= self.max {
            self.pop()
        } else {
            None
        };
        self.waiting.push_back((now, item));
        out
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.waiting.pop_front().map(|(_, item)| item)
    }

    /// Drops requests that waited too long, and returns their number.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|(since, _)| now - *since < self.wait);
        before - self.waiting.len()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn limits() -> TorLimits {
        TorLimits {
            accepts_max: 2,
            accept_deadline_pressed: 10 * S,
            circuits_max: 3,
            circuit_idle: 60 * S,
            streams_per_circuit_max: 2,
            streams_per_minute_max: 3,
            requests_waiting_max: 2,
            request_wait: 5 * S,
            ..TorLimits::DEFAULT
        }
    }

    fn open(table: &mut CircuitTable, now: Instant) -> (CircuitId, CancellationToken) {
        let (id, token) = table.begin(now).unwrap();
        assert!(table.built(id, now));
        (id, token)
    }

    #[test]
    fn builds_are_bounded_and_a_slow_build_is_evicted_after_its_deadline() {
        let t = Instant::now();
        let mut table = CircuitTable::new(limits());
        let (slow, slow_cut) = table.begin(t).unwrap();
        let (other, other_cut) = table.begin(t + S).unwrap();
        assert!(table.begin(t + 9 * S).is_none());
        assert!(!slow_cut.is_cancelled());
        assert!(table.begin(t + 10 * S).is_some());
        assert!(slow_cut.is_cancelled() && !other_cut.is_cancelled());
        assert!(!table.built(slow, t + 10 * S), "evicted meanwhile");
        table.ended(slow, CircuitEnd::NotBuilt);
        table.ended(other, CircuitEnd::NotBuilt);
        let counts = table.counts();
        assert_eq!(
            (counts.evicted_total, counts.failed_total, counts.building),
            (1, 1, 1)
        );
    }

    #[test]
    fn longest_idle_circuit_is_evicted_and_one_with_a_stream_never_is() {
        let t = Instant::now();
        let mut table = CircuitTable::new(limits());
        let (busy, busy_cut) = open(&mut table, t);
        let (second, second_cut) = open(&mut table, t + S);
        let (_, third_cut) = open(&mut table, t + 2 * S);
        assert!(table.stream_opened(busy) && table.stream_opened(second));
        // The second circuit became idle later than the third.
        table.stream_ended(second, t + 3 * S);
        open(&mut table, t + 4 * S);
        assert!(third_cut.is_cancelled() && !second_cut.is_cancelled());
        open(&mut table, t + 5 * S);
        assert!(second_cut.is_cancelled());
        for later in 6..100 {
            open(&mut table, t + later * S);
        }
        assert!(!busy_cut.is_cancelled());
        assert_eq!((table.counts().open, table.counts().evicted_total), (3, 96));
    }

    #[test]
    fn no_circuit_is_evicted_or_added_while_all_carry_streams() {
        let t = Instant::now();
        let mut table = CircuitTable::new(limits());
        let cuts: Vec<_> = (0..3).map(|_| open(&mut table, t)).collect();
        for (id, _) in &cuts {
            assert!(table.stream_opened(*id));
        }
        assert!(table.begin(t + 1000 * S).is_none());
        assert!(cuts.iter().all(|(_, token)| !token.is_cancelled()));
        table.ended(cuts[0].0, CircuitEnd::Gone);
        assert!(table.begin(t + 1000 * S).is_some());
    }

    #[test]
    fn too_many_streams_at_once_or_per_minute_are_abuse() {
        let t = Instant::now();
        let mut table = CircuitTable::new(limits());
        let (crowded, _) = open(&mut table, t);
        assert!(table.stream_opened(crowded) && table.stream_opened(crowded));
        assert!(!table.stream_opened(crowded));
        let (reopening, _) = open(&mut table, t);
        for _ in 0..3 {
            assert!(
                table.stream_requested(reopening, t + 59 * S) && table.stream_opened(reopening)
            );
            table.stream_ended(reopening, t + 59 * S);
        }
        assert!(!table.stream_requested(reopening, t + 59 * S));
        assert!(
            table.stream_requested(reopening, t + 60 * S),
            "a minute has passed"
        );
        table.ended(reopening, CircuitEnd::Abuse);
        assert_eq!(table.counts().abused_total, 1);
    }

    #[test]
    fn circuit_is_idle_only_after_the_allowed_time_without_a_stream() {
        let t = Instant::now();
        let mut table = CircuitTable::new(limits());
        let (id, _) = open(&mut table, t);
        assert!(!table.is_idle(id, t + 59 * S) && table.is_idle(id, t + 60 * S));
        assert!(table.stream_opened(id));
        assert!(!table.is_idle(id, t + 600 * S));
        table.stream_ended(id, t + 600 * S);
        assert!(!table.is_idle(id, t + 601 * S) && table.is_idle(id, t + 660 * S));
    }

    #[test]
    fn full_request_queue_drops_the_oldest_request() {
        let t = Instant::now();
        let mut queue = RequestQueue::new(&limits());
        assert_eq!((queue.push('a', t), queue.push('b', t + S)), (None, None));
        assert_eq!(queue.push('c', t + 2 * S), Some('a'));
        assert_eq!((queue.expire(t + 5 * S), queue.expire(t + 6 * S)), (0, 1));
        assert_eq!(
            (queue.len(), queue.pop(), queue.is_empty()),
            (1, Some('c'), true)
        );
    }
}
