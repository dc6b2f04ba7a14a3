//! Checks the values of an object against the schema of its type.
//!
//! Pure. Errors contain no values, because values are private content. Invariant: values that pass
//! have only known attributes, in the allowed number, of the right kind and within their length.

use std::collections::BTreeSet;

use serde::de::IgnoredAny;

use super::types::{AttrSchema, Kind, TypeSchema};
use crate::object::{Attrs, Value};

/// How an object violates its schema. Its author is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaViolation {
    /// The object has an attribute that the type does not have.
    #[error("there is no attribute {0}")]
    UnknownAttr(u16),
    /// An attribute has too few or too many values.
    #[error("attribute {attr} has {count} values, but {min} to {max} are allowed")]
    Count {
        /// The attribute's name.
        attr: String,
        /// Number of values in the object.
        count: usize,
        /// Fewest values allowed.
        min: u32,
        /// Most values allowed.
        max: u32,
    },
    /// A value has the wrong kind.
    #[error("attribute {attr} must be {expected}")]
    Kind {
        /// The attribute's name.
        attr: String,
        /// The expected kind, in words.
        expected: &'static str,
    },
    /// A value is too long.
    #[error("attribute {attr} has {bytes} bytes, but at most {bytes_max} are allowed")]
    TooLong {
        /// The attribute's name.
        attr: String,
        /// Length of the value in bytes.
        bytes: usize,
        /// Longest value allowed, in bytes.
        bytes_max: u32,
    },
    /// An attribute contains the same reference or identity twice.
    #[error("attribute {attr} names the same oid twice")]
    Repeated {
        /// The attribute's name.
        attr: String,
    },
}

impl TypeSchema {
    /// Checks the values of an object that is not deleted, in time proportional to its bytes.
    ///
    /// # Errors
    /// The first violation, in order of the attributes.
    pub fn check(&self, attrs: &Attrs) -> Result<(), SchemaViolation> {
        if let Some(unknown) = attrs.keys().find(|number| self.attr(**number).is_none()) {
            return Err(SchemaViolation::UnknownAttr(*unknown));
        }
        self.attrs
            .iter()
            .try_for_each(|attr| attr.check(attrs.get(&attr.number).map_or(&[], Vec::as_slice)))
    }
}

impl AttrSchema {
    /// Checks the values of this attribute in one object.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(&self, values: &[Value]) -> Result<(), SchemaViolation> {
        let attr = || self.name.clone();
        let (count, min, max) = (values.len(), self.min, self.max);
        if count < min as usize || count > max as usize {
            return Err(SchemaViolation::Count {
                attr: attr(),
                count,
                min,
                max,
            });
        }
        values
            .iter()
            .try_for_each(|value| self.check_value(value))?;
        if matches!(self.kind, Kind::Parent { .. } | Kind::Identity) {
            let distinct: BTreeSet<_> = values.iter().filter_map(Value::as_oid).collect();
            if distinct.len() < count {
                return Err(SchemaViolation::Repeated { attr: attr() });
            }
        }
        Ok(())
    }

    fn check_value(&self, value: &Value) -> Result<(), SchemaViolation> {
        let bytes = match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Integer(_) => 8,
        };
        let (fits, expected) = match self.kind {
            Kind::Text => (matches!(value, Value::Text(_)), "text"),
            Kind::Integer => (matches!(value, Value::Integer(_)), "an integer"),
            Kind::Bytes => (matches!(value, Value::Bytes(_)), "bytes"),
            // A JSON text that is too long is refused without parsing it.
            Kind::Json if bytes > self.bytes_max as usize => {
                (matches!(value, Value::Text(_)), "JSON text")
            }
            Kind::Json => (value.as_text().is_some_and(is_json), "JSON text"),
            Kind::Parent { .. } => (value.as_oid().is_some(), "an object's oid of 16 bytes"),
            Kind::Identity => (value.as_oid().is_some(), "an identity's oid of 16 bytes"),
        };
        let (attr, bytes_max) = (self.name.clone(), self.bytes_max);
        if !fits {
            Err(SchemaViolation::Kind { attr, expected })
        } else if bytes > bytes_max as usize {
            Err(SchemaViolation::TooLong {
                attr,
                bytes,
                bytes_max,
            })
        } else {
            Ok(())
        }
    }
}

/// Parses and discards the text. `serde_json` limits the depth to 128.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Visibility;

    fn attr(number: u16, kind: Kind, (min, max): (u32, u32), bytes_max: u32) -> AttrSchema {
        let name = format!("a{number}");
        AttrSchema {
            number,
            name,
            renamed_from: None,
            kind,
            min,
            max,
            bytes_max,
        }
    }

    fn sample() -> TypeSchema {
        TypeSchema {
            number: 1,
            name: "sample.one".into(),
            visibility: Visibility::Public,
            attrs: vec![
                attr(1, Kind::Text, (1, 1), 4),
                attr(2, Kind::Integer, (0, 2), 8),
                attr(3, Kind::Json, (0, 1), 10),
                attr(4, Kind::Bytes, (0, 1), 4),
                attr(5, Kind::Identity, (0, 3), 16),
                attr(7, Kind::Parent { type_number: 1 }, (0, 1), 16),
            ],
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    fn oid(byte: u8) -> Value {
        Value::Bytes(vec![byte; 16])
    }

    /// Checks an object with a valid attribute 1 and the given values of attribute `number`.
    fn check(number: u16, values: Vec<Value>) -> Result<(), String> {
        let attrs = Attrs::from([(1, vec![text("abcd")]), (number, values)]);
        sample()
            .check(&attrs)
            .map_err(|violation| violation.to_string())
    }

    #[test]
    fn accepts_values_matching_the_schema() {
        check(2, vec![]).unwrap();
        check(2, vec![Value::Integer(i64::MIN), Value::Integer(1)]).unwrap();
        check(3, vec![text("{\"a\":[1]}")]).unwrap();
        check(4, vec![Value::Bytes(vec![0; 4])]).unwrap();
        check(5, vec![oid(1), oid(2), oid(3)]).unwrap();
        check(7, vec![oid(1)]).unwrap();
    }

    #[test]
    fn reports_each_mismatching_field() {
        let refused = |number, values, expected: &str| {
            assert_eq!(check(number, values).unwrap_err(), expected)
        };
        refused(6, vec![text("x")], "there is no attribute 6");
        refused(
            1,
            vec![],
            "attribute a1 has 0 values, but 1 to 1 are allowed",
        );
        refused(
            1,
            vec![text("a"), text("b")],
            "attribute a1 has 2 values, but 1 to 1 are allowed",
        );
        refused(1, vec![Value::Integer(1)], "attribute a1 must be text");
        refused(
            1,
            vec![text("grün")],
            "attribute a1 has 5 bytes, but at most 4 are allowed",
        );
        refused(2, vec![text("1")], "attribute a2 must be an integer");
        refused(3, vec![text("{")], "attribute a3 must be JSON text");
        refused(
            3,
            vec![text("[1,2,3,4,5]")],
            "attribute a3 has 11 bytes, but at most 10 are allowed",
        );
        refused(4, vec![text("x")], "attribute a4 must be bytes");
        refused(
            4,
            vec![Value::Bytes(vec![0; 5])],
            "attribute a4 has 5 bytes, but at most 4 are allowed",
        );
        refused(
            5,
            vec![Value::Bytes(vec![0; 15])],
            "attribute a5 must be an identity's oid of 16 bytes",
        );
        refused(
            5,
            vec![oid(1), oid(1)],
            "attribute a5 names the same oid twice",
        );
        refused(
            7,
            vec![text("x")],
            "attribute a7 must be an object's oid of 16 bytes",
        );
        assert!(sample().check(&Attrs::new()).is_err());
    }
}
