//! Answers that were given to solutions, so that the same solution gets the same answer on another stream.
//!
//! Only for solutions whose work, or ticket, and signature held: room here is paid for. Never keeps one beyond its
//! cookie's expiry, nor gives one out more than a few times. Invariant: at most `cached_replies_max`, the oldest goes first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use keys::{Digest, PeerId};

use crate::error::RefusalCode;
use crate::handshake::Admitted;

/// How often one answer is given again. A peer that loses more streams than that in a row begins anew.
const REPEATS_MAX: u8 = 8;

/// What a solution was answered.
#[derive(Clone)]
pub(super) enum Answer {
    /// The welcome's frame, and what goes with the session.
    Welcome(Arc<(Vec<u8>, Admitted)>),
    /// Refused by policy.
    Refused(RefusalCode),
}

/// What is known of a solution.
pub(super) enum Known {
    /// It is being judged.
    Working,
    /// It was.
    Answered(Answer),
}

struct Entry {
    /// Who claims to have sent it; where there is an answer, who did.
    peer: PeerId,
    expiry: u64,
    repeats: u8,
    /// None while it is being judged.
    answer: Option<Answer>,
}

pub(super) struct Answers {
    max: usize,
    entries: BTreeMap<Digest, Entry>,
    /// Oldest first.
    order: VecDeque<Digest>,
}

impl Answers {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            entries: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// A solution's serial was taken: it is being judged. `expiry` is its cookie's.
    pub(super) fn begin(&mut self, solution: Digest, peer: PeerId, expiry: u64, now: u64) {
        let is_over = |entries: &BTreeMap<Digest, Entry>, digest: &Digest| {
            entries.get(digest).is_none_or(|entry| now > entry.expiry)
        };
        while let Some(oldest) = self.order.front().copied() {
            if self.order.len() < self.max && !is_over(&self.entries, &oldest) {
                break;
            }
            self.order.pop_front();
            self.entries.remove(&oldest);
        }
        let entry = Entry {
            peer,
            expiry,
            repeats: 0,
            answer: None,
        };
        if self.entries.insert(solution, entry).is_none() {
            self.order.push_back(solution);
        }
    }

    /// It was judged. Without an answer it is forgotten: it did not hold.
    pub(super) fn finish(&mut self, solution: &Digest, answer: Option<Answer>) {
        match (answer, self.entries.get_mut(solution)) {
            (Some(answer), Some(entry)) => entry.answer = Some(answer),
            (None, Some(_)) => {
                self.entries.remove(solution);
                self.order.retain(|digest| digest != solution);
            }
            (_, None) => {}
        }
    }

    /// What is known of a solution that comes again.
    pub(super) fn find(&mut self, solution: &Digest, now: u64) -> Option<Known> {
        let entry = self
            .entries
            .get_mut(solution)
            .filter(|entry| now <= entry.expiry)?;
        let Some(answer) = &entry.answer else {
            return Some(Known::Working);
        };
        if entry.repeats >= REPEATS_MAX {
            return None;
        }
        entry.repeats += 1;
        Some(Known::Answered(answer.clone()))
    }

    /// Forgets every answer to a peer, those that are being found too.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.entries.retain(|_, entry| entry.peer != *peer);
        self.order
            .retain(|digest| self.entries.contains_key(digest));
    }

    /// How many are kept that may still be asked for.
    pub(super) fn count(&self, now: u64) -> usize {
        self.entries
            .values()
            .filter(|entry| now <= entry.expiry)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::from_bytes([number; 32])
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn refused(answers: &mut Answers, number: u8, now: u64) -> Option<RefusalCode> {
        match answers.find(&digest(number), now)? {
            Known::Answered(Answer::Refused(code)) => Some(code),
            _ => None,
        }
    }

    #[test]
    fn an_answer_is_given_again_until_its_cookie_expires_but_not_for_ever() {
        let mut answers = Answers::new(4);
        answers.begin(digest(1), peer(1), 100, 10);
        assert!(matches!(answers.find(&digest(1), 10), Some(Known::Working)));
        answers.finish(&digest(1), Some(Answer::Refused(RefusalCode::Policy)));
        assert_eq!(refused(&mut answers, 1, 100), Some(RefusalCode::Policy));
        assert_eq!(refused(&mut answers, 1, 101), None);
        for _ in 1..REPEATS_MAX {
            assert_eq!(refused(&mut answers, 1, 50), Some(RefusalCode::Policy));
        }
        assert_eq!(refused(&mut answers, 1, 50), None);
    }

    #[test]
    fn what_a_peer_was_answered_is_forgotten_also_while_it_is_being_found() {
        let mut answers = Answers::new(4);
        for number in 1..4 {
            answers.begin(digest(number), peer(1 + number / 3), 100, 10);
        }
        answers.finish(&digest(1), Some(Answer::Refused(RefusalCode::Pending)));
        answers.forget(&peer(1));
        assert!(answers.find(&digest(1), 10).is_none());
        // It was judged by what held before.
        answers.finish(&digest(2), Some(Answer::Refused(RefusalCode::Policy)));
        assert!(answers.find(&digest(2), 10).is_none());
        assert!(matches!(answers.find(&digest(3), 10), Some(Known::Working)));
        assert_eq!((answers.count(10), answers.order.len()), (1, 1));
    }

    #[test]
    fn what_did_not_hold_is_forgotten_and_room_is_bounded() {
        let mut answers = Answers::new(2);
        answers.begin(digest(1), peer(1), 100, 10);
        answers.finish(&digest(1), None);
        assert!(answers.find(&digest(1), 10).is_none());
        for number in 2..6 {
            answers.begin(digest(number), peer(1), 100, 10);
            answers.finish(&digest(number), Some(Answer::Refused(RefusalCode::Policy)));
            assert!(answers.count(10) <= 2 && answers.order.len() == answers.entries.len());
        }
        assert_eq!(refused(&mut answers, 3, 10), None);
        assert_eq!(refused(&mut answers, 5, 10), Some(RefusalCode::Policy));
        // What has expired makes room before it is needed.
        assert_eq!(answers.count(101), 0);
        answers.begin(digest(6), peer(1), 200, 101);
        assert_eq!((answers.count(101), answers.entries.len()), (1, 1));
    }
}
