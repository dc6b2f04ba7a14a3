//! Canonical CBOR (RFC 8949, section 4.2.1), and the scan that runs before every decoder.
//!
//! Only this module uses `serde_cbor`, because `serde_cbor` alone is too lenient for a hostile
//! network. `serde_cbor` accepts indefinite lengths, tags, non-minimal integers and duplicate keys,
//! and 1 MiB of empty maps can become 200 MB of values. [`scan`] refuses all of these without
//! allocating. Input: bytes and [`Limits`]. Output: a value, or [`Malformed`]. Invariant: a value
//! that [`decode`] accepts has exactly one encoding. Tested below, in `tests/all/rfc8949.rs`, and
//! by the fuzz target `scan`.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Size limits of one kind of message, checked before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest encoding, in bytes.
    pub bytes_max: usize,
    /// Deepest nesting of arrays and maps.
    pub depth_max: usize,
    /// Most data items in total: each key, value, element and container is one item.
    pub items_max: usize,
}

impl Limits {
    /// Returns the limits of a small message: at most `bytes_max` bytes, 256 items, depth 8.
    pub const fn small(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            depth_max: 8,
            items_max: 256,
        }
    }
}

/// Why bytes are not a canonical message of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end inside an item, or a declared length exceeds the bytes.
    #[error("truncated")]
    Truncated,
    /// Bytes follow the item.
    #[error("trailing bytes")]
    Trailing,
    /// Longer than [`Limits::bytes_max`]; has the length in bytes.
    #[error("too long: {0} bytes")]
    TooLong(usize),
    /// Nested deeper than [`Limits::depth_max`].
    #[error("nested too deep")]
    TooDeep,
    /// More items than [`Limits::items_max`].
    #[error("too many items")]
    TooManyItems,
    /// Well-formed CBOR, but not in the form of RFC 8949, section 4.2.1, or of a type that the
    /// protocol does not use.
    #[error("not canonical: {0}")]
    NotCanonical(&'static str),
    /// Canonical, but not the expected message: a field is missing, unknown or of another type.
    #[error("not the expected message: {0}")]
    Unexpected(String),
}

/// Highest integer: every integer fits SQLite's 64 bits with a sign. The lowest is -2^63.
const INTEGER_MAX: u64 = i64::MAX.unsigned_abs();

/// Encodes a value canonically.
///
/// The caller's types must declare their fields in RFC 8949 order (shorter key first, then
/// bytewise), and use no floats and no unsized sequences. No integer may be above 2^63 - 1. Debug
/// builds check it.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "writing to a Vec cannot fail, nor can the Serialize of this workspace's types"
    )]
    let bytes = serde_cbor::to_vec(value).expect("a value of a type of this workspace serialises");
    debug_assert_eq!(
        scan(&bytes, &UNBOUNDED),
        Ok(()),
        "the fields of a type are not declared in canonical order"
    );
    bytes
}

/// Limits for this node's own encodings, of which only the form is checked.
const UNBOUNDED: Limits = Limits {
    bytes_max: usize::MAX,
    depth_max: 64,
    items_max: usize::MAX,
};

/// Decodes a canonical encoding within `limits`.
///
/// Scans the bytes, decodes them, and checks that the value encodes to the same bytes. The last
/// check is needed because `serde_cbor` also accepts arrays and field numbers in place of a
/// struct's map.
///
/// ```
/// use keys::codec::{Limits, Malformed, decode, encode};
///
/// let bytes = encode(&(1u8, "text"));
/// assert_eq!(bytes, b"\x82\x01\x64text");
/// let value: (u8, String) = decode(&bytes, &Limits::small(64))?;
/// assert_eq!(value, (1, "text".to_owned()));
///
/// // The number 1 in two bytes has the same meaning, but is not the shortest form.
/// let longer = b"\x82\x18\x01\x64text";
/// assert_eq!(
///     decode::<(u8, String)>(longer, &Limits::small(64)),
///     Err(Malformed::NotCanonical("not the shortest form"))
/// );
/// # Ok::<(), Malformed>(())
/// ```
///
/// # Errors
/// [`Malformed`]. Errors do not quote the bytes.
pub fn decode<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    limits: &Limits,
) -> Result<T, Malformed> {
    scan(bytes, limits)?;
    let value =
        serde_cbor::from_slice(bytes).map_err(|error| Malformed::Unexpected(describe(&error)))?;
    if encode(&value) == bytes {
        Ok(value)
    } else {
        Err(Malformed::NotCanonical("another form of the same value"))
    }
}

/// Reduces serde's error to its category, because its text could quote bytes from a peer (the name
/// of an unknown field, a text value).
fn describe(error: &serde_cbor::Error) -> String {
    let text = error.to_string();
    let known = [
        "missing field",
        "unknown field",
        "invalid type",
        "invalid length",
        "unknown variant",
        "invalid value",
    ];
    known
        .iter()
        .find(|word| text.contains(**word))
        .unwrap_or(&"wrong shape")
        .to_string()
}

/// Checks that `bytes` are exactly one canonical item within `limits`. Allocates nothing.
///
/// # Errors
/// [`Malformed`], but not [`Malformed::Unexpected`].
pub fn scan(bytes: &[u8], limits: &Limits) -> Result<(), Malformed> {
    if bytes.len() > limits.bytes_max {
        return Err(Malformed::TooLong(bytes.len()));
    }
    let mut scanner = Scanner {
        rest: bytes,
        items_left: limits.items_max,
    };
    scanner.item(limits.depth_max)?;
    if scanner.rest.is_empty() {
        Ok(())
    } else {
        Err(Malformed::Trailing)
    }
}

struct Scanner<'a> {
    rest: &'a [u8],
    items_left: usize,
}

impl<'a> Scanner<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads an item's first byte and argument. Refuses any form but the shortest.
    fn head(&mut self) -> Result<(u8, u64), Malformed> {
        let first = *self.take(1)?.first().ok_or(Malformed::Truncated)?;
        let (major, info) = (first >> 5, first & 0x1f);
        let (width, least) = match info {
            0..=23 => return Ok((major, u64::from(info))),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            31 => return Err(Malformed::NotCanonical("indefinite length")),
            _ => return Err(Malformed::NotCanonical("reserved head")),
        };
        if major == 7 {
            return Err(Malformed::NotCanonical("float or unknown simple value"));
        }
        let argument = self
            .take(width)?
            .iter()
            .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        if argument < least {
            Err(Malformed::NotCanonical("not the shortest form"))
        } else {
            Ok((major, argument))
        }
    }

    fn item(&mut self, depth_left: usize) -> Result<(), Malformed> {
        self.items_left = self
            .items_left
            .checked_sub(1)
            .ok_or(Malformed::TooManyItems)?;
        let (major, argument) = self.head()?;
        let length = usize::try_from(argument).unwrap_or(usize::MAX);
        match major {
            0 | 1 if argument <= INTEGER_MAX => Ok(()),
            0 | 1 => Err(Malformed::NotCanonical("integer out of range")),
            2 => self.take(length).map(|_| ()),
            3 => match std::str::from_utf8(self.take(length)?) {
                Ok(_) => Ok(()),
                Err(_) => Err(Malformed::NotCanonical("text that is not UTF-8")),
            },
            4 => self.array(length, depth_left),
            5 => self.map(length, depth_left),
            6 => Err(Malformed::NotCanonical("tag")),
            _ if (20..=22).contains(&argument) => Ok(()),
            _ => Err(Malformed::NotCanonical("float or unknown simple value")),
        }
    }

    fn array(&mut self, length: usize, depth_left: usize) -> Result<(), Malformed> {
        let depth_left = depth_left.checked_sub(1).ok_or(Malformed::TooDeep)?;
        // Every element takes at least one byte, so a length beyond the rest is refused at once.
        if length > self.rest.len() {
            return Err(Malformed::Truncated);
        }
        (0..length).try_for_each(|_| self.item(depth_left))
    }

    fn map(&mut self, length: usize, depth_left: usize) -> Result<(), Malformed> {
        let depth_left = depth_left.checked_sub(1).ok_or(Malformed::TooDeep)?;
        if length > self.rest.len() / 2 {
            return Err(Malformed::Truncated);
        }
        let mut previous: &[u8] = &[];
        for _ in 0..length {
            let start = self.rest;
            if !matches!(start.first().map(|byte| byte >> 5), Some(0 | 3)) {
                return Err(Malformed::NotCanonical(
                    "a key that is neither text nor unsigned integer",
                ));
            }
            self.item(depth_left)?;
            let key = start
                .get(..start.len() - self.rest.len())
                .unwrap_or_default();
            // RFC 8949, section 4.2.1: keys in bytewise order of their encodings, without
            // duplicates.
            if key <= previous {
                return Err(Malformed::NotCanonical("unsorted or duplicate keys"));
            }
            previous = key;
            self.item(depth_left)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use serde::Deserialize;

    const LIMITS: Limits = Limits {
        bytes_max: 1024,
        depth_max: 4,
        items_max: 64,
    };

    fn check(hex: &str, expected: Result<(), Malformed>) {
        let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert_eq!(scan(&bytes, &LIMITS), expected, "{hex}");
    }

    // All examples of appendix A: keys/tests/all/rfc8949.rs.
    #[test]
    fn scan_refuses_valid_cbor_that_is_not_canonical() {
        use Malformed::NotCanonical;
        check("1817", Err(NotCanonical("not the shortest form")));
        check("190018", Err(NotCanonical("not the shortest form")));
        check("f90000", Err(NotCanonical("float or unknown simple value")));
        check(
            "fb3ff199999999999a",
            Err(NotCanonical("float or unknown simple value")),
        );
        check("f7", Err(NotCanonical("float or unknown simple value")));
        check(
            "c074323031332d30332d32315432303a30343a30305a",
            Err(NotCanonical("tag")),
        );
        check("9fff", Err(NotCanonical("indefinite length")));
        check("5f42010243030405ff", Err(NotCanonical("indefinite length")));
        check("bfff", Err(NotCanonical("indefinite length")));
        check(
            "a2616201616102",
            Err(NotCanonical("unsorted or duplicate keys")),
        );
        check(
            "a2616101616102",
            Err(NotCanonical("unsorted or duplicate keys")),
        );
        check(
            "a14101f4",
            Err(NotCanonical(
                "a key that is neither text nor unsigned integer",
            )),
        );
        check("61ff", Err(NotCanonical("text that is not UTF-8")));
        check(
            "3bffffffffffffffff",
            Err(NotCanonical("integer out of range")),
        );
        check("1c", Err(NotCanonical("reserved head")));
    }

    #[test]
    fn integers_are_64_bits_with_a_sign() {
        let beyond = || Err(Malformed::NotCanonical("integer out of range"));
        check("1b7fffffffffffffff", Ok(()));
        check("3b7fffffffffffffff", Ok(()));
        check("1b8000000000000000", beyond());
        check("1bffffffffffffffff", beyond());
        check("3b8000000000000000", beyond());
        // Elements and keys too; a length is no integer.
        check("811b8000000000000000", beyond());
        check("a11b7fffffffffffffff00", Ok(()));
        check("a11b800000000000000000", beyond());
        check("9b8000000000000000", Err(Malformed::Truncated));
    }

    #[test]
    fn items_and_depth_count_as_the_protocol_says() {
        // A map of three items beside itself: key, value that is an array, its element.
        let bytes = HEXLOWER.decode(b"a1018102").unwrap();
        let limits = |depth_max, items_max| Limits {
            bytes_max: 4,
            depth_max,
            items_max,
        };
        assert_eq!(scan(&bytes, &limits(2, 4)), Ok(()));
        assert_eq!(scan(&bytes, &limits(1, 4)), Err(Malformed::TooDeep));
        assert_eq!(scan(&bytes, &limits(2, 3)), Err(Malformed::TooManyItems));
        // A value that is neither array nor map has depth 0.
        assert_eq!(scan(b"\x01", &limits(0, 1)), Ok(()));
        assert_eq!(scan(b"\x80", &limits(0, 1)), Err(Malformed::TooDeep));
        assert_eq!(scan(b"\x80", &limits(1, 1)), Ok(()));
    }

    #[test]
    fn scan_refuses_truncation_excess_and_trailing_bytes() {
        check("", Err(Malformed::Truncated));
        check("5bffffffffffffffff", Err(Malformed::Truncated));
        check("9bffffffffffffffff", Err(Malformed::Truncated));
        check("bbffffffffffffffff", Err(Malformed::Truncated));
        check("0000", Err(Malformed::Trailing));
        check("8181818180", Err(Malformed::TooDeep));
        assert_eq!(scan(&[0; 2000], &LIMITS), Err(Malformed::TooLong(2000)));
        let mut many = vec![0x98, 100];
        many.extend([0; 100]);
        assert_eq!(scan(&many, &LIMITS), Err(Malformed::TooManyItems));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        id: u64,
        text: String,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        maybe: Option<i64>,
    }

    #[test]
    fn decode_errors_do_not_quote_the_message() {
        let bytes = encode(&std::collections::BTreeMap::from([("topsecret", 1)]));
        let error = decode::<Sample>(&bytes, &LIMITS).unwrap_err();
        assert_eq!(error, Malformed::Unexpected("unknown field".into()));
    }

    #[test]
    fn decode_refuses_an_array_in_place_of_a_struct() {
        let array = encode(&(1, "text", serde_bytes::Bytes::new(b"x"), 2));
        assert_eq!(
            decode::<Sample>(&array, &LIMITS),
            Err(Malformed::NotCanonical("another form of the same value"))
        );
    }

    proptest! {
        #[test]
        fn encoded_value_decodes_to_itself(
            id in 0..=INTEGER_MAX,
            text in ".{0,40}",
            bytes: Vec<u8>,
            maybe: Option<i64>,
        ) {
            let sample = Sample { id, text, bytes, maybe };
            let encoded = encode(&sample);
            let limits = Limits { bytes_max: 4096, ..LIMITS };
            prop_assert_eq!(decode::<Sample>(&encoded, &limits).unwrap(), sample);
        }

        #[test]
        fn decode_never_panics_and_scan_refuses_every_truncation(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let wide = Limits { bytes_max: 1024, depth_max: 16, items_max: 1024 };
            if scan(&bytes, &wide).is_ok() {
                for cut in 0..bytes.len() {
                    prop_assert!(scan(&bytes[..cut], &wide).is_err());
                }
            }
            let _ = decode::<Sample>(&bytes, &wide);
        }
    }
}
