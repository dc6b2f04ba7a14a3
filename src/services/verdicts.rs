//! The operator's verdicts on peers: approve, refuse, ban, unban (docs/DECISIONS.md 6).
//!
//! Stores the verdict; `node` ends sessions and applies the policy. Invariants: no row in the
//! database makes a banned peer trusted; only `unban` lifts a ban. Tested in
//! `tests/net/admission.rs`.

use bastion::Tier;
use keys::PeerId;

use crate::graph::{DecodedObject, GraphLimits, GraphManager, KnownKeys, decode_object};
use crate::op_context::Timestamp;
use crate::schema::identities;
use crate::store::{PurgeOrder, StoreError, Verdict, VerdictRow};
use crate::text::is_line;

/// Longest reason in bytes: one line of text.
pub const REASON_BYTES_MAX: usize = 256;
/// Largest number of identity names that are kept of a pending request.
const NAMES_MAX: usize = 8;
/// Longest of these names in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The operator's note on a verdict: one line of at most [`REASON_BYTES_MAX`] bytes. Never sent to
/// a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason(String);

/// The reason is too long or contains a control or invisible character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reason has at most {REASON_BYTES_MAX} bytes, without control or invisible characters")]
pub struct BadReason;

impl Reason {
    /// Checks a reason as it was typed.
    pub fn new(text: String) -> Result<Self, BadReason> {
        if is_line(&text, REASON_BYTES_MAX) {
            Ok(Self(text))
        } else {
            Err(BadReason)
        }
    }
}

/// Why a verdict was not stored.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// The peer is banned, and only `unban` lifts a ban.
    #[error("this peer is banned: lift the ban first")]
    Banned,
    /// The peer is trusted, and only untrusted peers can be refused.
    #[error("this peer is trusted: ban it instead")]
    Trusted,
    /// There is no ban and no refusal to lift.
    #[error("this peer is neither banned nor refused")]
    NotExcluded,
    /// The peer is this node.
    #[error("this is the node itself")]
    Itself,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Admits a peer from now on, as a trusted one.
pub fn approve(graph: &mut GraphManager<'_>, peer: PeerId) -> Result<VerdictRow, VerdictError> {
    not_itself(graph, &peer)?;
    not_banned(graph, &peer)?;
    let row = row(graph, peer, Verdict::Approved, Reason::default(), None);
    graph.tx().put_verdict(&row)?;
    graph.tx().remove_pending(&peer)?;
    graph.tx().set_tier(&peer, Tier::Trusted)?;
    Ok(row)
}

/// Refuses an untrusted peer until a time, without asking the operator again.
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

/// Bans a peer until a time. The peer loses its trust, and its present tickets stay void after the
/// ban. Its identities of which nothing is kept are forgotten.
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
    graph.tx().order_purge(&peer, &PurgeOrder::IDENTITIES)?;
    Ok(row)
}

/// Lifts a ban or a refusal; the peer is unadmitted again. Tickets that the ban made void stay
/// void.
pub fn unban(graph: &mut GraphManager<'_>, peer: PeerId) -> Result<VerdictRow, VerdictError> {
    let now = graph.now();
    let known = graph.tx().verdict(&peer)?;
    let row = known
        .filter(|row| row.verdict != Verdict::Approved && row.holds(now))
        .ok_or(VerdictError::NotExcluded)?;
    // The row stays and ends now, because it also says which tickets are void.
    let row = VerdictRow {
        until: Some(now),
        ..row
    };
    graph.tx().put_verdict(&row)?;
    Ok(row)
}

pub(super) fn not_itself(graph: &GraphManager<'_>, peer: &PeerId) -> Result<(), VerdictError> {
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

/// The names of the identities that an unadmitted node claims. Only identities whose records prove
/// that they live at that node count, so that no pending request can use the name of another node's
/// identity. Verifies at most eight records.
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

/// The name in an identity's record, if the record is valid and names `peer` as the home.
fn name(peer: &PeerId, decoded: DecodedObject) -> Option<String> {
    let verified = decoded.verify(&KnownKeys::default()).ok()?;
    if verified.record()?.home() != *peer {
        return None;
    }
    let name = verified.object().first(identities::NAME)?.as_text()?;
    Some(shortened(name))
}

/// Shortens a name to [`NAME_BYTES_MAX`] bytes, at a character boundary and with a mark.
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
    fn reason_is_one_line_of_bounded_length() {
        let longest = "x".repeat(REASON_BYTES_MAX);
        assert!(Reason::new(longest.clone()).is_ok() && Reason::new(String::new()).is_ok());
        assert!(Reason::new("sent spam, twice: «nein»".into()).is_ok());
        assert_eq!(Reason::new(longest + "x"), Err(BadReason));
        for bad in ["two\nlines", "\u{1b}[2J", "nul\0", "\u{9b}31m"] {
            assert_eq!(Reason::new(bad.into()), Err(BadReason), "{bad:?}");
        }
    }

    #[test]
    fn long_name_is_shortened_at_a_character_boundary_with_a_mark() {
        assert_eq!(shortened("Bob"), "Bob");
        let just = "b".repeat(NAME_BYTES_MAX);
        assert_eq!(shortened(&just), just);
        let cut = shortened(&"ö".repeat(40));
        assert_eq!(cut, format!("{}…", "ö".repeat(30)));
        assert!(cut.len() <= NAME_BYTES_MAX);
    }
}
