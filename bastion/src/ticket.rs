//! Tickets: what a peer that was admitted shows next time instead of working (docs/DECISIONS.md 6).
//!
//! Sealed under a key that comes from the vault, so that they outlive a restart and nothing is kept for one but how
//! often it was used lately. Never good alone: the peer that it names must sign a fresh challenge. Whether that peer was
//! banned since is the gatekeeper's to say. Invariant: [`Tickets::open`] gives what [`Tickets::issue`] put in, in time.

use std::collections::BTreeMap;
use std::fmt;

use keys::signing::signing_input;
use keys::{Context, OnionAddr, PeerId, SealingKey};
use rand::CryptoRng;

use crate::config::GateConfig;

/// Longest ticket that is taken from another node, in bytes; ours have [`TICKET_BYTES`].
pub const TICKET_BYTES_MAX: usize = 256;
/// Bytes of a ticket of this node.
pub const TICKET_BYTES: usize = PLAIN_BYTES + keys::sealing::OVERHEAD_BYTES;
/// Tier, when it was issued, until when it holds, whose it is.
const PLAIN_BYTES: usize = 1 + 8 + 8 + 32;
/// Seconds over which uses are counted.
const WINDOW_S: u64 = 60;

/// How far a peer is trusted (docs/DECISIONS.md 6). A stranger has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Let in for its work.
    Untrusted,
    /// Approved, listed, or dialled by us.
    Trusted,
}

impl Tier {
    /// The stable name that the database and the API show: `untrusted` or `trusted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Trusted => "trusted",
        }
    }
}

/// A ticket of another node, to be shown there. Opaque here.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket(Vec<u8>);

impl Ticket {
    /// Takes a ticket as it came; `None` where it is empty or longer than [`TICKET_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=TICKET_BYTES_MAX)
            .contains(&bytes.len())
            .then(|| Self(bytes.to_vec()))
    }

    /// The bytes, to be stored and shown.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

/// What a ticket of ours says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whose it is.
    pub peer: PeerId,
    /// How far that peer was trusted.
    pub tier: Tier,
    /// When it was issued, in unix seconds: a ban after that voids it.
    pub issued: u64,
}

/// Issues tickets and knows them again.
pub struct Tickets {
    key: SealingKey,
    /// What is authenticated beside: the onion service that issued it.
    readable: Vec<u8>,
    lifetime_s: u64,
    uses_per_minute_max: u32,
    peers_max: usize,
    /// Uses of the last minute, by peer. Only who holds a ticket of ours gets a line. Trusted peers have lines of their own,
    /// which no crowd that once worked can fill.
    untrusted: BTreeMap<PeerId, Uses>,
    trusted: BTreeMap<PeerId, Uses>,
}

#[derive(Debug, Clone, Copy)]
struct Uses {
    since: u64,
    count: u32,
}

impl Tickets {
    /// Tickets of this onion service, sealed by `key`.
    pub fn new(config: &GateConfig, key: SealingKey, onion: &OnionAddr) -> Self {
        Self {
            key,
            readable: signing_input(Context::Ticket, &[onion.public_key().as_bytes()]),
            lifetime_s: config.ticket_lifetime_s,
            uses_per_minute_max: config.ticket_uses_per_minute_max,
            peers_max: config.ticket_peers_max,
            untrusted: BTreeMap::new(),
            trusted: BTreeMap::new(),
        }
    }

    /// A ticket for a peer; none where tickets are turned off.
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
        Some(self.key.seal(&self.readable, &plain, rng))
    }

    /// What a ticket says, if it was issued here and its time is not over. Counts nothing.
    pub fn open(&self, ticket: &[u8], now: u64) -> Option<Standing> {
        if ticket.len() != TICKET_BYTES {
            return None;
        }
        let plain = self.key.open(&self.readable, ticket).ok()?;
        let (tier, rest) = plain.split_first()?;
        let (issued, rest) = rest.split_first_chunk()?;
        let (expiry, peer) = rest.split_first_chunk()?;
        let (issued, expiry) = (u64::from_be_bytes(*issued), u64::from_be_bytes(*expiry));
        let standing = Standing {
            peer: PeerId::from_slice(peer)?,
            tier: match tier {
                0 => Tier::Untrusted,
                1 => Tier::Trusted,
                _ => return None,
            },
            issued,
        };
        // A clock that was set back makes a ticket of the future: not good before its time has come.
        (issued <= now && now <= expiry).then_some(standing)
    }

    /// Whether the peer may use a ticket once more now.
    pub fn may_use(&self, standing: &Standing, now: u64) -> bool {
        let lines = match standing.tier {
            Tier::Untrusted => &self.untrusted,
            Tier::Trusted => &self.trusted,
        };
        match lines.get(&standing.peer).filter(|uses| uses.is_recent(now)) {
            Some(uses) => uses.count < self.uses_per_minute_max,
            None => lines.len() < self.peers_max || lines.values().any(|uses| !uses.is_recent(now)),
        }
    }

    /// Counts a use; `false` when there were too many within the minute, by this peer or by too many others of its tier.
    pub fn take(&mut self, standing: &Standing, now: u64) -> bool {
        if !self.may_use(standing, now) {
            return false;
        }
        let lines = match standing.tier {
            Tier::Untrusted => &mut self.untrusted,
            Tier::Trusted => &mut self.trusted,
        };
        if lines.len() >= self.peers_max {
            lines.retain(|_, uses| uses.is_recent(now));
        }
        let uses = lines.entry(standing.peer).or_insert(Uses {
            since: now,
            count: 0,
        });
        if !uses.is_recent(now) {
            *uses = Uses {
                since: now,
                count: 0,
            };
        }
        uses.count = uses.count.saturating_add(1);
        true
    }
}

impl Uses {
    fn is_recent(self, now: u64) -> bool {
        // What a clock counted that was set back since is not held against anybody: it could be for years.
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

    fn untrusted(number: u8) -> Standing {
        Standing {
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
    fn a_ticket_says_what_was_put_in_until_its_time_is_over() {
        let (tickets, mut rng) = tickets(1);
        let ticket = tickets
            .issue(&peer(2), Tier::Trusted, NOW, &mut rng)
            .unwrap();
        assert_eq!(ticket.len(), TICKET_BYTES);
        let standing = Standing {
            peer: peer(2),
            tier: Tier::Trusted,
            issued: NOW,
        };
        assert_eq!(tickets.open(&ticket, NOW), Some(standing));
        assert_eq!(tickets.open(&ticket, NOW + 100), Some(standing));
        assert_eq!(tickets.open(&ticket, NOW + 101), None);
        assert_eq!(tickets.open(&ticket, NOW - 1), None);
    }

    #[test]
    fn a_ticket_outlives_a_restart_and_is_none_elsewhere() {
        let (issuing, mut rng) = tickets(1);
        let ticket = issuing
            .issue(&peer(2), Tier::Untrusted, NOW, &mut rng)
            .unwrap();
        // The same vault, another life of the process.
        assert!(tickets(1).0.open(&ticket, NOW).is_some());
        assert_eq!(tickets(2).0.open(&ticket, NOW), None);
        let key = KeyManager::generate(&mut ChaCha20Rng::seed_from_u64(1)).ticket_key();
        assert_eq!(
            Tickets::new(&config(), key, &onion(9)).open(&ticket, NOW),
            None
        );
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let (tickets, mut rng) = tickets(1);
        let ticket = tickets
            .issue(&peer(2), Tier::Untrusted, NOW, &mut rng)
            .unwrap();
        for place in 0..ticket.len() {
            let mut bent = ticket.clone();
            bent[place] ^= 1;
            assert_eq!(tickets.open(&bent, NOW), None, "{place}");
        }
        assert_eq!(tickets.open(&ticket[1..], NOW), None);
        assert_eq!(tickets.open(&[], NOW), None);
    }

    #[test]
    fn uses_are_counted_for_each_peer_and_peers_are_bounded() {
        let (mut tickets, _) = tickets(1);
        assert!(tickets.take(&untrusted(1), NOW) && tickets.take(&untrusted(1), NOW + 59));
        assert!(!tickets.take(&untrusted(1), NOW + 59));
        assert!(tickets.take(&untrusted(2), NOW + 1));
        // No room for a third until a minute of another is over.
        assert!(!tickets.take(&untrusted(3), NOW + 59));
        assert!(tickets.take(&untrusted(1), NOW + 60));
        assert!(tickets.take(&untrusted(3), NOW + 61));
        assert_eq!(tickets.untrusted.len(), 2);
    }

    #[test]
    fn no_crowd_that_once_worked_keeps_a_trusted_peer_from_its_ticket() {
        let (mut tickets, _) = tickets(1);
        assert!(tickets.take(&untrusted(1), NOW) && tickets.take(&untrusted(2), NOW));
        assert!(!tickets.may_use(&untrusted(3), NOW));
        let trusted = Standing {
            tier: Tier::Trusted,
            ..untrusted(3)
        };
        assert!(tickets.take(&trusted, NOW) && tickets.take(&trusted, NOW));
        assert!(!tickets.take(&trusted, NOW));
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_from_its_ticket() {
        let (mut tickets, _) = tickets(1);
        for number in [1, 1, 2, 2] {
            assert!(tickets.take(&untrusted(number), NOW));
        }
        assert!(!tickets.may_use(&untrusted(1), NOW) && !tickets.may_use(&untrusted(3), NOW));
        assert!(tickets.take(&untrusted(1), NOW - 3600) && tickets.take(&untrusted(3), NOW - 3600));
        assert_eq!(tickets.untrusted.len(), 2);
    }

    #[test]
    fn tickets_can_be_turned_off() {
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
