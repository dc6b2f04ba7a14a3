//! The store: all SQL of the program, over one writing connection and any number of reading ones.
//!
//! Takes and returns typed rows; no connection leaves this module. `acl` and `graph` decide what
//! may be written. Invariant:
//! commit order is `change_seq` order, because there is one writer. Tested in `tests.rs` and beside
//! each file.

mod addresses;
mod answers;
mod app_schema;
mod app_tables;
mod by_owner;
mod cause;
mod checkpoint;
mod closed_scopes;
mod columns;
mod contacts;
mod database;
mod deliveries;
mod domain_bits;
mod domain_table;
mod due_lists;
mod ended_bans;
mod epochs;
mod error;
mod feed;
mod flags;
mod identities;
mod invitations;
mod lists;
mod loading;
mod migrations;
mod outbox;
mod overruled;
mod parents;
mod peers;
mod pending;
mod pending_homes;
mod pull_again;
mod pull_again_counts;
mod pull_again_state;
mod purge;
mod purge_candidates;
mod purge_sql;
mod purged;
mod reading;
mod receipts;
mod refused_objects;
mod rejects;
mod reserve;
mod rights;
mod rights_heads;
mod rollback;
mod rows;
mod scope_id;
mod scopes;
mod select;
mod settling;
mod sight;
mod snapshot;
mod sync_state;
mod tokens;
mod usage;
mod verdicts;
mod version;
mod waiting;
mod write_mode;

pub use addresses::{AddressRow, INTRODUCTIONS_MAX, Introduction};
pub use answers::{Leave, MemberAnswer};
pub use app_schema::{StoredSchema, stored_schemas};
pub use app_tables::{AppTable, Apps};
pub use cause::Cause;
pub use checkpoint::{Checkpointer, LogState};
pub use contacts::ContactRow;
pub use database::{ReadStore, Store};
pub use deliveries::CreatedHere;
pub use domain_bits::DomainBits;
pub use domain_table::{DomainTable, RECEIVED_FLAG};
pub use ended_bans::{EndedBan, Unbanned};
pub use epochs::{EpochReason, PeerEpoch};
pub use error::StoreError;
pub use feed::{Feed, FeedCursor, NoFeedCursor, SeenObject};
pub use identities::IdentityRow;
pub use invitations::{Invitation, InvitationState};
pub use lists::{Page, SeqOrder};
pub use migrations::{MigratedApp, Migration};
pub use outbox::OutboxRow;
pub use overruled::Overruled;
pub use parents::{ParentRow, ParentWriter, StoredValue};
pub use peers::{LastPeerAt, PeerRow};
pub use pending::{PendingBounds, PendingRequest, PendingRow};
pub use pending_homes::{PendingHome, PutAside};
pub use pull_again::{PullAgain, PullAgainCause, PullAgainNote};
pub use pull_again_counts::PullAgainCounts;
pub use purge::{PurgeOrder, PurgeProgress, PurgeRow, PurgeState, PurgeStep};
pub use purge_candidates::{PurgedIdentity, PurgedScope};
pub use purged::{ForgottenKey, Purged};
pub use reading::ScopeCount;
pub use receipts::{ReceiptRow, UNAPPLIED_MAX, UnappliedObject, UnappliedScope};
pub use refused_objects::REFUSED_MAX;
pub use rejects::{RejectGroup, RejectRow};
pub use reserve::{Reserve, ReserveError};
pub use rights::{NewRights, RightsRow};
pub use rights_heads::NamedLists;
pub use rollback::Rollback;
pub use rows::{Rows, WriteTx};
pub use scope_id::ScopeId;
pub use scopes::{EndedScope, PeerReader, ScopeRow};
pub use select::{ChangeEntry, ChangePart};
pub use settling::{SettlingRow, SettlingTurn, SettlingWork};
pub use sight::{Onlooker, Sight};
pub use snapshot::{check_whole, snapshot};
pub use sync_state::{Cursor, Direction, SyncStateRow};
pub use usage::{Account, Stored, Usage};
pub use verdicts::{Verdict, VerdictRow};
pub use waiting::{WaitingByCause, WaitingCount, WaitingRow};
pub use write_mode::{WriteMode, WriteModeRow, write_mode_of};

#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod select_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
