//! The Bastion: turns streams from unadmitted nodes into sessions with authenticated peers
//! (docs/STORY.md 1.1).
//!
//! Without streams, clocks or randomness of their own:
//! - [`messages`], [`claims`] and [`features`]: the wire format of the handshake.
//! - [`puzzle`]: the proof of work. [`load`]: its effort. [`ticket`]: replaces it for known peers.
//! - [`handshake`]: one state per expected message, for client and server.
//!
//! I/O:
//! - [`transport`]: streams over memory, loopback or Tor. [`frames`]: messages on a stream.
//! - [`gate`]: the server side. [`client`]: the client side. [`config`]: the limits of both.
//! - [`policy`] and [`clock`]: the traits that the node implements.
//!
//! This crate knows neither the graph nor SQL. For an unadmitted node that has not worked, the
//! server keeps nothing but its slot.
//! Invariant: a stream leaves this crate only together with an [`Admitted`].
#![forbid(unsafe_code)]

pub mod claims;
pub mod client;
pub mod clock;
pub mod config;
pub mod error;
pub mod features;
pub mod frames;
pub mod gate;
pub mod handshake;
pub mod load;
pub mod messages;
pub mod policy;
pub mod puzzle;
pub mod ticket;
mod timed_io;
pub mod transport;

pub use claims::{AppClaim, NodeProfile, PeerClaims};
pub use client::{Connector, Progress};
pub use clock::SecondsClock;
pub use config::GateConfig;
pub use error::{
    HandshakeError, HandshakeStep, Incompatibility, Internal, Misbehaviour, refusal_text,
};
pub use features::{BadFeatures, Feature, Features};
pub use frames::{FrameError, FrameReader, FrameWriter, Session};
pub use gate::{Gate, GateStatus, HandshakeCounts};
pub use handshake::{Admitted, DialTerms};
pub use messages::RefusalCode;
pub use policy::{AdmissionPolicy, Applicant, Decision, LocalProfile};
pub use ticket::{Ticket, Tier};
pub use transport::{
    Circuit, DialError, Hardening, Incoming, Io, Listener, Stream, TorStatus, TorWatch, Transport,
    Vanguards,
};
