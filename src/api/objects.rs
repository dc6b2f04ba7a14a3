//! `/api/objects`: reads and writes objects of any app through its schema, so that an app needs no
//! code in the node.
//!
//! Attributes are keyed by name. Text and integers are JSON strings and numbers, and JSON is JSON.
//! Bytes are hex, references and identities are oids in hex, several values are an array. The
//! caller sees the objects that an identity of this node sees (`store::Sight`). A list also brings
//! the history of a scope that such an identity began to read after `after` (`store::Feed`).

use axum::Json;
use axum::extract::Path;
use keys::Oid;
use serde::Deserialize;
use serde_json::{Map, Value as JsonValue, json};

use super::error::ApiError;
use super::read::{Body, QueryParams, cursor, oid, page};
use super::state::{ApiState, Traced};
use crate::graph::{SaveError, Saved, WriteRequest, load_object};
use crate::object::{Attrs, Object, Value};
use crate::schema::{Kind, Schemas, TypeSchema, identities};
use crate::services::{conversations, local_context, messages};
use crate::store::{Onlooker, SeenObject, SeqOrder, StoreError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct ListQuery {
    r#type: String,
    after: Option<String>,
    limit: Option<usize>,
}

fn find_type<'s>(schemas: &'s Schemas, name: &str) -> Result<(String, &'s TypeSchema), ApiError> {
    let found = schemas
        .type_named(name)
        .map(|(app, schema)| (app.slug.clone(), schema));
    found.ok_or_else(|| ApiError::not_found(format!("no enabled app has the type `{name}`")))
}

pub(super) async fn list(
    Traced(state): Traced,
    QueryParams(query): QueryParams<ListQuery>,
) -> Result<Json<JsonValue>, ApiError> {
    let schemas = state.engine.context().schemas.clone();
    let (app, schema) = find_type(&schemas, &query.r#type)?;
    let (number, schema) = (schema.number, schema.clone());
    let (after, limit) = (cursor(query.after.as_deref())?, page(query.limit)?);
    let reading = state.engine.read(move |view| {
        let table = view
            .rows
            .apps()
            .get(&app)
            .ok_or(StoreError::Inconsistent("an app without tables"))?;
        let mut sight = view.rows.sight(Onlooker::AnyAt(view.this_node()));
        let feed = sight.feed(table, (number, SeqOrder::Changed), after, limit)?;
        let mut objects = Vec::new();
        for SeenObject { row, seq } in &feed.objects {
            let (object, _) = load_object(&view.rows, table, row)?;
            objects.push(show(&object, &schema, *seq, row.origin.is_none()));
        }
        let after = feed.after.to_string();
        Ok::<_, StoreError>(json!({
            "epoch": view.context.epoch.to_hex(),
            "objects": objects,
            "after": after,
            "more": feed.more,
        }))
    });
    Ok(Json(reading.await?))
}

fn show(object: &Object, schema: &TypeSchema, change_seq: u64, local: bool) -> JsonValue {
    let mut attrs = Map::new();
    for (number, values) in object.attrs.iter().flatten() {
        let Some(attr) = schema.attr(*number) else {
            continue;
        };
        let mut shown: Vec<_> = values
            .iter()
            .map(|value| show_value(value, &attr.kind))
            .collect();
        let value = if attr.max == 1 {
            shown.pop().unwrap_or_default()
        } else {
            JsonValue::from(shown)
        };
        attrs.insert(attr.name.clone(), value);
    }
    json!({
        "oid": object.oid.to_hex(),
        "type": schema.name,
        "owner": object.owner.to_hex(),
        "rev": object.rev,
        "deleted": object.is_deleted(),
        "change_seq": change_seq,
        "local": local,
        "attrs": attrs,
    })
}

fn show_value(value: &Value, kind: &Kind) -> JsonValue {
    match (value, kind) {
        (Value::Text(text), Kind::Json) => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        (Value::Text(text), _) => json!(text),
        (Value::Integer(number), _) => json!(number),
        (Value::Bytes(bytes), _) => json!(data_encoding::HEXLOWER.encode(bytes)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct SaveRequest {
    r#type: String,
    owner: String,
    oid: Option<String>,
    attrs: Map<String, JsonValue>,
}

pub(super) async fn save(
    Traced(state): Traced,
    Body(request): Body<SaveRequest>,
) -> Result<Json<JsonValue>, ApiError> {
    let schemas = state.engine.context().schemas.clone();
    let (app, schema) = find_type(&schemas, &request.r#type)?;
    let owner = oid("owner", &request.owner)?;
    let attrs = read_attrs(schema, request.attrs)?;
    check_names(&app, schema.number, &attrs)?;
    let oid = request
        .oid
        .as_deref()
        .map(|text| oid("oid", text))
        .transpose()?;
    let request = WriteRequest {
        app,
        type_number: schema.number,
        oid,
        owner,
        attrs: Some(attrs),
    };
    write(&state, request).await
}

/// Refuses names that no other route would make: those of identities, which are petnames too, and
/// titles that are no names.
fn check_names(app: &str, type_number: u16, attrs: &Attrs) -> Result<(), ApiError> {
    if (app, type_number) == (identities::APP, identities::IDENTITY) {
        let why = "type: identities are created and renamed through /api/identities";
        return Err(ApiError::bad_request(why));
    }
    if (app, type_number) == (messages::APP, messages::CONVERSATION) {
        let titles = attrs.get(&messages::TITLE).into_iter().flatten();
        for title in titles.filter_map(Value::as_text) {
            conversations::check_title(title)?;
        }
    }
    Ok(())
}

fn read_attrs(schema: &TypeSchema, given: Map<String, JsonValue>) -> Result<Attrs, ApiError> {
    let mut attrs = Attrs::new();
    for (name, value) in given {
        let attr = schema.attr_named(&name).ok_or_else(|| {
            let known: Vec<_> = schema.attrs.iter().map(|attr| attr.name.as_str()).collect();
            ApiError::bad_request(format!(
                "attrs.{name}: {} has no such attribute; its attributes are {}",
                schema.name,
                known.join(", ")
            ))
        })?;
        let values = match value {
            JsonValue::Array(values) if attr.kind != Kind::Json || attr.max > 1 => values,
            value => vec![value],
        };
        let read = |value| {
            read_value(value, &attr.kind).ok_or_else(|| {
                ApiError::bad_request(format!("attrs.{name}: not {}", describe(&attr.kind)))
            })
        };
        attrs.insert(
            attr.number,
            values.into_iter().map(read).collect::<Result<_, _>>()?,
        );
    }
    Ok(attrs)
}

fn read_value(value: JsonValue, kind: &Kind) -> Option<Value> {
    match kind {
        Kind::Json => Some(Value::Text(value.to_string())),
        Kind::Text => value.as_str().map(Value::from),
        Kind::Integer => value.as_i64().map(Value::Integer),
        Kind::Bytes => data_encoding::HEXLOWER
            .decode(value.as_str()?.as_bytes())
            .ok()
            .map(Value::Bytes),
        Kind::Parent { .. } | Kind::Identity => value
            .as_str()?
            .parse::<Oid>()
            .ok()
            .map(|oid| Value::from(&oid)),
    }
}

fn describe(kind: &Kind) -> &'static str {
    match kind {
        Kind::Json => "JSON",
        Kind::Text => "text",
        Kind::Integer => "a 64-bit integer",
        Kind::Bytes => "bytes in lower-case hex",
        Kind::Parent { .. } | Kind::Identity => "an oid in lower-case hex",
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(super) struct DeleteQuery {
    owner: String,
}

pub(super) async fn delete(
    Traced(state): Traced,
    Path((app, object)): Path<(String, String)>,
    QueryParams(query): QueryParams<DeleteQuery>,
) -> Result<Json<JsonValue>, ApiError> {
    let (object, owner) = (oid("the path", &object)?, oid("owner", &query.owner)?);
    let slug = app.clone();
    let found = state.engine.read(move |view| -> Result<_, StoreError> {
        let Some(table) = view.rows.apps().get(&slug) else {
            return Ok(None);
        };
        let mut sight = view.rows.sight(Onlooker::AnyAt(view.this_node()));
        match view.rows.parent(table, &object)? {
            Some(parent) if sight.shows(&parent)? => Ok(Some(parent)),
            _ => Ok(None),
        }
    });
    let parent = found.await?.ok_or_else(|| {
        ApiError::not_found(format!("app `{app}` has no object {}", object.to_hex()))
    })?;
    write(
        &state,
        WriteRequest {
            app,
            type_number: parent.type_number,
            oid: Some(object),
            owner,
            attrs: None,
        },
    )
    .await
}

async fn write(state: &ApiState, request: WriteRequest) -> Result<Json<JsonValue>, ApiError> {
    let saved: Saved = state
        .engine
        .graph::<_, SaveError>(move |graph| {
            let context = local_context(graph, &request.owner, &request.app)?;
            graph.save_with_sync(&context, request)
        })
        .await?;
    Ok(Json(
        json!({ "oid": saved.oid.to_hex(), "rev": saved.rev, "change_seq": saved.change_seq }),
    ))
}
