//! The node's configuration file, `postern.toml`.
//!
//! `load` reads and checks the file; `limits` turns its tables into the limits that the node runs
//! with. A wrong file never starts a node. Unknown keys, wrong types and values out of range are
//! all reported at once, with file, line and the nearest known name. Keys of earlier versions are
//! warnings. The node reads the file again on SIGHUP; a wrong file then changes nothing.
//!
//! Invariant: a [`Config`] that was loaded has been checked. Documentation of the keys:
//! `docs/CONFIG.md`, made from `keys`. Tested in `tests.rs` and
//! `wrong_tests.rs`.

mod changes;
mod check;
mod docs;
mod keys;
mod limits;
mod load;
mod outbox;
mod removed;
mod settings;
mod tables;
mod transport;

pub use self::docs::{new_file, reference};
pub use self::keys::{Key, KeyType, TABLES, Table};
pub use self::load::{ConfigError, FILE_NAME};
pub use self::settings::{
    AdmissionConfig, ApiConfig, IntroducePolicy, InvitationPolicy, Policy, SyncConfig,
};
pub use self::tables::{
    AdmissionTable, ApiTable, Config, GateTable, LogConfig, LogFormat, NodeConfig, PeerConfig,
    QuotaTables, SyncTable, TrustedQuotaTable, UntrustedQuotaTable,
};
pub use self::transport::{TransportConfig, TransportKind};
pub use crate::toml_file::{Problem, Problems};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wrong_tests;
