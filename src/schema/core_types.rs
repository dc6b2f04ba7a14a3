//! The core types, which exist in every app and which no schema file declares.

use keys::protocol::{LEAVE_TYPE, RIGHTS_TYPE};

use super::types::{AttrSchema, Kind, TypeSchema, Visibility};
use crate::object::RightsList;

/// Rights lists and `leave`. Their names have no app, so that no name of a schema file is one.
pub(super) fn core_types() -> Vec<TypeSchema> {
    let attr = |number, name: &str, kind, bytes_max| AttrSchema {
        number,
        name: name.to_owned(),
        kind,
        min: 1,
        max: 1,
        bytes_max,
    };
    let entries_max = u32::try_from(RightsList::BYTES_MAX).unwrap_or(u32::MAX);
    let of_rights = vec![
        attr(1, "version", Kind::Integer, 8),
        attr(2, "entries", Kind::Bytes, entries_max),
    ];
    let core = |number, name: &str, attrs| TypeSchema {
        number,
        name: name.to_owned(),
        attrs,
        visibility: Visibility::Within,
    };
    vec![
        core(LEAVE_TYPE, "leave", Vec::new()),
        core(RIGHTS_TYPE, "rights", of_rights),
    ]
}
