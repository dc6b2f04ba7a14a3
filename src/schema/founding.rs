//! The founding rights list of an object that is itself a scope.

use keys::Oid;

use super::types::{TypeSchema, Visibility};
use crate::object::{Attrs, Rights, RightsList, Value};

impl Visibility {
    /// Whether each object is itself a scope.
    pub fn founds_scopes(self) -> bool {
        matches!(
            self,
            Self::ParticipantsHere { .. } | Self::OwnerAndSubject { .. }
        )
    }
}

impl TypeSchema {
    /// The founding list of an object with these values. `None` if objects of the type are not
    /// scopes.
    pub fn founding_list(&self, owner: &Oid, attrs: &Attrs) -> Option<RightsList> {
        let oids = |attr: u16| {
            let values = attrs.get(&attr).map_or(&[][..], Vec::as_slice);
            values.iter().filter_map(Value::as_oid)
        };
        match self.visibility {
            Visibility::ParticipantsHere { attr } => {
                Some(oids(attr).map(|oid| (oid, Rights::READ_WRITE)).collect())
            }
            Visibility::OwnerAndSubject { subject } => {
                let subject = oids(subject).map(|oid| (oid, Rights::READ));
                // The owner's entry is the last one, so that it counts for an owner's own card.
                Some(subject.chain([(*owner, Rights::READ_WRITE)]).collect())
            }
            Visibility::Participants { .. }
            | Visibility::Within
            | Visibility::Public
            | Visibility::Local => None,
        }
    }
}
