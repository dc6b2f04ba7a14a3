//! What the API needs of the node besides data: its state, dials and pulls by hand, new identities,
//! backups.
//!
//! The API stands beside the peers and does not know them; the node implements this for both. Never blocks.

use std::path::PathBuf;
use std::sync::Arc;

use bastion::{GateStatus, TorStatus};
use futures::future::BoxFuture;
use keys::{Oid, OnionAddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::config::{AdmissionConfig, Policy};

/// What only the node as a whole can do.
pub trait Control: Send + Sync + 'static {
    /// The node at this moment.
    fn status(&self) -> NodeStatus;

    /// Knocks at another node once, and keeps in touch from then on.
    fn dial(&self, onion: OnionAddr) -> BoxFuture<'_, Result<Dialled, ControlError>>;

    /// Pulls or pushes a domain now, window after window until nothing is left.
    fn sync(
        &self,
        peer: PeerId,
        domain: String,
        direction: SyncDirection,
    ) -> BoxFuture<'_, Result<Vec<SyncReport>, ControlError>>;

    /// Makes an identity that lives here.
    fn new_identity(&self, name: Option<String>) -> BoxFuture<'_, Result<Oid, ControlError>>;

    /// Makes the next key the current one, and makes that known. The number of the new key.
    fn rotate(&self, whose: Whose) -> BoxFuture<'_, Result<u32, ControlError>>;

    /// Begins a backup into a new file, which the node writes with its own rights. One at a time.
    fn start_backup(&self, path: PathBuf) -> Result<BackupRow, ControlError>;

    /// The backup that goes on, or the last one since the node started.
    fn last_backup(&self) -> Option<BackupRow>;

    /// Who is let in.
    fn admission(&self) -> AdmissionStatus;

    /// Lets others in from now on, until the next start or until the config file is read again.
    fn set_policy(&self, policy: Policy);

    /// A verdict on a peer was written: it is judged anew from now on. Says whether a session ended.
    fn heed_verdict(&self, peer: &PeerId, heed: Heed) -> bool;
}

/// Whose key is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The node's own.
    Node,
    /// That of an identity that lives here.
    Identity(Oid),
}

/// What a verdict means for a session that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heed {
    /// It keeps its place when places run out.
    Trusted,
    /// It ends.
    KeptOut,
    /// Nothing.
    AsBefore,
}

/// Why the node could not do it: a short word, and a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// A short stable word.
    pub code: &'static str,
    /// What happened and what to do.
    pub message: String,
}

/// A backup that goes on, or went on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupRow {
    /// Counted from 1 since the node's start.
    pub id: u64,
    /// The file, whole.
    pub path: String,
    /// `running`, `done`, `failed`.
    pub state: &'static str,
    /// `copying`, `sealing`, `verifying`: what is being done, or was last.
    pub step: &'static str,
    /// Bytes done in this step.
    pub done_bytes: u64,
    /// Bytes to do in it.
    pub total_bytes: u64,
    /// Length of the file; none before it is done.
    pub bytes: Option<u64>,
    /// Length of the database in it; none before it is done.
    pub database_bytes: Option<u64>,
    /// What was committed before this moment (milliseconds since 1970) is in it; none before it is done.
    pub created: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Who is let in.
#[derive(Debug, Clone)]
pub struct AdmissionStatus {
    /// What holds now.
    pub config: Arc<AdmissionConfig>,
    /// Whether the policy is another than the config file's.
    pub by_hand: bool,
}

/// The node at one moment.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// This node.
    pub peer_id: PeerId,
    /// Where it is reached.
    pub onion: OnionAddr,
    /// `starting`, `bootstrapping`, `publishing`, `reachable`.
    pub network: String,
    /// The gate.
    pub gate: GateStatus,
    /// The onion service; none on loopback.
    pub tor: Option<TorStatus>,
    /// Live sessions.
    pub sessions: Vec<SessionRow>,
    /// Dials that are under way.
    pub dials: Vec<DialRow>,
}

/// A live session.
#[derive(Debug, Clone, Serialize)]
pub struct SessionRow {
    /// The peer, whole.
    pub peer_id: String,
    /// The intersection.
    pub domains: Vec<String>,
    /// Whether this node dialled.
    pub we_dialled: bool,
    /// `worked` or `trusted`.
    pub tier: &'static str,
}

/// A dial that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DialRow {
    /// Where to, whole.
    pub onion: String,
    /// `dialling`, `solving`, `presenting`, `waiting` (the other node is busy).
    pub step: &'static str,
    /// Evaluations of the work function so far.
    pub evaluations: u64,
    /// Evaluations that are expected in all.
    pub effort: u64,
    /// Milliseconds that the solving has taken.
    pub elapsed_ms: u64,
    /// Milliseconds that it is expected to take in all, or that are waited; none while that is not known.
    pub expected_ms: Option<u64>,
}

/// A dial that ended in a session.
#[derive(Debug, Clone, Copy)]
pub struct Dialled {
    /// The peer.
    pub peer: PeerId,
    /// Expected evaluations of the puzzle that was solved.
    pub effort: u64,
    /// How long that took, in milliseconds.
    pub solving_ms: u64,
}

/// Which way a sync goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncDirection {
    /// Ask the peer what changed.
    #[default]
    Pull,
    /// Send the peer what changed.
    Push,
}

/// One window of a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The domain.
    pub domain: String,
    /// Pull or push.
    pub direction: SyncDirection,
    /// `from_seq` and `to_seq`; none: up to date.
    pub window: Option<(u64, u64)>,
    /// Objects in the package.
    pub objects: usize,
    /// Of a pull: objects written, parked ones that found what they waited for included.
    pub written: usize,
    /// Of a pull: objects that were here already.
    pub already_here: usize,
    /// Of a pull: objects that wait for another one.
    pub parked: usize,
    /// Of a pull: objects refused.
    pub rejected: usize,
    /// Where the cursor stands: applied here (pull), acknowledged there (push).
    pub last_seq: u64,
}
