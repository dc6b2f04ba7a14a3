//! Objects: a Parent with all its Attrs, as plain values and as the byte string that travels.
//!
//! The bytes are canonical CBOR `[app, type, oid, owner, rev, attrs]`, need nothing around them, and are what the
//! owner signs. Never touches a database or a schema. Invariant: `from_bytes(b)` succeeds only where
//! `to_bytes` gives back exactly `b`, so rows can be stored once and the signed bytes made again.

use std::collections::BTreeMap;
use std::fmt;

use keys::protocol::{OBJECT_ATTRS_MAX, OBJECT_BYTES_MAX};
use keys::{Limits, Malformed, Oid, codec};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The value of one Attr. References to Parents and identity oids are 16 bytes; the schema tells kinds apart.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, or JSON text.
    Text(String),
    /// A signed integer.
    Integer(i64),
    /// Bytes, a reference or an identity oid.
    Bytes(Vec<u8>),
}

impl fmt::Debug for Value {
    /// Says the kind and the size only: values are people's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "text of {} bytes", text.len()),
            Self::Integer(_) => f.write_str("integer"),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl Value {
    /// The oid, where the value is 16 bytes.
    pub fn as_oid(&self) -> Option<Oid> {
        match self {
            Self::Bytes(bytes) => Oid::from_slice(bytes),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, where it is one.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The bytes, where it is bytes.
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

/// An object's Attrs: attribute number to its values in order (the ordinal is the place).
pub type Attrs = BTreeMap<u16, Vec<Value>>;

/// A Parent with all its Attrs. The unit of stamping, signing, filtering, parking and rejecting (docs/DECISIONS.md 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Slug of its app.
    pub app: String,
    /// The schema's number of its type.
    pub type_number: u16,
    /// Its global name.
    pub oid: Oid,
    /// The identity that owns it; of an identity, itself.
    pub owner: Oid,
    /// Raised by the owner at each change. Higher wins.
    pub rev: u64,
    /// Its values; `None` once it was deleted.
    pub attrs: Option<Attrs>,
}

/// Limits of one object, checked before decoding. The defaults are the protocol's; tests set others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLimits {
    /// Longest object, in bytes of CBOR.
    pub bytes_max: usize,
    /// Most Attrs of one object.
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
    /// The canonical bytes, as signed and sent.
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

    /// Reads an object from its canonical bytes.
    pub fn from_bytes(bytes: &[u8], limits: &ObjectLimits) -> Result<Self, Malformed> {
        let (attrs_max, items_max) = (limits.attrs_max, 8 + 3 * limits.attrs_max);
        let limits = Limits {
            bytes_max: limits.bytes_max,
            depth_max: 3,
            items_max,
        };
        let Wire(app, type_number, oid, owner, rev, attrs) = codec::decode(bytes, &limits)?;
        if rev > i64::MAX as u64 {
            return Err(Malformed::Unexpected("a revision beyond 63 bits".into()));
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

    /// How many Attrs it has.
    pub fn attrs_count(&self) -> usize {
        self.attrs
            .iter()
            .flat_map(BTreeMap::values)
            .map(Vec::len)
            .sum()
    }

    /// Whether the owner has deleted it.
    pub fn is_deleted(&self) -> bool {
        self.attrs.is_none()
    }

    /// The first value of an attribute.
    pub fn first(&self, attr: u16) -> Option<&Value> {
        self.all(attr).first()
    }

    /// All values of an attribute.
    pub fn all(&self, attr: u16) -> &[Value] {
        self.attrs
            .as_ref()
            .and_then(|attrs| attrs.get(&attr))
            .map_or(&[], Vec::as_slice)
    }
}

#[derive(Serialize, Deserialize)]
struct Wire(String, u16, Oid, Oid, u64, Option<BTreeMap<u16, Values>>);

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

/// One value stands bare, several as an array: most attributes have one, and a byte is a byte.
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
    fn a_message_costs_few_bytes_beyond_what_it_says() {
        let conversation = Oid::from_bytes([3; 16]);
        let attrs = Attrs::from([
            (1, vec![Value::from(&conversation)]),
            (2, vec![Value::from("Hi")]),
            (3, vec![Value::from(1_700_000_000_000)]),
        ]);
        let bytes = object(Some(attrs)).to_bytes();
        // Its own oid, owner, conversation (16 each) and the body (2), and 29 bytes of form.
        assert_eq!(bytes.len(), 3 * 16 + 2 + 29);
    }

    #[test]
    fn a_deleted_object_has_no_values() {
        let deleted = object(None);
        assert_eq!(
            Object::from_bytes(&deleted.to_bytes(), &ObjectLimits::default()).unwrap(),
            deleted
        );
    }

    #[test]
    fn an_array_of_one_value_is_another_form_and_refused() {
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
    fn limits_hold() {
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
    fn debug_does_not_show_what_people_wrote() {
        let said = object(Some(Attrs::from([(2, vec![Value::from("hush")])])));
        assert!(!format!("{said:?}").contains("hush"));
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
        fn bytes_and_objects_stand_for_each_other(
            rev in 0..=i64::MAX as u64,
            type_number: u16,
            attrs in proptest::option::of(proptest::collection::btree_map(any::<u16>(), proptest::collection::vec(any_value(), 1..4), 0..8)),
        ) {
            let object = Object { rev, type_number, ..object(attrs) };
            let bytes = object.to_bytes();
            let back = Object::from_bytes(&bytes, &ObjectLimits::default()).unwrap();
            prop_assert_eq!(&back, &object);
            prop_assert_eq!(back.to_bytes(), bytes);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Object::from_bytes(&bytes, &ObjectLimits::default());
        }
    }
}
