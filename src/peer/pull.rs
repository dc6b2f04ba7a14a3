//! Pulling: asking a peer what changed, and taking what it answers (docs/STORY.md 2, 4).
//!
//! Never looks into a package before its signature held, and never moves a cursor itself: the engine does, with the
//! rows. Invariant: a pull either leaves everything as it was or has applied whole windows.

use std::time::Duration;

use keys::{Epoch, PeerId};

use super::message::{Message, Pull};
use super::session::{Handle, SessionError};
use crate::engine::{CoreHandle, EngineError};
use crate::state_engine::{
    AppliedPackage, ApplyPackageError, PackageFault, PackageLimits, QuotaFault, VerifiedPackage,
    Window,
};
use crate::store::{Direction, StoreError};

/// Why a pull or push did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// There is no session with the peer.
    #[error("there is no session with this peer")]
    NoSession,
    /// The domain is not in the intersection, or not one of ours.
    #[error("the domain {0} is not shared with this peer")]
    NotShared(String),
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The peer refused.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// The peer's package is faulty; nothing moved.
    #[error("the peer sent a faulty package")]
    Package(#[from] PackageFault),
    /// The package was not applied; nothing moved.
    #[error("the package was not applied")]
    Apply(#[source] EngineError<ApplyPackageError>),
    /// Our database failed.
    #[error(transparent)]
    Engine(#[from] EngineError<StoreError>),
    /// A package to be sent could not be built.
    #[error(transparent)]
    Build(EngineError<crate::state_engine::BuildError>),
}

impl SyncError {
    /// The quota that a package would have exceeded, where that is why it was not applied.
    pub fn quota(&self) -> Option<&QuotaFault> {
        match self {
            Self::Apply(EngineError::Work(ApplyPackageError::Quota(fault))) => Some(fault),
            _ => None,
        }
    }
}

/// What one round of a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOutcome {
    /// The domain.
    pub domain: String,
    /// The window that came; none: up to date.
    pub window: Option<Window>,
    /// What became of its objects.
    pub applied: AppliedPackage,
    /// Whether more is ready.
    pub more: bool,
}

/// What a package brought.
pub(super) struct Taken {
    pub(super) window: Window,
    pub(super) more: bool,
    pub(super) applied: AppliedPackage,
}

/// One pull of one domain, waiting up to `wait_s` seconds for something new.
pub async fn pull_once(
    engine: &CoreHandle,
    handle: &Handle,
    domain: &str,
    wait_s: u32,
) -> Result<PullOutcome, SyncError> {
    let (peer, name) = (*handle.peer(), domain.to_owned());
    let state = engine
        .read(move |view| view.cursor(&peer, &name, Direction::In))
        .await?;
    let (epoch, last_seq) = state.map_or((None, 0), |state| (Some(state.epoch), state.last_seq));
    let us = engine.context().keys.peer_id();
    let ask = |id| {
        Message::Pull(Pull {
            id,
            epoch,
            domain: domain.to_owned(),
            wait_s,
            peer_id: us,
            last_seq,
        })
    };
    match handle
        .request(Duration::from_secs(u64::from(wait_s)), ask)
        .await?
    {
        Message::Package(package) => {
            let (counts_in, taken) =
                take_package(engine, &peer, Some(domain), &package.body).await?;
            let Taken {
                window,
                more,
                applied,
            } = taken;
            if epoch == Some(counts_in) && window.to_seq <= last_seq {
                // What we said that we have, again: it moved nothing, and would be asked for again at once.
                return Err(PackageFault::Window.into());
            }
            Ok(PullOutcome {
                domain: domain.to_owned(),
                window: Some(window),
                applied,
                more,
            })
        }
        Message::UpToDate(_) => {
            let applied = AppliedPackage {
                last_seq,
                ..AppliedPackage::default()
            };
            Ok(PullOutcome {
                domain: domain.to_owned(),
                window: None,
                applied,
                more: false,
            })
        }
        Message::Refused(refused) => Err(SyncError::Refused(refused.code)),
        _ => Err(SessionError::Misbehaved("a pull was answered with something else").into()),
    }
}

/// Verifies a package against the session, checks its objects on every core, and applies it.
/// `asked` is the domain of the pull that it answers; a push may be of any domain of the intersection.
pub(super) async fn take_package(
    engine: &CoreHandle,
    peer: &PeerId,
    asked: Option<&str>,
    bytes: &[u8],
) -> Result<(Epoch, Taken), SyncError> {
    let sender = *peer;
    let known = engine
        .read(move |view| {
            let Some(row) = view.rows.peer(&sender)? else {
                return Ok(None);
            };
            Ok::<_, StoreError>(
                view.rows
                    .identity(&row.server_oid)?
                    .map(|server| (server.public_key, row.domains)),
            )
        })
        .await?;
    let (key, domains) = known.ok_or(SyncError::NoSession)?;
    let us = engine.context().keys.peer_id();
    let mut package = VerifiedPackage::verify(bytes, &PackageLimits::PROTOCOL, (peer, &key), &us)?;
    let is_asked = asked.is_none_or(|domain| domain == package.domain());
    if !is_asked || !domains.iter().any(|domain| domain == package.domain()) {
        return Err(PackageFault::Domain.into());
    }
    let objects = engine.verify_objects(package.take_objects()).await?;
    let (epoch, window, more) = (package.epoch(), package.window(), package.more());
    let applied = engine
        .write(move |core, now| core.apply_package(now, &package, objects))
        .await
        .map_err(SyncError::Apply)?;
    Ok((
        epoch,
        Taken {
            window,
            more,
            applied,
        },
    ))
}
