//! Admission: the policy in force, the rule that judges an applicant, and the gatekeeper that
//! applies both.
//!
//! The gate asks [`NodeGatekeeper`] in each handshake. The gatekeeper reads the facts from the
//! database and the sessions, and passes them to the pure rule of `rule.rs`. Tested in these files
//! and in `tests/net/admission.rs`.

mod current;
mod gatekeeper;
mod rule;

pub use current::ActivePolicy;
pub use gatekeeper::NodeGatekeeper;
