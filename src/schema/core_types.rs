//! The core types, which exist in every app and which no schema file declares.

use keys::protocol::{ACCEPT_TYPE, LEAVE_TYPE, RIGHTS_TYPE};

use super::types::{AttrSchema, Kind, TypeSchema, Visibility};
use crate::object::{Merges, RightsList};

/// Rights lists, `leave` and `accept`. Their names have no app, so that no name of a schema file is
/// one.
pub(super) fn core_types() -> Vec<TypeSchema> {
    let attr = |number, name: &str, kind, (min, bytes_max)| AttrSchema {
        number,
        name: name.to_owned(),
        renamed_from: None,
        kind,
        min,
        max: 1,
        bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX),
    };
    let of_rights = vec![
        attr(1, "version", Kind::Integer, (1, 8)),
        attr(2, "entries", Kind::Bytes, (1, RightsList::BYTES_MAX)),
        attr(3, "merges", Kind::Bytes, (0, Merges::BYTES_MAX)),
    ];
    let core = |number, name: &str, attrs| TypeSchema {
        number,
        name: name.to_owned(),
        attrs,
        visibility: Visibility::Within,
    };
    vec![
        core(ACCEPT_TYPE, "accept", Vec::new()),
        core(LEAVE_TYPE, "leave", Vec::new()),
        core(RIGHTS_TYPE, "rights", of_rights),
    ]
}
