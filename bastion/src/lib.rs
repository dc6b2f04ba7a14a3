//! The Bastion: strangers in, authenticated peers out (docs/STORY.md 1.1).
//!
//! Pure, without streams, clocks or chance:
//! - [`messages`] and [`claims`]: what is said; [`puzzle`]: the work; [`load`]: how much of it; [`ticket`]: what spares it.
//! - [`handshake`]: one consumed state per message, for either side.
//!
//! I/O at the edge:
//! - [`frames`]: messages on a stream; [`transport`]: where streams come from (memory, loopback, Tor).
//! - [`gate`]: deadlines, slots, a bounded pool for verifying; [`config`]: every limit.
//!
//! Never here: the graph, SQL. Nothing is kept for a stranger that has not worked but its slot.
//! Invariant: a stream leaves this crate only beside an [`Admitted`].
#![forbid(unsafe_code)]

pub mod claims;
pub mod config;
pub mod error;
pub mod frames;
pub mod gate;
pub mod handshake;
pub mod load;
pub mod messages;
pub mod puzzle;
pub mod ticket;
pub mod transport;

pub use claims::{PeerClaims, Profile};
pub use config::{BadGateConfig, GateConfig};
pub use error::{HandshakeError, Incompatibility, Internal, Misbehaviour, RefusalCode, Step};
pub use frames::{FrameError, FrameReader, FrameWriter, Session};
pub use gate::{Applicant, Clock, Decision, Gate, GateStatus, Gatekeeper, Progress};
pub use handshake::Admitted;
pub use ticket::{Ticket, Tier};
pub use transport::{
    Circuit, DialError, Hardening, Incoming, Io, Listener, Stream, TorStatus, TorWatch, Transport,
    Vanguards,
};
