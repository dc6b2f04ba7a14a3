//! [`HandshakeSlots`]: bounds the open handshakes, and decides which one is evicted.
//!
//! Clients without a ticket share `open_handshakes_max` slots. Untrusted peers with a ticket have
//! their own slots, and so have trusted ones. So clients without a ticket cannot take the slots of
//! ticket holders, and one ticket holder cannot take the slots of all others.
//!
//! When a client arrives and all slots are taken, one handshake is evicted. Among the challenged
//! clients that is the newest, because it can send its solution on any later stream. Among the
//! clients that have sent nothing it is the oldest. The larger of the two groups loses one. A
//! client whose solution is being verified is never evicted.
//!
//! Invariant: no group holds more slots than its limit, and dropping a [`SlotPermit`] frees the
//! slot. Tested below, also by a property.

use std::collections::BTreeMap;
use std::sync::Arc;

use keys::PeerId;
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::config::GateConfig;
use crate::ticket::{TicketClaims, Tier};

/// Slots reserved for ticket holders that one peer may hold: one for each of two crossing streams.
const SLOTS_PER_PEER_MAX: usize = 2;

/// The number of open handshakes by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandshakeCounts {
    /// Clients without a ticket that have sent nothing yet.
    pub awaiting_hello: usize,
    /// Clients without a ticket that hold a challenge, or that were refused and may still read.
    pub challenged: usize,
    /// Clients without a ticket whose solution is being verified.
    pub verifying: usize,
    /// Untrusted peers with a ticket.
    pub untrusted_ticket: usize,
    /// Trusted peers with a ticket.
    pub trusted_ticket: usize,
}

impl HandshakeCounts {
    /// Returns the number of handshakes with clients that showed no ticket.
    pub fn without_ticket(&self) -> usize {
        self.awaiting_hello + self.challenged + self.verifying
    }
}

pub(super) struct HandshakeSlots(Arc<SharedSlots>);

struct SharedSlots {
    table: Mutex<SlotTable>,
    without_ticket_max: usize,
    untrusted_ticket_max: usize,
    trusted_ticket_max: usize,
}

#[derive(Default)]
struct SlotTable {
    arrivals: u64,
    /// By arrival number.
    awaiting_hello: BTreeMap<u64, CancellationToken>,
    /// By arrival number.
    challenged: BTreeMap<u64, CancellationToken>,
    verifying: usize,
    untrusted_ticket: BTreeMap<PeerId, usize>,
    trusted_ticket: BTreeMap<PeerId, usize>,
    evicted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    AwaitingHello,
    Challenged,
    Verifying,
    UntrustedTicket(PeerId),
    TrustedTicket(PeerId),
}

/// A slot for one handshake. Dropping it frees the slot.
pub(super) struct SlotPermit {
    slots: Arc<SharedSlots>,
    /// Arrival number.
    number: u64,
    stage: Stage,
    /// Cancelled when the slot goes to another client.
    evicted: CancellationToken,
}

impl HandshakeSlots {
    pub(super) fn new(config: &GateConfig) -> Self {
        Self(Arc::new(SharedSlots {
            table: Mutex::default(),
            without_ticket_max: config.open_handshakes_max,
            untrusted_ticket_max: config.ticket_handshakes_max,
            trusted_ticket_max: config.trusted_handshakes_max,
        }))
    }

    /// Returns a slot for a new stream. Evicts a handshake when all slots are taken; returns none
    /// when no handshake can be evicted.
    pub(super) fn acquire(&self) -> Option<SlotPermit> {
        let mut table = self.0.table();
        if table.counts().without_ticket() >= self.0.without_ticket_max && !table.evict_one() {
            return None;
        }
        let (number, evicted) = (table.arrivals, CancellationToken::new());
        table.arrivals += 1;
        table.awaiting_hello.insert(number, evicted.clone());
        Some(SlotPermit {
            slots: self.0.clone(),
            number,
            stage: Stage::AwaitingHello,
            evicted,
        })
    }

    pub(super) fn counts(&self) -> HandshakeCounts {
        self.0.table().counts()
    }

    /// Returns the number of evicted handshakes since the start.
    pub(super) fn evicted_total(&self) -> u64 {
        self.0.table().evicted
    }
}

impl SharedSlots {
    fn table(&self) -> MutexGuard<'_, SlotTable> {
        self.table.lock()
    }
}

impl SlotTable {
    fn counts(&self) -> HandshakeCounts {
        HandshakeCounts {
            awaiting_hello: self.awaiting_hello.len(),
            challenged: self.challenged.len(),
            verifying: self.verifying,
            untrusted_ticket: self.untrusted_ticket.values().sum(),
            trusted_ticket: self.trusted_ticket.values().sum(),
        }
    }

    fn evict_one(&mut self) -> bool {
        let entry = if self.challenged.len() > self.awaiting_hello.len() {
            self.challenged.pop_last()
        } else {
            self.awaiting_hello.pop_first()
        };
        let Some((_, evicted)) = entry else {
            return false;
        };
        evicted.cancel();
        self.evicted += 1;
        true
    }

    /// Frees the slot. An evicted handshake has no entry any more.
    fn free(&mut self, stage: Stage, number: u64) {
        match stage {
            Stage::AwaitingHello => drop(self.awaiting_hello.remove(&number)),
            Stage::Challenged => drop(self.challenged.remove(&number)),
            Stage::Verifying => self.verifying = self.verifying.saturating_sub(1),
            Stage::UntrustedTicket(peer) => decrement(&mut self.untrusted_ticket, &peer),
            Stage::TrustedTicket(peer) => decrement(&mut self.trusted_ticket, &peer),
        }
    }
}

/// Returns whether a peer may take one more of `limit` slots.
fn has_free_slot(slots: &BTreeMap<PeerId, usize>, peer: &PeerId, limit: usize) -> bool {
    let own = slots.get(peer).copied().unwrap_or_default();
    own < SLOTS_PER_PEER_MAX && slots.values().sum::<usize>() < limit
}

fn decrement(slots: &mut BTreeMap<PeerId, usize>, peer: &PeerId) {
    match slots.get_mut(peer) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(slots.remove(peer)),
    }
}

impl SlotPermit {
    /// Returns the token that is cancelled when the slot goes to another client. The handshake must
    /// end then.
    pub(super) fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }

    /// The server sends a challenge. A client with a ticket moves to a ticket holders' slot if one
    /// is free.
    pub(super) fn mark_challenged(&mut self, ticket: Option<&TicketClaims>) {
        self.change_stage(ticket, Stage::Challenged);
    }

    /// The server verifies a solution. The handshake is not evicted from now on.
    pub(super) fn mark_verifying(&mut self, ticket: Option<&TicketClaims>) {
        self.change_stage(ticket, Stage::Verifying);
    }

    /// Only the server's last message is left to send. The handshake may be evicted.
    pub(super) fn mark_evictable(&mut self) {
        self.change_stage(None, Stage::Challenged);
    }

    fn change_stage(&mut self, ticket: Option<&TicketClaims>, without_ticket: Stage) {
        let mut table = self.slots.table();
        let has_ticket_slot = matches!(
            self.stage,
            Stage::UntrustedTicket(_) | Stage::TrustedTicket(_)
        );
        if has_ticket_slot || self.evicted.is_cancelled() {
            return;
        }
        let (trusted_max, untrusted_max) = (
            self.slots.trusted_ticket_max,
            self.slots.untrusted_ticket_max,
        );
        let ticket_stage = ticket.and_then(|TicketClaims { peer, tier, .. }| match tier {
            Tier::Trusted if has_free_slot(&table.trusted_ticket, peer, trusted_max) => {
                Some(Stage::TrustedTicket(*peer))
            }
            Tier::Untrusted if has_free_slot(&table.untrusted_ticket, peer, untrusted_max) => {
                Some(Stage::UntrustedTicket(*peer))
            }
            _ => None,
        });
        table.free(self.stage, self.number);
        self.stage = ticket_stage.unwrap_or(without_ticket);
        let (number, evicted) = (self.number, self.evicted.clone());
        match self.stage {
            Stage::AwaitingHello => drop(table.awaiting_hello.insert(number, evicted)),
            Stage::Challenged => drop(table.challenged.insert(number, evicted)),
            Stage::Verifying => table.verifying += 1,
            Stage::UntrustedTicket(peer) => *table.untrusted_ticket.entry(peer).or_default() += 1,
            Stage::TrustedTicket(peer) => *table.trusted_ticket.entry(peer).or_default() += 1,
        }
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        self.slots.table().free(self.stage, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slots(without_ticket: usize) -> HandshakeSlots {
        HandshakeSlots::new(&GateConfig {
            open_handshakes_max: without_ticket,
            ticket_handshakes_max: 1,
            trusted_handshakes_max: 2,
            ..GateConfig::default()
        })
    }

    fn ticket(number: u8, tier: Tier) -> TicketClaims {
        let peer = PeerId::from_bytes([number; 32]);
        TicketClaims {
            peer,
            tier,
            issued: 0,
        }
    }

    fn challenged(slots: &HandshakeSlots) -> SlotPermit {
        let mut permit = slots.acquire().unwrap();
        permit.mark_challenged(None);
        permit
    }

    fn evicted(permits: &[SlotPermit]) -> Vec<bool> {
        permits
            .iter()
            .map(|permit| permit.evicted.is_cancelled())
            .collect()
    }

    #[test]
    fn evicts_the_oldest_silent_and_the_newest_challenged_stream() {
        let full = slots(3);
        let silent: Vec<_> = (0..3).map(|_| full.acquire().unwrap()).collect();
        let _arrival = full.acquire().unwrap();
        assert_eq!(evicted(&silent), [true, false, false]);
        let full = slots(3);
        let challenged: Vec<_> = (0..3).map(|_| challenged(&full)).collect();
        let _arrival = full.acquire().unwrap();
        assert_eq!(evicted(&challenged), [false, false, true]);
        assert_eq!(
            (full.counts().without_ticket(), full.evicted_total()),
            (3, 1)
        );
    }

    #[test]
    fn evicts_from_the_larger_group() {
        let full = slots(3);
        let (challenged, silent) = (
            challenged(&full),
            [full.acquire().unwrap(), full.acquire().unwrap()],
        );
        let _arrival = full.acquire().unwrap();
        assert!(!challenged.evicted.is_cancelled());
        assert_eq!(evicted(&silent), [true, false]);
    }

    #[test]
    fn verifying_handshakes_are_not_evicted_and_dropped_permits_free_their_slots() {
        let full = slots(2);
        let mut permits = vec![full.acquire().unwrap(), full.acquire().unwrap()];
        for permit in &mut permits {
            permit.mark_verifying(None);
        }
        assert!(full.acquire().is_none());
        assert_eq!(evicted(&permits), [false, false]);
        permits.pop();
        assert!(full.acquire().is_some());
        permits.clear();
        assert_eq!(full.counts(), HandshakeCounts::default());
    }

    #[test]
    fn ticket_holders_use_their_own_slots_until_these_are_taken() {
        let full = slots(2);
        let mut ticketed: Vec<_> = (0..4)
            .map(|number| {
                let mut permit = full.acquire().unwrap();
                let tier = if number < 3 {
                    Tier::Trusted
                } else {
                    Tier::Untrusted
                };
                permit.mark_challenged(Some(&ticket(number, tier)));
                permit
            })
            .collect();
        let counts = full.counts();
        // Trusted peers have two slots; the third trusted peer counts as a client without a ticket.
        assert_eq!(
            (
                counts.trusted_ticket,
                counts.untrusted_ticket,
                counts.challenged
            ),
            (2, 1, 1)
        );
        let _arrivals = [
            full.acquire().unwrap(),
            full.acquire().unwrap(),
            full.acquire().unwrap(),
        ];
        assert_eq!(evicted(&ticketed)[..2], [false, false]);
        assert!(!ticketed[3].evicted.is_cancelled());
        ticketed[0].mark_verifying(Some(&ticket(0, Tier::Trusted)));
        assert_eq!(full.counts().trusted_ticket, 2);
        ticketed.clear();
        let counts = full.counts();
        assert_eq!((counts.trusted_ticket, counts.untrusted_ticket), (0, 0));
    }

    #[test]
    fn one_peer_takes_at_most_two_ticket_slots() {
        let slots = HandshakeSlots::new(&GateConfig::default());
        let mut permits: Vec<_> = (0..5).map(|_| slots.acquire().unwrap()).collect();
        for permit in &mut permits {
            permit.mark_challenged(Some(&ticket(1, Tier::Untrusted)));
        }
        let counts = slots.counts();
        assert_eq!((counts.untrusted_ticket, counts.challenged), (2, 3));
        permits.remove(0);
        let mut next = slots.acquire().unwrap();
        next.mark_challenged(Some(&ticket(1, Tier::Untrusted)));
        assert_eq!(slots.counts().untrusted_ticket, 2);
    }

    proptest! {
        /// Any order of arrivals, stage changes and ends keeps each group within its limit, and no
        /// slot is leaked.
        #[test]
        fn no_group_exceeds_its_limit(
            steps in proptest::collection::vec((0u8..6, any::<prop::sample::Index>()), 0..200),
        ) {
            let slots = slots(5);
            let mut permits: Vec<SlotPermit> = Vec::new();
            for (step, index) in steps {
                let index = index.index(permits.len().max(1));
                let (trusted, untrusted) = (
                    ticket(step, Tier::Trusted),
                    ticket(step, Tier::Untrusted),
                );
                match (step, permits.get_mut(index)) {
                    (0 | 1, _) => permits.extend(slots.acquire()),
                    (2, Some(permit)) => permit.mark_challenged(None),
                    (3, Some(permit)) => permit.mark_challenged(Some(&trusted)),
                    (4, Some(permit)) => permit.mark_verifying(Some(&untrusted)),
                    (_, Some(_)) => drop(permits.swap_remove(index)),
                    (_, None) => {}
                }
                permits.retain(|permit| !permit.evicted.is_cancelled());
                let counts = slots.counts();
                let (untrusted, trusted) = (counts.untrusted_ticket, counts.trusted_ticket);
                prop_assert!(counts.without_ticket() <= 5 && untrusted <= 1 && trusted <= 2);
                prop_assert_eq!(counts.without_ticket() + untrusted + trusted, permits.len());
            }
            permits.clear();
            prop_assert_eq!(slots.counts(), HandshakeCounts::default());
        }
    }
}
