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
        owner: ALICE,
        rev: 1,
        deleted: false,
        mode: Some(Mode::AppendOnly),
        owner_home: Home::Sender,
        scope_right: ScopeRight::Participant,
        has_local_reader: true,
        existing: None,
    }
}

fn remote_object(rev: u64) -> Existing {
    Existing {
        owner: ALICE,
        rev,
        is_local: false,
        deleted: false,
        same: false,
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Apply,
    AlreadyHere,
    Older,
    Denied(Denied),
}

fn check(facts: RemoteFacts, expected: Outcome) {
    let outcome = match AclManager::check_remote_write(&remote(), &facts) {
        Ok(RemoteWrite::Apply(granted)) => {
            assert_eq!(granted.oid(), facts.oid);
            Outcome::Apply
        }
        Ok(RemoteWrite::AlreadyHere) => Outcome::AlreadyHere,
        Ok(RemoteWrite::Older) => Outcome::Older,
        Err(denied) => Outcome::Denied(denied),
    };
    assert_eq!(outcome, expected, "{facts:?}");
}

#[test]
fn applies_a_new_object_of_a_participant_whose_home_is_the_sender() {
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
                owner_home: home,
                ..allowed()
            },
            No(Denied::OwnerNotAtSender),
        );
    }
    check(
        RemoteFacts {
            scope_right: ScopeRight::Outsider,
            ..allowed()
        },
        No(Denied::NotParticipant),
    );
    check(
        RemoteFacts {
            has_local_reader: false,
            ..allowed()
        },
        No(Denied::NoReaderHere),
    );
}

#[test]
fn mode_decides_on_updates_and_tombstones() {
    use Outcome::Denied as No;
    let update = |mode| RemoteFacts {
        mode: Some(mode),
        rev: 2,
        existing: Some(remote_object(1)),
        ..allowed()
    };
    check(update(Mode::AppendOnly), No(Denied::Mode));
    check(update(Mode::NoUpdate), No(Denied::Mode));
    check(update(Mode::AllowUpdate), Outcome::Apply);
    check(
        RemoteFacts {
            deleted: true,
            ..update(Mode::AllowUpdate)
        },
        Outcome::Apply,
    );
    check(
        RemoteFacts {
            deleted: true,
            ..update(Mode::AppendOnly)
        },
        No(Denied::Mode),
    );
    check(
        RemoteFacts {
            deleted: true,
            existing: None,
            ..update(Mode::AllowUpdate)
        },
        Outcome::AlreadyHere,
    );
    let deleted = Existing {
        deleted: true,
        ..remote_object(1)
    };
    check(
        RemoteFacts {
            existing: Some(deleted),
            ..update(Mode::AllowUpdate)
        },
        No(Denied::Deleted),
    );
}

#[test]
fn stored_revision_decides_on_a_further_one() {
    let at = |rev, existing| RemoteFacts {
        mode: Some(Mode::AllowUpdate),
        rev,
        existing: Some(existing),
        ..allowed()
    };
    check(at(1, remote_object(2)), Outcome::Older);
    check(
        at(
            2,
            Existing {
                same: true,
                ..remote_object(2)
            },
        ),
        Outcome::AlreadyHere,
    );
    check(at(2, remote_object(2)), Outcome::Denied(Denied::Fork));
    check(
        at(
            3,
            Existing {
                owner: BOB,
                ..remote_object(2)
            },
        ),
        Outcome::Denied(Denied::OwnerChanged),
    );
}

#[test]
fn refuses_a_remote_change_of_a_local_object() {
    let local = Existing {
        is_local: true,
        ..remote_object(1)
    };
    for mode in [Mode::AppendOnly, Mode::AllowUpdate, Mode::NoUpdate] {
        let facts = RemoteFacts {
            mode: Some(mode),
            rev: 9,
            existing: Some(local),
            ..allowed()
        };
        check(facts, Outcome::Denied(Denied::LocalObject));
        check(
            RemoteFacts {
                deleted: true,
                ..facts
            },
            Outcome::Denied(Denied::LocalObject),
        );
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
        existing: None,
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
    assert_eq!(
        check(LocalFacts {
            scope_right: ScopeRight::Outsider,
            ..facts
        }),
        Err(Denied::NotParticipant)
    );
    assert_eq!(
        check(LocalFacts {
            existing: Some(Existing {
                owner: BOB,
                ..remote_object(1)
            }),
            ..facts
        }),
        Err(Denied::OwnerChanged)
    );
    assert_eq!(
        check(LocalFacts {
            existing: Some(Existing {
                deleted: true,
                ..remote_object(1)
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
        existing: Some(remote_object(1)),
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
