//! The seeds of both sides of the handshake: the targets `server` and `client`.

use bastion::RefusalCode;
use bastion::messages::{Challenge, HandshakeMessage, Solution};
use keys::Signature;
use serde_bytes::{ByteArray, ByteBuf};

use crate::fixture::{Fixture, FreshServer};
use crate::seed_list::{Seeds, hello, refused, welcome};
use crate::{client, server};

/// Adds the seeds of both targets.
pub(crate) fn add(seeds: &mut Seeds, fixture: &Fixture) {
    use server::{CLAIMS, FIRST, LATE, SHOW, SIGN, SOLVE, TICKET, WORK};
    let bare = |extra_doublings: u8, claims: &[u8]| {
        let solution = Solution {
            extra_doublings,
            nonce: ByteArray::new([0; 16]),
            claims: ByteBuf::from(claims),
            cookie: ByteBuf::new(),
            sealed: ByteBuf::new(),
            ticket: None,
            signature: Signature::from_bytes([0; 64]),
        };
        HandshakeMessage::Solution(solution).encode()
    };
    let ticket = fixture.ticket.as_bytes();
    let empty = bare(0, &[]);
    for (name, flags, frame) in [
        ("good-hello", FIRST, &hello(None, &[1])),
        ("good-hello-ticket", FIRST, &hello(Some(ticket), &[1])),
        ("good-hello-bad-ticket", FIRST, &hello(Some(&[1; 89]), &[1])),
        (
            "bad-hello-versions",
            FIRST,
            &hello(None, &[0, 2, i64::MAX as u64]),
        ),
        ("bad-hello-no-versions", FIRST, &hello(None, &[])),
        (
            "bad-hello-long-ticket",
            FIRST,
            &hello(Some(&[1; 257]), &[1]),
        ),
        ("bad-hello-too-many", FIRST, &hello(None, &[1; 17])),
        ("bad-hello-again", 0, &hello(None, &[1])),
        ("good-solution", 0, &fixture.solution),
        ("good-solution-first", FIRST, &fixture.solution),
        ("bad-solution-late", LATE, &fixture.solution),
        ("bad-solution-for-ticket", SHOW | SIGN, &fixture.solution),
        ("good-repaired", WORK | CLAIMS | SOLVE | SIGN, &empty),
        (
            "good-extra-doublings",
            WORK | CLAIMS | SOLVE | SIGN,
            &bare(4, &[]),
        ),
        (
            "bad-extra-doublings",
            WORK | CLAIMS | SOLVE | SIGN,
            &bare(5, &[]),
        ),
        ("bad-unsolved", WORK | CLAIMS | SIGN, &bare(4, &[])),
        ("bad-unsigned", WORK | CLAIMS | SOLVE, &empty),
        ("good-ticket", SHOW | TICKET | CLAIMS | SIGN, &empty),
        (
            "good-ticket-first",
            SHOW | TICKET | CLAIMS | SIGN | FIRST,
            &empty,
        ),
        (
            "bad-ticket-and-work",
            WORK | TICKET | CLAIMS | SOLVE | SIGN,
            &empty,
        ),
        (
            "bad-ticket-of-another",
            SHOW | TICKET | SIGN,
            &bare(0, &fixture.alice_claims),
        ),
        (
            "bad-claims-of-alice",
            WORK | SOLVE | SIGN,
            &bare(0, &fixture.alice_claims),
        ),
        (
            "bad-challenge",
            FIRST,
            &HandshakeMessage::Challenge(fixture.server().work).encode(),
        ),
    ] {
        seeds.add("server", name, &[&[flags], frame]);
    }

    use client::{GENUINE, WELCOME};
    let FreshServer { work, show, .. } = fixture.server();
    let (work, show) = (
        HandshakeMessage::Challenge(work).encode(),
        HandshakeMessage::Challenge(show).encode(),
    );
    let none = Challenge {
        cookie: ByteBuf::new(),
        sealed: ByteBuf::new(),
    };
    let none = HandshakeMessage::Challenge(none).encode();
    let (welcomed, ticketed) = (welcome(fixture, None), welcome(fixture, Some(ticket)));
    let sign = client::SIGN;
    for (name, flags, frame) in [
        ("good-challenge", 0, &work),
        ("good-challenge-repaired", GENUINE, &work),
        ("good-challenge-after-ticket", client::TICKET, &work),
        ("good-challenge-ticket", client::TICKET, &show),
        ("bad-challenge-absurd", 0, &show),
        ("bad-challenge-empty", GENUINE, &none),
        (
            "bad-challenge-refused",
            0,
            &refused(RefusalCode::Busy, Some(u32::MAX)),
        ),
        ("bad-hello", 0, &hello(None, &[1])),
        ("good-welcome", WELCOME | sign, &welcomed),
        ("good-welcome-repaired", WELCOME | GENUINE | sign, &welcomed),
        ("good-welcome-ticket", WELCOME | sign, &ticketed),
        (
            "bad-welcome-long-ticket",
            WELCOME | sign,
            &welcome(fixture, Some(&[1; 257])),
        ),
        ("bad-welcome-unsigned", WELCOME | GENUINE, &welcomed),
        (
            "bad-welcome-refused",
            WELCOME,
            &refused(RefusalCode::Pending, None),
        ),
        ("bad-welcome-challenge", WELCOME, &work),
    ] {
        seeds.add("client", name, &[&[flags], frame]);
    }
}
