//! The operator's word on who may come in: approve, refuse, ban, unban (docs/DECISIONS.md 6).
//!
//! Never ends a session and changes no policy: the node does. Invariant: a peer that is banned is trusted by nothing
//! that stands in the database, and no word but "unban" lifts a ban.

use bastion::Tier;
use keys::PeerId;

use crate::graph::{DecodedObject, GraphLimits, GraphManager, KnownKeys, decode_object};
use crate::op_context::Timestamp;
use crate::schema::identities;
use crate::store::{StoreError, Verdict, VerdictRow};

/// Longest reason, in bytes: a line that a person reads.
pub const REASON_BYTES_MAX: usize = 256;
/// Most names of a stranger's identities that are kept.
const NAMES_MAX: usize = 8;
/// Longest of them, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Why a word was given, for the operator's own eyes: one line, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason(String);

/// A reason that is too long or no line of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reason has at most {REASON_BYTES_MAX} bytes, without control characters")]
pub struct BadReason;

impl Reason {
    /// Takes a reason as it was typed.
    pub fn new(text: String) -> Result<Self, BadReason> {
        let is_line = text.len() <= REASON_BYTES_MAX && !text.chars().any(char::is_control);
        if is_line {
            Ok(Self(text))
        } else {
            Err(BadReason)
        }
    }
}

/// Why a word was not taken.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// Only "unban" lifts a ban.
    #[error("this peer is banned: lift the ban first")]
    Banned,
    /// It is trusted, and a refusal is for strangers.
    #[error("this peer is trusted: only a ban keeps it out")]
    Trusted,
    /// Nothing is there to be lifted.
    #[error("this peer is neither banned nor refused")]
    NotKeptOut,
    /// This node itself.
    #[error("this is the node itself")]
    Itself,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Lets a node in from now on, and trusts it.
pub fn approve(graph: &mut GraphManager<'_>, peer: PeerId) -> Result<VerdictRow, VerdictError> {
    not_itself(graph, &peer)?;
    not_banned(graph, &peer)?;
    let row = row(graph, peer, Verdict::Approved, Reason::default(), None);
    graph.tx().put_verdict(&row)?;
    graph.tx().remove_pending(&peer)?;
    graph.tx().set_tier(&peer, Tier::Trusted)?;
    Ok(row)
}

/// Sends a stranger away until then, without asking again.
pub fn refuse(
    graph: &mut GraphManager<'_>,
    peer: PeerId,
    reason: Reason,
    until: Option<Timestamp>,
) -> Result<VerdictRow, VerdictError> {
    not_itself(graph, &peer)?;
    not_banned(graph, &peer)?;
    if graph
        .tx()
        .peer(&peer)?
        .is_some_and(|row| row.tier == Tier::Trusted)
    {
        return Err(VerdictError::Trusted);
    }
    let row = row(graph, peer, Verdict::Refused, reason, until);
    graph.tx().put_verdict(&row)?;
    graph.tx().remove_pending(&peer)?;
    Ok(row)
}

/// Keeps a node out until then: it is trusted no longer, and the tickets that it holds are void for good.
pub fn ban(
    graph: &mut GraphManager<'_>,
    peer: PeerId,
    reason: Reason,
    until: Option<Timestamp>,
) -> Result<VerdictRow, VerdictError> {
    not_itself(graph, &peer)?;
    let row = VerdictRow {
        tickets_void_until: graph.now().seconds(),
        ..row(graph, peer, Verdict::Banned, reason, until)
    };
    graph.tx().put_verdict(&row)?;
    graph.tx().remove_pending(&peer)?;
    graph.tx().set_tier(&peer, Tier::Untrusted)?;
    Ok(row)
}

/// Lifts a ban or a refusal: the node is a stranger again. Tickets that the ban made void stay void.
pub fn unban(graph: &mut GraphManager<'_>, peer: PeerId) -> Result<VerdictRow, VerdictError> {
    let now = graph.now();
    let known = graph.tx().verdict(&peer)?;
    let row = known
        .filter(|row| row.verdict != Verdict::Approved && row.holds(now))
        .ok_or(VerdictError::NotKeptOut)?;
    // The row stays, over as of now: it still says which tickets are void.
    let row = VerdictRow {
        until: Some(now),
        ..row
    };
    graph.tx().put_verdict(&row)?;
    Ok(row)
}

fn not_itself(graph: &GraphManager<'_>, peer: &PeerId) -> Result<(), VerdictError> {
    if graph.keys().peer_id() == *peer {
        return Err(VerdictError::Itself);
    }
    Ok(())
}

fn not_banned(graph: &GraphManager<'_>, peer: &PeerId) -> Result<(), VerdictError> {
    if graph.tx().is_banned(peer, graph.now())? {
        return Err(VerdictError::Banned);
    }
    Ok(())
}

fn row(
    graph: &GraphManager<'_>,
    peer_id: PeerId,
    verdict: Verdict,
    reason: Reason,
    until: Option<Timestamp>,
) -> VerdictRow {
    VerdictRow {
        peer_id,
        verdict,
        reason: reason.0,
        at: graph.now(),
        until,
        tickets_void_until: 0,
    }
}

/// What the identities call themselves that a stranger showed: only those that prove that they live at its node, so that
/// nobody waits under a name that was seen elsewhere. Bounded; costs signature checks.
pub fn claimed_names(
    peer: &PeerId,
    identities: Vec<keys::SignedObject>,
    limits: &GraphLimits,
) -> Vec<String> {
    let shown = identities.into_iter().take(NAMES_MAX);
    shown
        .filter_map(|signed| decode_object(signed, limits).ok())
        .filter_map(|decoded| name(peer, decoded))
        .collect()
}

fn name(peer: &PeerId, decoded: DecodedObject) -> Option<String> {
    let verified = decoded.verify(&KnownKeys::default()).ok()?;
    if verified.record()?.home() != *peer {
        return None;
    }
    let name = verified.object().first(identities::NAME)?.as_text()?;
    Some(shortened(name))
}

/// A name that is too long, with a mark where it was cut.
fn shortened(name: &str) -> String {
    const MARK: char = '…';
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let end = name.floor_char_boundary(NAME_BYTES_MAX - MARK.len_utf8());
    name.get(..end)
        .unwrap_or_default()
        .chars()
        .chain([MARK])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        let longest = "x".repeat(REASON_BYTES_MAX);
        assert!(Reason::new(longest.clone()).is_ok() && Reason::new(String::new()).is_ok());
        assert!(Reason::new("sent spam, twice: «nein»".into()).is_ok());
        assert_eq!(Reason::new(longest + "x"), Err(BadReason));
        for bad in ["two\nlines", "\u{1b}[2J", "nul\0", "\u{9b}31m"] {
            assert_eq!(Reason::new(bad.into()), Err(BadReason), "{bad:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_with_a_mark_and_within_a_letter_never() {
        assert_eq!(shortened("Bob"), "Bob");
        let just = "b".repeat(NAME_BYTES_MAX);
        assert_eq!(shortened(&just), just);
        let cut = shortened(&"ö".repeat(40));
        assert_eq!(cut, format!("{}…", "ö".repeat(30)));
        assert!(cut.len() <= NAME_BYTES_MAX);
    }
}
