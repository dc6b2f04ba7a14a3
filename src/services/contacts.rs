//! The address book: the operator's own names for identities, and private notes.
//!
//! One petname for each identity, unique on this node. An identity of this node has its own name
//! here too. Nothing of the address book leaves the node. Tested in `tests/core/people.rs`.

use keys::{Oid, PeerId};

use super::people::{self, Person};
use crate::graph::GraphManager;
use crate::store::{ContactRow, Rows, StoreError, WriteTx};
use crate::text::{BadName, Petname};

/// Largest number of identities in the address book.
pub const CONTACTS_MAX: usize = 10_000;
/// Longest note, in bytes.
pub const NOTE_BYTES_MAX: usize = 2000;

/// Why the address book was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ContactError {
    /// The text is no name.
    #[error(transparent)]
    BadName(#[from] BadName),
    /// Another identity has the name, or one that differs only in case or width.
    #[error("the name is taken: \"{name}\" is {}", .holder.claim_label())]
    NameTaken {
        /// The name as the address book has it.
        name: String,
        /// The identity that has it.
        holder: Person,
    },
    /// The identity has a petname.
    #[error("the identity is \"{0}\" here: `postern contact rename` changes the name")]
    AlreadyNamed(String),
    /// The identity is not in the address book.
    #[error("the address book does not have {}: see `postern contact list`", .0.label())]
    NotNamed(Person),
    /// The identity lives on this node, so its own name is its petname.
    #[error("{} is an identity of this node: use `postern identity rename`", .0.label())]
    OwnIdentity(Person),
    /// The oid is that of a node.
    #[error("the oid {} is that of a node and not of an identity", .0.digits())]
    Server(Person),
    /// The note is too long.
    #[error("a note has at most {NOTE_BYTES_MAX} bytes")]
    NoteTooLong,
    /// The address book is full.
    #[error("the address book has {CONTACTS_MAX} names, which is the most: remove some")]
    Full,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A note of the address book, of bounded length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContactNote(String);

impl ContactNote {
    /// Checks the length of a note. Empty: no note.
    pub fn new(text: String) -> Result<Self, ContactError> {
        if text.len() > NOTE_BYTES_MAX {
            return Err(ContactError::NoteTooLong);
        }
        Ok(Self(text))
    }
}

/// Names an identity of another node, which need not be known yet.
pub fn add(
    graph: &GraphManager<'_>,
    identity: Oid,
    name: &str,
    note: &ContactNote,
) -> Result<(), ContactError> {
    check_elsewhere(graph, &identity)?;
    if let Some(row) = graph.tx().contact(&identity)? {
        return Err(ContactError::AlreadyNamed(row.name));
    }
    let name = free_name(graph.tx(), &identity, name)?;
    Ok(graph.tx().put_contact(&identity, &name, &note.0)?)
}

/// The result of naming the only identity of a peer.
#[derive(Debug)]
pub enum Naming {
    /// The identity has the name.
    Named,
    /// The identities of the peer could not be read.
    Unread,
    /// The peer has no listed identity.
    NoIdentity,
    /// The peer has several, and none was named.
    Several,
    /// The address book refused the name.
    Refused(ContactError),
}

/// Checks the form of a petname.
pub fn check_petname(name: &str) -> Result<(), ContactError> {
    Petname::new(name)?;
    Ok(())
}

/// Names the only listed identity of a peer. Repeats are no error.
pub fn name_at_peer(
    graph: &GraphManager<'_>,
    peer: &PeerId,
    name: &str,
) -> Result<Naming, StoreError> {
    let listed = people::at_home(graph.tx(), peer)?;
    let only = match listed.people() {
        [only] if !listed.has_more() => only,
        [] if !listed.has_more() => return Ok(Naming::NoIdentity),
        _ => return Ok(Naming::Several),
    };
    if only.petname.as_deref() == Some(name) {
        return Ok(Naming::Named);
    }
    match add(graph, only.oid, name, &ContactNote::default()) {
        Ok(()) => Ok(Naming::Named),
        Err(ContactError::Store(error)) => Err(error),
        Err(refused) => Ok(Naming::Refused(refused)),
    }
}

/// Changes the petname, the note, or both.
pub fn change(
    graph: &GraphManager<'_>,
    identity: Oid,
    name: Option<&str>,
    note: Option<&ContactNote>,
) -> Result<(), ContactError> {
    let row = named(graph, &identity)?;
    if let Some(note) = note {
        graph.tx().set_contact_note(&identity, &note.0)?;
    }
    if let Some(name) = name {
        check_elsewhere(graph, &identity)?;
        let name = free_name(graph.tx(), &identity, name)?;
        let note = note.map_or(&*row.note, |note| &note.0);
        graph.tx().put_contact(&identity, &name, note)?;
    }
    Ok(())
}

/// Removes an identity of another node from the address book, with its note.
pub fn remove(graph: &GraphManager<'_>, identity: Oid) -> Result<(), ContactError> {
    named(graph, &identity)?;
    match check_elsewhere(graph, &identity) {
        // The oid was named before its node was known.
        Ok(()) | Err(ContactError::Server(_)) => Ok(graph.tx().remove_contact(&identity)?),
        refused => refused,
    }
}

/// Makes the name of each identity of this node its petname, unless another one has that name.
/// Peers can return a later name while the node recovers after a restore. At any other time a
/// petname stays, because people use it.
pub fn adopt_own_names(graph: &GraphManager<'_>) -> Result<(), StoreError> {
    let is_recovering = graph.is_barred();
    for identity in graph.keys().identities() {
        let Some(claim) = people::claim_of(graph.tx(), &identity)? else {
            continue;
        };
        let known = graph.tx().contact(&identity)?;
        if known.is_some_and(|row| row.name == claim || !is_recovering) {
            continue;
        }
        // If the name is refused, the earlier petname stays.
        if let Err(ContactError::Store(error)) = set_own(graph.tx(), &identity, Some(&claim)) {
            return Err(error);
        }
    }
    Ok(())
}

/// Makes the name of an identity of this node its petname. `None`: the identity has none. Keeps the
/// note of a named one.
pub(super) fn set_own(
    tx: &WriteTx<'_>,
    identity: &Oid,
    name: Option<&str>,
) -> Result<(), ContactError> {
    let Some(name) = name else {
        return Ok(tx.remove_contact(identity)?);
    };
    let name = free_name(tx, identity, name)?;
    let note = tx.contact(identity)?.map_or(String::new(), |row| row.note);
    Ok(tx.put_contact(identity, &name, &note)?)
}

/// Checks a name for an identity: well formed, not taken by another one, and with room for it.
pub(super) fn free_name(
    rows: &Rows<'_>,
    identity: &Oid,
    name: &str,
) -> Result<Petname, ContactError> {
    let name = Petname::new(name)?;
    match rows.contact_named(name.folded())? {
        Some(row) if row.identity != *identity => Err(ContactError::NameTaken {
            holder: people::person(rows, &row.identity)?,
            name: row.name,
        }),
        Some(_) => Ok(name),
        None if rows.contact(identity)?.is_none() && rows.contact_count()? >= CONTACTS_MAX => {
            Err(ContactError::Full)
        }
        None => Ok(name),
    }
}

fn named(graph: &GraphManager<'_>, identity: &Oid) -> Result<ContactRow, ContactError> {
    match graph.tx().contact(identity)? {
        Some(row) => Ok(row),
        None => Err(ContactError::NotNamed(people::person(
            graph.tx(),
            identity,
        )?)),
    }
}

/// Refuses identities of this node, and servers.
fn check_elsewhere(graph: &GraphManager<'_>, identity: &Oid) -> Result<(), ContactError> {
    let Some(row) = graph.tx().identity(identity)? else {
        return Ok(());
    };
    if people::known(graph.tx(), identity)?.is_none() {
        return Err(ContactError::Server(people::person(graph.tx(), identity)?));
    }
    if row.home == graph.keys().peer_id() {
        return Err(ContactError::OwnIdentity(people::person(
            graph.tx(),
            identity,
        )?));
    }
    Ok(())
}
