//! Introductions: asks other members for the address records of members' nodes, and dials those
//! nodes (docs/DECISIONS.md 10).
//!
//! Inputs are the live sessions and the scopes in which identities of this node take part; outputs
//! are address records and sessions. One task of the node looks at an interval. Invariants: only a
//! peer that takes part in a scope is asked for the addresses of its members. A node that was
//! introduced is untrusted. Tested in `tests/net/introductions.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bastion::{DialTerms, Feature, HandshakeError, HandshakeStep, Tier};
use futures::future::join_all;
use keys::{AddressRecord, Digest, PeerId, TraceId, error_chain};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use super::dialler::{Dialler, PeerDialError};
use super::end_code::EndCode;
use super::handle::SessionError;
use super::message::{Introduce, SessionMessage};
use super::registry::LiveSession;
use super::sync_error::SyncError;
use crate::engine::{CoreHandle, EngineError};
use crate::state_engine::{
    DialFacts, IntroductionDial, IntroductionOutcome, MeetingPlace, MeetingPlaces, RECORD_COST,
};
use crate::store::{ScopeId, StoreError};

/// Highest effort that this node solves for a node that it was introduced to.
const EFFORT_MAX: u64 = 4096;
/// Longest time of such a dial, its puzzle included.
const DIAL_MAX: Duration = Duration::from_secs(180);
/// Most scopes of which one look asks a peer.
const SCOPES_MAX: usize = 4;
/// Most replies to one question: 256 members can take part in a scope.
const PAGES_MAX: usize = 8;
/// Most scopes for which a question to one peer is remembered.
const ASKED_MAX: usize = 512;
/// Longest time that a look waits for replies.
const ASKING_MAX: Duration = Duration::from_secs(30);
/// Time after which a question is repeated at first; doubles with each.
const REPEAT_MIN: Duration = Duration::from_secs(60);

/// When a peer was asked for the addresses of the members of a scope.
struct Asked {
    members: Digest,
    /// Time from which a change of the members counts.
    changed_from: Instant,
    repeat_at: Instant,
    pause: Duration,
}

/// A digest of the members of a scope and their homes, by identity.
fn digest_of(place: &MeetingPlace) -> Digest {
    let members = place.members.iter();
    let bytes: Vec<u8> = members
        .flat_map(|it| it.identity.as_bytes().iter().chain(it.home.as_bytes()))
        .copied()
        .collect();
    Digest::of(&bytes)
}

/// The task that introduces this node.
struct Introducer {
    dialler: Dialler,
    /// The last scope that a look examined.
    after: ScopeId,
    asked: BTreeMap<(PeerId, ScopeId), Asked>,
}

impl Dialler {
    /// Introduces this node to other members' nodes, until the node stops. While `may_dial` is
    /// false, this node only asks and answers.
    pub fn keep_introducing(&self, may_dial: impl Fn() -> bool + Send + 'static) {
        let mut introducer = Introducer {
            dialler: self.clone(),
            after: ScopeId(0),
            asked: BTreeMap::new(),
        };
        let look = Duration::from_millis(self.sync().config().introduce_look_ms);
        self.in_background(async move {
            loop {
                sleep(look).await;
                let trace = TraceId(rand::random());
                let span = tracing::info_span!("introductions", %trace);
                let core = introducer.dialler.sync().engine().traced(trace);
                let looked = introducer.look(&core, may_dial()).instrument(span.clone());
                if let Err(error) = looked.await {
                    let _in = span.enter();
                    tracing::error!(error = %error_chain(&error), "could not introduce this node");
                }
            }
        });
    }
}

impl Introducer {
    /// Examines some of the scopes, asks for what is missing, and dials.
    async fn look(
        &mut self,
        core: &CoreHandle,
        may_dial: bool,
    ) -> Result<(), EngineError<StoreError>> {
        let after = self.after;
        let found: MeetingPlaces = core.read(move |view| view.meeting_places(after)).await?;
        self.after = found.last.unwrap_or(ScopeId(0));
        let places = Arc::new(found.places);
        let sessions = self
            .dialler
            .sync()
            .registry()
            .sessions_with(Feature::Introduce);
        let questions: Vec<_> = sessions
            .iter()
            .map(|session| (session, self.questions(session, &places)))
            .collect();
        let answered = Mutex::default();
        let asking = questions
            .iter()
            .map(|(session, asked)| self.ask(core, session, asked, &answered));
        // A peer that does not answer delays no other.
        let _ = timeout(ASKING_MAX, join_all(asking)).await;
        self.note_asked(&questions, &answered.into_inner());
        if !may_dial {
            return Ok(());
        }
        let facts = DialFacts {
            live: self.live(),
            kept: self.dialler.kept(),
            dials_max: self.dialler.free_introduction_slots(),
            delay_ms_max: self.dialler.sync().config().introduce_delay_ms_max,
        };
        let dials = core
            .write(move |core, now| core.plan_introductions(now, &places, &facts))
            .await?;
        for dial in dials {
            let (dialler, core) = (self.dialler.clone(), core.clone());
            self.dialler.in_background(async move {
                dialler.dial_introduced(&core, dial).await;
            });
        }
        Ok(())
    }

    fn live(&self) -> BTreeSet<PeerId> {
        let sessions = self.dialler.sync().registry().sessions();
        sessions.into_iter().map(|session| session.peer).collect()
    }

    /// The scopes of which a peer is to be asked now. The peer takes part in them. Their members
    /// have changed since the last question, or some time has passed.
    fn questions<'p>(
        &self,
        session: &LiveSession,
        places: &'p [MeetingPlace],
    ) -> Vec<&'p MeetingPlace> {
        let (peer, now) = (*session.handle.peer(), Instant::now());
        let takes_part = |place: &&MeetingPlace| place.members.iter().any(|it| it.home == peer);
        let is_due = |place: &&MeetingPlace| {
            let asked = self.asked.get(&(peer, place.scope));
            asked.is_none_or(|it| {
                let is_changed = it.members != digest_of(place) && it.changed_from <= now;
                it.repeat_at <= now || is_changed
            })
        };
        let due = places.iter().filter(takes_part).filter(is_due);
        due.take(SCOPES_MAX).collect()
    }

    /// Notes which scopes were asked about, and forgets the peers that have no session. A scope
    /// without a whole answer is asked about again soon.
    fn note_asked(
        &mut self,
        questions: &[(&LiveSession, Vec<&MeetingPlace>)],
        answered: &BTreeSet<(PeerId, ScopeId)>,
    ) {
        let repeat_max = self.dialler.sync().config().introduce_repeat_s_max;
        let repeat_max = Duration::from_secs(repeat_max);
        let repeat_min = REPEAT_MIN.min(repeat_max);
        let now = Instant::now();
        for (session, places) in questions {
            for place in places {
                let key = (*session.handle.peer(), place.scope);
                let before = self.asked.get(&key);
                let members = digest_of(place);
                let is_same = before.is_some_and(|asked| asked.members == members);
                let pause = match before {
                    Some(asked) if is_same && answered.contains(&key) => asked.pause,
                    _ => repeat_min,
                };
                self.asked.insert(
                    key,
                    Asked {
                        members,
                        changed_from: now + repeat_min,
                        repeat_at: now + pause,
                        pause: (2 * pause).min(repeat_max),
                    },
                );
            }
        }
        let peers = questions.iter().map(|(session, _)| *session.handle.peer());
        let live: BTreeSet<PeerId> = peers.collect();
        self.asked.retain(|(peer, _), _| live.contains(peer));
        live.into_iter().for_each(|peer| self.forget_asked(peer));
    }

    /// Forgets the questions to a peer that are due first, because one owner can found any number
    /// of scopes.
    fn forget_asked(&mut self, peer: PeerId) {
        let of_peer = (peer, ScopeId(i64::MIN))..=(peer, ScopeId(i64::MAX));
        let asked = self.asked.range(of_peer);
        let mut due: Vec<_> = asked.map(|(key, asked)| (asked.repeat_at, *key)).collect();
        due.sort_unstable();
        let surplus = due.len().saturating_sub(ASKED_MAX);
        for (_, key) in due.iter().take(surplus) {
            self.asked.remove(key);
        }
    }

    /// Asks one peer, and takes the records of its replies.
    async fn ask(
        &self,
        core: &CoreHandle,
        session: &LiveSession,
        places: &[&MeetingPlace],
        answered: &Mutex<BTreeSet<(PeerId, ScopeId)>>,
    ) {
        for place in places {
            let asked = self.ask_for(core, session, place).await;
            if let Err(SyncError::Session(
                error @ (SessionError::Misbehaved(_) | SessionError::Malformed(_)),
            )) = &asked
            {
                tracing::warn!(error = %error_chain(error), "the peer sent faulty addresses");
                session.handle.end(EndCode::Misbehaviour);
            }
            if let Err(error) = asked {
                tracing::debug!(error = %error_chain(&error), "could not ask for addresses");
                return;
            }
            answered
                .lock()
                .insert((*session.handle.peer(), place.scope));
        }
    }

    /// Asks for the addresses of the members of one scope.
    async fn ask_for(
        &self,
        core: &CoreHandle,
        session: &LiveSession,
        place: &MeetingPlace,
    ) -> Result<(), SyncError> {
        let (handle, budget) = (&session.handle, self.dialler.sync().budget());
        let is_of_app = |name: &&String| {
            let domain = core.context().schemas.domain(name);
            domain.is_some_and(|domain| domain.app == place.app)
        };
        let Some(domain) = session.domains.iter().find(is_of_app) else {
            return Ok(());
        };
        let (mut after, scope) = (None, place.scope);
        for _ in 0..PAGES_MAX {
            budget.wait(handle.peer()).await;
            let introduce = |id| {
                SessionMessage::Introduce(Introduce {
                    id,
                    after,
                    scope: place.oid,
                    domain: domain.clone(),
                })
            };
            let reply = match handle.request(Duration::ZERO, introduce).await? {
                SessionMessage::Introduced(reply) => reply,
                SessionMessage::Refused(refusal) => return Err(SyncError::Refused(refusal.code)),
                // The handle passes on nothing else.
                _ => return Ok(()),
            };
            let mut charge = budget.begin(handle.peer(), handle.tier(), reply.body.len());
            let records = reply.records().map_err(SessionError::from)?;
            let unstored = core.read(move |view| view.unstored_addresses(records));
            let records: Vec<AddressRecord> = unstored.await?;
            let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
            charge.set_objects(RECORD_COST.saturating_mul(count));
            if count > 0 {
                let taken = take_addresses(core, scope, records).await?;
                tracing::debug!(taken, "asked for the addresses of members");
            }
            match reply.next {
                Some(next) if after.is_none_or(|after| next > after) => after = Some(next),
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Verifies the records of a reply, and takes those of members. Returns how many were new.
async fn take_addresses(
    core: &CoreHandle,
    scope: ScopeId,
    records: Vec<AddressRecord>,
) -> Result<usize, SyncError> {
    let verified = core.verify_addresses(records).await;
    let Ok(records) = verified.map_err(EngineError::from)? else {
        return Err(SessionError::Misbehaved("an invalid address record").into());
    };
    let taking = core.write(move |core, now| core.take_addresses(now, scope, &records));
    Ok(taking.await?)
}

impl Dialler {
    /// Dials a node that was introduced, and stores the result.
    async fn dial_introduced(&self, core: &CoreHandle, dial: IntroductionDial) {
        let terms = DialTerms {
            tier: Tier::Untrusted,
            effort_max: EFFORT_MAX,
            peer: Some(dial.peer),
        };
        let peer = dial.peer;
        let dialling = async {
            let now = core.now();
            // An operator's verdict since the look counts.
            match core.read(move |view| view.may_introduce(&peer, now)).await {
                Ok(true) => self.dial_under(&dial.onion, terms, &|_| {}).await,
                Ok(false) => Err(PeerDialError::Banned),
                Err(error) => Err(EngineError::<StoreError>::into(error)),
            }
        };
        let dialled = timeout(DIAL_MAX, dialling).await;
        let outcome = match dialled
            .unwrap_or_else(|_| Err(HandshakeError::Timeout(HandshakeStep::Dial).into()))
        {
            Ok(_) => IntroductionOutcome::Reached,
            Err(PeerDialError::Stopped) => return,
            Err(PeerDialError::Handshake(HandshakeError::AnotherNode)) => {
                IntroductionOutcome::AnotherNode
            }
            Err(error) => {
                tracing::info!(
                    peer = %dial.peer,
                    error = %error_chain(&error),
                    "could not reach a member's node"
                );
                IntroductionOutcome::Failed
            }
        };
        let noted = core.write(move |core, now| core.note_introduction(now, &dial.peer, outcome));
        let noted: Result<(), EngineError<StoreError>> = noted.await;
        if let Err(error) = noted {
            tracing::error!(error = %error_chain(&error), "could not store the result of a dial");
        }
    }
}
