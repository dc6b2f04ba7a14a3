//! Tests of the registry with handles that no session runs behind.

use super::*;
use crate::peer::testing::{handle, manual, peer_id};

/// The local node's id is in the middle, so that peers are larger or smaller.
const LOCAL: u8 = 100;

fn registry(sessions_max: usize, sessions_untrusted_max: usize) -> SessionRegistry {
    let config = SyncConfig {
        sessions_max,
        sessions_untrusted_max,
        ..manual()
    };
    SessionRegistry::new(peer_id(LOCAL), config)
}

/// A session that arrived now, by a dial of this node or of the peer.
fn live(registry: &SessionRegistry, peer: u8, we_dialled: bool) -> LiveSession {
    let (handle, _) = handle(peer_id(peer), &manual());
    let onion = OnionAddr::from_public_key(keys::PublicKey::from_bytes([peer; 32]));
    LiveSession::for_test(handle, we_dialled, registry.next_arrival()).at(onion)
}

fn trusted(session: LiveSession) -> LiveSession {
    session.handle.trust();
    session
}

fn enter(registry: &SessionRegistry, session: &LiveSession) -> &'static str {
    match registry.enter(session.clone()) {
        EnterOutcome::Listed => "listed",
        EnterOutcome::Refused(code) => code.code(),
        EnterOutcome::Probe(_) => "probe",
    }
}

fn listed(registry: &SessionRegistry) -> Vec<PeerId> {
    let sessions = registry.sessions().into_iter();
    sessions.map(|session| session.peer).collect()
}

fn code(session: &LiveSession) -> Option<&'static str> {
    session.handle.end_code().map(EndCode::code)
}

#[test]
fn lists_a_session_with_its_status() {
    let registry = registry(2, 2);
    let session = live(&registry, 1, true);
    assert_eq!(enter(&registry, &session), "listed");
    let status = SessionStatus {
        peer: peer_id(1),
        domains: vec!["identities".into()],
        we_dialled: true,
        tier: Tier::Untrusted,
    };
    assert_eq!(registry.sessions(), [status]);
    let found = registry.session(&peer_id(1)).unwrap();
    assert!(Arc::ptr_eq(&found.handle, &session.handle));
    assert!(registry.session(&peer_id(2)).is_none());
}

#[test]
fn refuses_a_session_without_a_slot() {
    let registry = registry(3, 1);
    let first = live(&registry, 1, false);
    assert_eq!(enter(&registry, &first), "listed");
    assert_eq!(enter(&registry, &live(&registry, 2, false)), "busy");
    assert_eq!(listed(&registry), [peer_id(1)]);
    assert_eq!(code(&first), None, "the listed session goes on");
}

#[test]
fn evicts_an_untrusted_session_for_a_trusted_one() {
    let registry = registry(1, 1);
    let first = live(&registry, 1, false);
    enter(&registry, &first);
    let second = trusted(live(&registry, 2, false));
    assert_eq!(enter(&registry, &second), "listed");
    assert_eq!(code(&first), Some("busy"));
    assert_eq!(listed(&registry), [peer_id(2)]);
    let third = trusted(live(&registry, 3, false));
    assert_eq!(enter(&registry, &third), "busy", "trusted ones stay");
}

#[test]
fn evicts_a_session_of_lower_priority() {
    let registry = registry(2, 1);
    let first = live(&registry, 1, false);
    enter(&registry, &first);
    let mut second = live(&registry, 2, false);
    second.priority = 9;
    assert_eq!(enter(&registry, &second), "listed");
    assert_eq!(code(&first), Some("busy"));
}

#[test]
fn later_session_of_the_same_dialler_replaces_the_old_one() {
    let registry = registry(1, 1);
    let old = live(&registry, 1, false);
    enter(&registry, &old);
    let new = live(&registry, 1, false);
    assert_eq!(enter(&registry, &new), "listed");
    assert_eq!(code(&old), Some("duplicate"));
    let found = registry.session(&peer_id(1)).unwrap();
    assert!(Arc::ptr_eq(&found.handle, &new.handle));
}

#[test]
fn earlier_session_of_the_same_dialler_is_refused() {
    let registry = registry(1, 1);
    let (early, late) = (live(&registry, 1, false), live(&registry, 1, false));
    assert_eq!(enter(&registry, &late), "listed");
    assert_eq!(enter(&registry, &early), "duplicate");
    assert_eq!(code(&late), None);
}

#[test]
fn session_that_the_smaller_peer_id_dialled_replaces_the_other() {
    for (peer, smaller_is_local) in [(LOCAL + 1, true), (LOCAL - 1, false)] {
        let registry = registry(1, 1);
        let old = live(&registry, peer, !smaller_is_local);
        enter(&registry, &old);
        let new = live(&registry, peer, smaller_is_local);
        assert_eq!(enter(&registry, &new), "listed");
        assert_eq!(code(&old), Some("duplicate"));
    }
}

#[test]
fn session_that_the_larger_peer_id_dialled_probes_the_other_once() {
    for (peer, smaller_is_local) in [(LOCAL + 1, true), (LOCAL - 1, false)] {
        let registry = registry(1, 1);
        let old = live(&registry, peer, smaller_is_local);
        enter(&registry, &old);
        let new = live(&registry, peer, !smaller_is_local);
        assert_eq!(enter(&registry, &new), "probe");
        let third = live(&registry, peer, !smaller_is_local);
        assert_eq!(enter(&registry, &third), "duplicate", "one waits at a time");
        assert_eq!(code(&old), None);
        let other = handle(peer_id(peer), &manual()).0;
        registry.clear_probing(&other);
        assert_eq!(enter(&registry, &third), "duplicate", "not this session");
        registry.clear_probing(&old.handle);
        assert_eq!(enter(&registry, &new), "probe");
        old.handle.end(EndCode::Silence);
        assert_eq!(enter(&registry, &new), "listed");
    }
}

#[test]
fn session_of_a_later_start_replaces_any() {
    let registry = registry(1, 1);
    let old = live(&registry, LOCAL + 1, true);
    enter(&registry, &old);
    let mut new = live(&registry, LOCAL + 1, false);
    new.boot_id = BootId::from_bytes([2; 16]);
    assert_eq!(enter(&registry, &new), "listed");
}

#[test]
fn duplicate_needs_no_further_slot() {
    let registry = registry(2, 2);
    enter(&registry, &live(&registry, 1, false));
    enter(&registry, &live(&registry, 2, false));
    assert_eq!(enter(&registry, &live(&registry, 2, false)), "listed");
    assert_eq!(listed(&registry), [peer_id(1), peer_id(2)]);
}

#[test]
fn ended_session_is_not_shown_and_is_replaced() {
    let registry = registry(1, 1);
    let old = live(&registry, LOCAL + 1, true);
    enter(&registry, &old);
    old.handle.end(EndCode::End);
    assert_eq!(listed(&registry), []);
    assert!(registry.session(&peer_id(LOCAL + 1)).is_none());
    assert!(registry.session_at(&old.onion).is_none());
    let new = live(&registry, LOCAL + 1, false);
    assert_eq!(enter(&registry, &new), "listed", "without a probe");
    assert_eq!(code(&old), Some("end"));
}

#[test]
fn removes_a_session_but_not_its_replacement() {
    let registry = registry(1, 1);
    let (old, new) = (live(&registry, 1, false), live(&registry, 1, false));
    enter(&registry, &old);
    enter(&registry, &new);
    registry.remove(&old.handle);
    assert_eq!(listed(&registry), [peer_id(1)]);
    registry.remove(&new.handle);
    assert_eq!(listed(&registry), []);
    assert_eq!(enter(&registry, &live(&registry, 2, false)), "listed");
}

#[test]
fn session_at_follows_the_end_of_the_session_at_an_address() {
    let registry = registry(2, 2);
    let (first, second) = (live(&registry, 1, false), live(&registry, 2, false));
    enter(&registry, &first);
    assert!(registry.session_at(&second.onion).is_none());
    let closed = registry.session_at(&first.onion).unwrap();
    assert!(!closed.is_cancelled());
    first.handle.end(EndCode::End);
    assert!(closed.is_cancelled());
}

#[test]
fn is_full_for_a_further_peer_only() {
    let registry = registry(2, 1);
    enter(&registry, &live(&registry, 1, false));
    let is_full = |peer, tier, effort| registry.is_full_without(&peer_id(peer), tier, effort);
    assert!(is_full(2, Tier::Untrusted, 8));
    assert!(!is_full(2, Tier::Untrusted, 9), "it would evict");
    assert!(!is_full(2, Tier::Trusted, 8));
    assert!(!is_full(1, Tier::Untrusted, 8), "it takes over its own");
}

#[test]
fn trusted_session_is_not_evicted_any_more() {
    let registry = registry(1, 1);
    let first = live(&registry, 1, false);
    enter(&registry, &first);
    registry.trust(&peer_id(2));
    assert_eq!(first.handle.tier(), Tier::Untrusted, "another peer");
    registry.trust(&peer_id(1));
    assert_eq!(registry.sessions()[0].tier, Tier::Trusted);
    let second = trusted(live(&registry, 2, false));
    assert_eq!(enter(&registry, &second), "busy");
}

#[test]
fn end_ends_the_live_session_of_one_peer() {
    let registry = registry(2, 2);
    let (first, second) = (live(&registry, 1, false), live(&registry, 2, false));
    enter(&registry, &first);
    enter(&registry, &second);
    assert!(registry.end(&peer_id(1), EndCode::Refused));
    assert_eq!((code(&first), code(&second)), (Some("refused"), None));
    assert!(!registry.end(&peer_id(1), EndCode::End), "it has ended");
    assert!(!registry.end(&peer_id(3), EndCode::End), "there is none");
}

#[test]
fn end_all_ends_every_live_session() {
    let registry = registry(2, 2);
    let (first, second) = (live(&registry, 1, false), live(&registry, 2, false));
    enter(&registry, &first);
    enter(&registry, &second);
    registry.end(&peer_id(1), EndCode::Refused);
    registry.end_all(EndCode::Rotated);
    let codes = (code(&first), code(&second));
    assert_eq!(codes, (Some("refused"), Some("rotated")));
}
