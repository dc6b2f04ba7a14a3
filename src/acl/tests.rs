//! Tests of the rules. Each changes one fact of an allowed write.

use keys::{Oid, PeerId, TraceId};

use super::*;
use crate::op_context::{AppId, PubkeyAttrId};

const OID: Oid = Oid::from_bytes([1; 16]);
const ALICE: Oid = Oid::from_bytes([2; 16]);
const BOB: Oid = Oid::from_bytes([3; 16]);

fn remote() -> OpContext {
    OpContext::Remote {
        requester_pubkey_attr_id: PubkeyAttrId(1),
        app_id: AppId(1),
        trace_id: TraceId(1),
        peer: PeerId::from_bytes([9; 32]),
        sync_domain: "messages".into(),
    }
}

fn local() -> OpContext {
    OpContext::Local {
        requester_pubkey_attr_id: PubkeyAttrId(1),
        app_id: AppId(1),
        trace_id: TraceId(1),
    }
}

fn allowed() -> RemoteFacts {
    RemoteFacts {
        oid: OID,
        rev: 1,
        deleted: false,
        mode: Some(Mode::AppendOnly),
        owner_home: Home::Sender,
        scope_right: ScopeRight::Participant,
        is_public: false,
        existing: None,
    }
}

fn stored(precedence: Precedence) -> Existing {
    Existing {
        is_local: false,
        precedence,
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Apply,
    AlreadyHere,
    Acknowledge,
    ForkWon,
    ForkLost,
    Denied(Denied),
}

/// Every relation of an object to the stored one.
const PRECEDENCES: [Option<Precedence>; 6] = [
    None,
    Some(Precedence::Same),
    Some(Precedence::Older),
    Some(Precedence::Later),
    Some(Precedence::Fork { wins: true }),
    Some(Precedence::Fork { wins: false }),
];

fn outcome_of(decision: Result<RemoteWrite, Denied>) -> Outcome {
    match decision {
        Ok(RemoteWrite::Apply(granted)) => {
            assert_eq!(granted.oid(), OID);
            Outcome::Apply
        }
        Ok(RemoteWrite::AlreadyHere(_)) => Outcome::AlreadyHere,
        Ok(RemoteWrite::Acknowledge) => Outcome::Acknowledge,
        Ok(RemoteWrite::ForkWon(_)) => Outcome::ForkWon,
        Ok(RemoteWrite::ForkLost) => Outcome::ForkLost,
        Err(denied) => Outcome::Denied(denied),
    }
}

fn check(facts: RemoteFacts, expected: Outcome) {
    let outcome = outcome_of(AclManager::check_remote_write(&remote(), &facts));
    assert_eq!(outcome, expected, "{facts:?}");
}

const REFUSED_RIGHTS: [(ScopeRight, Denied); 3] = [
    (ScopeRight::Outsider, Denied::NotParticipant),
    (ScopeRight::OtherOwner, Denied::NotScopeOwner),
    (ScopeRight::ScopeOwner, Denied::ScopeOwnerStays),
];

#[test]
fn applies_a_new_object_of_a_participant() {
    for mode in [Mode::AppendOnly, Mode::AllowUpdate, Mode::NoUpdate] {
        check(
            RemoteFacts {
                mode: Some(mode),
                ..allowed()
            },
            Outcome::Apply,
        );
    }
    check(
        RemoteFacts {
            scope_right: ScopeRight::Open,
            ..allowed()
        },
        Outcome::Apply,
    );
}

#[test]
fn each_missing_right_has_its_own_code() {
    use Outcome::Denied as No;
    check(
        RemoteFacts {
            mode: None,
            ..allowed()
        },
        No(Denied::TypeNotInDomain),
    );
    for home in [Home::Local, Home::Elsewhere] {
        check(
            RemoteFacts {
                is_public: true,
                owner_home: home,
                ..allowed()
            },
            No(Denied::OwnerNotAtSender),
        );
    }
    for (scope_right, denied) in REFUSED_RIGHTS {
        check(
            RemoteFacts {
                scope_right,
                ..allowed()
            },
            No(denied),
        );
    }
}

#[test]
fn object_in_a_scope_comes_from_any_peer_unless_its_owner_lives_here() {
    let from = |owner_home, precedence: Option<Precedence>| RemoteFacts {
        owner_home,
        existing: precedence.map(stored),
        ..allowed()
    };
    for home in [Home::Sender, Home::Elsewhere] {
        check(from(home, None), Outcome::Apply);
        check(from(home, Some(Precedence::Later)), Outcome::Apply);
    }
    check(from(Home::Local, None), Outcome::Acknowledge);
    // Received before its owner moved here.
    check(from(Home::Local, Some(Precedence::Later)), Outcome::Apply);
}

#[test]
fn mode_decides_on_updates_and_tombstones() {
    use Outcome::Denied as No;
    let update = |mode| RemoteFacts {
        mode: Some(mode),
        rev: 2,
        existing: Some(stored(Precedence::Later)),
        ..allowed()
    };
    let tombstone = |facts| RemoteFacts {
        deleted: true,
        ..facts
    };
    let unknown = |facts| RemoteFacts {
        existing: None,
        ..facts
    };
    check(update(Mode::AllowUpdate), Outcome::Apply);
    check(tombstone(update(Mode::AllowUpdate)), Outcome::Apply);
    check(
        unknown(tombstone(update(Mode::AllowUpdate))),
        Outcome::Apply,
    );
    for mode in [Mode::AppendOnly, Mode::NoUpdate] {
        for precedence in PRECEDENCES {
            let facts = RemoteFacts {
                existing: precedence.map(stored),
                ..update(mode)
            };
            check(facts, No(Denied::Mode));
            check(tombstone(facts), No(Denied::Mode));
            check(
                RemoteFacts {
                    rev: 1,
                    ..tombstone(facts)
                },
                No(Denied::Mode),
            );
        }
    }
}

#[test]
fn precedence_decides_over_the_stored_object_in_all_modes() {
    for mode in [Mode::AppendOnly, Mode::NoUpdate, Mode::AllowUpdate] {
        let over = |precedence| RemoteFacts {
            mode: Some(mode),
            existing: Some(stored(precedence)),
            ..allowed()
        };
        check(over(Precedence::Same), Outcome::AlreadyHere);
        check(over(Precedence::Older), Outcome::Acknowledge);
        check(over(Precedence::Later), Outcome::Apply);
        check(over(Precedence::Fork { wins: true }), Outcome::ForkWon);
        check(over(Precedence::Fork { wins: false }), Outcome::ForkLost);
        check(
            over(Precedence::Conflict),
            Outcome::Denied(Denied::OidConflict),
        );
    }
}

#[test]
fn object_of_an_ended_scope_is_acknowledged() {
    for home in [Home::Sender, Home::Elsewhere, Home::Local] {
        let facts = RemoteFacts {
            scope_right: ScopeRight::Ended,
            owner_home: home,
            ..allowed()
        };
        check(facts, Outcome::Acknowledge);
    }
}

#[test]
fn reclaimed_object_follows_the_same_precedence_and_mode() {
    let facts = ReclaimFacts {
        oid: OID,
        rev: 1,
        deleted: false,
        owner_here: true,
        key_is_old: false,
        mode: Some(Mode::AppendOnly),
        existing: None,
    };
    let check = |facts: ReclaimFacts, expected| {
        let outcome = outcome_of(AclManager::check_reclaim(&facts));
        assert_eq!(outcome, expected, "{facts:?}");
    };
    let over = |precedence| ReclaimFacts {
        existing: Some(stored(precedence)),
        ..facts
    };
    check(facts, Outcome::Apply);
    check(over(Precedence::Same), Outcome::AlreadyHere);
    check(over(Precedence::Older), Outcome::Acknowledge);
    check(over(Precedence::Later), Outcome::Apply);
    check(over(Precedence::Fork { wins: true }), Outcome::ForkWon);
    check(over(Precedence::Fork { wins: false }), Outcome::ForkLost);
    check(
        over(Precedence::Conflict),
        Outcome::Denied(Denied::OidConflict),
    );
    for precedence in PRECEDENCES {
        let existing = precedence.map(stored);
        for (rev, deleted) in [(2, false), (1, true), (2, true)] {
            let changed = |mode| ReclaimFacts {
                rev,
                deleted,
                existing,
                mode,
                ..facts
            };
            check(
                changed(Some(Mode::AppendOnly)),
                Outcome::Denied(Denied::Mode),
            );
            check(changed(Some(Mode::NoUpdate)), Outcome::Denied(Denied::Mode));
            check(changed(None), Outcome::Denied(Denied::TypeNotInDomain));
        }
    }
    let stolen = ReclaimFacts {
        key_is_old: true,
        ..facts
    };
    check(stolen, Outcome::Denied(Denied::OldKey));
    let not_ours = ReclaimFacts {
        owner_here: false,
        ..facts
    };
    check(not_ours, Outcome::Denied(Denied::OwnerNotHere));
}

#[test]
fn peer_never_changes_a_local_object() {
    for precedence in PRECEDENCES.into_iter().flatten() {
        for owner_home in [Home::Sender, Home::Elsewhere, Home::Local] {
            let facts = RemoteFacts {
                mode: Some(Mode::AllowUpdate),
                owner_home,
                existing: Some(Existing {
                    is_local: true,
                    precedence,
                }),
                ..allowed()
            };
            let expected = match precedence {
                Precedence::Same | Precedence::Older => Outcome::Acknowledge,
                _ => Outcome::Denied(Denied::LocalObject),
            };
            check(facts, expected);
        }
    }
}

#[test]
fn local_write_requires_the_owner() {
    let facts = LocalFacts {
        oid: OID,
        owner: ALICE,
        requester: Some(ALICE),
        owner_at_home: true,
        owner_retired: false,
        owner_frozen: false,
        scope_right: ScopeRight::Participant,
        mode: Some(Mode::AllowUpdate),
        replaces: None,
    };
    let check =
        |facts: LocalFacts| AclManager::check_access(&local(), &facts).map(|granted| granted.oid());
    assert_eq!(check(facts), Ok(OID));
    assert_eq!(
        check(LocalFacts {
            requester: Some(BOB),
            ..facts
        }),
        Err(Denied::NotOwner)
    );
    assert_eq!(
        check(LocalFacts {
            requester: None,
            ..facts
        }),
        Err(Denied::NotOwner)
    );
    assert_eq!(
        check(LocalFacts {
            owner_at_home: false,
            ..facts
        }),
        Err(Denied::OwnerNotHere)
    );
    for (scope_right, denied) in REFUSED_RIGHTS {
        let refused = check(LocalFacts {
            scope_right,
            ..facts
        });
        assert_eq!(refused, Err(denied));
    }
    assert_eq!(
        check(LocalFacts {
            scope_right: ScopeRight::Ended,
            ..facts
        }),
        Err(Denied::ScopeEnded)
    );
    assert_eq!(
        check(LocalFacts {
            replaces: Some(Replaced {
                owner: BOB,
                deleted: false,
            }),
            ..facts
        }),
        Err(Denied::OwnerChanged)
    );
    assert_eq!(
        check(LocalFacts {
            replaces: Some(Replaced {
                owner: ALICE,
                deleted: true,
            }),
            ..facts
        }),
        Err(Denied::Deleted)
    );
}

#[test]
fn refuses_a_local_change_that_no_peer_would_accept() {
    let update = |mode| LocalFacts {
        oid: OID,
        owner: ALICE,
        requester: Some(ALICE),
        owner_at_home: true,
        owner_retired: false,
        owner_frozen: false,
        scope_right: ScopeRight::Participant,
        mode,
        replaces: Some(Replaced {
            owner: ALICE,
            deleted: false,
        }),
    };
    let check =
        |mode| AclManager::check_access(&local(), &update(mode)).map(|granted| granted.oid());
    assert_eq!(check(Some(Mode::AllowUpdate)), Ok(OID));
    assert_eq!(check(None), Ok(OID));
    assert_eq!(check(Some(Mode::AppendOnly)), Err(Denied::Mode));
    assert_eq!(check(Some(Mode::NoUpdate)), Err(Denied::Mode));
}

#[test]
fn remote_rule_refuses_a_local_operation() {
    assert!(matches!(
        AclManager::check_remote_write(&local(), &allowed()),
        Err(Denied::WrongContext(_))
    ));
}

#[test]
fn only_the_same_content_of_an_identity_of_this_node_is_signed_again() {
    let own = |precedence| Existing {
        is_local: true,
        precedence,
    };
    let check = |owner_at_home, existing| {
        AclManager::check_resign(OID, owner_at_home, &existing).map(|granted| granted.oid())
    };
    assert_eq!(check(true, own(Precedence::Same)), Ok(OID));
    assert_eq!(
        check(false, own(Precedence::Same)),
        Err(Denied::OwnerNotHere)
    );
    let received = stored(Precedence::Same);
    for refused in [received, own(Precedence::Later), own(Precedence::Older)] {
        assert_eq!(check(true, refused), Err(Denied::OwnerChanged));
    }
}
