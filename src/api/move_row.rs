//! The move of an identity as the API shows it, and why one fails.

use axum::http::StatusCode;
use serde::Serialize;

/// A running or finished move of an identity, from this node or to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MoveRow {
    /// Counts from 1 at each start of the node.
    pub id: u64,
    /// `leaves` or `arrives`.
    pub direction: &'static str,
    /// The identity, once it is known.
    pub identity: Option<String>,
    /// The path of the file.
    pub path: String,
    /// `running`, `done`, `failed`.
    pub state: &'static str,
    /// `writing`, `checking`, `storing`, `signing`: the current or last step.
    pub step: &'static str,
    /// Objects that the step has processed.
    pub done_objects: u64,
    /// Objects that the step has to process; 0 where that is not known.
    pub total_objects: u64,
    /// Of the objects that arrived, those that this node cannot store yet.
    pub left_objects: u64,
    /// Code of the first one of them.
    pub left_code: Option<&'static str>,
    /// The code of the error, where it is `failed`.
    pub code: Option<&'static str>,
    /// The chain of causes, where it is `failed`.
    pub error: Option<String>,
}

/// Why an identity does not move. The text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// Another move runs.
    #[error("an identity moves already: GET /api/v1/identities/moves")]
    Underway,
    /// No peer is known at the onion address.
    #[error("no peer is known at that onion address: `postern peer add` first")]
    UnknownNode,
    /// The identity moves to another node, so that its keys do not change here.
    #[error("{0}")]
    Moves(String),
    /// The identity lives at another node.
    #[error("the identity lives at another node")]
    NotHere,
    /// A file of that name exists, or it cannot be created.
    #[error("{0}")]
    Target(String),
    /// The file cannot be read, or is of another kind.
    #[error("{0}")]
    File(String),
    /// The file moves the identity to another node.
    #[error("{0}")]
    OtherTarget(String),
    /// The old home is no peer of this node, or what it sent is being removed.
    #[error("{0}")]
    UnknownSource(String),
    /// A later key is known, or the chain in the file branches off from the known one.
    #[error("{0}")]
    Obsolete(String),
    /// The vault has no room for another identity.
    #[error("{0}")]
    Full(String),
    /// The new home is not known yet, so that the keys stay.
    #[error(
        "this node has not heard from the new home of the identity yet, so that its keys stay: \
         `postern identity receive` on that node, then connect to it"
    )]
    NotMoved,
    /// A later key of the identity is known, so that a rotation would branch off.
    #[error(
        "another node shows a later key of this identity, so that a rotation here would branch \
         off: if you moved it, `postern identity confirm-home`"
    )]
    LaterKey,
}

impl MoveError {
    /// The stable code (`docs/ERRORS.md`).
    pub fn code(&self) -> &'static str {
        match self {
            Self::Underway => "underway",
            Self::UnknownNode => "unknown_node",
            Self::Moves(_) => "moves",
            Self::NotHere => "not_here",
            Self::Target(_) => "no_folder",
            Self::File(_) => "bad_file",
            Self::OtherTarget(_) => "other_target",
            Self::UnknownSource(_) => "unknown_source",
            Self::Obsolete(_) => "obsolete_file",
            Self::Full(_) => "vault_full",
            Self::NotMoved => "not_moved",
            Self::LaterKey => "later_key",
        }
    }

    /// The HTTP status of the reply.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::UnknownNode | Self::NotHere => StatusCode::NOT_FOUND,
            Self::Target(_) | Self::File(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Underway
            | Self::Moves(_)
            | Self::OtherTarget(_)
            | Self::UnknownSource(_)
            | Self::Obsolete(_)
            | Self::Full(_)
            | Self::NotMoved
            | Self::LaterKey => StatusCode::CONFLICT,
        }
    }
}
