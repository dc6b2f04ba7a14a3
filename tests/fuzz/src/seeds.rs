//! The initial corpus: real messages between Alice and Bob, and one invalid input of each kind.
//!
//! `cargo run -p fuzz --example seeds` writes them into the corpus. The other files there are
//! findings, named by their digest. Invariant: a target accepts its seeds named `good-…` and
//! rejects those named `bad-…`.

use bastion::messages::HandshakeMessage;
use bastion::{AppClaim, RefusalCode, Tier};
use keys::codec::encode;
use keys::{Genesis, KeyChain, SchemaDigest, SecretKey, Signature};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::claims::{APPS, DOMAINS, PROVED, Wire};
use crate::fixture::{Fixture, FreshServer, NOW, fixture};
use crate::handshake_seeds;
use crate::seed_list::{Seed, Seeds, hello, refused, welcome};

/// Returns all seeds; each call returns the same bytes.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Seeds::default();
    let messages = messages(fixture());
    for (name, bytes) in &messages {
        seeds.add("message", &format!("good-{name}"), &[bytes]);
        seeds.add("scan", &format!("good-{name}"), &[&[0], bytes]);
    }
    frames(&mut seeds, &messages);
    forms(&mut seeds);
    records(&mut seeds);
    proofs(&mut seeds, fixture());
    claims(&mut seeds, fixture());
    handshake_seeds::add(&mut seeds, fixture());
    sessions(&mut seeds, fixture());
    seeds.0
}

fn messages(fixture: &Fixture) -> Vec<(&'static str, Vec<u8>)> {
    let FreshServer { work, show, .. } = fixture.server();
    vec![
        ("hello", hello(None, &[1])),
        (
            "hello-ticket",
            hello(Some(fixture.ticket.as_bytes()), &[1, 2]),
        ),
        ("challenge", HandshakeMessage::Challenge(work).encode()),
        (
            "challenge-ticket",
            HandshakeMessage::Challenge(show).encode(),
        ),
        ("solution", fixture.solution.clone()),
        ("welcome", welcome(fixture, None)),
        ("refused", refused(RefusalCode::Banned, None)),
        ("refused-busy", refused(RefusalCode::Busy, Some(3))),
    ]
}

fn frames(seeds: &mut Seeds, messages: &[(&str, Vec<u8>)]) {
    let framed = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let all: Vec<_> = messages
        .iter()
        .flat_map(|(_, bytes)| framed(bytes))
        .collect();
    let (one, cut) = (framed(b"\xa0"), framed(&[7; 300]));
    seeds.add("frames", "good-whole", &[&[1, 32, 32, 255], &all]);
    seeds.add(
        "frames",
        "good-in-pieces",
        &[&[4, 32, 32, 1, 0, 3, 0], &all],
    );
    seeds.add("frames", "good-at-once", &[&[0, 0, 0], &one]);
    // Longer than one read of the reader, and exactly as long as the limit.
    seeds.add(
        "frames",
        "good-long",
        &[&[1, 65, 0, 200], &framed(&[7; 65 * 256 + 8])],
    );
    seeds.add("frames", "bad-too-long", &[&[1, 1, 1, 9], &cut, &all]);
    seeds.add("frames", "bad-later-too-long", &[&[1, 2, 0, 9], &cut, &cut]);
    seeds.add("frames", "bad-cut-in-body", &[&[1, 9, 9, 9], &cut[..100]]);
    seeds.add(
        "frames",
        "bad-cut-in-length",
        &[&[2, 9, 9, 9, 0], &one, &[0, 0]],
    );
    seeds.add("frames", "bad-empty", &[&[1, 9, 9, 9], &one, &[0; 4]]);
    seeds.add("frames", "bad-most", &[&[1, 255, 255, 9], &[255; 8]]);
}

/// Replaces `last`, which is 2^63 - 1, in an encoding by 2^64 - 1.
fn raise(bytes: &mut [u8], last: u64) {
    let at = bytes
        .windows(8)
        .position(|window| window == last.to_be_bytes());
    if let Some(byte) = at.and_then(|at| bytes.get_mut(at)) {
        *byte = u8::MAX;
    }
}

fn sessions(seeds: &mut Seeds, fixture: &Fixture) {
    use postern::peer::message::{
        EpochNote, IdOnly, Pull, ReclaimRequest, ReclaimedBatch, SessionMessage,
    };
    let keys = &fixture.bob.context.keys;
    let epoch = keys::Epoch::from_bytes([3; 16]);
    let head = 9u64;
    let parts: [&[u8]; 2] = [epoch.as_bytes(), &head.to_be_bytes()];
    let (key_id, signature) = keys.sign_as_node_numbered(keys::Context::Epoch, &parts);
    let note = EpochNote {
        id: 1,
        head,
        epoch,
        key_id,
        signature,
    };
    let reclaimed = |objects: &[u8]| {
        let (body, next) = (objects.to_vec(), Some(keys::Oid::from_bytes([4; 16])));
        SessionMessage::Reclaimed(ReclaimedBatch { id: 3, body, next }).encode()
    };
    let oid = |number| keys::Oid::from_bytes([number; 16]);
    let object = keys::SignedObject::from_parts(0, crate::names::genuine(0), signature);
    let ask = ReclaimRequest {
        id: 2,
        after: None,
        domain: "messages".into(),
    };
    seeds.add(
        "session",
        "good-epoch",
        &[&SessionMessage::Epoch(note.clone()).encode()],
    );
    seeds.add(
        "session",
        "good-heard",
        &[&SessionMessage::Heard(note.clone()).encode()],
    );
    let last = i64::MAX as u64;
    let mut beyond = SessionMessage::Epoch(EpochNote { head: last, ..note }).encode();
    seeds.add("session", "good-last-head", &[&beyond]);
    raise(&mut beyond, last);
    seeds.add("session", "bad-head", &[&beyond]);
    seeds.add(
        "session",
        "good-noted",
        &[&SessionMessage::Noted(IdOnly { id: 1 }).encode()],
    );
    for (name, again) in [
        ("good-pull", None),
        ("good-pull-domain-again", Some(vec![])),
        ("good-pull-again", Some(vec![oid(1), oid(2)])),
        ("bad-pull-again", Some(vec![oid(2), oid(1)])),
    ] {
        let pull = Pull {
            id: 4,
            again,
            epoch: Some(epoch),
            domain: "messages".into(),
            wait_s: 0,
            peer_id: keys::PeerId::from_bytes([5; 32]),
            last_seq: 0,
        };
        seeds.add("session", name, &[&SessionMessage::Pull(pull).encode()]);
    }
    seeds.add(
        "session",
        "good-reclaim",
        &[&SessionMessage::Reclaim(ask).encode()],
    );
    seeds.add(
        "session",
        "good-reclaimed",
        &[&reclaimed(&encode(&[object]))],
    );
    seeds.add("session", "bad-reclaimed", &[&reclaimed(b"\x81\x80")]);
    seeds.add(
        "session",
        "bad-kind",
        &[&encode(&std::collections::BTreeMap::from([("pull", 1)]))],
    );

    let holder = keys.server_oid();
    let paper = keys
        .recovery_key(holder)
        .map(|key| key.to_text().to_string())
        .unwrap_or_default();
    let bare: String = paper
        .lines()
        .skip(1)
        .flat_map(|line| [line.to_uppercase(), "  \n".into()])
        .collect();
    seeds.add("recovery", "good-paper", &[paper.as_bytes()]);
    seeds.add(
        "recovery",
        "bad-cut",
        &[&paper.as_bytes()[..paper.len() - 12]],
    );
    seeds.add("recovery", "bad-without-its-heading", &[bare.as_bytes()]);
}

fn forms(seeds: &mut Seeds) {
    let FreshServer { work, show, .. } = fixture().server();
    seeds.add("cookie", "good-work", &[&work.cookie]);
    seeds.add("cookie", "good-ticket", &[&show.cookie]);
    seeds.add("cookie", "bad-cut", &[&work.cookie[..60]]);
    let wide = encode(&(
        i64::MAX,
        i64::MIN,
        (u64::from(u32::MAX), 65536u64, 256u64),
        (24u64, -25i64),
    ));
    seeds.add("scan", "good-integers", &[&[2], &wide]);
    seeds.add("scan", "good-text", &[&[0], &encode(&(7u64, "äß€"))]);
    seeds.add(
        "scan",
        "good-options",
        &[&[2], &encode(&[Some(1i64), None, Some(-1)])],
    );
    seeds.add("scan", "good-names", &[&[1], &encode(&["a", "b"])]);
    seeds.add(
        "scan",
        "good-chain",
        &[&[0], &encode(&fixture().bob.context.keys.node_chain())],
    );
    for (name, bytes) in [
        ("indefinite", &b"\x9f\xff"[..]),
        ("wide", b"\x18\x17"),
        ("float", b"\xf9\x3c\x00"),
        ("tag", b"\xc0\x60"),
        ("unsorted", b"\xa2\x61b\x01\x61a\x02"),
        ("twice", b"\xa2\x61a\x01\x61a\x02"),
        ("not-utf8", b"\x61\xff"),
        ("bomb", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("deep", b"\x81\x81\x81\x81\x81\x81\x81\x81\x81\x81"),
        ("trailing", b"\x00\x00"),
        ("below-i64", b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("above-i64", b"\x1b\x80\0\0\0\0\0\0\0"),
        ("key-of-bytes", b"\xa1\x41a\x01"),
    ] {
        seeds.add("scan", &format!("bad-{name}"), &[&[0], bytes]);
    }
}

fn records(seeds: &mut Seeds) {
    seeds.add("names", "good-alice", &[&[0]]);
    seeds.add("names", "bad-nameless", &[&[1]]);
    seeds.add("names", "good-long", &[&[2]]);
    seeds.add("names", "good-hostile", &[&[3]]);
    seeds.add("names", "bad-elsewhere", &[&[4]]);
    seeds.add("names", "good-many", &[&[16]]);
    seeds.add(
        "names",
        "good-same-bytes",
        &[&[8], &crate::names::genuine(0)],
    );
    seeds.add(
        "names",
        "bad-of-another",
        &[&[9], &crate::names::genuine(0)],
    );
}

fn proofs(seeds: &mut Seeds, fixture: &Fixture) {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let mut secret = || SecretKey::generate(&mut rng);
    let (first, second, third) = (secret(), secret(), secret());
    let mut chain = KeyChain::new(Genesis::new(first.public(), &second.public()));
    seeds.add("chain", "good-genesis", &[&[0], &encode(&chain)]);
    chain.rotate(&second, &third.public());
    seeds.add("chain", "good-rotated", &[&[0], &encode(&chain)]);
    chain.rotate(&second, &third.public());
    seeds.add("chain", "bad-not-committed", &[&[0], &encode(&chain)]);
    seeds.add("chain", "good-links", &[&[1, 0x10, 0x21, 0x32]]);
    seeds.add("chain", "bad-link", &[&[1, 0x10, 0x21, 0x31]]);
    seeds.add("chain", "bad-order", &[&[3, 0x10, 0x11, 0x11]]);
    seeds.add("chain", "good-most-links", &[&[1], &[0; 33]]);
    seeds.add("chain", "bad-too-many-links", &[&[1], &[0; 34]]);

    let plain = |tier: u8, issued: u64, until: u64| {
        let times = [issued.to_be_bytes(), until.to_be_bytes()].concat();
        [&[tier], &times[..], fixture.bob.peer_id().as_bytes()].concat()
    };
    let fresh = fixture.server();
    let old = fresh
        .server
        .tickets
        .issue(&fixture.bob.peer_id(), Tier::Untrusted, 0, &mut rng);
    seeds.add("ticket", "good-shown", &[&[0], fixture.ticket.as_bytes()]);
    seeds.add("ticket", "bad-old", &[&[0], &old.unwrap_or_default()]);
    seeds.add("ticket", "good-trusted", &[&[1], &plain(1, NOW, NOW)]);
    seeds.add("ticket", "good-untrusted", &[&[1], &plain(0, 0, u64::MAX)]);
    seeds.add("ticket", "bad-tier", &[&[1], &plain(2, NOW, NOW)]);
    seeds.add("ticket", "bad-over", &[&[1], &plain(0, 0, NOW - 1)]);
    seeds.add(
        "ticket",
        "bad-not-yet",
        &[&[1], &plain(0, NOW + 1, u64::MAX)],
    );
    seeds.add("ticket", "bad-cut", &[&[1], &plain(0, 0, u64::MAX)[..48]]);
}

fn claims(seeds: &mut Seeds, fixture: &Fixture) {
    let mut add_modified = |name: &str, flags: u8, modify: &dyn Fn(&mut Wire)| {
        let mut wire = Wire::read(&fixture.alice_claims).unwrap();
        modify(&mut wire);
        seeds.add("claims", name, &[&[flags], &encode(&wire)]);
    };
    let names = |list: &[&str]| {
        list.iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let many = |count: usize| {
        (100..100 + count)
            .map(|number| format!("n{number}"))
            .collect::<Vec<_>>()
    };
    let apps = |slugs: Vec<String>| -> Vec<AppClaim> {
        let claim = |slug| AppClaim::new(slug, 1, SchemaDigest::from_bytes([1; 16]));
        slugs.into_iter().map(claim).collect()
    };
    add_modified("good-alice", 0, &|_| {});
    add_modified("good-bare", PROVED, &|wire| {
        (wire.apps, wire.sync_domains, wire.identities) = Default::default();
    });
    add_modified("good-names", 0, &|wire| {
        wire.sync_domains = names(&["a", "a.b", "a1_.b_2", "messages"])
    });
    add_modified("good-most", 0, &|wire| {
        (wire.apps, wire.sync_domains) = (apps(many(64)), many(64));
        let object = wire.identities.first().cloned();
        wire.identities = (0..8).filter_map(|_| object.clone()).collect();
    });
    add_modified("good-longest-name", 0, &|wire| {
        wire.apps = apps(vec!["a".repeat(64)])
    });
    add_modified("bad-long-name", 0, &|wire| {
        wire.apps = apps(vec!["a".repeat(65)])
    });
    add_modified("bad-dotted-app", 0, &|wire| {
        wire.apps = apps(names(&["a.b"]))
    });
    add_modified("bad-three-parts", 0, &|wire| {
        wire.sync_domains = names(&["a.b.c"])
    });
    add_modified("bad-unsorted", 0, &|wire| {
        wire.apps = apps(names(&["b", "a"]))
    });
    add_modified("bad-twice", 0, &|wire| wire.apps = apps(names(&["a", "a"])));
    add_modified("bad-too-many", 0, &|wire| wire.apps = apps(many(65)));
    add_modified("bad-grammar", 0, &|wire| wire.apps = apps(names(&["A"])));
    add_modified("bad-onion", 0, &|wire| wire.onion = fixture.bob.onion());
    add_modified("bad-onion-unproved", 0, &|wire| {
        wire.onion_signature = Signature::from_bytes([1; 64])
    });
    add_modified("bad-before-rotation", 0, &|wire| wire.node.events.clear());
    add_modified("bad-identities", 0, &|wire| {
        let object = wire.identities.first().cloned();
        wire.identities = (0..9).filter_map(|_| object.clone()).collect();
    });
    for (name, features) in [
        ("good-features", names(&["a", "watch", "z-9"])),
        ("bad-features-unsorted", names(&["b", "a"])),
        ("bad-features-twice", names(&["a", "a"])),
        ("bad-features-too-many", many(17)),
        ("bad-feature", names(&["Watch"])),
        ("bad-feature-too-long", vec!["a".repeat(33)]),
    ] {
        add_modified(name, 0, &|wire| wire.features.clone_from(&features));
    }
    for (name, version) in [("bad-version-0", 0), ("bad-version-max", u32::MAX)] {
        add_modified(name, 0, &|wire| {
            wire.apps.iter_mut().for_each(|app| app.version = version);
        });
    }
    let longest = format!("{}\n{}", "a".repeat(64), "b".repeat(64));
    seeds.add("claims", "good-app-lines", &[&[APPS], longest.as_bytes()]);
    seeds.add(
        "claims",
        "good-domain-lines",
        &[&[DOMAINS], b"a\na.b\nmessages"],
    );
    seeds.add("claims", "bad-bob", &[&[0], &fixture.bob_claims]);
}
