//! The apps' operations in terms of objects, and the operator's verdicts on peers.
//!
//! Everything else that an app needs is its schema. An operation writes objects through `graph`
//! only.
//! Invariant: an operation is one change group, or one transaction of rows that are not objects.

pub mod contacts;
mod context;
pub mod conversation_cards;
pub mod conversations;
pub mod delivery;
pub mod identities;
pub mod invitations;
pub mod messages;
mod of_two;
pub mod people;
pub mod removals;
pub mod rights;
pub mod verdicts;

pub(crate) use context::local_context;
