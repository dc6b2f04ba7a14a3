//! The rules as tables: each row changes one fact of an allowed write.

use keys::{Oid, PeerId};

use super::*;
use crate::op_context::{AppId, PubkeyAttrId};
use keys::TraceId;

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
        reader_here: true,
        existing: None,
    }
}

fn theirs(rev: u64) -> Existing {
    Existing {
        owner: ALICE,
        rev,
        made_here: false,
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
fn a_new_object_of_a_participant_at_home_at_the_sender_is_applied() {
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
fn each_missing_right_has_its_own_refusal() {
    use Outcome::Denied as No;
    check(
        RemoteFacts {
            mode: None,
            ..allowed()
        },
        No(Denied::TypeNotInDomain),
    );
    for home in [Home::Here, Home::Elsewhere] {
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
            reader_here: false,
            ..allowed()
        },
        No(Denied::NoReaderHere),
    );
}

#[test]
fn modes_decide_on_updates_and_deletions() {
    use Outcome::Denied as No;
    let update = |mode| RemoteFacts {
        mode: Some(mode),
        rev: 2,
        existing: Some(theirs(1)),
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
        ..theirs(1)
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
fn revisions_order_content() {
    let at = |rev, existing| RemoteFacts {
        mode: Some(Mode::AllowUpdate),
        rev,
        existing: Some(existing),
        ..allowed()
    };
    check(at(1, theirs(2)), Outcome::Older);
    check(
        at(
            2,
            Existing {
                same: true,
                ..theirs(2)
            },
        ),
        Outcome::AlreadyHere,
    );
    check(at(2, theirs(2)), Outcome::Denied(Denied::Fork));
    check(
        at(
            3,
            Existing {
                owner: BOB,
                ..theirs(2)
            },
        ),
        Outcome::Denied(Denied::OwnerChanged),
    );
}

#[test]
fn a_peer_cannot_touch_what_was_made_here() {
    let ours = Existing {
        made_here: true,
        ..theirs(1)
    };
    for mode in [Mode::AppendOnly, Mode::AllowUpdate, Mode::NoUpdate] {
        let facts = RemoteFacts {
            mode: Some(mode),
            rev: 9,
            existing: Some(ours),
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
fn a_local_write_is_its_owners() {
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
                ..theirs(1)
            }),
            ..facts
        }),
        Err(Denied::OwnerChanged)
    );
    assert_eq!(
        check(LocalFacts {
            existing: Some(Existing {
                deleted: true,
                ..theirs(1)
            }),
            ..facts
        }),
        Err(Denied::Deleted)
    );
}

#[test]
fn nothing_is_changed_here_that_no_peer_would_take() {
    let update = |mode| LocalFacts {
        oid: OID,
        owner: ALICE,
        requester: Some(ALICE),
        owner_at_home: true,
        owner_retired: false,
        owner_frozen: false,
        scope_right: ScopeRight::Participant,
        mode,
        existing: Some(theirs(1)),
    };
    let check =
        |mode| AclManager::check_access(&local(), &update(mode)).map(|granted| granted.oid());
    assert_eq!(check(Some(Mode::AllowUpdate)), Ok(OID));
    assert_eq!(check(None), Ok(OID));
    assert_eq!(check(Some(Mode::AppendOnly)), Err(Denied::Mode));
    assert_eq!(check(Some(Mode::NoUpdate)), Err(Denied::Mode));
}

#[test]
fn the_two_ways_in_do_not_stand_for_each_other() {
    assert!(matches!(
        AclManager::check_remote_write(&local(), &allowed()),
        Err(Denied::WrongContext(_))
    ));
}
