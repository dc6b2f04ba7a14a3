//! The book of an onion service's circuits: who may be built, who makes room, what counts as abuse.
//!
//! Pure bookkeeping: time is an argument, and to end a circuit is to cancel its token. It must never name a circuit by
//! anything but a number of its own, since there is no source address to go by.
//! Invariant: never more circuits, nor more being built, than the limits allow; a circuit with an open stream is never
//! shed.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::TorLimits;
use crate::transport::CircuitCounts;

/// A circuit's number in the book. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(u64);

/// All circuits of one service.
pub(super) struct Book {
    limits: TorLimits,
    circuits: BTreeMap<Number, Entry>,
    next: u64,
    /// The totals; what is so now is counted when asked.
    counts: CircuitCounts,
}

struct Entry {
    stage: Stage,
    cut: CancellationToken,
}

enum Stage {
    Building { since: Instant },
    Open(Open),
}

struct Open {
    streams: u32,
    /// When it last had no stream.
    idle_since: Instant,
    minute: Minute,
}

/// How many streams were asked for within a minute.
struct Minute {
    since: Instant,
    asked: u32,
}

/// Why a circuit's task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The other side went, or our service did.
    Gone,
    /// Too long without a stream.
    Idle,
    /// Tor could not build it, or not in time.
    NotBuilt,
    /// The stranger asked for what is not served, or for too much.
    Abuse,
    /// Its token was cancelled: shed, if it is no longer in the book, else shut by whoever held one of its streams.
    Cut,
}

impl Book {
    pub(super) fn new(limits: TorLimits) -> Self {
        Self {
            limits,
            circuits: BTreeMap::new(),
            next: 0,
            counts: CircuitCounts::default(),
        }
    }

    /// Enters a circuit that is about to be built, if there is room or some can be made.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(Number, CancellationToken)> {
        if self.building() >= self.limits.accepts_max.max(1) {
            let slow = self.slowest(now)?;
            self.shed(slow);
        }
        if self.circuits.len() >= self.limits.circuits_max.max(1) {
            let victim = self.idlest().or_else(|| self.slowest(now))?;
            self.shed(victim);
        }
        let number = Number(self.next);
        self.next += 1;
        let cut = CancellationToken::new();
        let entry = Entry {
            stage: Stage::Building { since: now },
            cut: cut.clone(),
        };
        self.circuits.insert(number, entry);
        Some((number, cut))
    }

    /// The circuit stands. `false`: it was shed meanwhile.
    pub(super) fn built(&mut self, number: Number, now: Instant) -> bool {
        let Some(entry) = self.circuits.get_mut(&number) else {
            return false;
        };
        entry.stage = Stage::Open(Open {
            streams: 0,
            idle_since: now,
            minute: Minute {
                since: now,
                asked: 0,
            },
        });
        self.counts.built_total += 1;
        true
    }

    /// Somebody asks for a stream. `false`: too often, which is abuse.
    pub(super) fn stream_asked(&mut self, number: Number, now: Instant) -> bool {
        let most = self.limits.streams_per_minute_max;
        // One that was shed has its token cancelled, which is seen next.
        self.open(number)
            .is_none_or(|open| open.minute.ask(now) <= most)
    }

    /// A stream is about to be accepted. `false`: there are too many, which is abuse. Balanced by `stream_ended`.
    pub(super) fn stream_opened(&mut self, number: Number) -> bool {
        let most = self.limits.streams_per_circuit_max;
        let Some(open) = self.open(number) else {
            return true;
        };
        open.streams += 1;
        open.streams <= most
    }

    /// A stream ended.
    pub(super) fn stream_ended(&mut self, number: Number, now: Instant) {
        if let Some(open) = self.open(number) {
            open.streams = open.streams.saturating_sub(1);
            open.idle_since = now;
        }
    }

    /// Whether the circuit was without a stream for as long as one may be.
    pub(super) fn is_idle(&self, number: Number, now: Instant) -> bool {
        match self.circuits.get(&number).map(|entry| &entry.stage) {
            Some(Stage::Open(open)) => {
                open.streams == 0 && now - open.idle_since >= self.limits.circuit_idle
            }
            Some(Stage::Building { .. }) | None => false,
        }
    }

    /// The circuit's task ends.
    pub(super) fn ended(&mut self, number: Number, why: End) {
        if self.circuits.remove(&number).is_none() {
            return;
        }
        match why {
            End::Gone | End::Idle => {}
            End::NotBuilt => self.counts.failed_total += 1,
            End::Abuse | End::Cut => self.counts.abused_total += 1,
        }
    }

    /// Requests or streams were turned away for want of room.
    pub(super) fn refused(&mut self, how_many: usize) {
        self.counts.refused_total += how_many as u64;
    }

    /// How many requests wait.
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

    fn open(&mut self, number: Number) -> Option<&mut Open> {
        match &mut self.circuits.get_mut(&number)?.stage {
            Stage::Open(open) => Some(open),
            Stage::Building { .. } => None,
        }
    }

    fn building(&self) -> usize {
        let stages = self.circuits.values().map(|entry| &entry.stage);
        stages
            .filter(|stage| matches!(stage, Stage::Building { .. }))
            .count()
    }

    /// The one being built for longest, if that is long enough to make room for another.
    fn slowest(&self, now: Instant) -> Option<Number> {
        let building = self
            .circuits
            .iter()
            .filter_map(|(number, entry)| match entry.stage {
                Stage::Building { since } if now - since >= self.limits.accept_deadline_pressed => {
                    Some((since, *number))
                }
                _ => None,
            });
        building.min().map(|(_, number)| number)
    }

    /// The one that is without a stream for longest.
    fn idlest(&self) -> Option<Number> {
        let idle = self
            .circuits
            .iter()
            .filter_map(|(number, entry)| match &entry.stage {
                Stage::Open(open) if open.streams == 0 => Some((open.idle_since, *number)),
                _ => None,
            });
        idle.min().map(|(_, number)| number)
    }

    fn shed(&mut self, number: Number) {
        if let Some(entry) = self.circuits.remove(&number) {
            entry.cut.cancel();
            self.counts.shed_total += 1;
        }
    }
}

impl Minute {
    /// How often it was asked within this minute, this time included.
    fn ask(&mut self, now: Instant) -> u32 {
        if now - self.since >= MINUTE {
            *self = Self {
                since: now,
                asked: 0,
            };
        }
        self.asked = self.asked.saturating_add(1);
        self.asked
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Requests that wait to be built, in the order in which they came. Who waits longest goes first, and is also the first
/// to be turned away: that stranger's Tor is the first to give up.
pub(super) struct Line<T> {
    waiting: VecDeque<(Instant, T)>,
    max: usize,
    wait: Duration,
}

impl<T> Line<T> {
    pub(super) fn new(limits: &TorLimits) -> Self {
        Self {
            waiting: VecDeque::new(),
            max: limits.requests_waiting_max.max(1),
            wait: limits.request_wait,
        }
    }

    /// Puts one at the end; gives back the first one when the line is full.
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

    /// Drops those who waited too long; tells how many.
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

    fn open(book: &mut Book, now: Instant) -> (Number, CancellationToken) {
        let (number, cut) = book.begin(now).unwrap();
        assert!(book.built(number, now));
        (number, cut)
    }

    #[test]
    fn no_more_are_built_at_once_than_allowed_and_a_slow_one_makes_room_in_time() {
        let t = Instant::now();
        let mut book = Book::new(limits());
        let (slow, slow_cut) = book.begin(t).unwrap();
        let (other, other_cut) = book.begin(t + S).unwrap();
        assert!(book.begin(t + 9 * S).is_none());
        assert!(!slow_cut.is_cancelled());
        assert!(book.begin(t + 10 * S).is_some());
        assert!(slow_cut.is_cancelled() && !other_cut.is_cancelled());
        assert!(!book.built(slow, t + 10 * S), "it was shed");
        book.ended(slow, End::NotBuilt);
        book.ended(other, End::NotBuilt);
        let counts = book.counts();
        assert_eq!(
            (counts.shed_total, counts.failed_total, counts.building),
            (1, 1, 1)
        );
    }

    #[test]
    fn the_longest_idle_circuit_makes_room_and_one_with_a_stream_never_does() {
        let t = Instant::now();
        let mut book = Book::new(limits());
        let (busy, busy_cut) = open(&mut book, t);
        let (second, second_cut) = open(&mut book, t + S);
        let (_, third_cut) = open(&mut book, t + 2 * S);
        assert!(book.stream_opened(busy) && book.stream_opened(second));
        // The second was without a stream later than the third.
        book.stream_ended(second, t + 3 * S);
        open(&mut book, t + 4 * S);
        assert!(third_cut.is_cancelled() && !second_cut.is_cancelled());
        open(&mut book, t + 5 * S);
        assert!(second_cut.is_cancelled());
        for later in 6..100 {
            open(&mut book, t + later * S);
        }
        assert!(!busy_cut.is_cancelled());
        assert_eq!((book.counts().open, book.counts().shed_total), (3, 96));
    }

    #[test]
    fn when_all_circuits_carry_streams_nobody_is_shed_and_nobody_begins() {
        let t = Instant::now();
        let mut book = Book::new(limits());
        let cuts: Vec<_> = (0..3).map(|_| open(&mut book, t)).collect();
        for (number, _) in &cuts {
            assert!(book.stream_opened(*number));
        }
        assert!(book.begin(t + 1000 * S).is_none());
        assert!(cuts.iter().all(|(_, cut)| !cut.is_cancelled()));
        book.ended(cuts[0].0, End::Gone);
        assert!(book.begin(t + 1000 * S).is_some());
    }

    #[test]
    fn too_many_streams_at_once_or_in_a_minute_are_abuse() {
        let t = Instant::now();
        let mut book = Book::new(limits());
        let (crowd, _) = open(&mut book, t);
        assert!(book.stream_opened(crowd) && book.stream_opened(crowd));
        assert!(!book.stream_opened(crowd));
        let (circling, _) = open(&mut book, t);
        for _ in 0..3 {
            assert!(book.stream_asked(circling, t + 59 * S) && book.stream_opened(circling));
            book.stream_ended(circling, t + 59 * S);
        }
        assert!(!book.stream_asked(circling, t + 59 * S));
        assert!(book.stream_asked(circling, t + 60 * S), "a minute has gone");
        book.ended(circling, End::Abuse);
        assert_eq!(book.counts().abused_total, 1);
    }

    #[test]
    fn a_circuit_is_idle_only_after_its_time_without_a_stream() {
        let t = Instant::now();
        let mut book = Book::new(limits());
        let (number, _) = open(&mut book, t);
        assert!(!book.is_idle(number, t + 59 * S) && book.is_idle(number, t + 60 * S));
        assert!(book.stream_opened(number));
        assert!(!book.is_idle(number, t + 600 * S));
        book.stream_ended(number, t + 600 * S);
        assert!(!book.is_idle(number, t + 601 * S) && book.is_idle(number, t + 660 * S));
    }

    #[test]
    fn the_line_turns_away_whoever_waited_longest() {
        let t = Instant::now();
        let mut line = Line::new(&limits());
        assert_eq!((line.push('a', t), line.push('b', t + S)), (None, None));
        assert_eq!(line.push('c', t + 2 * S), Some('a'));
        assert_eq!((line.expire(t + 5 * S), line.expire(t + 6 * S)), (0, 1));
        assert_eq!(
            (line.len(), line.pop(), line.is_empty()),
            (1, Some('c'), true)
        );
    }
}
