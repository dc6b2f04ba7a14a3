//! Who is here: the live sessions, at most one per peer, and the tasks that belong to each.
//!
//! Never keeps a stranger. Of two sessions with one peer both sides keep the same ([`super::duplicates`]). Invariants: no
//! more sessions are listed than there are places ([`super::slots`]), whatever the gate was told a moment ago; who has a
//! session is listed, until its tasks have ended or another has taken its place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bastion::{Admitted, Session, Tier};
use keys::{BootId, OnionAddr, PeerId};
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admit::{self, AdmitError};
use super::budget::QuotaNotes;
use super::duplicates::{Contender, Stays, stays};
use super::pull::{PullOutcome, SyncError, pull_once};
use super::push::{PushOutcome, push_once};
use super::serve::Server;
use super::session::{Handle, SessionError, Starting};
use super::slots::{Place, Seated, place, worth};
use crate::config::SyncConfig;
use crate::engine::{CoreHandle, EngineError};
use crate::schema::identities;
use crate::state_engine::ApplyPackageError;

/// Rounds of one push or pull that was asked for by hand: a bound against a peer that always says "more".
const ROUNDS_MAX: usize = 10_000;

/// A live session as shown to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// The peer.
    pub peer: PeerId,
    /// The intersection.
    pub domains: Vec<String>,
    /// Whether we dialled.
    pub we_dialled: bool,
    /// How far the peer is trusted.
    pub tier: Tier,
}

#[derive(Clone)]
struct Live {
    handle: Arc<Handle>,
    boot_id: BootId,
    we_dialled: bool,
    domains: Vec<String>,
    onion: OnionAddr,
    work: u64,
    arrival: u64,
    /// Whether it is being found out if it still lives.
    in_doubt: bool,
}

impl Live {
    fn is_over(&self) -> bool {
        self.handle.over().is_cancelled()
    }
}

/// What becomes of a new session.
enum Entered {
    /// It is listed.
    Listed,
    /// It ends; the peer is told this word.
    Refused(&'static str),
    /// It waits until it is known whether that one still lives.
    Waits(Arc<Handle>),
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    engine: CoreHandle,
    config: SyncConfig,
    server: Arc<Server>,
    live: Mutex<BTreeMap<PeerId, Live>>,
    arrivals: AtomicU64,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Peers {
    /// An empty registry; its sessions end with `stop`.
    pub fn new(engine: CoreHandle, config: SyncConfig, stop: CancellationToken) -> Self {
        let server = Arc::new(Server::new(engine.clone(), &config));
        let live = Mutex::new(BTreeMap::new());
        Self(Arc::new(Inner {
            engine,
            config,
            server,
            live,
            arrivals: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            stop,
        }))
    }

    /// The engine.
    pub fn engine(&self) -> &CoreHandle {
        &self.0.engine
    }

    /// Limits and intervals.
    pub fn config(&self) -> &SyncConfig {
        &self.0.config
    }

    /// What was said of full quotas.
    pub(super) fn quota_notes(&self) -> &QuotaNotes {
        self.0.server.quota_notes()
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<PeerId, Live>> {
        self.0.live.lock()
    }

    /// The place of a handshake in the order in which they ended here.
    fn arrives(&self) -> u64 {
        self.0.arrivals.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes over an admitted stream: notes the peer in the graph and in `peers`, takes its identities, and runs the
    /// session (docs/STORY.md 1.1 steps 4 and 5). Not with a peer that is banned, whoever dialled.
    pub async fn admit(&self, session: Session, admitted: Admitted) -> Result<PeerId, AdmitError> {
        let arrival = self.arrives();
        self.admit_as(arrival, session, admitted).await
    }

    async fn admit_as(
        &self,
        arrival: u64,
        session: Session,
        admitted: Admitted,
    ) -> Result<PeerId, AdmitError> {
        let claims = admitted.claims();
        let peer = claims.peer_id();
        admit::note(&self.0.engine, &admitted).await?;
        let checked = self
            .0
            .engine
            .verify_objects(claims.identities.clone())
            .await?;
        let epoch = claims.epoch;
        let taken = self
            .0
            .engine
            .write(move |core, now| core.apply_identities(now, peer, epoch, checked))
            .await;
        match taken {
            // What it has here already it may go on reading, and it may be given room later.
            Err(EngineError::Work(ApplyPackageError::Quota(fault))) => {
                self.quota_notes().refused(&peer, &fault);
            }
            taken => drop(taken?),
        }
        self.start(arrival, session, &admitted);
        Ok(peer)
    }

    /// Ends the session with a peer, if there is one, and tells it this word.
    pub fn end(&self, peer: &PeerId, code: &'static str) -> bool {
        let live = self.live();
        let open = live.get(peer).filter(|live| !live.is_over());
        open.inspect(|live| live.handle.end(code)).is_some()
    }

    /// Takes over a stream that came in, in a task of its own: the accept loop goes on meanwhile.
    pub fn admit_in_background(&self, session: Session, admitted: Admitted) {
        // Now, and not when the task gets its turn: the order of two sessions of one peer decides which of them stays.
        let (this, arrival) = (self.clone(), self.arrives());
        self.0.tasks.spawn(async move {
            let claims = admitted.claims();
            let (peer, solving) = (claims.peer_id(), admitted.effort());
            tracing::info!(%peer, effort = solving, domains = admitted.domains().len(), "admitted a peer");
            match this.admit_as(arrival, session, admitted).await {
                Ok(_) => {}
                Err(error @ AdmitError::Banned) => tracing::info!(%peer, %error, "no session"),
                Err(error) => tracing::error!(%peer, %error, "could not store an admitted peer"),
            }
        });
    }

    /// Whether there is no place for a further peer of that tier that worked so much; one that has a session already takes over its own.
    /// An answer for the moment: what is admitted by it may still find all places taken.
    pub fn is_full_without(&self, peer: &PeerId, tier: Tier, effort: u64) -> bool {
        place(
            &self.0.config,
            peer,
            (tier, worth(effort)),
            seated(&self.live()),
        ) == Place::None
    }

    /// A peer that has a session, perhaps, is trusted from now on: the session keeps its place when places run out.
    pub fn trust(&self, peer: &PeerId) {
        if let Some(live) = self.live().get(peer) {
            live.handle.trust();
        }
    }

    fn start(&self, arrival: u64, session: Session, admitted: &Admitted) {
        let claims = admitted.claims();
        let peer = claims.peer_id();
        let starting = Starting::new(
            session,
            (peer, admitted.tier()),
            &self.0.config,
            &self.0.stop,
        );
        let live = Live {
            handle: starting.handle().clone(),
            boot_id: claims.boot_id,
            we_dialled: admitted.we_dialled(),
            domains: admitted.domains().to_vec(),
            onion: claims.onion,
            work: worth(admitted.effort()),
            arrival,
            in_doubt: false,
        };
        let (this, domains) = (self.clone(), live.domains.clone());
        if admitted.tier() == Tier::Trusted {
            self.trust(&peer);
        }
        match self.enter(peer, live.clone()) {
            Entered::Listed => self
                .0
                .tasks
                .spawn(async move { this.run(starting, peer, domains).await }),
            Entered::Refused(code) => self.0.tasks.spawn(refuse(starting, peer, code)),
            Entered::Waits(old) => self.0.tasks.spawn(async move {
                let patience = Duration::from_secs(this.0.config.ping_interval_s);
                if !old.is_alive(patience).await {
                    old.end("silence");
                }
                this.no_doubt(&old);
                match this.enter(peer, live) {
                    Entered::Listed => this.run(starting, peer, domains).await,
                    Entered::Refused(code) => refuse(starting, peer, code).await,
                    Entered::Waits(old) => {
                        this.no_doubt(&old);
                        refuse(starting, peer, "duplicate").await;
                    }
                }
            }),
        };
    }

    /// Lists a session, or says what becomes of it.
    fn enter(&self, peer: PeerId, new: Live) -> Entered {
        let preferred = self.0.engine.context().keys.peer_id() < peer;
        let contender = |live: &Live| Contender {
            boot_id: live.boot_id,
            dialled_by_smaller: live.we_dialled == preferred,
            arrival: live.arrival,
        };
        let mut live = self.live();
        if let Some(old) = live.get_mut(&peer).filter(|old| !old.is_over()) {
            match stays(&contender(old), &contender(&new)) {
                Stays::New => {}
                Stays::Old => return Entered::Refused("duplicate"),
                // One newcomer at a time waits: more would be a way to keep streams without a place.
                Stays::OldIfAlive if old.in_doubt => return Entered::Refused("duplicate"),
                Stays::OldIfAlive => {
                    old.in_doubt = true;
                    return Entered::Waits(old.handle.clone());
                }
            }
        }
        match place(
            &self.0.config,
            &peer,
            (new.handle.tier(), new.work),
            seated(&live),
        ) {
            Place::Free => {}
            Place::Of(other) => {
                if let Some(shed) = live.remove(&other) {
                    tracing::info!(peer = %other, "gave the place of an untrusted peer to one before whom it goes");
                    shed.handle.end("busy");
                }
            }
            Place::None => return Entered::Refused("busy"),
        }
        if let Some(old) = live.insert(peer, new) {
            old.handle.end("duplicate");
        }
        Entered::Listed
    }

    /// It is known whether that session lives.
    fn no_doubt(&self, of: &Arc<Handle>) {
        let mut live = self.live();
        let listed = live
            .get_mut(of.peer())
            .filter(|live| Arc::ptr_eq(&live.handle, of));
        if let Some(listed) = listed {
            listed.in_doubt = false;
        }
    }

    /// A session and all that goes on in it.
    async fn run(&self, starting: Starting, peer: PeerId, domains: Vec<String>) {
        let shared = domains.clone();
        let handle = starting.handle().clone();
        tracing::info!(%peer, domains = domains.len(), "session begins");
        // Listed now, so that the operator's word from here on finds it; one that came since it was admitted is found here.
        if admit::is_kept_out(&self.0.engine, peer).await {
            handle.end("refused");
        }
        let asking = TaskTracker::new();
        // Who speaks comes before what is said: a first pull of another domain may hold more objects of owners that are
        // not known yet than may wait for them. Over when the identities are here, or cannot be had now.
        let identified = CancellationToken::new();
        if !domains.iter().any(|domain| domain == identities::DOMAIN) {
            identified.cancel();
        }
        for domain in domains {
            let (this, asker, name) = (self.clone(), handle.clone(), domain.clone());
            let identified = identified.clone();
            asking.spawn(async move { this.keep_pulling(&asker, &name, &identified).await });
            let (this, asker) = (self.clone(), handle.clone());
            asking.spawn(async move { this.keep_pushing(&asker, &domain).await });
        }
        {
            let (this, asker, domains) = (self.clone(), handle.clone(), shared);
            asking.spawn(async move { this.keep_recovering(&asker, &domains).await });
        }
        asking.close();
        let end = starting.run(self.0.server.clone(), &self.0.config).await;
        asking.wait().await;
        let mut live = self.live();
        if live
            .get(&peer)
            .is_some_and(|live| Arc::ptr_eq(&live.handle, &handle))
        {
            live.remove(&peer);
        }
        match end {
            SessionError::Malformed(_) | SessionError::Misbehaved(_) => {
                tracing::warn!(%peer, %end, "session ended")
            }
            end => tracing::info!(%peer, %end, "session ended"),
        }
    }

    /// The live session with a peer.
    fn session(&self, peer: &PeerId) -> Result<(Arc<Handle>, Vec<String>), SyncError> {
        let live = self.live();
        let live = live.get(peer).filter(|live| !live.is_over());
        live.map(|live| (live.handle.clone(), live.domains.clone()))
            .ok_or(SyncError::NoSession)
    }

    /// Pulls a domain now, window after window, until nothing is left. Any domain may be asked for: one that is not
    /// shared is answered like an empty one.
    pub async fn pull(&self, peer: &PeerId, domain: &str) -> Result<Vec<PullOutcome>, SyncError> {
        let (handle, _) = self.session(peer)?;
        let mut outcomes = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let outcome = pull_once(&self.0.engine, &handle, domain, 0).await?;
            let more = outcome.more;
            outcomes.push(outcome);
            if !more {
                break;
            }
        }
        Ok(outcomes)
    }

    /// Pushes a shared domain now, window after window, until nothing is left.
    pub async fn push(&self, peer: &PeerId, domain: &str) -> Result<Vec<PushOutcome>, SyncError> {
        let (handle, domains) = self.session(peer)?;
        if !domains.iter().any(|shared| shared == domain) {
            return Err(SyncError::NotShared(domain.to_owned()));
        }
        let mut outcomes = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let outcome = push_once(&self.0.engine, &handle, domain).await?;
            let more = outcome.more;
            outcomes.push(outcome);
            if !more {
                break;
            }
        }
        Ok(outcomes)
    }

    /// The live sessions, by peer.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        let live = self.live();
        let open = live.iter().filter(|(_, live)| !live.is_over());
        let status = |(peer, live): (&PeerId, &Live)| SessionStatus {
            peer: *peer,
            domains: live.domains.clone(),
            we_dialled: live.we_dialled,
            tier: live.handle.tier(),
        };
        open.map(status).collect()
    }

    /// The end of the session with the node at `onion`, if there is one.
    pub fn session_at(&self, onion: &OnionAddr) -> Option<(PeerId, CancellationToken)> {
        let live = self.live();
        let open = live
            .iter()
            .find(|(_, live)| live.onion == *onion && !live.is_over());
        open.map(|(peer, live)| (*peer, live.handle.over().clone()))
    }

    /// Runs `work` until it ends or the node stops.
    pub(super) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Ends every session at a frame boundary and waits for its tasks.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// Everybody who is listed, for [`place`].
fn seated(live: &BTreeMap<PeerId, Live>) -> impl Iterator<Item = Seated> + Clone {
    live.iter().map(|(peer, live)| Seated {
        peer: *peer,
        tier: live.handle.tier(),
        is_over: live.is_over(),
        work: live.work,
        arrival: live.arrival,
    })
}

/// Ends a session that finds no place.
async fn refuse(starting: Starting, peer: PeerId, code: &'static str) {
    tracing::debug!(%peer, code, "a session ends before it begins");
    starting.refuse(code).await;
}
