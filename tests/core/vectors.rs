//! The worked example of docs/PROTOCOL.md, compared byte by byte.
//!
//! All keys come from seeds of one repeated byte, so that another implementation can compute the
//! same bytes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use bastion::Features;
use harness::rights::digest_of;
use keys::chain::{Genesis, commitment};
use keys::protocol::RIGHTS_TYPE;
use keys::signing::signing_input;
use keys::{Context, Digest, Epoch, HomeRecord, KeyChain, SecretKey, SignedObject, codec};
use postern::graph::{GraphLimits, IdentityRecord, decode_object, new_identity_attrs};
use postern::object::{
    Attrs, Merges, Object, ObjectLimits, OidParts, OidProof, Place, Rights, RightsList, ScopeList,
    Value,
};
use postern::peer::message::{PackageBody, Pull, SessionMessage};
use postern::schema::Schemas;
use postern::state_engine::{Expected, Package, PackageLimits, VerifiedPackage};

/// The lines that the section must have.
#[derive(Default)]
struct Page(String);

impl Page {
    /// A name followed by hexadecimal digits, in lines of at most 104 digits.
    fn hex(&mut self, name: &str, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for (number, place) in (0..digits.len()).step_by(104).enumerate() {
            let name = if number == 0 { name } else { "" };
            let line = &digits[place..digits.len().min(place + 104)];
            writeln!(self.0, "{name:<14}{line}").unwrap();
        }
    }
}

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_seed(&[byte; 32])
}

/// A chain whose first key has the seed `byte` and whose next key `byte + 1`, repeated.
fn chain(byte: u8) -> KeyChain {
    KeyChain::new(Genesis::new(
        secret(byte).public(),
        &secret(byte + 1).public(),
    ))
}

struct Example {
    alice: Object,
    alice_home: HomeRecord,
    founding: Digest,
    conversation: Object,
    message: Object,
    /// Bob may only read.
    rights: Object,
}

fn example() -> Example {
    let (alice, node) = (chain(0x0a), chain(0x01));
    let verified = alice.verify().unwrap();
    let home = HomeRecord::sign(alice.oid(), (0, &secret(0x0a)), node, &secret(0x01), 1);
    let bob = chain(0x0c).oid();
    let members = [alice.oid(), bob];
    let list = RightsList::from_iter(members.map(|oid| (oid, Rights::READ_WRITE)));
    let made = |type_number, place, after_ms: u8, attrs| {
        let parts = OidParts {
            owner: &alice.oid(),
            app: "messages",
            type_number,
            place: &place,
        };
        Object {
            attrs: Some(attrs),
            ..Object::create(
                &parts,
                1_700_000_000_000 + u64::from(after_ms),
                [0xcc + 0x11 * after_ms; 8],
            )
        }
    };
    let members = members.iter().map(Value::from).collect();
    let conversation = made(
        1,
        Place::Founds(list.digest()),
        0,
        Attrs::from([(1, members)]),
    );
    let said = Attrs::from([
        (1, vec![Value::from(&conversation.oid)]),
        (2, vec![Value::from("Hi")]),
        (3, vec![Value::from(1_700_000_000_001)]),
    ]);
    let only_read = RightsList::from_iter([(alice.oid(), Rights::READ_WRITE), (bob, Rights::READ)]);
    let rights = ScopeList {
        scope: conversation.oid,
        version: 1,
        list: only_read,
        merges: Merges::default(),
    };
    Example {
        rights: made(RIGHTS_TYPE, Place::In(conversation.oid), 2, rights.attrs()),
        alice: Object {
            app: "identities".into(),
            type_number: 1,
            oid: alice.oid(),
            owner: alice.oid(),
            rev: 1,
            proof: OidProof::Genesis,
            rights: None,
            attrs: Some(new_identity_attrs(&alice, &verified, &home, Some("Alice"))),
        },
        alice_home: home,
        message: made(2, Place::In(conversation.oid), 1, said),
        founding: list.digest(),
        conversation,
    }
}

fn sign(object: &Object) -> SignedObject {
    SignedObject::sign(0, &secret(0x0a), object.to_bytes())
}

fn package(example: &Example) -> Package {
    Package {
        stubs: None,
        scopes: Some(Vec::new()),
        more: false,
        epoch: Epoch::from_bytes([0xee; 16]),
        domain: "messages".into(),
        sender: secret(0x01).peer_id(),
        to_seq: 1433,
        objects: vec![sign(&example.conversation), sign(&example.message)],
        version: 1,
        from_seq: 1433,
        recipient: secret(0x03).peer_id(),
    }
}

#[test]
fn example_in_the_protocol_matches_the_code() {
    let example = example();
    let (alice, message) = (chain(0x0a), &example.message);
    let mut page = Page::default();
    page.hex("alice", secret(0x0a).public().as_bytes());
    page.hex("next", commitment(&secret(0x0b).public()).as_bytes());
    page.hex("genesis", &codec::encode(&alice.genesis));
    page.hex("alice oid", alice.oid().as_bytes());
    page.hex("bob oid", chain(0x0c).oid().as_bytes());
    page.hex("node A", secret(0x01).public().as_bytes());
    page.hex("node B", secret(0x03).public().as_bytes());
    page.hex("home", &codec::encode(&example.alice_home));
    page.hex("identity", &example.alice.to_bytes());
    page.hex("founding", example.founding.as_bytes());
    page.hex("conversation", &example.conversation.to_bytes());
    page.hex("message", &message.to_bytes());
    page.hex("rights list", &example.rights.to_bytes());
    page.hex("its digest", digest_of(&example.rights).as_bytes());
    page.hex(
        "signed over",
        &signing_input(Context::Object, &[&[0; 4], &message.to_bytes()]),
    );
    page.hex("signature", sign(message).signature().as_bytes());
    let schemas = Schemas::load(&["identities".into(), "messages".into()], None).unwrap();
    let digest = schemas.app("messages").unwrap().digest();
    page.hex("schema", digest.as_bytes());
    let payload = codec::encode(&package(&example));
    let features = Features::none().encode();
    let signed = secret(0x01).sign1(Context::Package, &[&features], &payload);
    page.hex("package", &signed);
    let pull = Pull {
        again: None,
        id: 1,
        epoch: Some(Epoch::from_bytes([0xee; 16])),
        domain: "messages".into(),
        wait_s: 30,
        peer_id: secret(0x03).peer_id(),
        last_seq: 1432,
    };
    page.hex("pull", &SessionMessage::Pull(pull).encode());
    let answer = SessionMessage::Package(PackageBody {
        id: 1,
        body: signed,
    })
    .encode();
    page.hex("answer", &answer[..24]);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PROTOCOL.md");
    let found = fs::read_to_string(path).unwrap();
    assert!(
        found.contains(&page.0),
        "docs/PROTOCOL.md must read:\n{}",
        page.0
    );
}

#[test]
fn receiver_accepts_the_example() {
    let example = example();
    let (node, features) = (secret(0x01), Features::none());
    let payload = codec::encode(&package(&example));
    let bytes = node.sign1(Context::Package, &[&features.encode()], &payload);
    let expected = Expected {
        sender: &node.peer_id(),
        key: &node.public(),
        recipient: &secret(0x03).peer_id(),
        epoch: Epoch::from_bytes([0xee; 16]),
        features: &features,
    };
    let limits = PackageLimits::default();
    let mut verified = VerifiedPackage::verify(&bytes, &limits, &expected).unwrap();
    let objects = verified.take_objects();
    assert_eq!(objects.len(), 2);
    for signed in objects {
        signed.verify(&secret(0x0a).public()).unwrap();
        decode_object(signed, &GraphLimits::default()).unwrap();
    }
    let back = Object::from_bytes(&example.alice.to_bytes(), &ObjectLimits::default()).unwrap();
    let record = IdentityRecord::read(&back).unwrap().unwrap();
    assert_eq!(record.home(), node.peer_id());
}
