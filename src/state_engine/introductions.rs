//! Introductions: which members' nodes this node dials by itself (docs/DECISIONS.md 10).
//!
//! Invariant: the dials of a day are bounded for each owner, who can found any number of scopes.
//! Tested in `tests/core/introductions.rs`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use keys::{Oid, OnionAddr, PeerId};
use rand::RngExt as _;

use super::engine::StateEngine;
use super::places::MeetingPlace;
use super::view::View;
use crate::op_context::Timestamp;
use crate::store::{INTRODUCTIONS_MAX, Introduction, Rows, ScopeId, StoreError, Verdict};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Introductions that begin in a day for one owner of scopes.
const OWNER_DAY_MAX: usize = 8;
/// Introductions that begin in a day.
const DAY_MAX: usize = 32;
/// Introductions that are kept for one owner of scopes.
const OWNER_MAX: usize = 16;
/// Most introductions that one look examines.
const ROWS_MAX: usize = 8;
/// Failed dials after which a node that was never reached gives way to others.
const TRIES_MAX: u32 = 3;
/// Sessions with introduced nodes at the same time, from which no further one is dialled.
const LIVE_MAX: usize = 64;
/// Duration of a session after which a node counts as reliable again.
const STABLE_MS: u64 = 60 * MINUTE_MS;
/// Longest pause between two dials of a node that was reached, in milliseconds.
const REACHED_PAUSE_MS_MAX: u64 = 4 * 60 * MINUTE_MS;
/// Hours between two dials of a node that was never reached, by the number of failures.
const UNREACHED_PAUSES_H: [u64; 7] = [1, 4, 12, 24, 48, 96, 168];

/// Facts about sessions by which dials are planned.
#[derive(Debug, Clone, Default)]
pub struct DialFacts {
    /// The nodes that have a session.
    pub live: BTreeSet<PeerId>,
    /// The addresses at which the operator keeps sessions.
    pub kept: BTreeSet<OnionAddr>,
    /// Most dials that may begin now.
    pub dials_max: usize,
    /// Longest delay of a first dial, in milliseconds.
    pub delay_ms_max: u64,
}

/// A dial to a node that other members introduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntroductionDial {
    /// The node that must answer.
    pub peer: PeerId,
    /// Its onion service.
    pub onion: OnionAddr,
}

/// The result of such a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntroductionOutcome {
    /// A session began.
    Reached,
    /// No session began.
    Failed,
    /// Another node serves the onion address.
    AnotherNode,
}

impl View<'_> {
    /// Whether this node may dial a node without the operator's request.
    pub fn may_introduce(&self, node: &PeerId, now: Timestamp) -> Result<bool, StoreError> {
        may_introduce(&self.rows, node, now)
    }
}

/// Whether no verdict or purge keeps a node out, and the operator keeps no session with it.
fn may_introduce(rows: &Rows<'_>, node: &PeerId, now: Timestamp) -> Result<bool, StoreError> {
    let verdict = rows.verdict(node)?.filter(|row| row.holds(now));
    let is_excluded = verdict.is_some_and(|row| row.verdict != Verdict::Approved);
    let is_untrusted = |tier| tier == bastion::Tier::Untrusted;
    let may = rows.peer(node)?.is_none_or(|it| is_untrusted(it.tier));
    Ok(may && !is_excluded && !rows.is_removed(node)?)
}

impl StateEngine {
    /// Begins introductions to the nodes of the members of `places`, within the bounds of a day.
    /// Returns the dials that are due.
    pub fn plan_introductions(
        &mut self,
        now: Timestamp,
        places: &[MeetingPlace],
        facts: &DialFacts,
    ) -> Result<Vec<IntroductionDial>, StoreError> {
        let candidates = {
            let view = self.view();
            let mut candidates = Candidates::default();
            for place in places {
                for member in &place.members {
                    let is_live = facts.live.contains(&member.home);
                    if !is_live && onion_of(&view, &member.home, facts, now)?.is_some() {
                        candidates.add(place, member.home);
                    }
                }
            }
            candidates
        };
        self.begin_introductions(now, candidates, facts.delay_ms_max)?;
        self.due_introductions(now, facts)
    }

    fn begin_introductions(
        &mut self,
        now: Timestamp,
        mut candidates: Candidates,
        delay_ms_max: u64,
    ) -> Result<(), StoreError> {
        let rows = self.store.rows().introductions()?;
        let mut counts = Counts::new(&rows, now);
        for row in &rows {
            candidates.remove(&row.peer);
        }
        let mut unreached: Vec<_> = rows.iter().filter(|row| is_unreached(row)).collect();
        unreached.sort_by_key(|row| Reverse(row.begun_at));
        let (mut begun, mut removed) = (Vec::new(), Vec::new());
        while let Some((owner, peer, place)) = candidates.draw(&counts, &mut *self.rng) {
            counts.add(owner);
            candidates.remove(&peer);
            if rows.len() + begun.len() >= INTRODUCTIONS_MAX + removed.len() {
                removed.extend(unreached.pop().map(|row| row.peer));
            }
            let delay = self.rng.random_range(0..=delay_ms_max);
            begun.push(Introduction {
                peer,
                scope: place,
                scope_owner: owner,
                begun_at: now,
                next_at: Timestamp(now.0.saturating_add(delay)),
                failures: 0,
                reached_at: None,
            });
        }
        if begun.is_empty() {
            return Ok(());
        }
        self.store.transaction(|tx| {
            let mut removed = removed.iter();
            removed.try_for_each(|peer| tx.remove_introduction(peer))?;
            begun.iter().try_for_each(|row| tx.put_introduction(row))
        })
    }

    /// The dials that are due. Introductions that no scope wants any more end, but count for the
    /// rest of their first day. A node whose session lasts counts as reliable again.
    fn due_introductions(
        &mut self,
        now: Timestamp,
        facts: &DialFacts,
    ) -> Result<Vec<IntroductionDial>, StoreError> {
        let rows = self.store.rows().introductions()?;
        let live = rows.iter().filter(|row| facts.live.contains(&row.peer));
        let dials_max = facts.dials_max.min(LIVE_MAX.saturating_sub(live.count()));
        // A time that is far ahead was written by another clock.
        let is_time = |at: Timestamp| at <= now || at.0 > now.0.saturating_add(8 * DAY_MS);
        let due = rows.into_iter().filter(|row| is_time(row.next_at));
        let (mut dials, mut changed) = (Vec::new(), Vec::new());
        for mut row in due.take(ROWS_MAX) {
            let is_live = facts.live.contains(&row.peer);
            let day_end = match row.begun_at > now {
                true => now,
                false => Timestamp(row.begun_at.0.saturating_add(DAY_MS)),
            };
            let onion = self.wanted_onion(&row, facts, now)?;
            match onion {
                Some(_) if is_live => {
                    let is_stable = |at: Timestamp| at.0.saturating_add(STABLE_MS) <= now.0;
                    if row.reached_at.is_some_and(is_stable) {
                        row.failures = 0;
                    }
                }
                // The row stays due.
                Some(_) if dials.len() >= dials_max => continue,
                Some(onion) => dials.push(IntroductionDial {
                    peer: row.peer,
                    onion,
                }),
                None => {}
            }
            // A node that stops during the dial does not dial again at once.
            row.next_at = match onion {
                Some(_) => Timestamp(now.0.saturating_add(10 * MINUTE_MS)),
                None => day_end.max(now),
            };
            changed.push((onion.is_none() && day_end <= now, row));
        }
        if !changed.is_empty() {
            self.store.transaction(|tx| {
                changed.iter().try_for_each(|(is_over, row)| match is_over {
                    true => tx.remove_introduction(&row.peer),
                    false => tx.put_introduction(row),
                })
            })?;
        }
        Ok(dials)
    }

    /// The onion service of the node of an introduction, if the node is still wanted.
    fn wanted_onion(
        &self,
        row: &Introduction,
        facts: &DialFacts,
        now: Timestamp,
    ) -> Result<Option<OnionAddr>, StoreError> {
        let view = self.view();
        let (place, _) = view.meeting_place(row.scope)?;
        let is_member = place.is_some_and(|place| {
            let mut members = place.members.iter();
            members.any(|member| member.home == row.peer)
        });
        match is_member {
            true => onion_of(&view, &row.peer, facts, now),
            false => Ok(None),
        }
    }

    /// Stores the result of a dial, and the time of the next one.
    pub fn note_introduction(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        outcome: IntroductionOutcome,
    ) -> Result<(), StoreError> {
        let Some(mut row) = self.store.rows().introduction(peer)? else {
            return Ok(());
        };
        // A node that ends its sessions at once costs a puzzle each time.
        let is_first = outcome == IntroductionOutcome::Reached && row.reached_at.is_none();
        row.failures = match is_first {
            true => 0,
            false => row.failures.saturating_add(1),
        };
        if outcome == IntroductionOutcome::Reached {
            row.reached_at = Some(now);
        }
        let wait_ms = match row.reached_at {
            Some(_) => ((10 * MINUTE_MS) << row.failures.min(5)).min(REACHED_PAUSE_MS_MAX),
            None => {
                let index = usize::try_from(row.failures).unwrap_or(usize::MAX).max(1) - 1;
                let longest = UNREACHED_PAUSES_H.len() - 1;
                let hours = UNREACHED_PAUSES_H.get(index.min(longest)).copied();
                hours.unwrap_or(1) * 60 * MINUTE_MS
            }
        };
        let wait_ms = self.rng.random_range(wait_ms / 2..=wait_ms);
        row.next_at = Timestamp(now.0.saturating_add(wait_ms));
        self.store.transaction(|tx| {
            if outcome == IntroductionOutcome::AnotherNode {
                tx.remove_address(peer)?;
            }
            tx.put_introduction(&row)
        })
    }
}

/// The onion service at which this node dials a node by itself; none if it may not, or does not
/// know the service.
fn onion_of(
    view: &View<'_>,
    node: &PeerId,
    facts: &DialFacts,
    now: Timestamp,
) -> Result<Option<OnionAddr>, StoreError> {
    if !view.may_introduce(node, now)? {
        return Ok(None);
    }
    let onion = view.rows.address(node)?.map(|row| row.onion);
    Ok(onion.filter(|onion| !facts.kept.contains(onion)))
}

/// Whether a node was dialled often enough and never reached.
fn is_unreached(row: &Introduction) -> bool {
    row.reached_at.is_none() && row.failures >= TRIES_MAX
}

/// Nodes that may be dialled, by the owners of the scopes.
#[derive(Debug, Default)]
struct Candidates(BTreeMap<Oid, BTreeMap<PeerId, ScopeId>>);

impl Candidates {
    fn add(&mut self, place: &MeetingPlace, node: PeerId) {
        let nodes = self.0.entry(place.owner).or_default();
        nodes.entry(node).or_insert(place.scope);
    }

    fn remove(&mut self, node: &PeerId) {
        for nodes in self.0.values_mut() {
            nodes.remove(node);
        }
        self.0.retain(|_, nodes| !nodes.is_empty());
    }

    /// Draws an owner for which an introduction may begin, then one of its nodes.
    fn draw(
        &self,
        counts: &Counts,
        rng: &mut (dyn rand::CryptoRng + Send),
    ) -> Option<(Oid, PeerId, ScopeId)> {
        let owners = self.0.iter();
        let owners: Vec<_> = owners
            .filter(|(owner, _)| counts.may_begin(owner))
            .collect();
        if owners.is_empty() {
            return None;
        }
        let (owner, nodes) = owners.get(rng.random_range(0..owners.len()))?;
        let node = nodes.iter().nth(rng.random_range(0..nodes.len()))?;
        Some((**owner, *node.0, *node.1))
    }
}

/// Introductions, counted by owner of scopes.
#[derive(Debug, Default)]
struct Counts {
    kept: BTreeMap<Oid, usize>,
    kept_all: usize,
    day: BTreeMap<Oid, usize>,
    day_all: usize,
}

impl Counts {
    fn new(rows: &[Introduction], now: Timestamp) -> Self {
        let mut counts = Self::default();
        for row in rows {
            let is_kept = !is_unreached(row);
            counts.kept_all += usize::from(is_kept);
            *counts.kept.entry(row.scope_owner).or_default() += usize::from(is_kept);
            if row.begun_at <= now && row.begun_at.0.saturating_add(DAY_MS) > now.0 {
                counts.day_all += 1;
                *counts.day.entry(row.scope_owner).or_default() += 1;
            }
        }
        counts
    }

    /// Counts an introduction that began today.
    fn add(&mut self, owner: Oid) {
        *self.kept.entry(owner).or_default() += 1;
        *self.day.entry(owner).or_default() += 1;
        self.kept_all += 1;
        self.day_all += 1;
    }

    fn may_begin(&self, owner: &Oid) -> bool {
        let of = |counts: &BTreeMap<Oid, usize>| counts.get(owner).copied().unwrap_or(0);
        self.kept_all < INTRODUCTIONS_MAX
            && self.day_all < DAY_MAX
            && of(&self.kept) < OWNER_MAX
            && of(&self.day) < OWNER_DAY_MAX
    }
}
