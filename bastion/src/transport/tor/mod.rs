//! Embedded Tor: one arti client that dials onion services and runs this node's own.
//!
//! - `node`: bootstrap, and launch of services
//! - `config`: from the node's `[tor]` table to arti's configuration; `limits`: this node's limits
//! - `listener`: the accept loop over rendezvous requests; `circuit_table`: limits and evictions
//! - `dial`: the transport; `error`: errors without onion addresses
//!
//! No secret key is written to disk, because the keystore is in memory. Only onion services are
//! dialled. No error contains a full onion address. Everything ends when the [`TorNode`], its
//! transports and its listeners are dropped.

mod circuit_table;
mod config;
mod dial;
mod error;
mod limits;
mod listener;
mod node;

pub use config::TorConfig;
pub use dial::TorTransport;
pub use error::TorError;
pub use limits::TorLimits;
pub use listener::TorListener;
pub use node::{BootstrapProgress, TorNode};
