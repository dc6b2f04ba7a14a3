//! A schema file as written: names instead of numbers, each with its position in the text.
//!
//! Only `convert` uses these types. Unknown keys are errors in all of them.

use serde::Deserialize;
use toml::Spanned;

use crate::domain::Mode;

pub(super) type Name = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApp {
    pub(super) slug: Name,
    pub(super) version: Spanned<u32>,
    #[serde(rename = "type")]
    pub(super) types: Vec<RawType>,
    #[serde(rename = "domain", default)]
    pub(super) domains: Vec<RawDomain>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawType {
    pub(super) number: Spanned<u16>,
    pub(super) name: Name,
    pub(super) visibility: RawVisibility,
    #[serde(rename = "attr")]
    pub(super) attrs: Vec<RawAttr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAttr {
    pub(super) number: Spanned<u16>,
    pub(super) name: Name,
    pub(super) renamed_from: Option<String>,
    pub(super) kind: RawKind,
    #[serde(default = "one")]
    pub(super) min: u32,
    #[serde(default = "one")]
    pub(super) max: u32,
    pub(super) bytes_max: Option<Spanned<u32>>,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawKind {
    Text,
    Integer,
    Json,
    Bytes,
    Identity,
    /// Holds the full name of the referenced type.
    Parent(Name),
}

/// Each variant holds the name of the attribute that decides.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawVisibility {
    Public,
    Local,
    ParticipantsHere(Name),
    Participants(Name),
    OwnerAndSubject(Name),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDomain {
    pub(super) name: Name,
    pub(super) parent_types: Vec<Name>,
    pub(super) mode: Mode,
}
