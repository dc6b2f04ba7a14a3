//! Values of Attrs, and their form in CBOR.

use std::collections::BTreeMap;
use std::fmt;

use keys::Oid;
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

/// Attrs as they are encoded.
pub(super) struct AttrsRef<'a>(pub(super) &'a Attrs);

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
pub(super) struct Values(pub(super) Vec<Value>);

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
