//! Packages that are faulty as a whole: nothing of them is applied.

use bastion::{Feature, Features};
use harness::forge::object;
use harness::pull::{meet, package_bytes};
use harness::{Setup, TestNode, ride};
use keys::{Context, Epoch, Malformed, Signature, SignedObject, codec};
use postern::object::Value;
use postern::state_engine::{
    CoreLimits, Expected, Package, PackageFault, PackageLimits, VerifiedPackage,
};

use crate::packages::Scene;

#[test]
fn package_header_fields_are_each_checked() {
    let scene = Scene::new();
    let fault = |change: fn(&mut Package)| scene.fault(&scene.changed(change));
    assert_eq!(
        fault(|package| package.version = 2),
        PackageFault::Version(2)
    );
    assert_eq!(
        fault(|package| package.domain = "no.such_domain".into()),
        PackageFault::Domain
    );
    assert_eq!(fault(|package| package.to_seq = 0), PackageFault::Window);
    assert_eq!(
        fault(|package| package.from_seq = package.to_seq + 1),
        PackageFault::Window
    );
    assert_eq!(
        fault(|package| package.sender = package.recipient),
        PackageFault::Sender
    );
    assert_eq!(
        fault(|package| package.recipient = package.sender),
        PackageFault::Recipient
    );
    assert_eq!(
        scene
            .bob
            .take(&scene.alice, &scene.changed(|_| ()))
            .unwrap()
            .last_seq,
        scene.alice.head()
    );
}

#[test]
fn package_signed_by_another_node_or_context_is_refused() {
    let scene = Scene::new();
    let carol = TestNode::new("carol", 0);
    let package = scene
        .alice
        .package(&scene.bob, "rides.offers", (0, 5), Vec::new());
    assert_eq!(
        scene.fault(&package.sign(&carol.keys, &Features::none())),
        PackageFault::BadSignature
    );
    let other_context = scene.alice.keys.sign1_as_node(
        Context::Welcome,
        &[&Features::none().encode()],
        &codec::encode(&package),
    );
    assert_eq!(scene.fault(&other_context), PackageFault::BadSignature);
}

#[test]
fn package_of_other_features_is_refused() {
    let scene = Scene::new();
    let package = scene
        .alice
        .package(&scene.bob, "rides.offers", (0, 5), Vec::new());
    let other = Features::from_iter([Feature::Watch]);
    let of_other_session = package.sign(&scene.alice.keys, &other);
    assert_eq!(scene.fault(&of_other_session), PackageFault::BadSignature);
}

#[test]
fn package_of_another_epoch_is_refused() {
    let scene = Scene::new();
    let (honest, features) = (scene.honest(), Features::none());
    let verify = |epoch| {
        let expected = Expected {
            sender: &scene.alice.peer_id(),
            key: &scene.alice.public_key(),
            recipient: &scene.bob.peer_id(),
            epoch,
            features: &features,
        };
        VerifiedPackage::verify(&honest, &PackageLimits::PROTOCOL, &expected).map(drop)
    };
    assert_eq!(verify(scene.alice.epoch()), Ok(()));
    assert_eq!(verify(Epoch::from_bytes([9; 16])), Err(PackageFault::Epoch));
}

#[test]
fn package_for_another_recipient_is_refused() {
    let scene = Scene::new();
    let carol = TestNode::new("carol", 0);
    meet(&scene.alice, &carol);
    let hers = package_bytes(
        scene
            .alice
            .answer(&carol.request(&scene.alice, "rides.offers")),
    );
    assert_eq!(scene.fault(&hers), PackageFault::Recipient);
}

#[test]
fn bytes_that_are_not_a_package_are_malformed() {
    let scene = Scene::new();
    let honest = scene.honest();
    assert!(matches!(scene.fault(&[]), PackageFault::Malformed(_)));
    assert!(matches!(
        scene.fault(&honest[..honest.len() - 1]),
        PackageFault::Malformed(_)
    ));
    let mut longer = honest.clone();
    longer.push(0);
    assert!(matches!(scene.fault(&longer), PackageFault::Malformed(_)));
    let not_a_package = scene.alice.keys.sign1_as_node(
        Context::Package,
        &[&Features::none().encode()],
        &codec::encode(&"hello"),
    );
    assert!(matches!(
        scene.fault(&not_a_package),
        PackageFault::Malformed(_)
    ));
    scene.bob.take(&scene.alice, &honest).unwrap();
}

/// There is one largest package for every node.
#[test]
fn package_of_the_largest_size_is_taken_and_one_byte_more_is_not() {
    let scene = Scene::new();
    let of_size = |bytes: usize| {
        let mut package = scene
            .alice
            .package(&scene.bob, "rides.offers", (0, 5), Vec::new());
        // No object has this content, but a package may carry any bytes.
        let signature = Signature::from_bytes([1; 64]);
        let filled = |length| SignedObject::from_parts(0, vec![0; length], signature);
        let signed = |package: &Package| package.sign(&scene.alice.keys, &Features::none());
        package.objects = vec![filled(61_200); 16];
        let last = 61_200 + bytes - signed(&package).len();
        package.objects[15] = filled(last);
        assert_eq!(signed(&package).len(), bytes);
        signed(&package)
    };
    let largest = PackageLimits::PROTOCOL.bytes_max;
    assert_eq!(largest, 983_040);
    assert_eq!(
        scene.fault(&of_size(largest + 1)),
        PackageFault::Malformed(Malformed::TooLong(largest + 1))
    );
    let taken = scene.bob.take(&scene.alice, &of_size(largest)).unwrap();
    assert_eq!((taken.last_seq, taken.objects), (5, 16));
}

#[test]
fn package_beyond_the_limits_is_refused_before_decoding() {
    let package = PackageLimits {
        bytes_max: 4000,
        objects_max: 3,
    };
    let limits = CoreLimits {
        package,
        ..CoreLimits::default()
    };
    let bob = Setup::new("bob").limits(limits).node();
    let scene = Scene {
        bob,
        ..Scene::new()
    };
    meet(&scene.alice, &scene.bob);
    let mut note = ride("Bern", 1);
    note.insert(6, vec![Value::from("x".repeat(1900).as_str())]);
    for _ in 0..2 {
        scene.alice.make("rides", 1, note.clone()).unwrap();
    }
    assert!(matches!(
        scene.fault(&scene.honest()),
        PackageFault::Malformed(Malformed::TooLong(_))
    ));
    let tiny = |number| {
        scene
            .alice
            .sign(&object("rides", 1, number, scene.alice.identity, 1, None))
    };
    let many = scene.changed(|package| package.objects = (1..5).map(tiny).collect());
    assert_eq!(scene.fault(&many), PackageFault::TooManyObjects);
    let bob = Setup::new("carol").limits(CoreLimits {
        package: PackageLimits {
            objects_max: 3,
            ..PackageLimits::default()
        },
        ..CoreLimits::default()
    });
    let scene = Scene {
        bob: bob.node(),
        ..scene
    };
    meet(&scene.alice, &scene.bob);
    let name_too_many = |count| {
        scene.changed(|package| package.scopes = Some(vec![keys::Oid::from_bytes([1; 16]); count]))
    };
    assert_eq!(
        scene.fault(&name_too_many(1025)),
        PackageFault::TooManyObjects
    );
    let too_many_items = name_too_many(1200);
    assert!(matches!(
        scene.fault(&too_many_items),
        PackageFault::Malformed(Malformed::TooManyItems)
    ));
}
