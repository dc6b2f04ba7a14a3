//! Verification of a package's objects, concurrently with the writer and again on the writer.
//!
//! Pure functions, so that any thread may run them on a part of a package.

use std::time::Duration;

use keys::Oid;

use crate::graph::{DecodedObject, Fault, KnownKeys, ObjectFault, VerifiedObject};
use crate::store::{Rows, StoreError};

/// Processor time of verifying and judging one object.
pub const OBJECT_COST: Duration = Duration::from_micros(100);
/// Processor time of an identity record: its two key chains have up to 32 signatures each.
const RECORD_COST: Duration = Duration::from_millis(3);

/// One object of a package after verification.
#[derive(Debug)]
pub enum CheckedObject {
    /// The owner's signature is valid.
    Verified(VerifiedObject),
    /// The object has to wait, or is rejected.
    Failed {
        /// The oid, if the bytes could be decoded.
        oid: Option<Oid>,
        /// Why the verification failed.
        fault: Fault,
        /// The object, if the bytes could be decoded.
        decoded: Option<DecodedObject>,
    },
}

impl CheckedObject {
    /// The oid, if the bytes could be decoded.
    pub fn oid(&self) -> Option<Oid> {
        match self {
            Self::Verified(verified) => Some(verified.object().oid),
            Self::Failed { oid, .. } => *oid,
        }
    }

    /// The processor time that the object costs, roughly. A faulty record counts as the longest.
    pub fn cost(&self) -> Duration {
        let has_record = match self {
            Self::Verified(verified) => verified.record().is_some(),
            Self::Failed {
                fault: Fault::Object(ObjectFault::Record { .. }),
                ..
            } => true,
            Self::Failed { decoded, .. } => decoded
                .as_ref()
                .is_some_and(|decoded| decoded.own_key().is_some()),
        };
        if has_record {
            OBJECT_COST + RECORD_COST
        } else {
            OBJECT_COST
        }
    }

    pub(super) fn verify(object: DecodedObject, known: &KnownKeys) -> Self {
        let oid = Some(object.oid());
        match object.verify(known) {
            Ok(verified) => Self::Verified(verified),
            Err((fault, object)) => Self::Failed {
                oid,
                fault,
                decoded: Some(object),
            },
        }
    }
}

/// Verifies decoded objects. `known` holds the current keys of their owners; an identity object
/// brings its own. Pure: any thread may run it on a part of a package, with the keys for the whole
/// package.
pub fn check_objects(
    decoded: Vec<Result<DecodedObject, ObjectFault>>,
    known: &KnownKeys,
) -> Vec<CheckedObject> {
    decoded
        .into_iter()
        .map(|object| match object {
            Ok(object) => CheckedObject::verify(object, known),
            Err(fault) => CheckedObject::Failed {
                oid: fault.oid(),
                fault: Fault::Object(fault),
                decoded: None,
            },
        })
        .collect()
}

/// The current keys of those owners that are known.
pub fn known_keys(rows: &Rows<'_>, owners: &[Oid]) -> Result<KnownKeys, StoreError> {
    let mut known = KnownKeys::default();
    for owner in owners {
        if let Some(row) = rows.identity(owner)? {
            known.insert(*owner, row.key_id, row.public_key);
        }
    }
    Ok(known)
}
