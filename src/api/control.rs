//! The operations of the node that the API needs besides reading and writing data: status, dials,
//! manual syncs, new keys, backups, admission.
//!
//! The API does not import `peer`. The node implements [`Control`] for it, and tests implement it
//! with plain values.

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::StatusCode;
use bastion::{GateStatus, TorStatus};
use futures::future::BoxFuture;
use keys::{MoveFileKey, Oid, OnionAddr, PeerId};
use serde::{Deserialize, Serialize};

use super::move_row::{MoveError, MoveRow};
use crate::config::{AdmissionConfig, Policy};

/// The operations that need more of the node than its database. No method blocks.
pub trait Control: Send + Sync + 'static {
    /// The node's current status.
    fn status(&self) -> NodeStatus;

    /// Dials another node once. After a success, keeps a session with it open.
    fn dial(&self, onion: OnionAddr) -> BoxFuture<'_, Result<Dialled, ControlError>>;

    /// Pulls or pushes a domain now, window by window, until the receiving side is up to date.
    fn sync(
        &self,
        peer: PeerId,
        domain: String,
        direction: SyncDirection,
    ) -> BoxFuture<'_, Result<Vec<SyncReport>, ControlError>>;

    /// Adds an identity to the vault and publishes it.
    fn new_identity(&self, name: Option<String>) -> BoxFuture<'_, Result<Oid, ControlError>>;

    /// Makes the next key of `owner` the current one, re-signs its objects, and returns the new
    /// key's number.
    fn rotate(&self, owner: KeyOwner) -> BoxFuture<'_, Result<u32, ControlError>>;

    /// Starts a backup into a new file, which the node's process writes. One backup runs at a time.
    fn start_backup(&self, path: PathBuf) -> Result<BackupRow, ControlError>;

    /// The running backup, or the last one since the node started.
    fn last_backup(&self) -> Option<BackupRow>;

    /// Starts to move an identity to the node at an onion address. From then on its keys sign
    /// nothing here. The node's process writes them and its objects into a new file.
    fn start_move(
        &self,
        identity: Oid,
        to: OnionAddr,
        path: PathBuf,
    ) -> Result<MoveRow, ControlError>;

    /// Starts to take an identity from a file of another node.
    fn start_receive(&self, path: PathBuf, key: MoveFileKey) -> Result<MoveRow, ControlError>;

    /// The running move, or the last one since the node started.
    fn last_move(&self) -> Option<MoveRow>;

    /// Removes the keys of an identity that lives at its new home. Returns whether there were any.
    fn finish_move(&self, identity: Oid) -> BoxFuture<'_, Result<bool, ControlError>>;

    /// The admission policy in force.
    fn admission(&self) -> AdmissionStatus;

    /// Sets the admission policy until the next start, or until the configuration file is read
    /// again.
    fn set_policy(&self, policy: Policy);

    /// Applies a verdict that was written: forgets what the gate remembers of the peer, and changes
    /// its open session. Returns whether a session was closed.
    fn apply_verdict(&self, peer: &PeerId, effect: SessionEffect) -> bool;

    /// Whether the configuration lets the node dial an address at each start.
    fn is_configured(&self, onion: &OnionAddr) -> bool;

    /// Stops keeping a session open with the node at an address.
    fn stop_dialling(&self, onion: &OnionAddr);
}

/// The owner of a key that is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOwner {
    /// The node itself.
    Node,
    /// An identity whose key is in this node's vault.
    Identity(Oid),
}

/// The effect of a verdict on an open session of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEffect {
    /// The session becomes one of a trusted peer: untrusted ones are evicted before it.
    Trust,
    /// The session is closed.
    Close,
    /// The session stays as it is.
    None,
}

/// An operation that the node refused or failed to do. The text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The node has not joined the network yet.
    #[error("the node has not joined the network yet: see `postern status`")]
    NotReady,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopping,
    /// The other node's operator has to approve this node first.
    #[error(
        "the other node's operator has to approve this node; dialling continues (after a restart \
         only if its onion is under [[peer]] in the configuration)"
    )]
    Pending,
    /// The peer is banned on this node.
    #[error(
        "this node has banned the peer and does not dial it: `postern peer unban` lifts the ban"
    )]
    Banned,
    /// Objects of the peer are being removed on this node.
    #[error("what the peer sent is being removed: add it after that (`postern peer list`)")]
    Purging,
    /// The other node rejected this node's key chain or signature.
    #[error(
        "the other node rejected this node's keys or signature: it probably knows a later key, \
         because this node was restored from a backup older than a rotation (docs/OPERATIONS.md, 3)"
    )]
    KeysRejected,
    /// The other node's key chain does not continue the known one.
    #[error(
        "the key chain of the other node does not continue the known one: one of its keys may be \
         stolen, or it was restored from an old backup; inform its operator"
    )]
    ChainForked,
    /// The other node refused this one. Carries the refusal code.
    #[error("the other node did not admit this one: {0}")]
    Refused(String),
    /// No connection to the address. Carries the cause.
    #[error("{0}: check the address, and that the other node runs")]
    Unreachable(String),
    /// The handshake failed in another way. Carries the cause.
    #[error("{0}")]
    Handshake(String),
    /// No session with the peer is open. Carries the text of the sync error.
    #[error("{0}")]
    NoSession(String),
    /// The session does not share the domain. Carries the text of the sync error.
    #[error("{0}")]
    NotShared(String),
    /// The peer's package would exceed its quota on this node. Carries the chain of causes.
    #[error("{0}")]
    Quota(String),
    /// The session ended, or a reply did not come in time. Carries the chain of causes.
    #[error("{0}")]
    SessionFailed(String),
    /// The peer refused the request. Carries the text of the sync error.
    #[error("{0}")]
    PeerRefused(String),
    /// The peer sent a package that breaks the protocol. Carries the chain of causes.
    #[error("{0}")]
    BadPackage(String),
    /// The node waits for its peers after a restore, and this change has to wait too.
    #[error("{0}")]
    Recovering(String),
    /// The node is read-only, because another node runs with its key.
    #[error("{0}")]
    ReadOnly(String),
    /// The name of an identity is not well formed.
    #[error("{0}")]
    BadName(String),
    /// The name is the petname of another identity.
    #[error("{0}")]
    NameTaken(String),
    /// The address book has no room for the name.
    #[error("{0}")]
    AddressBookFull(String),
    /// The vault does not hold this identity.
    #[error("{0}")]
    UnknownIdentity(String),
    /// The key chain has its maximum length.
    #[error("{0}")]
    ChainFull(String),
    /// The vault does not hold the next key of the chain.
    #[error(
        "the next key is in a recovery file, or lost with a later vault; with the file: stop the \
         node, then `postern keys rotate --recovery-file FILE`"
    )]
    NextKeyOffline,
    /// The key was rotated, but not every object is signed with it yet. Carries the cause.
    #[error(
        "the key was rotated, but not every object is signed with it yet; the next start resumes \
         that: {0}"
    )]
    RotationIncomplete(String),
    /// A backup is being made already.
    #[error("a backup is being made already: GET /api/backup")]
    BackupUnderway,
    /// A file of that name exists.
    #[error("{0}")]
    BackupExists(String),
    /// The path is not a new file name in an existing folder.
    #[error("{0}")]
    BackupNoFolder(String),
    /// The name is reserved for unfinished backups.
    #[error("{0}")]
    BackupReservedName(String),
    /// An identity does not move.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// The node itself failed. Carries the chain of causes.
    #[error("{0}")]
    Internal(String),
}

impl ControlError {
    /// A task of the node panicked; only the log has the cause.
    pub fn panicked() -> Self {
        Self::Internal("the node failed; its log has the cause".into())
    }

    /// The stable code (`docs/ERRORS.md`).
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::Stopping => "stopping",
            Self::Pending => "pending",
            Self::Banned => "banned",
            Self::Purging => "purging",
            Self::KeysRejected => "keys_rejected",
            Self::ChainForked => "chain_forked",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Handshake(_) => "handshake",
            Self::NoSession(_) => "no_session",
            Self::NotShared(_) => "not_shared",
            Self::Quota(_) => "quota",
            Self::SessionFailed(_) => "session_failed",
            Self::PeerRefused(_) => "peer_refused",
            Self::BadPackage(_) => "bad_package",
            Self::Recovering(_) => "recovering",
            Self::ReadOnly(_) => "read_only",
            Self::BadName(_) => "bad_name",
            Self::NameTaken(_) => "name_taken",
            Self::AddressBookFull(_) => "address_book_full",
            Self::UnknownIdentity(_) => "unknown_identity",
            Self::ChainFull(_) => "chain_full",
            Self::NextKeyOffline => "next_key_offline",
            Self::RotationIncomplete(_) => "rotation_incomplete",
            Self::BackupUnderway => "underway",
            Self::BackupExists(_) => "exists",
            Self::BackupNoFolder(_) => "no_folder",
            Self::BackupReservedName(_) => "reserved_name",
            Self::Internal(_) => "internal",
            Self::Move(error) => error.code(),
        }
    }

    /// The HTTP status of the reply.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotReady | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Pending
            | Self::Banned
            | Self::Purging
            | Self::NoSession(_)
            | Self::NotShared(_)
            | Self::Recovering(_)
            | Self::ReadOnly(_)
            | Self::ChainFull(_)
            | Self::NextKeyOffline
            | Self::NameTaken(_)
            | Self::AddressBookFull(_)
            | Self::BackupUnderway
            | Self::BackupExists(_) => StatusCode::CONFLICT,
            Self::UnknownIdentity(_) => StatusCode::NOT_FOUND,
            Self::BadName(_) | Self::BackupNoFolder(_) | Self::BackupReservedName(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::KeysRejected
            | Self::ChainForked
            | Self::Refused(_)
            | Self::Unreachable(_)
            | Self::Handshake(_)
            | Self::Quota(_)
            | Self::SessionFailed(_)
            | Self::PeerRefused(_)
            | Self::BadPackage(_) => StatusCode::BAD_GATEWAY,
            Self::RotationIncomplete(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Move(error) => error.status(),
        }
    }
}

/// A running or finished backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupRow {
    /// Counts from 1 at each start of the node.
    pub id: u64,
    /// The path of the file.
    pub path: String,
    /// `running`, `done`, `failed`.
    pub state: &'static str,
    /// `copying`, `sealing`, `verifying`: the current or last step.
    pub step: &'static str,
    /// Bytes that the step has processed.
    pub done_bytes: u64,
    /// Bytes that the step has to process; 0 where that is not known.
    pub total_bytes: u64,
    /// Length of the file in bytes, once it is `done`.
    pub bytes: Option<u64>,
    /// Length of the database in it in bytes, once it is `done`.
    pub database_bytes: Option<u64>,
    /// Commits before this time (milliseconds since 1970) are in it. Set once it is `done`.
    pub created: Option<u64>,
    /// The chain of causes, where it is `failed`.
    pub error: Option<String>,
}

/// The admission policy in force.
#[derive(Debug, Clone)]
pub struct AdmissionStatus {
    /// The configuration in force, with the operator's policy where that replaced the file's.
    pub config: Arc<AdmissionConfig>,
    /// Whether the operator has replaced the configuration file's policy.
    pub is_overridden: bool,
}

/// A snapshot of the node's status.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// This node's identity in the protocol.
    pub peer_id: PeerId,
    /// The address of its onion service.
    pub onion: OnionAddr,
    /// `starting`, `bootstrapping`, `publishing`, `reachable`.
    pub network: String,
    /// The gate: handshakes, load and effort.
    pub gate: GateStatus,
    /// Dials that ended in admission since the start.
    pub dialled_total: u64,
    /// The onion service; none on the loopback transport.
    pub tor: Option<TorStatus>,
    /// The open sessions.
    pub sessions: Vec<SessionRow>,
    /// The dials under way.
    pub dials: Vec<DialRow>,
}

/// An open session.
#[derive(Debug, Clone, Serialize)]
pub struct SessionRow {
    /// The peer, as 64 hexadecimal digits.
    pub peer_id: String,
    /// The sync domains that both sides have.
    pub domains: Vec<String>,
    /// Whether this node dialled.
    pub we_dialled: bool,
    /// `untrusted` or `trusted`.
    pub tier: &'static str,
}

/// A dial under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DialRow {
    /// The onion address.
    pub onion: String,
    /// `dialling`, `solving`, `verifying`, `waiting` (the other node is busy).
    pub step: &'static str,
    /// Evaluations of the work function so far.
    pub evaluations: u64,
    /// Expected number of evaluations.
    pub effort: u64,
    /// Duration of the solving so far, in milliseconds.
    pub elapsed_ms: u64,
    /// Expected duration of the solving, or the wait before the next attempt, in milliseconds. None
    /// where it is not known.
    pub expected_ms: Option<u64>,
}

/// A dial that ended in a session.
#[derive(Debug, Clone, Copy)]
pub struct Dialled {
    /// The peer.
    pub peer: PeerId,
    /// Expected evaluations of the puzzle that was solved.
    pub effort: u64,
    /// Duration of the solving, in milliseconds.
    pub solving_ms: u64,
}

/// The direction of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncDirection {
    /// Requests the peer's changes.
    #[default]
    Pull,
    /// Sends this node's changes to the peer.
    Push,
}

/// One window of a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The sync domain.
    pub domain: String,
    /// The direction that was requested.
    pub direction: SyncDirection,
    /// `from_seq` and `to_seq`; none where the receiving side was up to date.
    pub window: Option<(u64, u64)>,
    /// Objects in the package.
    pub objects: usize,
    /// Pull only: objects written, including waiting ones that were completed.
    pub written: usize,
    /// Pull only: objects that this node had already.
    pub already_stored: usize,
    /// Pull only: objects that wait for another object.
    pub waiting: usize,
    /// Pull only: objects rejected.
    pub rejected: usize,
    /// The cursor: the last sequence number that this node applied (pull) or that the peer
    /// acknowledged (push).
    pub last_seq: u64,
}
