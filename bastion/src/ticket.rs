//! Tickets: an admitted peer shows one in its next handshake instead of working
//! (docs/DECISIONS.md 6).
//!
//! A ticket is sealed with a key derived from the onion key in the vault, so it survives a restart
//! and needs no storage. Only its recent uses are counted. A ticket does not replace a signature:
//! the peer that it names must sign a new challenge. The admission policy checks whether that peer
//! was banned since. Invariant: [`Tickets::open`] returns what [`Tickets::issue`] sealed, until its
//! expiry.

use std::collections::BTreeMap;
use std::fmt;

use keys::protocol::TICKET_BYTES_MAX;
use keys::signing::signing_input;
use keys::{Context, OnionAddr, PeerId, SealingKey};
use rand::CryptoRng;

use crate::config::GateConfig;

/// Length of a ticket of this node in bytes.
pub const TICKET_BYTES: usize = PLAIN_BYTES + keys::sealing::OVERHEAD_BYTES;
/// Tier, time of issue, expiry, peer id.
const PLAIN_BYTES: usize = 1 + 8 + 8 + 32;
/// Seconds over which uses are counted.
const WINDOW_S: u64 = 60;

/// How far a peer is trusted (docs/DECISIONS.md 6). An unadmitted node has no tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Admitted by proof of work only.
    Untrusted,
    /// Approved by the operator, on the allow list, or dialled by this node.
    Trusted,
}

impl Tier {
    /// Returns the stable name that the database and the API use: `untrusted` or `trusted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Trusted => "trusted",
        }
    }
}

/// A ticket that another node issued, opaque to this node.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(Vec<u8>);

impl Ticket {
    /// Accepts a received ticket. Returns `None` when it is empty or longer than
    /// [`TICKET_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=TICKET_BYTES_MAX)
            .contains(&bytes.len())
            .then(|| Self(bytes.to_vec()))
    }

    /// Returns the bytes, to be stored and sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

/// The content of a ticket that this node issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketClaims {
    /// The peer that may use the ticket.
    pub peer: PeerId,
    /// The peer's tier at the time of issue.
    pub tier: Tier,
    /// Unix seconds of issue. A later ban voids the ticket.
    pub issued: u64,
}

/// Issues tickets, opens them and counts their uses.
pub struct Tickets {
    key: SealingKey,
    /// Associated data of the seal: the onion service that issued the ticket.
    associated_data: Vec<u8>,
    lifetime_s: u64,
    uses_per_minute_max: u32,
    peers_max: usize,
    /// Recent uses by peer. Only holders of a ticket have an entry. The tiers are separate, so that
    /// untrusted peers cannot fill the table of trusted ones.
    untrusted: BTreeMap<PeerId, TicketUses>,
    trusted: BTreeMap<PeerId, TicketUses>,
}

#[derive(Debug, Clone, Copy)]
struct TicketUses {
    /// Unix seconds of the first counted use.
    since: u64,
    count: u32,
}

impl Tickets {
    /// Issues tickets for this onion service, sealed with `key`.
    pub fn new(config: &GateConfig, key: SealingKey, onion: &OnionAddr) -> Self {
        Self {
            key,
            associated_data: signing_input(Context::Ticket, &[onion.public_key().as_bytes()]),
            lifetime_s: config.ticket_lifetime_s,
            uses_per_minute_max: config.ticket_uses_per_minute_max,
            peers_max: config.ticket_peers_max,
            untrusted: BTreeMap::new(),
            trusted: BTreeMap::new(),
        }
    }

    /// Issues a ticket for a peer. Returns none when `ticket_lifetime_s` is 0.
    pub fn issue(
        &self,
        peer: &PeerId,
        tier: Tier,
        now: u64,
        rng: &mut dyn CryptoRng,
    ) -> Option<Vec<u8>> {
        if self.lifetime_s == 0 {
            return None;
        }
        let mut plain = Vec::with_capacity(PLAIN_BYTES);
        plain.push(u8::from(tier == Tier::Trusted));
        plain.extend_from_slice(&now.to_be_bytes());
        plain.extend_from_slice(&now.saturating_add(self.lifetime_s).to_be_bytes());
        plain.extend_from_slice(peer.as_bytes());
        Some(self.key.seal(&self.associated_data, &plain, rng))
    }

    /// Opens a ticket that this node issued and that has not expired. Counts no use.
    pub fn open(&self, ticket: &[u8], now: u64) -> Option<TicketClaims> {
        if ticket.len() != TICKET_BYTES {
            return None;
        }
        let plain = self.key.open(&self.associated_data, ticket).ok()?;
        let (tier, rest) = plain.split_first()?;
        let (issued, rest) = rest.split_first_chunk()?;
        let (expiry, peer) = rest.split_first_chunk()?;
        let (issued, expiry) = (u64::from_be_bytes(*issued), u64::from_be_bytes(*expiry));
        let claims = TicketClaims {
            peer: PeerId::from_slice(peer)?,
            tier: match tier {
                0 => Tier::Untrusted,
                1 => Tier::Trusted,
                _ => return None,
            },
            issued,
        };
        // After the clock was set back, a ticket from the future is invalid until its time of
        // issue.
        (issued <= now && now <= expiry).then_some(claims)
    }

    /// Returns whether the peer may use a ticket now.
    pub fn may_use(&self, claims: &TicketClaims, now: u64) -> bool {
        let uses_by_peer = match claims.tier {
            Tier::Untrusted => &self.untrusted,
            Tier::Trusted => &self.trusted,
        };
        match uses_by_peer
            .get(&claims.peer)
            .filter(|uses| uses.is_recent(now))
        {
            Some(uses) => uses.count < self.uses_per_minute_max,
            None => {
                uses_by_peer.len() < self.peers_max
                    || uses_by_peer.values().any(|uses| !uses.is_recent(now))
            }
        }
    }

    /// Counts a use. Returns `false` when this peer exceeds its uses per minute, or when too many
    /// peers of its tier used tickets within the minute.
    pub fn count_use(&mut self, claims: &TicketClaims, now: u64) -> bool {
        if !self.may_use(claims, now) {
            return false;
        }
        let uses_by_peer = match claims.tier {
            Tier::Untrusted => &mut self.untrusted,
            Tier::Trusted => &mut self.trusted,
        };
        if uses_by_peer.len() >= self.peers_max {
            uses_by_peer.retain(|_, uses| uses.is_recent(now));
        }
        let uses = uses_by_peer.entry(claims.peer).or_insert(TicketUses {
            since: now,
            count: 0,
        });
        if !uses.is_recent(now) {
            *uses = TicketUses {
                since: now,
                count: 0,
            };
        }
        uses.count = uses.count.saturating_add(1);
        true
    }
}

impl TicketUses {
    fn is_recent(self, now: u64) -> bool {
        // After the clock was set back, uses counted in the future do not count. Otherwise the peer
        // could be refused for years.
        now.checked_sub(self.since)
            .is_some_and(|age| age < WINDOW_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::{KeyManager, PublicKey};
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    const NOW: u64 = 1_700_000_000;

    fn config() -> GateConfig {
        GateConfig {
            ticket_lifetime_s: 100,
            ticket_uses_per_minute_max: 2,
            ticket_peers_max: 2,
            ..GateConfig::default()
        }
    }

    fn onion(number: u8) -> OnionAddr {
        OnionAddr::from_public_key(PublicKey::from_bytes([number; 32]))
    }

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn untrusted(number: u8) -> TicketClaims {
        TicketClaims {
            peer: peer(number),
            tier: Tier::Untrusted,
            issued: NOW,
        }
    }

    fn tickets(seed: u64) -> (Tickets, ChaCha20Rng) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let key = KeyManager::generate(&mut rng).ticket_key();
        (Tickets::new(&config(), key, &onion(1)), rng)
    }

    #[test]
    fn open_returns_the_issued_claims_until_expiry() {
        let (tickets, mut rng) = tickets(1);
        let ticket = tickets
            .issue(&peer(2), Tier::Trusted, NOW, &mut rng)
            .unwrap();
        assert_eq!(ticket.len(), TICKET_BYTES);
        let claims = TicketClaims {
            peer: peer(2),
            tier: Tier::Trusted,
            issued: NOW,
        };
        assert_eq!(tickets.open(&ticket, NOW), Some(claims));
        assert_eq!(tickets.open(&ticket, NOW + 100), Some(claims));
        assert_eq!(tickets.open(&ticket, NOW + 101), None);
        assert_eq!(tickets.open(&ticket, NOW - 1), None);
    }

    #[test]
    fn ticket_survives_a_restart_and_is_invalid_at_another_node() {
        let (issuing, mut rng) = tickets(1);
        let ticket = issuing
            .issue(&peer(2), Tier::Untrusted, NOW, &mut rng)
            .unwrap();
        // The same vault after a restart.
        assert!(tickets(1).0.open(&ticket, NOW).is_some());
        assert_eq!(tickets(2).0.open(&ticket, NOW), None);
        let key = KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(1)).ticket_key();
        assert_eq!(
            Tickets::new(&config(), key, &onion(9)).open(&ticket, NOW),
            None
        );
    }

    #[test]
    fn any_changed_bit_is_rejected() {
        let (tickets, mut rng) = tickets(1);
        let ticket = tickets
            .issue(&peer(2), Tier::Untrusted, NOW, &mut rng)
            .unwrap();
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(tickets.open(&changed, NOW), None, "{index}");
        }
        assert_eq!(tickets.open(&ticket[1..], NOW), None);
        assert_eq!(tickets.open(&[], NOW), None);
    }

    #[test]
    fn limits_uses_per_peer_and_the_number_of_peers() {
        let (mut tickets, _) = tickets(1);
        assert!(
            tickets.count_use(&untrusted(1), NOW) && tickets.count_use(&untrusted(1), NOW + 59)
        );
        assert!(!tickets.count_use(&untrusted(1), NOW + 59));
        assert!(tickets.count_use(&untrusted(2), NOW + 1));
        // The table is full until the minute of another peer is over.
        assert!(!tickets.count_use(&untrusted(3), NOW + 59));
        assert!(tickets.count_use(&untrusted(1), NOW + 60));
        assert!(tickets.count_use(&untrusted(3), NOW + 61));
        assert_eq!(tickets.untrusted.len(), 2);
    }

    #[test]
    fn untrusted_peers_do_not_use_up_the_table_of_trusted_ones() {
        let (mut tickets, _) = tickets(1);
        assert!(tickets.count_use(&untrusted(1), NOW) && tickets.count_use(&untrusted(2), NOW));
        assert!(!tickets.may_use(&untrusted(3), NOW));
        let trusted = TicketClaims {
            tier: Tier::Trusted,
            ..untrusted(3)
        };
        assert!(tickets.count_use(&trusted, NOW) && tickets.count_use(&trusted, NOW));
        assert!(!tickets.count_use(&trusted, NOW));
    }

    #[test]
    fn uses_counted_before_the_clock_was_set_back_do_not_count() {
        let (mut tickets, _) = tickets(1);
        for number in [1, 1, 2, 2] {
            assert!(tickets.count_use(&untrusted(number), NOW));
        }
        assert!(!tickets.may_use(&untrusted(1), NOW) && !tickets.may_use(&untrusted(3), NOW));
        assert!(
            tickets.count_use(&untrusted(1), NOW - 3600)
                && tickets.count_use(&untrusted(3), NOW - 3600)
        );
        assert_eq!(tickets.untrusted.len(), 2);
    }

    #[test]
    fn issues_no_ticket_when_the_lifetime_is_zero() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let config = GateConfig {
            ticket_lifetime_s: 0,
            ..config()
        };
        let tickets = Tickets::new(
            &config,
            KeyManager::generate(&mut rng).ticket_key(),
            &onion(1),
        );
        assert_eq!(tickets.issue(&peer(1), Tier::Trusted, NOW, &mut rng), None);
    }
}
