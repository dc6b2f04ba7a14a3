//! The sync service: turns admitted streams into sessions, runs their tasks, and pulls and pushes
//! on request.
//!
//! Inputs are streams that the gate admitted and requests of the local API; outputs are sessions in
//! the [`SessionRegistry`] and what their tasks apply. Invariants: a banned peer gets no session,
//! whichever side dialled; all tasks of a session have ended when it leaves the registry.

use std::sync::Arc;
use std::time::Duration;

use bastion::{Admitted, Session, Tier};
use futures::FutureExt as _;
use keys::{PeerId, TraceId, error_chain};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use super::admit::{self, AdmitError};
use super::again::keep_pulling_again;
use super::context::{Puller, SessionContext};
use super::elsewhere::Elsewhere;
use super::end_code::EndCode;
use super::handle::{SessionError, SessionHandle, SessionInfo};
use super::outbox::keep_emptying_outbox;
use super::processor_budget::ProcessorBudget;
use super::pull::{PullOutcome, pull_once};
use super::push::{PushOutcome, push_once};
use super::receipts::keep_receipting;
use super::recover::keep_recovering;
use super::registry::{EnterOutcome, LiveSession, SessionRegistry};
use super::serve::RequestServer;
use super::session::SessionDriver;
use super::sync_error::SyncError;
use super::timers::{keep_pulling, keep_pushing};
use super::watch::{keep_watching, may_watch};
use crate::config::SyncConfig;
use crate::engine::{CoreHandle, EngineError};
use crate::schema::identities;
use crate::state_engine::ApplyPackageError;

/// Most rounds of one requested push or pull: a bound against a peer that always sets `more`.
const ROUNDS_MAX: usize = 10_000;

/// The sync service of a node. Cheap to clone.
#[derive(Clone)]
pub struct SyncService(Arc<ServiceState>);

struct ServiceState {
    core: CoreHandle,
    config: SyncConfig,
    server: RequestServer,
    registry: SessionRegistry,
    elsewhere: Arc<Elsewhere>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl SyncService {
    /// A service without sessions; its sessions end with `stop`.
    pub fn new(core: CoreHandle, config: SyncConfig, stop: CancellationToken) -> Self {
        let server = RequestServer::new(core.clone(), &config);
        let registry = SessionRegistry::new(core.context().keys.peer_id(), config.clone());
        Self(Arc::new(ServiceState {
            elsewhere: Arc::new(Elsewhere::new(registry.clone())),
            core,
            config,
            server,
            registry,
            tasks: TaskTracker::new(),
            stop,
        }))
    }

    /// The core that sessions read and write.
    pub fn engine(&self) -> &CoreHandle {
        &self.0.core
    }

    /// Limits and intervals of all sessions.
    pub fn config(&self) -> &SyncConfig {
        &self.0.config
    }

    /// The processor time of all peers.
    pub(super) fn budget(&self) -> &ProcessorBudget {
        self.0.server.budget()
    }

    /// The live sessions.
    pub fn registry(&self) -> &SessionRegistry {
        &self.0.registry
    }

    /// Takes over an admitted stream (docs/STORY.md 1.1 steps 4 and 5). Stores the peer in the
    /// graph and in `peers`, applies its identities and starts the session. Refuses a banned peer,
    /// whichever side dialled.
    pub async fn admit(&self, session: Session, admitted: Admitted) -> Result<PeerId, AdmitError> {
        self.admit_traced(TraceId(rand::random()), session, admitted)
            .await
    }

    /// [`SyncService::admit`] with the trace id of the dial, which the session takes over.
    pub(super) async fn admit_traced(
        &self,
        trace: TraceId,
        session: Session,
        admitted: Admitted,
    ) -> Result<PeerId, AdmitError> {
        let arrival = self.0.registry.next_arrival();
        let span = session_span(&admitted.claims().peer_id(), trace);
        self.store_and_start(arrival, trace, session, admitted)
            .instrument(span)
            .await
    }

    /// Takes over an admitted stream in a task of its own, so that the accept loop continues
    /// meanwhile.
    pub fn admit_in_background(&self, session: Session, admitted: Admitted) {
        // Numbered now, not in the task: the order of two sessions with one peer decides which of
        // them stays.
        let (this, arrival) = (self.clone(), self.0.registry.next_arrival());
        let (peer, trace) = (admitted.claims().peer_id(), TraceId(rand::random()));
        // The current span is the handshake's: this event links both trace ids.
        tracing::info!(
            %peer,
            session = %trace,
            effort = admitted.effort(),
            domains = admitted.domains().len(),
            "admitted a peer"
        );
        let work = async move {
            match this
                .store_and_start(arrival, trace, session, admitted)
                .await
            {
                Ok(_) => {}
                Err(error @ (AdmitError::Banned | AdmitError::Purging)) => {
                    tracing::info!(error = %error_chain(&error), "no session")
                }
                // Logged where the chain was compared.
                Err(AdmitError::ChainForked) => {}
                Err(error) => {
                    tracing::error!(
                        error = %error_chain(&error),
                        "could not store an admitted peer"
                    )
                }
            }
        };
        let span = session_span(&peer, trace);
        self.0.tasks.spawn(work.instrument(span));
    }

    /// Stores an admitted peer and starts its session in the current span.
    async fn store_and_start(
        &self,
        arrival: u64,
        trace: TraceId,
        session: Session,
        admitted: Admitted,
    ) -> Result<PeerId, AdmitError> {
        let core = self.0.core.traced(trace);
        let claims = admitted.claims();
        let (peer, epoch) = (claims.peer_id(), claims.epoch);
        let tier = admitted.tier();
        let info = SessionInfo {
            peer,
            epoch,
            features: admitted.features().clone(),
            start_seq: *core.changes().borrow(),
            tier,
            trace,
        };
        let driver = SessionDriver::new(session, info, &self.0.config, &self.0.stop);
        if let Err(error) = admit::note(&core, &admitted).await {
            if matches!(error, AdmitError::ChainForked) {
                tracing::warn!(%peer, error = %error_chain(&error), "no session");
                driver.refuse(EndCode::Refused).await;
            }
            return Err(error);
        }
        let checked = core.verify_objects(claims.identities.clone()).await?;
        let applied = core
            .write(move |core, now| core.apply_identities(now, peer, epoch, checked))
            .await;
        match applied {
            // The peer may still read, and its quota may be raised later.
            Err(EngineError::Work(ApplyPackageError::Quota(fault))) => {
                self.0.server.quota_log().refused(&peer, &fault);
            }
            applied => drop(applied?),
        }
        let live = LiveSession::new(driver.handle().clone(), &admitted, arrival);
        if tier == Tier::Trusted {
            self.0.registry.trust(&peer);
        }
        self.enter(driver, live);
        Ok(peer)
    }

    /// Lists a session and runs it, refuses it, or first finds out whether an older one is alive.
    /// All of its tasks run in the current span.
    fn enter(&self, driver: SessionDriver, live: LiveSession) {
        let (this, domains) = (self.clone(), live.domains.clone());
        let work = match self.0.registry.enter(live.clone()) {
            EnterOutcome::Listed => async move { this.run(driver, domains).await }.boxed(),
            EnterOutcome::Refused(code) => refuse(driver, code).boxed(),
            EnterOutcome::Probe(old) => async move { this.probe(&old, driver, live).await }.boxed(),
        };
        self.0.tasks.spawn(work.in_current_span());
    }

    /// Ends an old session that is not alive, and enters the new one again.
    async fn probe(&self, old: &Arc<SessionHandle>, driver: SessionDriver, live: LiveSession) {
        let registry = &self.0.registry;
        let deadline = Duration::from_secs(self.0.config.ping_interval_s);
        if !old.is_alive(deadline).await {
            old.end(EndCode::Silence);
        }
        registry.clear_probing(old);
        let domains = live.domains.clone();
        match registry.enter(live) {
            EnterOutcome::Listed => self.run(driver, domains).await,
            EnterOutcome::Refused(code) => refuse(driver, code).await,
            EnterOutcome::Probe(old) => {
                registry.clear_probing(&old);
                refuse(driver, EndCode::Duplicate).await;
            }
        }
    }

    /// Runs a listed session with all its tasks, to its end.
    async fn run(&self, driver: SessionDriver, domains: Vec<String>) {
        let handle = driver.handle().clone();
        tracing::info!(domains = domains.len(), "session started");
        // A decision of the operator from now on finds the session listed; an earlier one is found
        // here.
        let core = self.0.core.traced(handle.trace());
        if admit::is_kept_out(&core, *handle.peer()).await {
            handle.end(EndCode::Refused);
        }
        admit::report_schemas(&core, *handle.peer()).await;
        let session = Arc::new(SessionContext {
            core,
            config: self.0.config.clone(),
            handle: handle.clone(),
            domains,
            quota_log: self.0.server.quota_log().clone(),
            budget: self.0.server.budget().clone(),
            elsewhere: self.0.elsewhere.clone(),
        });
        let tasks = spawn_tasks(&session);
        let server = self.0.server.traced(handle.trace());
        let end = driver.run(server, &self.0.config).await;
        tasks.wait().await;
        self.0.registry.remove(&handle);
        let reason = error_chain(&end);
        match end {
            SessionError::Malformed(_) | SessionError::Misbehaved(_) => {
                tracing::warn!(%reason, "session ended")
            }
            _ => tracing::info!(%reason, "session ended"),
        }
    }

    /// The live session with a peer, and the core with its trace id.
    fn session(&self, peer: &PeerId) -> Result<(LiveSession, CoreHandle), SyncError> {
        let session = self.0.registry.session(peer).ok_or(SyncError::NoSession)?;
        let core = self.0.core.traced(session.handle.trace());
        Ok((session, core))
    }

    /// Pulls a domain now, window after window, until none is left. A peer replies to a domain that
    /// is not shared as if it had no changes.
    pub async fn pull(&self, peer: &PeerId, domain: &str) -> Result<Vec<PullOutcome>, SyncError> {
        let (session, core) = self.session(peer)?;
        let mut outcomes = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let puller = Puller {
                engine: &core,
                budget: self.0.server.budget(),
                handle: &session.handle,
                elsewhere: &self.0.elsewhere,
            };
            let outcome = pull_once(puller, domain, 0).await?;
            let more = outcome.more;
            outcomes.push(outcome);
            if !more {
                break;
            }
        }
        Ok(outcomes)
    }

    /// Pushes a shared domain now, window after window, until none is left.
    pub async fn push(&self, peer: &PeerId, domain: &str) -> Result<Vec<PushOutcome>, SyncError> {
        let (session, core) = self.session(peer)?;
        if !session.domains.iter().any(|shared| shared == domain) {
            return Err(SyncError::NotShared(domain.to_owned()));
        }
        let mut outcomes = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let outcome = push_once(&core, &session.handle, domain).await?;
            let more = outcome.more;
            outcomes.push(outcome);
            if !more {
                break;
            }
        }
        Ok(outcomes)
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

/// Spawns what goes on in a session besides replies: one watch or pulls of each domain, pushes of
/// each, pushes that commits cause, and recovery. One task sends receipts, and one for each domain
/// pulls again.
fn spawn_tasks(session: &Arc<SessionContext>) -> TaskTracker {
    let tasks = TaskTracker::new();
    // Identities are pulled first, because objects of unknown owners would exceed the limit of
    // waiting objects. Cancelled when they are here, or cannot be had now.
    let identified = CancellationToken::new();
    if !session
        .domains
        .iter()
        .any(|domain| domain == identities::DOMAIN)
    {
        identified.cancel();
    }
    let is_watching = may_watch(session);
    if is_watching {
        let (watching, identified) = (session.clone(), identified.clone());
        let work = async move { keep_watching(&watching, &identified).await };
        tasks.spawn(work.in_current_span());
    }
    for domain in &session.domains {
        if !is_watching {
            let (pulling, name, identified) = (session.clone(), domain.clone(), identified.clone());
            let work = async move { keep_pulling(&pulling, &name, &identified).await };
            tasks.spawn(work.in_current_span());
        }
        let (again, name, identified) = (session.clone(), domain.clone(), identified.clone());
        let work = async move { keep_pulling_again(&again, &name, &identified).await };
        tasks.spawn(work.in_current_span());
        let (pushing, name) = (session.clone(), domain.clone());
        let work = async move { keep_pushing(&pushing, &name).await };
        tasks.spawn(work.in_current_span());
    }
    for domain in session.core.context().pushed_domains(session.handle.peer()) {
        let emptying = session.clone();
        let work = async move { keep_emptying_outbox(&emptying, &domain).await };
        tasks.spawn(work.in_current_span());
    }
    let receipting = session.clone();
    let work = async move { keep_receipting(&receipting).await };
    tasks.spawn(work.in_current_span());
    let recovering = session.clone();
    let work = async move { keep_recovering(&recovering).await };
    tasks.spawn(work.in_current_span());
    tasks.close();
    tasks
}

/// The span of a session, without a parent: it outlives the handshake.
fn session_span(peer: &PeerId, trace: TraceId) -> Span {
    tracing::info_span!(parent: None, "session", %peer, %trace)
}

/// Ends a session that was not listed.
async fn refuse(driver: SessionDriver, code: EndCode) {
    tracing::debug!(code = code.code(), "refused a session");
    driver.refuse(code).await;
}

#[cfg(test)]
mod tests;
