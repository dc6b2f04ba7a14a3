//! The admission rule: facts about an applicant in, a judgement out.
//!
//! [`judge`] is pure. Invariant: a ban comes before every other fact, and a ticket does not bypass
//! the policy.

use bastion::{Decision, RefusalCode, Tier};

use crate::config::Policy;
use crate::op_context::Timestamp;
use crate::store::{Verdict, VerdictRow};

/// The facts about an applicant: a node that has finished its handshake up to the decision.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The stored tier of a known peer.
    pub(super) tier: Option<Tier>,
    /// Whether the configuration's `admission.allow` lists it.
    pub(super) is_listed: bool,
    /// Whether what it sent is being removed.
    pub(super) is_purging: bool,
    /// The operator's latest verdict on it.
    pub(super) verdict: Option<VerdictRow>,
    /// The issue time of the ticket that it presented, if any, in seconds since 1970.
    pub(super) ticket_issued: Option<u64>,
    /// Whether no session slot is free for an untrusted peer.
    pub(super) is_full: bool,
    /// Whether no slot is free even for a trusted peer, which may evict the newest untrusted
    /// session.
    pub(super) is_full_for_trusted: bool,
    /// The current time, at which verdicts hold or have expired.
    pub(super) now: Timestamp,
}

/// The outcome of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The policy or a verdict decides.
    Decided(Decision),
    /// The operator has to decide: the applicant becomes a pending request.
    NeedsApproval,
}

/// Judges an applicant under `policy`.
pub(super) fn judge(policy: Policy, facts: &Facts) -> Judgement {
    let refuse = |code| Judgement::Decided(Decision::Refuse(code));
    let in_force = facts.verdict.as_ref().filter(|row| row.holds(facts.now));
    let verdict = in_force.map(|row| row.verdict);
    if verdict == Some(Verdict::Banned) {
        return refuse(RefusalCode::Banned);
    }
    // Otherwise it would send again what is removed.
    if facts.is_purging {
        return refuse(RefusalCode::Busy);
    }
    // A ban that has expired counts too: the tickets that it voided stay void, and the peer has to
    // solve a puzzle again.
    let void_until = facts
        .verdict
        .as_ref()
        .map_or(0, |row| row.tickets_void_until);
    if facts
        .ticket_issued
        .is_some_and(|issued| issued <= void_until)
    {
        return refuse(RefusalCode::Expired);
    }
    // A peer that the operator trusts may evict the newest untrusted session, so it is refused only
    // where no slot can be freed for it.
    if facts.tier == Some(Tier::Trusted) || facts.is_listed || verdict == Some(Verdict::Approved) {
        return match facts.is_full_for_trusted {
            true => refuse(RefusalCode::Busy),
            false => Judgement::Decided(Decision::Admit(Tier::Trusted)),
        };
    }
    if verdict == Some(Verdict::Refused) {
        return refuse(RefusalCode::Policy);
    }
    match policy {
        // A pending request takes no slot, so only the open policy depends on a free one.
        Policy::Open if facts.is_full => refuse(RefusalCode::Busy),
        Policy::Open => Judgement::Decided(Decision::Admit(Tier::Untrusted)),
        Policy::Approve => Judgement::NeedsApproval,
        Policy::Allowlist => refuse(RefusalCode::Policy),
    }
}

#[cfg(test)]
mod tests {
    use keys::PeerId;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const UNADMITTED: Facts = Facts {
        tier: None,
        is_listed: false,
        is_purging: false,
        verdict: None,
        ticket_issued: None,
        is_full: false,
        is_full_for_trusted: false,
        now: NOW,
    };
    const UNTRUSTED: Judgement = Judgement::Decided(Decision::Admit(Tier::Untrusted));
    const TRUSTED: Judgement = Judgement::Decided(Decision::Admit(Tier::Trusted));

    fn refused(code: RefusalCode) -> Judgement {
        Judgement::Decided(Decision::Refuse(code))
    }

    fn verdict(
        verdict: Verdict,
        until: Option<u64>,
        tickets_void_until: u64,
    ) -> Option<VerdictRow> {
        Some(VerdictRow {
            peer_id: PeerId::from_bytes([1; 32]),
            verdict,
            reason: String::new(),
            at: NOW,
            until: until.map(Timestamp),
            tickets_void_until,
        })
    }

    /// Checks the judgements under `open`, `approve` and `allowlist`, in this order.
    #[track_caller]
    fn check(facts: &Facts, expected: [Judgement; 3]) {
        let policies = [Policy::Open, Policy::Approve, Policy::Allowlist];
        assert_eq!(
            policies.map(|policy| judge(policy, facts)),
            expected,
            "{facts:?}"
        );
    }

    #[test]
    fn policy_decides_on_unadmitted_and_untrusted_nodes_with_or_without_a_ticket() {
        let by_policy = [
            UNTRUSTED,
            Judgement::NeedsApproval,
            refused(RefusalCode::Policy),
        ];
        check(&UNADMITTED, by_policy);
        let untrusted = Facts {
            tier: Some(Tier::Untrusted),
            ticket_issued: Some(5),
            ..UNADMITTED
        };
        check(&untrusted, by_policy);
    }

    #[test]
    fn trusted_listed_or_approved_peer_is_admitted_under_every_policy_and_load() {
        let trusted = [
            Facts {
                tier: Some(Tier::Trusted),
                ..UNADMITTED
            },
            Facts {
                is_listed: true,
                ..UNADMITTED
            },
            Facts {
                verdict: verdict(Verdict::Approved, None, 0),
                ..UNADMITTED
            },
        ];
        for facts in trusted {
            check(&facts, [TRUSTED; 3]);
            check(
                &Facts {
                    is_full: true,
                    ..facts
                },
                [TRUSTED; 3],
            );
        }
    }

    #[test]
    fn ban_precedes_every_other_fact_until_it_expires() {
        let mut facts = Facts {
            tier: Some(Tier::Trusted),
            is_listed: true,
            ticket_issued: Some(5),
            is_full: true,
            verdict: verdict(Verdict::Banned, None, 9),
            ..UNADMITTED
        };
        check(&facts, [refused(RefusalCode::Banned); 3]);
        facts.verdict = verdict(Verdict::Banned, Some(NOW.0 + 1), 9);
        check(&facts, [refused(RefusalCode::Banned); 3]);
        facts.verdict = verdict(Verdict::Banned, Some(NOW.0), 9);
        check(&facts, [refused(RefusalCode::Expired); 3]);
    }

    #[test]
    fn peer_waits_until_what_it_sent_is_removed() {
        let facts = Facts {
            is_listed: true,
            is_purging: true,
            ..UNADMITTED
        };
        check(&facts, [refused(RefusalCode::Busy); 3]);
        let banned = Facts {
            verdict: verdict(Verdict::Banned, None, 9),
            ..facts
        };
        check(&banned, [refused(RefusalCode::Banned); 3]);
    }

    #[test]
    fn ban_voids_the_tickets_issued_before_it() {
        let verdict = verdict(Verdict::Approved, None, 9);
        for (issued, expected) in [
            (Some(9), refused(RefusalCode::Expired)),
            (Some(10), TRUSTED),
            (None, TRUSTED),
        ] {
            let facts = Facts {
                ticket_issued: issued,
                verdict: verdict.clone(),
                ..UNADMITTED
            };
            check(&facts, [expected; 3]);
        }
    }

    #[test]
    fn refusal_precedes_busy_until_it_expires() {
        let mut facts = Facts {
            is_full: true,
            verdict: verdict(Verdict::Refused, Some(NOW.0 + 1), 0),
            ..UNADMITTED
        };
        check(&facts, [refused(RefusalCode::Policy); 3]);
        facts.verdict = verdict(Verdict::Refused, Some(NOW.0), 0);
        check(
            &facts,
            [
                refused(RefusalCode::Busy),
                Judgement::NeedsApproval,
                refused(RefusalCode::Policy),
            ],
        );
        facts.is_full = false;
        check(
            &facts,
            [
                UNTRUSTED,
                Judgement::NeedsApproval,
                refused(RefusalCode::Policy),
            ],
        );
    }

    #[test]
    fn approval_is_requested_although_every_slot_is_taken() {
        let full = Facts {
            is_full: true,
            is_full_for_trusted: true,
            ..UNADMITTED
        };
        check(
            &full,
            [
                refused(RefusalCode::Busy),
                Judgement::NeedsApproval,
                refused(RefusalCode::Policy),
            ],
        );
    }
}
