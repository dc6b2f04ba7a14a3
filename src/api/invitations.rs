//! `/api/v1/invitations` and the decisions on them.

use axum::Json;
use axum::extract::Path;
use keys::Oid;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::people;
use super::read::{Body, QueryParams, oid, page_up_to};
use super::state::Traced;
use crate::services::invitations::{self, InvitationCard, InvitationFilter};

/// Largest number of scopes in a page.
const INVITATIONS_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct InvitationsQuery {
    app: Option<String>,
    /// Those that were declined, instead of those that are open.
    #[serde(default)]
    declined: bool,
    after: Option<i64>,
    limit: Option<usize>,
    /// The last digits of the oid.
    suffix: Option<String>,
}

pub(super) async fn list(
    Traced(state): Traced,
    QueryParams(query): QueryParams<InvitationsQuery>,
) -> Result<Json<Value>, ApiError> {
    let limit = page_up_to(query.limit, INVITATIONS_MAX)?;
    let after = query.after.unwrap_or(0);
    let filter = InvitationFilter {
        is_declined: query.declined,
        app: query.app,
        suffix: query.suffix.unwrap_or_default(),
    };
    let page = state
        .engine
        .read(move |view| invitations::list(&view, &filter, after, limit))
        .await?;
    let cards: Vec<_> = page.cards.iter().map(show).collect();
    Ok(Json(json!({
        "invitations": cards,
        "after": page.after,
        "more": page.more,
    })))
}

fn show(card: &InvitationCard) -> Value {
    let members: Vec<_> = card.members.iter().map(people::show).collect();
    json!({
        "oid": card.oid.to_hex(),
        "app": card.app,
        "title": card.title,
        "owner": people::show(&card.owner),
        "identity": people::show(&card.identity),
        "member_count": card.member_count,
        "members": members,
        "state": if card.is_declined { "declined" } else { "open" },
        "at": card.at,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct DecisionRequest {
    /// Default: the only identity with an invitation.
    identity_oid: Option<String>,
}

impl DecisionRequest {
    fn identity(&self) -> Result<Option<Oid>, ApiError> {
        let text = self.identity_oid.as_deref();
        text.map(|text| oid("identity_oid", text)).transpose()
    }
}

/// Lets an identity of this node take part in a scope.
pub(super) async fn accept(
    Traced(state): Traced,
    Path((app, scope)): Path<(String, String)>,
    Body(request): Body<DecisionRequest>,
) -> Result<Json<Value>, ApiError> {
    let (scope, identity) = (oid("the path", &scope)?, request.identity()?);
    let accepted = state
        .engine
        .graph(move |graph| invitations::accept(graph, &app, scope, identity))
        .await?;
    Ok(Json(json!({
        "oid": scope.to_hex(),
        "identity_oid": accepted.identity.to_hex(),
        "change_seq": accepted.saved.map(|saved| saved.change_seq),
    })))
}

/// Declines an invitation. Nothing is sent to other nodes.
pub(super) async fn decline(
    Traced(state): Traced,
    Path((app, scope)): Path<(String, String)>,
    Body(request): Body<DecisionRequest>,
) -> Result<Json<Value>, ApiError> {
    let (scope, identity) = (oid("the path", &scope)?, request.identity()?);
    let identity = state
        .engine
        .graph(move |graph| invitations::decline(graph, &app, scope, identity))
        .await?;
    Ok(Json(json!({
        "oid": scope.to_hex(),
        "identity_oid": identity.to_hex(),
    })))
}
