//! All examples of RFC 8949, appendix A, against `keys::codec`.
//!
//! An example is accepted if it is the canonical form of a type that the protocol uses. Otherwise
//! it is refused for the reason in the table.
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may fail like the tests themselves"
)]

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use keys::codec::{decode, encode, scan};
use keys::{Limits, Malformed};

const LIMITS: Limits = Limits {
    bytes_max: 64,
    depth_max: 3,
    items_max: 32,
};

// Reasons why an example is refused.
const BIG: &str = "integer out of range";
const SIMPLE: &str = "float or unknown simple value";
const TAG: &str = "tag";
const OPEN: &str = "indefinite length";

/// The appendix's table in its order: diagnostic notation, encoding, reason of refusal.
///
/// RFC 7049 also had simple(24), which RFC 8949 forbids.
const APPENDIX_A: &[(&str, &str, Option<&str>)] = &[
    ("0", "00", None),
    ("1", "01", None),
    ("10", "0a", None),
    ("23", "17", None),
    ("24", "1818", None),
    ("25", "1819", None),
    ("100", "1864", None),
    ("1000", "1903e8", None),
    ("1000000", "1a000f4240", None),
    ("1000000000000", "1b000000e8d4a51000", None),
    ("18446744073709551615", "1bffffffffffffffff", Some(BIG)),
    ("18446744073709551616", "c249010000000000000000", Some(TAG)),
    ("-18446744073709551616", "3bffffffffffffffff", Some(BIG)),
    ("-18446744073709551617", "c349010000000000000000", Some(TAG)),
    ("-1", "20", None),
    ("-10", "29", None),
    ("-100", "3863", None),
    ("-1000", "3903e7", None),
    ("0.0", "f90000", Some(SIMPLE)),
    ("-0.0", "f98000", Some(SIMPLE)),
    ("1.0", "f93c00", Some(SIMPLE)),
    ("1.1", "fb3ff199999999999a", Some(SIMPLE)),
    ("1.5", "f93e00", Some(SIMPLE)),
    ("65504.0", "f97bff", Some(SIMPLE)),
    ("100000.0", "fa47c35000", Some(SIMPLE)),
    ("3.4028234663852886e+38", "fa7f7fffff", Some(SIMPLE)),
    ("1.0e+300", "fb7e37e43c8800759c", Some(SIMPLE)),
    ("5.960464477539063e-8", "f90001", Some(SIMPLE)),
    ("0.00006103515625", "f90400", Some(SIMPLE)),
    ("-4.0", "f9c400", Some(SIMPLE)),
    ("-4.1", "fbc010666666666666", Some(SIMPLE)),
    ("Infinity", "f97c00", Some(SIMPLE)),
    ("NaN", "f97e00", Some(SIMPLE)),
    ("-Infinity", "f9fc00", Some(SIMPLE)),
    ("Infinity", "fa7f800000", Some(SIMPLE)),
    ("NaN", "fa7fc00000", Some(SIMPLE)),
    ("-Infinity", "faff800000", Some(SIMPLE)),
    ("Infinity", "fb7ff0000000000000", Some(SIMPLE)),
    ("NaN", "fb7ff8000000000000", Some(SIMPLE)),
    ("-Infinity", "fbfff0000000000000", Some(SIMPLE)),
    ("false", "f4", None),
    ("true", "f5", None),
    ("null", "f6", None),
    ("undefined", "f7", Some(SIMPLE)),
    ("simple(16)", "f0", Some(SIMPLE)),
    ("simple(255)", "f8ff", Some(SIMPLE)),
    (
        "0(\"2013-03-21T20:04:00Z\")",
        "c074323031332d30332d32315432303a30343a30305a",
        Some(TAG),
    ),
    ("1(1363896240)", "c11a514b67b0", Some(TAG)),
    ("1(1363896240.5)", "c1fb41d452d9ec200000", Some(TAG)),
    ("23(h'01020304')", "d74401020304", Some(TAG)),
    ("24(h'6449455446')", "d818456449455446", Some(TAG)),
    (
        "32(\"http://www.example.com\")",
        "d82076687474703a2f2f7777772e6578616d706c652e636f6d",
        Some(TAG),
    ),
    ("h''", "40", None),
    ("h'01020304'", "4401020304", None),
    ("\"\"", "60", None),
    ("\"a\"", "6161", None),
    ("\"IETF\"", "6449455446", None),
    ("\"\\\"\\\\\"", "62225c", None),
    ("\"\\u00fc\"", "62c3bc", None),
    ("\"\\u6c34\"", "63e6b0b4", None),
    ("\"\\ud800\\udd51\"", "64f0908591", None),
    ("[]", "80", None),
    ("[1, 2, 3]", "83010203", None),
    ("[1, [2, 3], [4, 5]]", "8301820203820405", None),
    (
        "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, \
         25]",
        "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
        None,
    ),
    ("{}", "a0", None),
    ("{1: 2, 3: 4}", "a201020304", None),
    ("{\"a\": 1, \"b\": [2, 3]}", "a26161016162820203", None),
    ("[\"a\", {\"b\": \"c\"}]", "826161a161626163", None),
    (
        "{\"a\": \"A\", \"b\": \"B\", \"c\": \"C\", \"d\": \"D\", \"e\": \"E\"}",
        "a56161614161626142616361436164614461656145",
        None,
    ),
    ("(_ h'0102', h'030405')", "5f42010243030405ff", Some(OPEN)),
    (
        "(_ \"strea\", \"ming\")",
        "7f657374726561646d696e67ff",
        Some(OPEN),
    ),
    ("[_ ]", "9fff", Some(OPEN)),
    (
        "[_ 1, [2, 3], [_ 4, 5]]",
        "9f018202039f0405ffff",
        Some(OPEN),
    ),
    ("[_ 1, [2, 3], [4, 5]]", "9f01820203820405ff", Some(OPEN)),
    ("[1, [2, 3], [_ 4, 5]]", "83018202039f0405ff", Some(OPEN)),
    ("[1, [_ 2, 3], [4, 5]]", "83019f0203ff820405", Some(OPEN)),
    (
        "[_ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, \
         25]",
        "9f0102030405060708090a0b0c0d0e0f101112131415161718181819ff",
        Some(OPEN),
    ),
    (
        "{_ \"a\": 1, \"b\": [_ 2, 3]}",
        "bf61610161629f0203ffff",
        Some(OPEN),
    ),
    (
        "[\"a\", {_ \"b\": \"c\"}]",
        "826161bf61626163ff",
        Some(OPEN),
    ),
    (
        "{_ \"Fun\": true, \"Amt\": -2}",
        "bf6346756ef563416d7421ff",
        Some(OPEN),
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER.decode(hex.as_bytes()).unwrap()
}

#[test]
fn scan_accepts_or_refuses_every_example_for_its_reason() {
    for (notation, hex, reason) in APPENDIX_A {
        let expected = match reason {
            None => Ok(()),
            Some(reason) => Err(Malformed::NotCanonical(reason)),
        };
        assert_eq!(scan(&bytes(hex), &LIMITS), expected, "{notation}: {hex}");
    }
    let accepted = APPENDIX_A
        .iter()
        .filter(|(_, _, reason)| reason.is_none())
        .count();
    assert_eq!((APPENDIX_A.len(), accepted), (81, 35));
}

#[test]
fn scan_refuses_truncation_and_trailing_bytes_of_accepted_examples() {
    for (notation, hex, _) in APPENDIX_A.iter().filter(|(_, _, reason)| reason.is_none()) {
        let bytes = bytes(hex);
        for length in 0..bytes.len() {
            assert!(
                scan(&bytes[..length], &LIMITS).is_err(),
                "{notation} cut to {length}"
            );
        }
        assert_eq!(
            scan(&[&bytes[..], &[0]].concat(), &LIMITS),
            Err(Malformed::Trailing),
            "{notation}"
        );
    }
}

/// Decodes the example with this notation, and checks that the value encodes to the same bytes.
fn decoded<T: serde::Serialize + serde::de::DeserializeOwned>(notation: &str) -> T {
    let (_, hex, _) = APPENDIX_A.iter().find(|(it, ..)| *it == notation).unwrap();
    let value = decode(&bytes(hex), &LIMITS).unwrap();
    assert_eq!(HEXLOWER.encode(&encode(&value)), *hex);
    value
}

#[test]
fn accepted_cbor_matches_its_diagnostic_notation() {
    let text = |one: &str| one.to_owned();
    for (notation, ..) in APPENDIX_A.iter().filter(|(_, _, reason)| reason.is_none()) {
        if let Ok(number) = notation.parse::<u64>() {
            assert_eq!(decoded::<u64>(notation), number);
        } else if let Ok(number) = notation.parse::<i64>() {
            assert_eq!(decoded::<i64>(notation), number);
        }
    }
    assert!(!decoded::<bool>("false") && decoded::<bool>("true"));
    assert_eq!(decoded::<Option<u8>>("null"), None);
    assert_eq!(decoded::<serde_bytes::ByteBuf>("h''").into_vec(), b"");
    assert_eq!(
        decoded::<serde_bytes::ByteBuf>("h'01020304'").into_vec(),
        [1, 2, 3, 4]
    );
    for (notation, expected) in [
        ("\"\"", ""),
        ("\"a\"", "a"),
        ("\"IETF\"", "IETF"),
        ("\"\\\"\\\\\"", "\"\\"),
        ("\"\\u00fc\"", "\u{fc}"),
        ("\"\\u6c34\"", "\u{6c34}"),
        ("\"\\ud800\\udd51\"", "\u{10151}"),
    ] {
        assert_eq!(decoded::<String>(notation), expected);
    }
    assert_eq!(decoded::<Vec<u8>>("[]"), Vec::<u8>::new());
    assert_eq!(decoded::<Vec<u8>>("[1, 2, 3]"), [1, 2, 3]);
    assert_eq!(
        decoded::<(u8, Vec<u8>, Vec<u8>)>("[1, [2, 3], [4, 5]]"),
        (1, vec![2, 3], vec![4, 5])
    );
    let long: Vec<u8> = (1..=25).collect();
    assert_eq!(decoded::<Vec<u8>>(&format!("{long:?}")), long);
    assert_eq!(decoded::<BTreeMap<u8, u8>>("{}"), BTreeMap::new());
    assert_eq!(
        decoded::<BTreeMap<u8, u8>>("{1: 2, 3: 4}"),
        BTreeMap::from([(1, 2), (3, 4)])
    );
    assert_eq!(
        decoded::<(String, BTreeMap<String, String>)>("[\"a\", {\"b\": \"c\"}]"),
        (text("a"), BTreeMap::from([(text("b"), text("c"))]))
    );
    let letters = ["a", "b", "c", "d", "e"].map(|letter| (text(letter), letter.to_uppercase()));
    let notation = "{\"a\": \"A\", \"b\": \"B\", \"c\": \"C\", \"d\": \"D\", \"e\": \"E\"}";
    assert_eq!(
        decoded::<BTreeMap<String, String>>(notation),
        BTreeMap::from(letters)
    );
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Mixed {
        a: u8,
        b: Vec<u8>,
    }
    let mixed = Mixed {
        a: 1,
        b: vec![2, 3],
    };
    assert_eq!(decoded::<Mixed>("{\"a\": 1, \"b\": [2, 3]}"), mixed);
}
