//! Who is here: the live sessions, at most one per peer, and the tasks that belong to each.
//!
//! Never keeps a stranger. Of two sessions with one peer both sides keep the same: the one of the newer start, else the
//! one dialled by the smaller peer id. Invariant: a session is listed exactly while its tasks run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bastion::{Admitted, Session};
use keys::{BootId, OnionAddr, PeerId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admit::{self, AdmitError};
use super::pull::{PullOutcome, SyncError, pull_once};
use super::push::{PushOutcome, push_once};
use super::serve::Server;
use super::session::{Handle, SessionError, Starting};
use crate::config::SyncConfig;
use crate::engine::{Engine, EngineError};
use crate::schema::IDENTITIES;
use crate::state_engine::ApplyPackageError;
use crate::store::StoreError;

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
}

struct Live {
    handle: Arc<Handle>,
    boot_id: BootId,
    we_dialled: bool,
    domains: Vec<String>,
    onion: OnionAddr,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    engine: Engine,
    config: SyncConfig,
    server: Arc<Server>,
    live: Mutex<BTreeMap<PeerId, Live>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Peers {
    /// An empty registry; its sessions end with `stop`.
    pub fn new(engine: Engine, config: SyncConfig, stop: CancellationToken) -> Self {
        let server = Arc::new(Server::new(engine.clone(), config.clone()));
        let live = Mutex::new(BTreeMap::new());
        Self(Arc::new(Inner {
            engine,
            config,
            server,
            live,
            tasks: TaskTracker::new(),
            stop,
        }))
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Limits and intervals.
    pub fn config(&self) -> &SyncConfig {
        &self.0.config
    }

    /// Takes over an admitted stream: notes the peer in the graph and in `peers`, takes its identities, and runs the
    /// session (SEED 1.1 steps 4 and 5). Not with a peer that is banned, whoever dialled.
    pub async fn admit(&self, session: Session, admitted: Admitted) -> Result<PeerId, AdmitError> {
        let claims = admitted.claims();
        let peer = claims.peer_id();
        admit::note(&self.0.engine, &admitted).await?;
        let checked = self.0.engine.check(claims.identities.clone()).await?;
        let epoch = claims.epoch;
        self.0
            .engine
            .write(move |core, now| core.apply_identities(now, peer, epoch, checked))
            .await?;
        self.start(session, &admitted);
        Ok(peer)
    }

    /// Ends the session with a peer, if there is one.
    pub fn end(&self, peer: &PeerId) -> bool {
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        let open = live.get(peer).filter(|live| !live.handle.over().is_cancelled());
        open.inspect(|live| live.handle.over().cancel()).is_some()
    }

    /// Takes over a stream that came in, in a task of its own: the accept loop goes on meanwhile.
    pub fn admit_in_background(&self, session: Session, admitted: Admitted) {
        let this = self.clone();
        self.0.tasks.spawn(async move {
            let claims = admitted.claims();
            let (peer, solving) = (claims.peer_id(), admitted.effort());
            tracing::info!(%peer, effort = solving, domains = admitted.domains().len(), "admitted a peer");
            match this.admit(session, admitted).await {
                Ok(_) => {}
                Err(error @ AdmitError::Banned) => tracing::info!(%peer, %error, "no session"),
                Err(error) => tracing::error!(%peer, %error, "could not store an admitted peer"),
            }
        });
    }

    /// Whether there is no place for a further peer; one that has a session already takes over its own.
    pub fn is_full_without(&self, peer: &PeerId) -> bool {
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.len() >= self.0.config.sessions_max && !live.contains_key(peer)
    }

    fn start(&self, session: Session, admitted: &Admitted) {
        let claims = admitted.claims();
        let peer = claims.peer_id();
        let starting = Starting::new(session, peer, &self.0.config, &self.0.stop);
        let live = Live {
            handle: starting.handle().clone(),
            boot_id: claims.boot_id,
            we_dialled: admitted.we_dialled(),
            domains: admitted.domains().to_vec(),
            onion: claims.onion,
        };
        if !self.enter(peer, live) {
            tracing::debug!(%peer, "a session with this peer is open already; the new one ends");
            return;
        }
        let this = self.clone();
        let domains = admitted.domains().to_vec();
        self.0
            .tasks
            .spawn(async move { this.run(starting, peer, domains).await });
    }

    /// Lists a session, or says that the one that is listed stays.
    fn enter(&self, peer: PeerId, new: Live) -> bool {
        let us = self.0.engine.ground().keys.peer_id();
        let mut live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = live.get(&peer).filter(|old| !old.handle.over().is_cancelled()) {
            let preferred = us < peer;
            let old_stays =
                old.boot_id == new.boot_id && old.we_dialled != new.we_dialled && old.we_dialled == preferred;
            if old_stays {
                return false;
            }
            old.handle.over().cancel();
        }
        live.insert(peer, new);
        true
    }

    /// A session and all that goes on in it.
    async fn run(&self, starting: Starting, peer: PeerId, domains: Vec<String>) {
        let handle = starting.handle().clone();
        tracing::info!(%peer, domains = domains.len(), "session begins");
        // Listed now, so that a ban from here on finds it; one that came since it was admitted is found here.
        if admit::is_banned(&self.0.engine, peer).await {
            handle.over().cancel();
        }
        let asking = TaskTracker::new();
        // Who speaks comes before what is said: a first pull of another domain may hold more objects of owners that are
        // not known yet than may wait for them. Over when the identities are here, or cannot be had now.
        let identified = CancellationToken::new();
        if !domains.iter().any(|domain| domain == IDENTITIES) {
            identified.cancel();
        }
        for domain in domains {
            let (this, asker, name) = (self.clone(), handle.clone(), domain.clone());
            let identified = identified.clone();
            asking.spawn(async move { this.keep_pulling(&asker, &name, &identified).await });
            let (this, asker) = (self.clone(), handle.clone());
            asking.spawn(async move { this.keep_pushing(&asker, &domain).await });
        }
        asking.close();
        let end = starting.run(self.0.server.clone(), &self.0.config).await;
        asking.wait().await;
        let mut live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.get(&peer).is_some_and(|live| Arc::ptr_eq(&live.handle, &handle)) {
            live.remove(&peer);
        }
        match end {
            SessionError::Malformed(_) | SessionError::Misbehaved(_) => tracing::warn!(%peer, %end, "session ended"),
            end => tracing::info!(%peer, %end, "session ended"),
        }
    }

    /// The interval pull of one domain, until the session ends (SEED 4).
    async fn keep_pulling(&self, handle: &Handle, domain: &str, identified: &CancellationToken) {
        let config = &self.0.config;
        if config.pull_interval_s == 0 {
            return;
        }
        if domain != IDENTITIES {
            tokio::select! {
                biased;
                () = handle.over().cancelled() => return,
                () = identified.cancelled() => {}
            }
        }
        let mut backoff = Backoff::new(config);
        loop {
            // Nobody waits for news while others wait for the identities that are there.
            let wait_s = if domain == IDENTITIES && !identified.is_cancelled() {
                0
            } else {
                wait_s(config)
            };
            let pulled = pull_once(&self.0.engine, handle, domain, wait_s).await;
            if domain == IDENTITIES && !pulled.as_ref().is_ok_and(|outcome| outcome.more) {
                identified.cancel();
            }
            let pause = match pulled {
                Ok(outcome) => {
                    backoff.reset();
                    let is_live = config.pull_wait_s > 0;
                    let at_once = outcome.more || (is_live && outcome.window.is_some());
                    if at_once {
                        Duration::ZERO
                    } else if is_live {
                        Duration::from_secs(1)
                    } else {
                        Duration::from_secs(config.pull_interval_s)
                    }
                }
                Err(SyncError::Session(SessionError::Over)) => return,
                Err(error) => {
                    tracing::warn!(peer = %handle.peer(), domain, %error, "pull failed");
                    backoff.next()
                }
            };
            tokio::select! {
                biased;
                () = handle.over().cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// The timer push of one domain, until the session ends (SEED 5).
    async fn keep_pushing(&self, handle: &Handle, domain: &str) {
        let config = &self.0.config;
        if config.push_interval_s == 0 {
            return;
        }
        let interval = Duration::from_secs(config.push_interval_s);
        let mut backoff = Backoff::new(config);
        let mut pause = interval;
        loop {
            tokio::select! {
                biased;
                () = handle.over().cancelled() => return,
                () = sleep(pause) => {}
            }
            pause = match push_once(&self.0.engine, handle, domain).await {
                Ok(outcome) => {
                    backoff.reset();
                    if outcome.more {
                        Duration::from_millis(100)
                    } else {
                        interval
                    }
                }
                Err(SyncError::Session(SessionError::Over)) => return,
                Err(error) => {
                    tracing::warn!(peer = %handle.peer(), domain, %error, "push failed");
                    backoff.next()
                }
            };
        }
    }

    /// The live session with a peer.
    fn session(&self, peer: &PeerId) -> Result<(Arc<Handle>, Vec<String>), SyncError> {
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        let live = live.get(peer).filter(|live| !live.handle.over().is_cancelled());
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
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        let open = live.iter().filter(|(_, live)| !live.handle.over().is_cancelled());
        let status = |(peer, live): (&PeerId, &Live)| SessionStatus {
            peer: *peer,
            domains: live.domains.clone(),
            we_dialled: live.we_dialled,
        };
        open.map(status).collect()
    }

    /// The end of the session with the node at `onion`, if there is one.
    pub fn session_at(&self, onion: &OnionAddr) -> Option<(PeerId, CancellationToken)> {
        let live = self.0.live.lock().unwrap_or_else(PoisonError::into_inner);
        let open = live
            .iter()
            .find(|(_, live)| live.onion == *onion && !live.handle.over().is_cancelled());
        open.map(|(peer, live)| (*peer, live.handle.over().clone()))
    }

    /// Ends every session at a frame boundary and waits for its tasks.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// What our pulls ask a peer to wait; the config allows a minute at most.
fn wait_s(config: &SyncConfig) -> u32 {
    u32::try_from(config.pull_wait_s).unwrap_or(0)
}

/// How long to wait after a failure: doubled each time, with jitter, between two bounds.
pub(super) struct Backoff {
    next_s: u64,
    min_s: u64,
    max_s: u64,
}

impl Backoff {
    pub(super) fn new(config: &SyncConfig) -> Self {
        Self {
            next_s: config.backoff_s_min,
            min_s: config.backoff_s_min,
            max_s: config.backoff_s_max,
        }
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        self.next_s = self.min_s;
    }

    /// After a failure: between three quarters of the wait and all of it, so that peers do not come back in step.
    pub(super) fn next(&mut self) -> Duration {
        let wait = Duration::from_secs(self.next_s);
        self.next_s = (self.next_s * 2).min(self.max_s);
        wait.mul_f64(rand::random_range(0.75..=1.0))
    }
}

/// Turns a failed read into the error of an admission.
impl From<EngineError<StoreError>> for EngineError<ApplyPackageError> {
    fn from(error: EngineError<StoreError>) -> Self {
        match error {
            EngineError::Stopped(stopped) => Self::Stopped(stopped),
            EngineError::Work(error) => Self::Work(error.into()),
        }
    }
}
