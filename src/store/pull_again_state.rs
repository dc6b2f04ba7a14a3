//! When a scope or domain is pulled again: starts, windows and pauses. Pure.
//!
//! A finished row stays, because it counts the starts of its day. Invariant: a row starts at most
//! [`STARTS_PER_DAY_MAX`] times a day, and is requested at most [`ROUNDS_PER_DAY_MAX`] times.

use std::cmp::Ordering;

use keys::{Epoch, Oid, PeerId};

use crate::op_context::Timestamp;

/// Most times that a scope or domain is pulled again from 0 within a day.
const STARTS_PER_DAY_MAX: u64 = 8;
/// Most windows that a scope or domain is pulled again within a day, against a peer whose windows
/// are small without end.
const ROUNDS_PER_DAY_MAX: u64 = 4096;
pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Cursor of a finished row. No number of a peer is as high.
pub(super) const FINISHED: u64 = i64::MAX.cast_unsigned();
/// Longest pause between two starts of which the first brought nothing: 30 days.
const PAUSE_MS_MAX: u64 = 30 * DAY_MS;
/// Pause after a request that failed: an hour.
pub(super) const RETRY_MS: u64 = 60 * 60 * 1000;

/// Why a scope or domain is pulled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullAgainCause {
    /// An object of it found no room to wait. The next start is when another object has been
    /// settled, or after a day.
    NoRoom,
    /// An object of it waited too long. The next start is after a day.
    Expired,
    /// The peer named the scope, because this node may read more of it than before. Or an owner at
    /// the peer overruled the deletion of the scope. The next start is at once.
    Named,
    /// An owner elsewhere overruled the deletion of the scope. The next start is at once.
    Overruled,
}

impl PullAgainCause {
    /// The value of the column `cause`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::Expired => "expired",
            Self::Named => "named",
            Self::Overruled => "overruled",
        }
    }

    /// The cause of a column's value.
    pub(super) fn of(column: &str) -> Self {
        match column {
            "named" => Self::Named,
            "overruled" => Self::Overruled,
            "expired" => Self::Expired,
            _ => Self::NoRoom,
        }
    }

    /// Milliseconds until it starts, unless something settles.
    fn pause_ms(self) -> u64 {
        match self {
            Self::NoRoom | Self::Expired => DAY_MS,
            Self::Named | Self::Overruled => 0,
        }
    }
}

/// A scope or domain to be noted.
#[derive(Debug, Clone, Copy)]
pub struct PullAgainNote<'a> {
    /// The peer.
    pub peer: &'a PeerId,
    /// Name of the domain.
    pub domain: &'a str,
    /// The scope; `None`: the whole domain.
    pub scope: Option<Oid>,
    /// The peer's epoch.
    pub epoch: Epoch,
    /// The number up to which it has to be pulled again.
    pub until_seq: u64,
    /// The reason.
    pub cause: PullAgainCause,
    /// Whether the object came while the domain was pulled again.
    pub is_again: bool,
    /// Whether objects of the peer itself may be missing, and not only relayed ones.
    pub is_own: bool,
}

/// One row, without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) epoch: Epoch,
    pub(super) cursor: u64,
    pub(super) until_seq: u64,
    pub(super) cause: PullAgainCause,
    pub(super) noted_again: bool,
    /// Whether objects of the peer itself may be missing.
    pub(super) lacks_own: bool,
    /// Whether such objects were noted since the row started.
    pub(super) noted_own: bool,
    pub(super) not_before: Timestamp,
    /// Earliest time of the next request after one that failed. Nothing brings it forward.
    pub(super) retry_at: Timestamp,
    pub(super) pause_ms: u64,
    pub(super) starts: u64,
    pub(super) rounds: u64,
    pub(super) day: u64,
}

/// Whether a time was reached. One that lies further ahead than the longest pause was noted while
/// the clock was ahead, and counts as reached.
fn is_reached(time: Timestamp, now: Timestamp, pause_ms: u64) -> bool {
    time <= now || time.0 - now.0 > pause_ms
}

impl State {
    pub(super) fn new(note: &PullAgainNote<'_>, now: Timestamp) -> Self {
        Self {
            epoch: note.epoch,
            cursor: 0,
            until_seq: note.until_seq,
            cause: note.cause,
            noted_again: false,
            lacks_own: note.is_own,
            noted_own: false,
            not_before: Timestamp(now.0.saturating_add(note.cause.pause_ms())),
            retry_at: Timestamp(0),
            pause_ms: DAY_MS,
            starts: 0,
            rounds: 0,
            day: 0,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.cursor == FINISHED
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let is_new_day = self.day != now.0 / DAY_MS;
        let may_start = self.cursor > 0 || self.starts < STARTS_PER_DAY_MAX;
        !self.is_finished()
            && is_reached(self.not_before, now, self.longest_pause_ms())
            && is_reached(self.retry_at, now, RETRY_MS)
            && (is_new_day || (may_start && self.rounds < ROUNDS_PER_DAY_MAX))
    }

    /// The longest time until the next start, as the row was noted.
    fn longest_pause_ms(&self) -> u64 {
        match self.cause.pause_ms() {
            0 => 0,
            _ => self.pause_ms,
        }
    }

    /// Adds a note to a row that exists. A row of an earlier epoch is replaced, because the domain
    /// starts at 0 in the later one.
    pub(super) fn note(&mut self, note: &PullAgainNote<'_>, now: Timestamp) {
        let new = Self::new(note, now);
        if self.epoch != note.epoch || self.is_finished() {
            *self = Self {
                retry_at: self.retry_at,
                starts: self.starts,
                rounds: self.rounds,
                day: self.day,
                ..new
            };
            return;
        }
        self.until_seq = self.until_seq.max(note.until_seq);
        let must_restart = note.is_again || self.cursor > 0;
        let is_first = must_restart && !self.noted_again;
        if note.cause == PullAgainCause::Named
            || (note.cause == PullAgainCause::Overruled && self.cause.pause_ms() > 0)
            || is_first
        {
            self.cause = note.cause;
        }
        self.noted_again |= must_restart;
        self.add_own(note.is_own, must_restart);
        self.not_before = self.not_before.min(new.not_before);
    }

    /// Notes whether objects of the peer itself are missing, which the present run may have passed.
    fn add_own(&mut self, is_own: bool, must_restart: bool) {
        match must_restart {
            true => self.noted_own |= is_own,
            false => self.lacks_own |= is_own,
        }
    }

    /// Adds a row of a scope to that of the whole domain, which replaces it. Nothing that was due
    /// is put off, and no start of the day is forgotten.
    pub(super) fn absorb(&mut self, row: &Self) {
        match row.day.cmp(&self.day) {
            Ordering::Less => {}
            Ordering::Equal => {
                self.starts = self.starts.max(row.starts);
                self.rounds = self.rounds.max(row.rounds);
            }
            Ordering::Greater => {
                (self.day, self.starts, self.rounds) = (row.day, row.starts, row.rounds);
            }
        }
        self.retry_at = self.retry_at.max(row.retry_at);
        if row.is_finished() || row.epoch != self.epoch {
            return;
        }
        self.until_seq = self.until_seq.max(row.until_seq);
        self.noted_again |= self.cursor > 0;
        self.add_own(row.lacks_own || row.noted_own, self.cursor > 0);
        self.not_before = self.not_before.min(row.not_before);
        if row.cause.pause_ms() == 0 {
            self.cause = PullAgainCause::Named;
        }
    }

    /// Moves to the end of a window. The row is finished, or starts once more after a pause if it
    /// was noted meanwhile, when it has reached its end.
    #[must_use]
    pub(super) fn advance(mut self, to_seq: u64, now: Timestamp) -> Self {
        let day = now.0 / DAY_MS;
        if self.day != day {
            (self.day, self.starts, self.rounds) = (day, 0, 0);
        }
        self.rounds += 1;
        self.starts += u64::from(self.cursor == 0);
        self.cursor = to_seq;
        if to_seq < self.until_seq {
            return self;
        }
        if !self.noted_again {
            self.cursor = FINISHED;
            return self;
        }
        let restarted = Self {
            cursor: 0,
            noted_again: false,
            lacks_own: self.noted_own,
            noted_own: false,
            ..self
        };
        match self.cause {
            PullAgainCause::Named | PullAgainCause::Overruled => restarted,
            PullAgainCause::NoRoom | PullAgainCause::Expired => Self {
                not_before: Timestamp(now.0.saturating_add(self.pause_ms)),
                pause_ms: self.pause_ms.saturating_mul(2).min(PAUSE_MS_MAX),
                ..restarted
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn note_of(peer: &PeerId, cause: PullAgainCause) -> PullAgainNote<'_> {
        PullAgainNote {
            peer,
            domain: "messages",
            scope: None,
            epoch: Epoch::from_bytes([2; 16]),
            until_seq: 10,
            cause,
            is_again: false,
            is_own: false,
        }
    }

    /// When a row that was noted for `cause` while it ran starts once more, in milliseconds.
    fn restart_after_ms(first: PullAgainCause, cause: PullAgainCause) -> u64 {
        let peer = PeerId::from_bytes([1; 32]);
        let note = |cause| note_of(&peer, cause);
        let mut running = State::new(&note(first), NOW).advance(5, NOW);
        running.note(&note(cause), NOW);
        let restarted = running.advance(10, NOW);
        assert_eq!(restarted.cursor, 0);
        restarted.not_before.0.saturating_sub(NOW.0)
    }

    #[test]
    fn row_that_was_named_while_it_ran_starts_again_at_once() {
        let (named, no_room) = (PullAgainCause::Named, PullAgainCause::NoRoom);
        assert_eq!(restart_after_ms(named, named), 0);
        assert_eq!(restart_after_ms(no_room, no_room), DAY_MS);
        assert_eq!(restart_after_ms(no_room, named), 0);
        assert_eq!(restart_after_ms(named, no_room), DAY_MS);
    }

    #[test]
    fn own_objects_are_missing_until_a_run_that_passed_none_of_them_ends() {
        let peer = PeerId::from_bytes([1; 32]);
        let note = |is_own, is_again| PullAgainNote {
            is_again,
            is_own,
            ..note_of(&peer, PullAgainCause::NoRoom)
        };
        let lacks = |state: &State| state.lacks_own || state.noted_own;
        let mut relayed = State::new(&note(false, false), NOW);
        assert!(!lacks(&relayed));
        relayed.note(&note(true, false), NOW);
        assert!(lacks(&relayed), "noted before the start");
        let mut run = relayed.advance(5, NOW);
        run.note(&note(false, true), NOW);
        assert!(lacks(&run), "the run has not ended");
        let mut run = run.advance(10, NOW);
        assert!(!lacks(&run) && !run.is_finished());
        run.note(&note(true, true), NOW);
        let run = run.advance(10, NOW);
        assert!(lacks(&run), "noted by the run that ended");
    }

    #[test]
    fn times_of_a_clock_that_was_ahead_count_as_reached() {
        let peer = PeerId::from_bytes([1; 32]);
        let ahead = Timestamp(NOW.0 + 400 * DAY_MS);
        for (cause, pause_ms) in [
            (PullAgainCause::Named, 0),
            (PullAgainCause::Overruled, 0),
            (PullAgainCause::NoRoom, DAY_MS),
            (PullAgainCause::Expired, DAY_MS),
        ] {
            let note = note_of(&peer, cause);
            assert!(State::new(&note, ahead).is_due(NOW), "{cause:?}");
            let failed = State {
                not_before: NOW,
                retry_at: Timestamp(ahead.0 + RETRY_MS),
                ..State::new(&note, NOW)
            };
            assert!(failed.is_due(NOW), "{cause:?}");
            // A clock that is right sees each pause.
            let new = State::new(&note, NOW);
            assert_eq!(new.is_due(NOW), pause_ms == 0);
            let failed = State {
                not_before: NOW,
                retry_at: Timestamp(NOW.0 + RETRY_MS),
                ..new
            };
            assert!(!failed.is_due(NOW));
        }
    }
}
