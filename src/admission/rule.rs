//! The admission rule: facts about an applicant in, a judgement out.
//!
//! [`judge`] is pure. Invariant: a ban comes before every other fact, and a ticket does not bypass the policy.

use bastion::{Decision, RefusalCode};

use crate::config::Policy;
use crate::op_context::Timestamp;
use crate::store::{Tier, Verdict, VerdictRow};

/// What is known of an applicant.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// How far it was trusted, where it is a known peer.
    pub(super) tier: Option<Tier>,
    /// Whether the file lists it.
    pub(super) is_listed: bool,
    /// What the operator said of it last.
    pub(super) verdict: Option<VerdictRow>,
    /// When its ticket was issued, in unix seconds, where it came with one.
    pub(super) ticket_issued: Option<u64>,
    /// Whether there is no place for one more session of an untrusted peer.
    pub(super) is_full: bool,
    /// Whether there is none even for a trusted peer, before whom the newest worked one goes.
    pub(super) is_full_for_trusted: bool,
    /// Now.
    pub(super) now: Timestamp,
}

/// What follows for an applicant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// This.
    Decided(Decision),
    /// The operator is to decide: it is noted among those that wait.
    NeedsApproval,
}

/// Whether to let an applicant in.
pub(super) fn judge(policy: Policy, facts: &Facts) -> Judgement {
    let refuse = |code| Judgement::Decided(Decision::Refuse(code));
    let said = facts.verdict.as_ref().filter(|row| row.holds(facts.now));
    let said = said.map(|row| row.verdict);
    if said == Some(Verdict::Banned) {
        return refuse(RefusalCode::Banned);
    }
    // Also of a ban that is over: what it voided stays void, and the peer works once more.
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
    // Those whom the operator knows find a place however many strangers have taken all: the newest of these goes.
    if facts.tier == Some(Tier::Trusted) || facts.is_listed || said == Some(Verdict::Approved) {
        return match facts.is_full_for_trusted {
            true => refuse(RefusalCode::Busy),
            false => Judgement::Decided(Decision::Admit(bastion::Tier::Trusted)),
        };
    }
    if said == Some(Verdict::Refused) {
        return refuse(RefusalCode::Policy);
    }
    match policy {
        // Only here is a place needed: whoever waits for the operator's word takes none.
        Policy::Open if facts.is_full => refuse(RefusalCode::Busy),
        Policy::Open => Judgement::Decided(Decision::Admit(bastion::Tier::Untrusted)),
        Policy::Approve => Judgement::NeedsApproval,
        Policy::Allowlist => refuse(RefusalCode::Policy),
    }
}

#[cfg(test)]
mod tests {
    use keys::PeerId;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const STRANGER: Facts = Facts {
        tier: None,
        is_listed: false,
        verdict: None,
        ticket_issued: None,
        is_full: false,
        is_full_for_trusted: false,
        now: NOW,
    };
    const UNTRUSTED: Judgement = Judgement::Decided(Decision::Admit(bastion::Tier::Untrusted));
    const TRUSTED: Judgement = Judgement::Decided(Decision::Admit(bastion::Tier::Trusted));

    fn refused(code: RefusalCode) -> Judgement {
        Judgement::Decided(Decision::Refuse(code))
    }

    fn said(verdict: Verdict, until: Option<u64>, tickets_void_until: u64) -> Option<VerdictRow> {
        Some(VerdictRow {
            peer_id: PeerId::from_bytes([1; 32]),
            verdict,
            reason: String::new(),
            at: NOW,
            until: until.map(Timestamp),
            tickets_void_until,
        })
    }

    /// Under `open`, `approve` and `allowlist`, in this order.
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
    fn a_stranger_and_a_peer_that_only_worked_are_judged_by_the_policy_ticket_or_not() {
        let by_policy = [
            UNTRUSTED,
            Judgement::NeedsApproval,
            refused(RefusalCode::Policy),
        ];
        check(&STRANGER, by_policy);
        let worked = Facts {
            tier: Some(Tier::Untrusted),
            ticket_issued: Some(5),
            ..STRANGER
        };
        check(&worked, by_policy);
    }

    #[test]
    fn whom_the_operator_knows_is_let_in_under_every_policy_however_full() {
        let trusted = [
            Facts {
                tier: Some(Tier::Trusted),
                ..STRANGER
            },
            Facts {
                is_listed: true,
                ..STRANGER
            },
            Facts {
                verdict: said(Verdict::Approved, None, 0),
                ..STRANGER
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
    fn a_ban_comes_before_all_else_and_ends_in_time() {
        let mut facts = Facts {
            tier: Some(Tier::Trusted),
            is_listed: true,
            ticket_issued: Some(5),
            is_full: true,
            verdict: said(Verdict::Banned, None, 9),
            ..STRANGER
        };
        check(&facts, [refused(RefusalCode::Banned); 3]);
        facts.verdict = said(Verdict::Banned, Some(NOW.0 + 1), 9);
        check(&facts, [refused(RefusalCode::Banned); 3]);
        facts.verdict = said(Verdict::Banned, Some(NOW.0), 9);
        check(&facts, [refused(RefusalCode::Expired); 3]);
    }

    #[test]
    fn a_ban_voids_the_tickets_that_were_issued_up_to_then() {
        let verdict = said(Verdict::Approved, None, 9);
        for (issued, expected) in [
            (Some(9), refused(RefusalCode::Expired)),
            (Some(10), TRUSTED),
            (None, TRUSTED),
        ] {
            let facts = Facts {
                ticket_issued: issued,
                verdict: verdict.clone(),
                ..STRANGER
            };
            check(&facts, [expected; 3]);
        }
    }

    #[test]
    fn a_refusal_holds_until_its_time_and_comes_before_busy() {
        let mut facts = Facts {
            is_full: true,
            verdict: said(Verdict::Refused, Some(NOW.0 + 1), 0),
            ..STRANGER
        };
        check(&facts, [refused(RefusalCode::Policy); 3]);
        facts.verdict = said(Verdict::Refused, Some(NOW.0), 0);
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
    fn a_stranger_waits_for_the_operators_word_though_all_places_are_taken() {
        let full = Facts {
            is_full: true,
            is_full_for_trusted: true,
            ..STRANGER
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
