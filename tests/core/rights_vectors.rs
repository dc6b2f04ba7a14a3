//! Reproduces the vectors of `tests/vectors/rights.json`, which another implementation made.

use std::fs;
use std::path::Path;

use keys::protocol::RIGHTS_TYPE;
use keys::{Digest, Oid};
use postern::object::{
    CoreRecord, Object, ObjectLimits, OidParts, Place, Rights, RightsList, ScopeList,
};
use serde_json::Value;

fn bytes(hex: &Value) -> Vec<u8> {
    let digits = hex.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn oid(hex: &Value) -> Oid {
    Oid::from_bytes(bytes(hex).try_into().unwrap())
}

fn digest(hex: &Value) -> Digest {
    Digest::from_bytes(bytes(hex).try_into().unwrap())
}

fn array<'v>(vector: &'v Value, name: &str) -> std::slice::Iter<'v, Value> {
    vector[name].as_array().unwrap().iter()
}

/// The list of a vector, in its scope.
fn list(vector: &Value) -> ScopeList {
    let rights = |bits: &Value| Rights::from_bits(bits.as_u64().unwrap() as u8).unwrap();
    let entries: RightsList = array(vector, "entries")
        .map(|entry| (oid(&entry[0]), rights(&entry[1])))
        .collect();
    ScopeList {
        scope: oid(&vector["scope"]),
        version: vector["version"].as_u64().unwrap(),
        list: entries,
        merges: array(vector, "merges").map(digest).collect(),
    }
}

#[test]
fn rights_lists_match_the_vectors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/rights.json");
    let all: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 6);
    for vector in all {
        let (list, owner) = (list(vector), oid(&vector["owner"]));
        let parts = OidParts {
            owner: &owner,
            app: vector["app"].as_str().unwrap(),
            type_number: RIGHTS_TYPE,
            place: &Place::In(list.scope),
        };
        let salt = bytes(&vector["salt"]).try_into().unwrap();
        let replaces = &vector["replaces"];
        let object = Object {
            rights: (!replaces.is_null()).then(|| digest(replaces)),
            attrs: Some(list.attrs()),
            ..Object::create(&parts, vector["at_ms"].as_u64().unwrap(), salt)
        };
        assert_eq!(object.oid, oid(&vector["oid"]));
        assert_eq!(list.digest(), digest(&vector["digest"]));
        assert_eq!(object.to_bytes(), bytes(&vector["object"]));
        let read = Object::from_bytes(&object.to_bytes(), &ObjectLimits::default()).unwrap();
        let record = CoreRecord::read(&read).unwrap();
        assert_eq!(record, Ok(CoreRecord::Rights(list)));
    }
}
