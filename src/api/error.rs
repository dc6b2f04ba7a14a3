//! Error responses: an HTTP status, a stable code (`docs/ERRORS.md`) and a message.
//!
//! Internal errors show the code only; the log has the chain of causes. No message quotes a body.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use keys::{Oid, error_chain};
use serde_json::json;

use super::control::ControlError;
use crate::engine::EngineError;
use crate::graph::{ConfirmHomeError, SaveError};
use crate::services::contacts::ContactError;
use crate::services::conversations::ConversationError;
use crate::services::identities::IdentityError;
use crate::services::invitations::InvitationError;
use crate::services::messages::SendError;
use crate::services::people::FindError;
use crate::services::removals::RemovalError;
use crate::services::rights::RightsError;
use crate::services::verdicts::VerdictError;
use crate::store::StoreError;

/// An error response.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// A field of the request that cannot be read.
    pub(super) fn bad_field(field: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::bad_request(format!("{field}: {}", error_chain(error)))
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The limit of requests at the same time, or of those that wait, is reached.
    pub(super) fn busy(message: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    /// The identity's home is not this node.
    pub(super) fn not_here(identity: &Oid) -> Self {
        let why = format!(
            "the home of identity {} is not this node: GET /api/identities marks local \
             identities with `local`",
            identity.to_hex()
        );
        Self::new(StatusCode::NOT_FOUND, "not_here", why)
    }

    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %error_chain(error), "local API request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the node failed; its log has the cause",
        )
    }

    fn stopped() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "the node is shutting down",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        (self.status, Json(body)).into_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<SaveError> for ApiError {
    fn from(error: SaveError) -> Self {
        let (status, code) = match &error {
            SaveError::Store(error) => return Self::internal(error),
            SaveError::Denied(denied) => (StatusCode::FORBIDDEN, denied.code()),
            SaveError::NotAccepted(_) => (StatusCode::CONFLICT, "not_accepted"),
            SaveError::Moves(_) => (StatusCode::CONFLICT, "moves"),
            SaveError::Missing(_) => (StatusCode::NOT_FOUND, "not_found"),
            SaveError::UnknownIdentity(_) => (StatusCode::NOT_FOUND, "unknown_identity"),
            SaveError::UnknownType => (StatusCode::NOT_FOUND, "unknown_type"),
            SaveError::Disabled(_) => (StatusCode::NOT_FOUND, "unknown_app"),
            SaveError::Recovering => (StatusCode::CONFLICT, "recovering"),
            SaveError::ReadOnly => (StatusCode::CONFLICT, "read_only"),
            SaveError::TooLong(..) => (StatusCode::PAYLOAD_TOO_LARGE, "too_long"),
            SaveError::Schema(_) => (StatusCode::UNPROCESSABLE_ENTITY, "schema"),
            SaveError::WrongReference => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_reference"),
            SaveError::ScopeChanged => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_scope"),
            SaveError::TooManyAttrs(..) => (StatusCode::UNPROCESSABLE_ENTITY, "too_many_attrs"),
            SaveError::Rights(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_rights"),
            SaveError::Record(_) => (StatusCode::UNPROCESSABLE_ENTITY, "identity_record"),
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        let (status, code) = match error {
            SendError::Save(error) => return error.into(),
            SendError::UnknownSender(_) => (StatusCode::NOT_FOUND, "unknown_sender"),
            SendError::UnknownRecipient(_) => (StatusCode::NOT_FOUND, "unknown_recipient"),
            SendError::Retired(_) => (StatusCode::CONFLICT, "retired"),
            SendError::Alone => (StatusCode::UNPROCESSABLE_ENTITY, "alone"),
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl From<RightsError> for ApiError {
    fn from(error: RightsError) -> Self {
        let (status, code) = match error {
            RightsError::Save(error) => return error.into(),
            RightsError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            RightsError::UnknownApp(_) => (StatusCode::NOT_FOUND, "unknown_app"),
            RightsError::NotOwner { .. } => (StatusCode::FORBIDDEN, "not_scope_owner"),
            RightsError::OwnerStays(_) => (StatusCode::FORBIDDEN, "scope_owner_stays"),
            RightsError::UnknownIdentity(_) => (StatusCode::NOT_FOUND, "unknown_identity"),
            RightsError::Retired(_) => (StatusCode::CONFLICT, "retired"),
            RightsError::OfTwo(_) => (StatusCode::CONFLICT, "of_two"),
            RightsError::NotHere(_) => (StatusCode::NOT_FOUND, "not_here"),
            RightsError::NotAccepted(_) => (StatusCode::CONFLICT, "not_accepted"),
            RightsError::NoRights(_) | RightsError::NotReader(_) => {
                (StatusCode::NOT_FOUND, "not_member")
            }
            RightsError::TooMany => (StatusCode::UNPROCESSABLE_ENTITY, "too_many_members"),
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl From<ConversationError> for ApiError {
    fn from(error: ConversationError) -> Self {
        let (status, code) = match error {
            ConversationError::Rights(error) => return error.into(),
            ConversationError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            ConversationError::BadTitle(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_title"),
            ConversationError::NotHere(_) => (StatusCode::NOT_FOUND, "not_here"),
            ConversationError::Alone => (StatusCode::UNPROCESSABLE_ENTITY, "alone"),
            ConversationError::TooManyFounders => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too_many_members")
            }
            ConversationError::AlreadyMember(_) | ConversationError::NamedTwice(_) => {
                (StatusCode::CONFLICT, "already_member")
            }
            ConversationError::NotMember(_) => (StatusCode::NOT_FOUND, "not_member"),
            ConversationError::MayNotWrite(_) => (StatusCode::FORBIDDEN, "may_not_write"),
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl From<InvitationError> for ApiError {
    fn from(error: InvitationError) -> Self {
        let (status, code) = match error {
            InvitationError::Save(error) => return error.into(),
            InvitationError::UnknownApp(_) => (StatusCode::NOT_FOUND, "unknown_app"),
            InvitationError::NotInvited(_) => (StatusCode::NOT_FOUND, "not_invited"),
            InvitationError::NotHere(_) => (StatusCode::NOT_FOUND, "not_here"),
            InvitationError::Several(_) => (StatusCode::CONFLICT, "several_identities"),
            InvitationError::TakesPart(_) => (StatusCode::CONFLICT, "takes_part"),
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let (status, code) = match error {
            IdentityError::Save(error) => return error.into(),
            IdentityError::Name(error) => return error.into(),
            IdentityError::NotLocal(_) | IdentityError::Unknown(_) => {
                (StatusCode::NOT_FOUND, "unknown_identity")
            }
            IdentityError::NotFrozen => (StatusCode::CONFLICT, "not_frozen"),
            IdentityError::Home(ConfirmHomeError::Store(error)) => return Self::internal(&error),
            IdentityError::Home(ConfirmHomeError::NoneWaits) => {
                (StatusCode::NOT_FOUND, "no_pending_home")
            }
            IdentityError::Home(ConfirmHomeError::OtherHome | ConfirmHomeError::Obsolete) => {
                (StatusCode::CONFLICT, "other_home")
            }
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl From<ContactError> for ApiError {
    fn from(error: ContactError) -> Self {
        let (status, code) = match &error {
            ContactError::Store(error) => return Self::internal(error),
            ContactError::BadName(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_name"),
            ContactError::NameTaken { .. } => (StatusCode::CONFLICT, "name_taken"),
            ContactError::AlreadyNamed(_) => (StatusCode::CONFLICT, "already_named"),
            ContactError::NotNamed(_) => (StatusCode::NOT_FOUND, "not_found"),
            ContactError::OwnIdentity(_) => (StatusCode::CONFLICT, "own_identity"),
            ContactError::Server(_) => (StatusCode::NOT_FOUND, "unknown_identity"),
            ContactError::NoteTooLong => (StatusCode::UNPROCESSABLE_ENTITY, "bad_note"),
            ContactError::Full => (StatusCode::CONFLICT, "address_book_full"),
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        let (status, code) = match &error {
            FindError::Store(error) => return Self::internal(error),
            FindError::Empty => (StatusCode::BAD_REQUEST, "bad_request"),
            FindError::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown_identity"),
            FindError::OnlyClaimed { .. } => (StatusCode::CONFLICT, "only_claimed"),
            FindError::Ambiguous { .. } => (StatusCode::CONFLICT, "ambiguous"),
            FindError::NotHere(_) => (StatusCode::NOT_FOUND, "not_here"),
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl From<VerdictError> for ApiError {
    fn from(error: VerdictError) -> Self {
        let (status, code) = match &error {
            VerdictError::Store(error) => return Self::internal(error),
            VerdictError::Banned => (StatusCode::CONFLICT, "banned"),
            VerdictError::Trusted => (StatusCode::CONFLICT, "trusted"),
            VerdictError::NotExcluded => (StatusCode::NOT_FOUND, "not_found"),
            VerdictError::Itself => (StatusCode::UNPROCESSABLE_ENTITY, "self"),
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl From<RemovalError> for ApiError {
    fn from(error: RemovalError) -> Self {
        let (status, code) = match error {
            RemovalError::Verdict(error) => return error.into(),
            RemovalError::Unknown => (StatusCode::NOT_FOUND, "not_found"),
            RemovalError::Recovering => (StatusCode::CONFLICT, "recovering"),
        };
        Self::new(status, code, error_chain(&error))
    }
}

impl<E: std::error::Error + Into<Self> + 'static> From<EngineError<E>> for ApiError {
    fn from(error: EngineError<E>) -> Self {
        match error {
            EngineError::Stopped(_) => Self::stopped(),
            EngineError::Work(error) => error.into(),
        }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        Self::new(error.status(), error.code(), error_chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::RecordFault;
    use crate::schema::SchemaViolation;

    #[test]
    fn each_fault_of_an_object_has_a_code_of_its_own() {
        let faults = [
            (SaveError::Schema(SchemaViolation::UnknownAttr(9)), "schema"),
            (SaveError::WrongReference, "wrong_reference"),
            (SaveError::ScopeChanged, "wrong_scope"),
            (SaveError::TooManyAttrs(2, 1), "too_many_attrs"),
            (SaveError::Record(RecordFault::OtherOid), "identity_record"),
        ];
        for (fault, code) in faults {
            let error = ApiError::from(fault);
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            assert_eq!((error.status, error.code), (status, code));
        }
    }

    #[test]
    fn message_names_every_cause() {
        let fault = SaveError::Record(RecordFault::OtherOid);
        let cause = RecordFault::OtherOid.to_string();
        let error = ApiError::from(fault);
        let expected = format!("the identity record is not valid: {cause}");
        assert_eq!(error.message, expected);
    }
}
