//! An app with attributes of every kind: its objects are stored and synced byte for byte.

use harness::{Setup, TestNode, meet};
use postern::object::{Attrs, Value};
use proptest::prelude::*;

/// An app whose types have every kind of attribute in several cardinalities.
const GARDEN: &str = r#"
slug = "garden"
version = 1
[[type]]
number = 1
name = "garden.bed"
visibility = "public"
  [[type.attr]]
  number = 1
  name = "label"
  kind = "text"
  min = 0
  max = 5
  bytes_max = 400
  [[type.attr]]
  number = 2
  name = "count"
  kind = "integer"
  min = 0
  max = 4
  [[type.attr]]
  number = 300
  name = "seed"
  kind = "bytes"
  min = 0
  max = 3
  bytes_max = 64
  [[type.attr]]
  number = 4
  name = "friends"
  kind = "identity"
  min = 0
  max = 8
  [[type.attr]]
  number = 5
  name = "beside"
  kind = { parent = "garden.bed" }
  min = 0
  max = 3
  [[type.attr]]
  number = 6
  name = "plan"
  kind = "json"
  min = 0
  max = 1
  bytes_max = 100
[[domain]]
name = "garden"
parent_types = ["garden.bed"]
mode = "allow_update"
"#;

/// A node with the garden app.
pub(crate) fn gardener(name: &str, id_offset: i64) -> TestNode {
    let setup = Setup::new(name).own_app("garden", GARDEN);
    setup.id_offset(id_offset).node()
}

fn any_bed() -> impl Strategy<Value = Attrs> {
    use proptest::collection::{btree_set, vec};
    let texts = vec(".{0,40}".prop_map(Value::Text), 0..=5);
    let integers = vec(any::<i64>().prop_map(Value::Integer), 0..=4);
    let bytes = vec(vec(any::<u8>(), 0..=64).prop_map(Value::Bytes), 0..=3);
    let identities = btree_set(any::<[u8; 16]>(), 0..=8);
    let identities =
        identities.prop_map(|oids| oids.iter().map(|oid| Value::Bytes(oid.to_vec())).collect());
    let json = vec(Just(Value::from("{\"rows\":[1,2]}")), 0..=1);
    (texts, integers, bytes, identities, json).prop_map(
        |(texts, integers, bytes, identities, json)| {
            Attrs::from([
                (1, texts),
                (2, integers),
                (300, bytes),
                (4, identities),
                (6, json),
            ])
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Beds that refer to earlier ones keep their bytes, also at a peer with other local ids.
    #[test]
    fn rows_reproduce_the_signed_bytes(
        beds in proptest::collection::vec((any_bed(), any::<u8>()), 1..8),
    ) {
        let (alice, bob) = (gardener("alice", 0), gardener("bob", 7000));
        meet(&alice, &bob);
        let mut made = Vec::new();
        for (mut attrs, reference) in beds {
            if !made.is_empty() {
                let beside: postern::graph::Saved = made[usize::from(reference) % made.len()];
                attrs.insert(5, vec![Value::from(&beside.oid)]);
            }
            made.push(alice.make("garden", 1, attrs).unwrap());
        }
        let edited = made[0];
        let attrs = Attrs::from([(2, vec![Value::from(1)])]);
        alice.change("garden", 1, edited.oid, Some(attrs)).unwrap();
        bob.pull_everything(&alice);
        prop_assert_eq!(bob.rejects(), Vec::<String>::new());
        let key = alice.public_key_of(alice.identity).unwrap();
        for saved in made {
            let (object, signed) = alice.object("garden", saved.oid).unwrap();
            prop_assert_eq!(signed.bytes(), object.to_bytes());
            prop_assert!(signed.verify(&key).is_ok());
            prop_assert_eq!(bob.object("garden", saved.oid).unwrap(), (object, signed));
        }
    }
}
