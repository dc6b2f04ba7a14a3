//! The handshake as a state machine, without streams, clocks or randomness.
//!
//! One type per expected message; each message consumes the state.
//!
//! - Server: [`AwaitHello`] -> [`AwaitSolution`] -> [`PrecheckedSolution`] -> [`ReservedSolution`]
//!   -> [`Verified`] -> [`Admitted`].
//! - Client: [`AwaitChallenge`] -> [`Solving`] -> [`AwaitWelcome`] -> [`Admitted`].
//!
//! Invariant: an [`Admitted`] exists only after work or ticket, signatures and onion address were
//! verified. Tested by `hostile_tests`, `claims_tests`, `client_tests`, `ticket_tests`,
//! `longest_tests`, `every_message_tests` and `tests/fuzz`.

mod admitted;
mod client;
mod context;
mod server;
mod signed_parts;

pub use admitted::Admitted;
pub use client::{AwaitChallenge, AwaitWelcome, DialTerms, Solving, Work};
pub use context::{HandshakeContext, Moment, ServerState};
pub use server::{
    AwaitHello, AwaitSolution, FirstMessage, PrecheckedSolution, ReservedSolution, Verified,
};

#[cfg(test)]
mod claims_tests;
#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod every_message_tests;
#[cfg(test)]
mod form_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod longest_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod ticket_tests;
