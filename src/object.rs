//! Objects: a Parent with all its Attrs, as plain values and as the bytes that travel.
//!
//! The bytes are canonical CBOR `[app, type, oid, owner, rev, attrs]`. They are self-contained, and
//! the owner signs them. This module uses no database and no schema. Invariant: `from_bytes(b)`
//! succeeds only if `to_bytes` of the result returns `b`. So the store keeps rows only, and
//! rebuilds the signed bytes.

use std::collections::BTreeMap;
use std::fmt;

use keys::protocol::{OBJECT_ATTRS_MAX, OBJECT_BYTES_MAX};
use keys::{Limits, Malformed, Oid, codec};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The value of one Attr. References and identity oids have 16 bytes; the schema defines the kind.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, or JSON text.
    Text(String),
    /// A signed integer.
    Integer(i64),
    /// Bytes, a reference or the oid of an identity.
    Bytes(Vec<u8>),
}

impl fmt::Debug for Value {
    /// Prints the kind and the size only, because values are private content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "text of {} bytes", text.len()),
            Self::Integer(_) => f.write_str("integer"),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl Value {
    /// The oid, if the value has 16 bytes.
    pub fn as_oid(&self) -> Option<Oid> {
        match self {
            Self::Bytes(bytes) => Oid::from_slice(bytes),
            _ => None,
        }
    }

    /// The text, if the value is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if the value is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The bytes, if the value is bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

impl From<&Oid> for Value {
    fn from(oid: &Oid) -> Self {
        Self::Bytes(oid.as_bytes().to_vec())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// The Attrs of an object: attribute number to its values, in order of their ordinals.
pub type Attrs = BTreeMap<u16, Vec<Value>>;

/// A Parent with all its Attrs: the unit of stamping, signing, selecting, waiting and rejecting
/// (docs/DECISIONS.md 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Slug of its app.
    pub app: String,
    /// Number of its type in the schema.
    pub type_number: u16,
    /// Its global id.
    pub oid: Oid,
    /// The identity that owns it. An identity owns itself.
    pub owner: Oid,
    /// Revision, raised by the owner at each change. The higher one is in force.
    pub rev: u64,
    /// Its values. `None` if it was deleted.
    pub attrs: Option<Attrs>,
}

/// Limits of one object, checked while decoding. The defaults are those of the protocol; tests set
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLimits {
    /// Longest object, in bytes of CBOR.
    pub bytes_max: usize,
    /// Most Attrs in one object.
    pub attrs_max: usize,
}

impl Default for ObjectLimits {
    fn default() -> Self {
        Self {
            bytes_max: OBJECT_BYTES_MAX,
            attrs_max: OBJECT_ATTRS_MAX,
        }
    }
}

impl Object {
    /// The canonical bytes, which are signed and sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&(
            &self.app,
            self.type_number,
            self.oid,
            self.owner,
            self.rev,
            self.attrs.as_ref().map(AttrsRef),
        ))
    }

    /// Decodes canonical bytes.
    ///
    /// # Errors
    /// The bytes are not canonical, are not an object, or exceed a limit.
    pub fn from_bytes(bytes: &[u8], limits: &ObjectLimits) -> Result<Self, Malformed> {
        let (attrs_max, items_max) = (limits.attrs_max, 8 + 3 * limits.attrs_max);
        let limits = Limits {
            bytes_max: limits.bytes_max,
            depth_max: 3,
            items_max,
        };
        let ObjectWire(app, type_number, oid, owner, rev, attrs) = codec::decode(bytes, &limits)?;
        if rev > i64::MAX as u64 {
            return Err(Malformed::Unexpected(
                "a revision of more than 63 bits".into(),
            ));
        }
        let attrs = attrs.map(|attrs| {
            attrs
                .into_iter()
                .map(|(number, Values(values))| (number, values))
                .collect()
        });
        let object = Self {
            app,
            type_number,
            oid,
            owner,
            rev,
            attrs,
        };
        if object.attrs_count() > attrs_max {
            Err(Malformed::TooManyItems)
        } else {
            Ok(object)
        }
    }

    /// The number of its Attrs.
    pub fn attrs_count(&self) -> usize {
        self.attrs
            .iter()
            .flat_map(BTreeMap::values)
            .map(Vec::len)
            .sum()
    }

    /// Whether its owner deleted it.
    pub fn is_deleted(&self) -> bool {
        self.attrs.is_none()
    }

    /// The first value of an attribute, if there is one.
    pub fn first(&self, attr: u16) -> Option<&Value> {
        self.all(attr).first()
    }

    /// All values of an attribute, in order.
    pub fn all(&self, attr: u16) -> &[Value] {
        self.attrs
            .as_ref()
            .and_then(|attrs| attrs.get(&attr))
            .map_or(&[], Vec::as_slice)
    }
}

#[derive(Serialize, Deserialize)]
struct ObjectWire(String, u16, Oid, Oid, u64, Option<BTreeMap<u16, Values>>);

struct AttrsRef<'a>(&'a Attrs);

impl Serialize for AttrsRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .iter()
                .map(|(number, values)| (number, ValuesRef(values))),
        )
    }
}

/// One value is encoded without an array, several as an array. Most attributes have one value, so
/// this saves bytes.
struct Values(Vec<Value>);

struct ValuesRef<'a>(&'a [Value]);

impl Serialize for ValuesRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [value] = self.0 {
            return value.serialize(serializer);
        }
        let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
        self.0
            .iter()
            .try_for_each(|value| sequence.serialize_element(value))?;
        sequence.end()
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ValuesRef(&self.0).serialize(serializer)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Integer(number) => serializer.serialize_i64(*number),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

struct AnyValue;

impl Visitor<'_> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, an integer or bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number)
            .map(Value::Integer)
            .map_err(|_| E::custom("invalid value"))
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or an array of values")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Values, E> {
        AnyValue.visit_str(text).map(|value| Values(vec![value]))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Values, E> {
        AnyValue.visit_i64(number).map(|value| Values(vec![value]))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Values, E> {
        AnyValue.visit_u64(number).map(|value| Values(vec![value]))
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Values, E> {
        AnyValue.visit_bytes(bytes).map(|value| Values(vec![value]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Values, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element()? {
            values.push(value);
        }
        if values.is_empty() {
            Err(A::Error::custom("invalid length"))
        } else {
            Ok(Values(values))
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMany)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(attrs: Option<Attrs>) -> Object {
        let (oid, owner) = (Oid::from_bytes([1; 16]), Oid::from_bytes([2; 16]));
        Object {
            app: "messages".into(),
            type_number: 2,
            oid,
            owner,
            rev: 1,
            attrs,
        }
    }

    #[test]
    fn message_encodes_with_29_bytes_of_overhead() {
        let conversation = Oid::from_bytes([3; 16]);
        let attrs = Attrs::from([
            (1, vec![Value::from(&conversation)]),
            (2, vec![Value::from("Hi")]),
            (3, vec![Value::from(1_700_000_000_000)]),
        ]);
        let bytes = object(Some(attrs)).to_bytes();
        // Oid, owner and conversation (16 bytes each), the body (2), and 29 bytes of encoding.
        assert_eq!(bytes.len(), 3 * 16 + 2 + 29);
    }

    #[test]
    fn deleted_object_round_trips_without_values() {
        let deleted = object(None);
        assert_eq!(
            Object::from_bytes(&deleted.to_bytes(), &ObjectLimits::default()).unwrap(),
            deleted
        );
    }

    #[test]
    fn refuses_an_array_of_one_value_as_not_canonical() {
        let one = codec::encode(&(
            "messages",
            2,
            Oid::from_bytes([1; 16]),
            Oid::from_bytes([2; 16]),
            1,
            BTreeMap::from([(1, vec![5])]),
        ));
        assert!(matches!(
            Object::from_bytes(&one, &ObjectLimits::default()),
            Err(Malformed::NotCanonical(_))
        ));
    }

    #[test]
    fn refuses_objects_beyond_the_limits() {
        let many = object(Some(Attrs::from([(1, vec![Value::Integer(0); 300])])));
        let limits = ObjectLimits {
            bytes_max: 1024,
            attrs_max: 8,
        };
        assert_eq!(
            Object::from_bytes(&many.to_bytes(), &limits),
            Err(Malformed::TooManyItems)
        );
        let long = object(Some(Attrs::from([(1, vec![Value::Bytes(vec![0; 2000])])])));
        assert!(matches!(
            Object::from_bytes(&long.to_bytes(), &limits),
            Err(Malformed::TooLong(_))
        ));
    }

    #[test]
    fn debug_output_redacts_values() {
        let secret = object(Some(Attrs::from([(2, vec![Value::from("hush")])])));
        assert!(!format!("{secret:?}").contains("hush"));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".{0,20}".prop_map(Value::Text),
            any::<i64>().prop_map(Value::Integer),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        ]
    }

    proptest! {
        #[test]
        fn objects_round_trip_through_bytes(
            rev in 0..=i64::MAX as u64,
            type_number: u16,
            attrs in proptest::option::of(proptest::collection::btree_map(
                any::<u16>(),
                proptest::collection::vec(any_value(), 1..4),
                0..8,
            )),
        ) {
            let object = Object { rev, type_number, ..object(attrs) };
            let bytes = object.to_bytes();
            let back = Object::from_bytes(&bytes, &ObjectLimits::default()).unwrap();
            prop_assert_eq!(&back, &object);
            prop_assert_eq!(back.to_bytes(), bytes);
        }

        #[test]
        fn decoding_arbitrary_bytes_does_not_panic(bytes: Vec<u8>) {
            let _ = Object::from_bytes(&bytes, &ObjectLimits::default());
        }
    }
}
