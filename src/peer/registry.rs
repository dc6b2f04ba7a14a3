//! The live sessions, at most one per peer.
//!
//! Inputs are admitted sessions, their ends and the operator's decisions; outputs are the codes
//! that sessions are refused or ended with. Both sides keep the same one of two sessions with one
//! peer ([`super::duplicates`]). Invariants: no more sessions are listed than there are slots
//! ([`super::slots`]). A session is listed until its tasks have ended or another session has taken
//! its slot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bastion::{Admitted, Feature, Tier};
use keys::{BootId, OnionAddr, PeerId};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::duplicates::{Candidate, Winner, resolve_duplicate};
use super::end_code::EndCode;
use super::handle::SessionHandle;
use super::slots::{Allocation, SessionSlot, SlotRequest, allocate_slot, priority};
use crate::config::SyncConfig;

/// A live session, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// The peer at the other end.
    pub peer: PeerId,
    /// The intersection of both nodes' domains.
    pub domains: Vec<String>,
    /// Whether this node dialled.
    pub we_dialled: bool,
    /// How far the peer is trusted.
    pub tier: Tier,
}

/// A session as the registry lists it.
#[derive(Clone)]
pub(super) struct LiveSession {
    pub(super) handle: Arc<SessionHandle>,
    pub(super) domains: Vec<String>,
    boot_id: BootId,
    we_dialled: bool,
    onion: OnionAddr,
    priority: u64,
    arrival: u64,
    /// Whether a newer session waits until it is known if this one is alive.
    probing: bool,
}

impl LiveSession {
    pub(super) fn new(handle: Arc<SessionHandle>, admitted: &Admitted, arrival: u64) -> Self {
        let claims = admitted.claims();
        Self {
            handle,
            domains: admitted.domains().to_vec(),
            boot_id: claims.boot_id,
            we_dialled: admitted.we_dialled(),
            onion: claims.onion,
            priority: priority_of(admitted),
            arrival,
            probing: false,
        }
    }

    /// A session of an untrusted peer at an unknown address.
    #[cfg(test)]
    pub(super) fn for_test(handle: Arc<SessionHandle>, we_dialled: bool, arrival: u64) -> Self {
        Self {
            handle,
            domains: vec!["identities".into()],
            boot_id: BootId::from_bytes([1; 16]),
            we_dialled,
            onion: OnionAddr::from_public_key(keys::PublicKey::from_bytes([0; 32])),
            priority: 8,
            arrival,
            probing: false,
        }
    }

    /// The same session at this address.
    #[cfg(test)]
    pub(super) fn at(self, onion: OnionAddr) -> Self {
        Self { onion, ..self }
    }

    fn is_over(&self) -> bool {
        self.handle.closed().is_cancelled()
    }

    fn slot(&self) -> SessionSlot {
        SessionSlot {
            peer: *self.handle.peer(),
            tier: self.handle.tier(),
            is_over: self.is_over(),
            priority: self.priority,
            arrival: self.arrival,
        }
    }
}

/// The priority of a session. The peer of one that this node dialled did no work, so that an
/// introduced peer evicts no other.
fn priority_of(admitted: &Admitted) -> u64 {
    match admitted.we_dialled() && admitted.tier() == Tier::Untrusted {
        true => 0,
        false => priority(admitted.effort()),
    }
}

/// Whether a new session is listed.
pub(super) enum EnterOutcome {
    /// The session is listed.
    Listed,
    /// The session is to be ended with this code.
    Refused(EndCode),
    /// The session waits until it is known whether this older one is alive.
    Probe(Arc<SessionHandle>),
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct SessionRegistry(Arc<RegistryState>);

struct RegistryState {
    local: PeerId,
    config: SyncConfig,
    sessions: Mutex<BTreeMap<PeerId, LiveSession>>,
    arrivals: AtomicU64,
}

impl SessionRegistry {
    /// An empty registry of the node `local`.
    pub(super) fn new(local: PeerId, config: SyncConfig) -> Self {
        Self(Arc::new(RegistryState {
            local,
            config,
            sessions: Mutex::default(),
            arrivals: AtomicU64::new(0),
        }))
    }

    /// Returns the number of a handshake in the order in which handshakes ended on this node.
    pub(super) fn next_arrival(&self) -> u64 {
        self.0.arrivals.fetch_add(1, Ordering::Relaxed)
    }

    /// Lists a session, or returns why it is not listed.
    pub(super) fn enter(&self, new: LiveSession) -> EnterOutcome {
        let peer = *new.handle.peer();
        let local_is_smaller = self.0.local < peer;
        let candidate = |session: &LiveSession| Candidate {
            boot_id: session.boot_id,
            dialled_by_smaller: session.we_dialled == local_is_smaller,
            arrival: session.arrival,
        };
        let mut sessions = self.0.sessions.lock();
        if let Some(old) = sessions.get_mut(&peer).filter(|old| !old.is_over()) {
            match resolve_duplicate(&candidate(old), &candidate(&new)) {
                Winner::New => {}
                Winner::Old => return EnterOutcome::Refused(EndCode::Duplicate),
                // One new session waits at a time, because waiting ones have no slot.
                Winner::OldIfAlive if old.probing => {
                    return EnterOutcome::Refused(EndCode::Duplicate);
                }
                Winner::OldIfAlive => {
                    old.probing = true;
                    return EnterOutcome::Probe(old.handle.clone());
                }
            }
        }
        let request = SlotRequest {
            peer,
            tier: new.handle.tier(),
            priority: new.priority,
        };
        let slots = sessions.values().map(LiveSession::slot);
        match allocate_slot(&self.0.config, &request, slots) {
            Allocation::Free => {}
            Allocation::Evict(other) => {
                if let Some(evicted) = sessions.remove(&other) {
                    tracing::info!(
                        evicted = %other,
                        admitted = %peer,
                        "all slots are in use: a session with an untrusted peer was evicted"
                    );
                    evicted.handle.end(EndCode::Busy);
                }
            }
            Allocation::Full => return EnterOutcome::Refused(EndCode::Busy),
        }
        if let Some(old) = sessions.insert(peer, new) {
            old.handle.end(EndCode::Duplicate);
        }
        EnterOutcome::Listed
    }

    /// Whether a peer has a session in which a domain is shared.
    pub(super) fn shares_now(&self, peer: &PeerId, domain: &str) -> bool {
        let sessions = self.0.sessions.lock();
        let live = sessions.get(peer).filter(|session| !session.is_over());
        live.is_some_and(|session| session.domains.iter().any(|name| name == domain))
    }

    /// Notes that it is known whether this session is alive.
    pub(super) fn clear_probing(&self, handle: &Arc<SessionHandle>) {
        let mut sessions = self.0.sessions.lock();
        let listed = sessions
            .get_mut(handle.peer())
            .filter(|listed| Arc::ptr_eq(&listed.handle, handle));
        if let Some(listed) = listed {
            listed.probing = false;
        }
    }

    /// Removes a session whose tasks have ended; one that has replaced it stays.
    pub(super) fn remove(&self, handle: &Arc<SessionHandle>) {
        let mut sessions = self.0.sessions.lock();
        if sessions
            .get(handle.peer())
            .is_some_and(|listed| Arc::ptr_eq(&listed.handle, handle))
        {
            sessions.remove(handle.peer());
        }
    }

    /// The live session with a peer.
    pub(super) fn session(&self, peer: &PeerId) -> Option<LiveSession> {
        let sessions = self.0.sessions.lock();
        sessions
            .get(peer)
            .filter(|session| !session.is_over())
            .cloned()
    }

    /// The live sessions whose peers also offer a feature, by peer.
    pub(super) fn sessions_with(&self, feature: Feature) -> Vec<LiveSession> {
        let sessions = self.0.sessions.lock();
        let live = sessions.values().filter(|session| !session.is_over());
        let offers = |session: &&LiveSession| session.handle.features().has(feature);
        live.filter(offers).cloned().collect()
    }

    /// The live sessions, by peer.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        let sessions = self.0.sessions.lock();
        let live = sessions.iter().filter(|(_, session)| !session.is_over());
        let status = |(peer, session): (&PeerId, &LiveSession)| SessionStatus {
            peer: *peer,
            domains: session.domains.clone(),
            we_dialled: session.we_dialled,
            tier: session.handle.tier(),
        };
        live.map(status).collect()
    }

    /// Cancelled when the live session with the node at `onion` ends; none without a session.
    pub fn session_at(&self, onion: &OnionAddr) -> Option<CancellationToken> {
        let sessions = self.0.sessions.lock();
        sessions
            .values()
            .find(|session| session.onion == *onion && !session.is_over())
            .map(|session| session.handle.closed().clone())
    }

    /// Whether no slot is free for a further peer of this tier and effort. A peer that has a
    /// session takes over its own slot. The answer may be outdated when the peer's session is
    /// entered.
    pub fn is_full_without(&self, peer: &PeerId, tier: Tier, effort: u64) -> bool {
        let request = SlotRequest {
            peer: *peer,
            tier,
            priority: priority(effort),
        };
        let sessions = self.0.sessions.lock();
        let slots = sessions.values().map(LiveSession::slot);
        allocate_slot(&self.0.config, &request, slots) == Allocation::Full
    }

    /// Treats a peer's session, if there is one, as trusted from now on: it keeps its slot when
    /// slots run out.
    pub fn trust(&self, peer: &PeerId) {
        if let Some(session) = self.0.sessions.lock().get(peer) {
            session.handle.trust();
        }
    }

    /// Ends the session with a peer and sends it `bye` with `code`; returns whether there was a
    /// live one.
    pub fn end(&self, peer: &PeerId, code: EndCode) -> bool {
        let sessions = self.0.sessions.lock();
        let live = sessions.get(peer).filter(|session| !session.is_over());
        live.inspect(|session| session.handle.end(code)).is_some()
    }

    /// Ends the sessions with all peers; the next ones show what has changed on this node.
    pub fn end_all(&self, code: EndCode) {
        for session in self.0.sessions.lock().values() {
            session.handle.end(code);
        }
    }
}

#[cfg(test)]
mod tests;
