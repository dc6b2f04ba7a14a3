//! The claim of an app in a handshake: its version, and a digest of the part of its schema that
//! travels (docs/PROTOCOL.md 8).
//!
//! Names of types and attributes, comments, and local types are not in the digest, because no peer
//! sees them. Invariant: two schemas with one digest accept the same objects. Tested below.

use std::cmp::Ordering;

use bastion::AppClaim;
use keys::signing::signing_input;
use keys::{Context, Digest, SchemaDigest, codec};
use serde::Serialize;

use super::types::{AppSchema, AttrSchema, Kind, TypeSchema, Visibility};
use crate::domain::{Mode, SyncDomain};

/// How the schema of a peer differs from the one of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerSchema {
    /// The peer has a later version. Objects that need it wait here.
    Later,
    /// The peer has another text of the same version, of which it may send objects that do not fit
    /// here.
    OtherText,
}

/// `[[* type], [* domain]]`
#[derive(Serialize)]
struct Travelling<'a>(Vec<TravellingType>, Vec<TravellingDomain<'a>>);

/// `[number, visibility, [* attr]]`
#[derive(Serialize)]
struct TravellingType(u16, Numbered, Vec<TravellingAttr>);

/// `[number, kind, min, max, bytes_max]`
#[derive(Serialize)]
struct TravellingAttr(u16, Numbered, u32, u32, u32);

/// `[name, mode, [* type number]]`
#[derive(Serialize)]
struct TravellingDomain<'a>(&'a str, u8, &'a [u16]);

/// A number alone, or with the number of what it refers to.
#[derive(Serialize)]
#[serde(untagged)]
enum Numbered {
    Alone(u8),
    With(u8, u16),
}

impl AppSchema {
    /// The app as this node announces it.
    pub fn claim(&self) -> AppClaim {
        AppClaim::new(&self.slug, self.version, self.digest())
    }

    /// How the schema that a peer announced differs from this one, if an operator has to act.
    /// `None`: it is the same one, or an earlier version.
    pub fn of_peer(&self, claim: &AppClaim) -> Option<PeerSchema> {
        match claim.version.cmp(&self.version) {
            Ordering::Greater => Some(PeerSchema::Later),
            Ordering::Equal if claim.digest != self.digest() => Some(PeerSchema::OtherText),
            _ => None,
        }
    }

    /// The digest of the part that travels, without core types, which every app has.
    pub fn digest(&self) -> SchemaDigest {
        let types = self.types.iter().filter_map(travelling_type).collect();
        let mut domains: Vec<_> = self.domains.iter().map(travelling_domain).collect();
        domains.sort_unstable_by_key(|domain| domain.0);
        let encoded = codec::encode(&Travelling(types, domains));
        let digest = Digest::of(&signing_input(Context::Schema, &[&encoded]));
        let [first @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *digest.as_bytes();
        SchemaDigest::from_bytes(first)
    }
}

/// `None` for a local type.
fn travelling_type(of: &TypeSchema) -> Option<TravellingType> {
    let visibility = match of.visibility {
        Visibility::Public => Numbered::Alone(0),
        Visibility::ParticipantsHere { attr } => Numbered::With(1, attr),
        Visibility::Participants { through } => Numbered::With(2, through),
        Visibility::OwnerAndSubject { subject } => Numbered::With(3, subject),
        Visibility::Local | Visibility::Within => return None,
    };
    let attrs = of.attrs.iter().map(travelling_attr).collect();
    Some(TravellingType(of.number, visibility, attrs))
}

fn travelling_attr(of: &AttrSchema) -> TravellingAttr {
    let kind = match of.kind {
        Kind::Text => Numbered::Alone(1),
        Kind::Integer => Numbered::Alone(2),
        Kind::Json => Numbered::Alone(3),
        Kind::Bytes => Numbered::Alone(4),
        Kind::Identity => Numbered::Alone(5),
        Kind::Parent { type_number } => Numbered::With(6, type_number),
    };
    TravellingAttr(of.number, kind, of.min, of.max, of.bytes_max)
}

fn travelling_domain(of: &SyncDomain) -> TravellingDomain<'_> {
    let mode = match of.mode {
        Mode::AppendOnly => 1,
        Mode::AllowUpdate => 2,
        Mode::NoUpdate => 3,
    };
    TravellingDomain(&of.name, mode, &of.types)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::convert::parse;
    use super::*;

    const CLUB: &str = r#"
slug = "club"
version = 1

[[type]]
number = 2
name = "club.note"
visibility = { participants = "room" }

[[type.attr]]
number = 1
name = "room"
kind = { parent = "club.room" }
min = 1
max = 1

[[type.attr]]
number = 2
name = "text"
kind = "text"
min = 0
max = 1
bytes_max = 100

[[type]]
number = 1
name = "club.room"
visibility = { participants_here = "member" }

[[type.attr]]
number = 1
name = "member"
kind = "identity"
min = 0
max = 8

[[type]]
number = 3
name = "club.draft"
visibility = "local"

[[type.attr]]
number = 1
name = "text"
kind = "text"
min = 0
max = 1
bytes_max = 10

[[domain]]
name = "club"
parent_types = ["club.note", "club.room"]
mode = "allow_update"
"#;

    fn digest(text: &str) -> SchemaDigest {
        parse(Path::new("club.toml"), text).unwrap().digest()
    }

    fn edited(from: &str, to: &str) -> SchemaDigest {
        assert!(CLUB.contains(from), "{from}");
        digest(&CLUB.replacen(from, to, 1))
    }

    #[test]
    fn digest_ignores_names_comments_and_local_types() {
        let of_file = digest(CLUB);
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("version = 1", "version = 1 # a comment"),
            ("\"text\"\nkind", "\"body\"\nkind"),
            (
                "[\"club.note\", \"club.room\"]",
                "[\"club.room\", \"club.note\"]",
            ),
            ("bytes_max = 10\n", "bytes_max = 11\n"),
        ] {
            assert_eq!(edited(from, to), of_file, "{to}");
        }
        let renamed = digest(&CLUB.replace("club.room", "club.hall"));
        assert_eq!(renamed, of_file);
    }

    #[test]
    fn every_travelling_difference_changes_the_digest() {
        let edits = [
            (
                "number = 2\nname = \"club.note\"",
                "number = 4\nname = \"club.note\"",
            ),
            ("number = 2\nname = \"text\"", "number = 3\nname = \"text\""),
            ("kind = \"text\"", "kind = \"json\""),
            ("kind = \"text\"", "kind = \"bytes\""),
            (
                "min = 0\nmax = 1\nbytes_max = 100",
                "min = 1\nmax = 1\nbytes_max = 100",
            ),
            (
                "min = 0\nmax = 1\nbytes_max = 100",
                "min = 0\nmax = 2\nbytes_max = 100",
            ),
            ("bytes_max = 100", "bytes_max = 101"),
            ("max = 8", "max = 9"),
            ("{ participants = \"room\" }", "\"public\""),
            (
                "{ participants_here = \"member\" }",
                "{ owner_and_subject = \"member\" }",
            ),
            ("mode = \"allow_update\"", "mode = \"append_only\""),
            ("mode = \"allow_update\"", "mode = \"no_update\""),
            ("name = \"club\"\n", "name = \"club.notes\"\n"),
            ("visibility = \"local\"", "visibility = \"public\""),
        ];
        let mut seen = vec![digest(CLUB)];
        for (from, to) in edits {
            let mut text = CLUB.replacen(from, to, 1);
            assert_ne!(text, CLUB, "{from}");
            match to {
                // No other type may refer to a room that names no participants.
                "{ owner_and_subject = \"member\" }" => {
                    text = text
                        .replace("{ participants = \"room\" }", "\"public\"")
                        .replacen("min = 0\nmax = 8", "min = 1\nmax = 1", 1);
                }
                "\"public\"" => {}
                "visibility = \"public\"" => {
                    text = text.replace("\"club.room\"]", "\"club.room\", \"club.draft\"]");
                }
                _ => {}
            }
            seen.push(digest(&text));
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn digest_is_that_of_the_published_example() {
        let messages = include_str!("apps/messages.toml");
        let app = parse(Path::new("messages.toml"), messages).unwrap();
        assert_eq!(app.claim().version, 1);
        assert_eq!(
            app.claim().digest.to_hex(),
            "e774e5028b07118b0a42e4392bc10292"
        );
    }
}
