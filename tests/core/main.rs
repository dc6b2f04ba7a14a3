//! The core without a network: `graph`, `state_engine` and `engine` over real databases.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod arrival;
mod closed_scopes;
mod club;
mod consent;
mod conversation_cards;
mod conversations;
mod declined;
mod delivery;
mod engines;
mod expiry;
mod feed;
mod forgetting;
mod former_readers;
mod frozen;
mod garden;
mod home_moves;
mod hostile;
mod introduction_dials;
mod introductions;
mod larger_conversations;
mod late_readers;
mod leaving;
mod local_writes;
mod moves;
mod moves_late;
mod moves_repeated;
mod new_domains;
mod outbox;
mod overruled;
mod package_checks;
mod package_limits;
mod packages;
mod parts;
mod people;
mod portions;
mod pull_again;
mod purge;
mod purge_scopes;
mod purged;
mod quotas;
mod reading;
mod receipts;
mod recovery_portions;
mod references;
mod relayed_bans;
mod relayed_quotas;
mod remote_checks;
mod remote_identities;
mod remote_writes;
mod removed_peers;
mod returned;
mod rights;
mod rights_checks;
mod rights_forks;
mod rights_merge;
mod rights_property;
mod rights_rotated;
mod rights_vectors;
mod schema_versions;
mod scopes;
mod services;
mod simulation;
mod stubs;
mod thieves;
mod undone_writes;
mod vectors;
mod waiting;
mod windows;
