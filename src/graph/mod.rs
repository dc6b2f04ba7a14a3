//! `GraphManager`: the single path on which objects become rows.
//!
//! Local writes enter through [`GraphManager::save_with_sync`], a peer's objects through
//! [`GraphManager::apply_message`], and this node's own objects after a restore through
//! [`GraphManager::reclaim`]. All three end in `commit_row`, the only function that writes an
//! object. Network, clock and randomness are arguments.
//! Invariants: every row was granted by `AclManager`. All rows of one write share one `change_seq`
//! (a change group). An object from a peer has no `sync_flags`, so it is never sent on. Tested in
//! `tests/core`.

mod branches;
mod cache;
mod charge;
mod commit;
mod consent;
mod counters;
mod ended;
mod error;
mod fitting;
mod flags;
mod forgetting;
mod home;
mod identity;
mod leaving;
mod limits;
mod load;
mod local;
mod manager;
mod merge;
mod moved;
mod next_list;
mod opening;
mod overruled;
mod peer;
mod precedence;
mod purge;
mod purge_scopes;
mod purged;
mod reclaim;
mod record;
mod remote;
mod resign;
mod resolve;
mod rights;
mod save_rights;
mod scope_memory;
mod touched;
mod travel;
mod unbanned;
mod verify;
mod version;
mod waiting;

pub use charge::{AccountRoom, Arrival, Freed};
pub use counters::Counters;
pub use error::{ApplyError, Fault, ObjectFault, SaveError};
pub use fitting::Trial;
pub use home::ConfirmHomeError;
pub use identity::{IdentityProfile, home_chain, known_server_chain};
pub use limits::{AcceptPolicy, GraphLimits};
pub use load::load_object;
pub use local::{Saved, WriteRequest};
pub use manager::{Environment, GraphManager};
pub use moved::TakenOver;
pub use next_list::NextList;
pub use purged::PurgedFate;
pub use reclaim::ReclaimOutcome;
pub use record::{IdentityRecord, RecordFault, new_identity_attrs};
pub use remote::Applied;
pub use scope_memory::{Exported, Newest, ScopeMemory};
pub use touched::Touched;
pub use travel::travel_type;
pub use verify::{DecodedObject, KnownKeys, VerifiedObject, decode_object, owner_and_rev};
pub use version::Tombstone;
