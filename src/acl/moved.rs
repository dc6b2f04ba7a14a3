//! The right to write objects of an identity that moves to another node.

use keys::Oid;

use super::{AclManager, Denied, Granted};

impl AclManager {
    /// Decides on an object of an identity that moves, which signed its content before.
    pub fn check_moved(oid: Oid, moves: bool) -> Result<Granted, Denied> {
        match moves {
            true => Ok(Granted { oid }),
            false => Err(Denied::OwnerNotHere),
        }
    }
}
