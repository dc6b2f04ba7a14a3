//! Postern: a peer node behind a Tor onion service.
//!
//! An async shell around a synchronous core. Data arrives through [`peer`] (other nodes) and
//! [`api`] (local clients), passes through the handle in [`engine`], and is written by [`graph`]
//! only. The modules, from the bottom up:
//!
//! - [`object`], [`domain`], [`schema`], [`op_context`]: plain values.
//! - [`acl`]: the access rules, pure: facts in, `Granted` or `Denied` out.
//! - [`store`]: all SQL. [`graph`]: the only write path. [`state_engine`]: packages and cursors.
//! - [`services`]: the operations of the apps. [`engine`]: the handle by which async code reads and
//!   writes data.
//! - [`config`]: the configuration file. [`clock`]: the system's clock. [`data_dir`]: a node's
//!   folder.
//! - [`backup`]: sealed backups. [`peer`]: one session per peer. [`admission`]: the decision on who
//!   gets a session.
//! - [`api`]: the local HTTP API. [`node`]: composes everything. [`cli`]: the command line.
//!
//! `docs/ARCHITECTURE.md` follows the data through these modules. `tests/tidy/main.rs` checks which
//! module imports which.
#![forbid(unsafe_code)]

pub mod acl;
pub mod admission;
pub mod api;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
mod core_limits;
pub mod data_dir;
pub mod domain;
pub mod engine;
pub mod graph;
pub mod node;
pub mod object;
pub mod op_context;
pub mod peer;
pub mod schema;
pub mod services;
pub mod state_engine;
pub mod store;
mod text;
mod toml_file;
