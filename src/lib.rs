//! Postern: a peer node behind a Tor onion service.
//!
//! An async shell around a synchronous core. Data comes in through [`peer`] (other nodes) and [`api`] (people), goes
//! through the handle [`engine`], and is written by [`graph`] alone. From the bottom up:
//!
//! - [`object`], [`domain`], [`schema`], [`op_context`]: plain values.
//! - [`acl`]: pure rules, facts in, `Granted` or `Denied` out.
//! - [`store`]: all SQL. [`graph`]: the single write path. [`state_engine`]: packages and cursors.
//! - [`services`]: the apps' few verbs. [`engine`]: the only door from async code to data.
//! - [`peer`]: one session per peer. [`api`]: the local HTTP API.
//! - [`config`], [`cli`], [`node`]: what an operator sees, and where all is put together.
//!
//! `docs/ARCHITECTURE.md` tells the way of data; `tests/tidy.rs` keeps the arrows.
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
mod toml_file;
