//! `StateEngine`: what changed since last time, as packages out and packages in
//! (docs/STORY.md 2, 4, 7; docs/DECISIONS.md 7).
//!
//! Synchronous and deterministic: time and randomness are arguments, and nothing below this module
//! uses a network. Invariants: a cursor moves only in the transaction that commits what it counts.
//! A package holds every change in `from_seq..=to_seq` that the recipient may read. A change group
//! is never split over two packages. Tested in `tests/core`.

mod addresses;
mod applied;
mod apply;
mod aside;
mod build;
mod checked;
mod collect;
mod ended;
mod engine;
mod epoch;
mod fetch;
mod handover;
mod handover_addresses;
mod handover_page;
mod ingest;
mod introductions;
mod late;
mod limits;
mod open;
mod outbox;
mod outbox_plan;
mod package;
mod peer_scopes;
mod places;
mod preceded;
mod purge;
mod quota;
mod receipt_ledger;
mod receipts;
mod reclaim;
mod recovery;
mod recovery_batch;
mod refused;
mod rejects;
mod rotation;
mod scope_set;
mod select;
mod settle;
mod source;
mod stubs;
mod view;
mod watch;

pub use crate::graph::Exported;
pub use applied::{AppliedPackage, ApplyPackageError, WindowFault};
pub use apply::{PackageProgress, PackageWork};
pub use build::{PullReply, PullRequest, exported_in};
pub use checked::{CheckedObject, OBJECT_COST, check_objects, known_keys};
pub use collect::BuildError;
pub use engine::StateEngine;
pub use epoch::{EpochError, EpochFault, OwnEpoch};
pub use fetch::{FetchRequest, Fetched, Lacking};
pub use handover::{HandedOver, HandoverFault, MoveSource, MovedObject};
pub use handover_addresses::MovedAddresses;
pub use handover_page::{HandoverCursor, HandoverPage};
pub use introductions::{DialFacts, IntroductionDial, IntroductionOutcome};
pub use limits::{AsideLimits, CoreLimits, RecoveryLimits};
pub use package::{Expected, Package, PackageFault, PackageLimits, VerifiedPackage, Window};
pub use places::{AddressReply, AddressRequest, MeetingPlace, MeetingPlaces, Member, RECORD_COST};
pub use quota::{QuotaFault, Quotas, TierQuota};
pub use receipt_ledger::Delivered;
pub use receipts::{CheckedReceipt, Receipt, ReceiptError};
pub use reclaim::ReclaimSummary;
pub use recovery::RecoveryStatus;
pub use recovery_batch::{RecoveryBatch, RecoveryRequest};
pub use stubs::{Stub, Stubs};
pub use view::{CoreContext, CoreMemory, NextPull, View};
pub use watch::WatchLook;
