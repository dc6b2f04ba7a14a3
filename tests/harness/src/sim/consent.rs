//! Invitations in a simulation: operators that decide late, or decline.
//!
//! The oracle demands that nothing of a declined scope is kept, and that no identity sees a scope
//! before it accepted. A scope that was accepted after all is complete.

use std::collections::BTreeSet;

use keys::Oid;
use keys::protocol::{ACCEPT_TYPE, CORE_TYPES_FROM};
use postern::graph::AcceptPolicy;
use postern::services::invitations::{self, InvitationError, InvitationFilter};
use postern::state_engine::CoreLimits;
use postern::store::Onlooker;
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use rusqlite::{Connection, OpenFlags};

use super::scenario::Feature;
use super::world::World;
use crate::live::LiveNode;

/// Chance that an invitation is accepted, and not declined.
const ACCEPTS: f64 = 0.7;
/// Scopes that identities of the node `?1` declined, and that none of its identities wants.
const UNWANTED: &str = "SELECT s.oid FROM scope AS s WHERE EXISTS (
      SELECT 1 FROM invitation AS v WHERE v.scope_id = s.id AND v.state = 'declined')
    AND NOT EXISTS (
      SELECT 1 FROM identity AS i JOIN reader AS r ON r.identity_oid = i.oid
      WHERE i.home_peer = ?1 AND r.scope_id = s.id AND r.until_seq IS NULL AND NOT EXISTS (
        SELECT 1 FROM invitation AS w WHERE w.identity_oid = i.oid AND w.scope_id = s.id
        AND w.state = 'declined'))";
/// Received objects of the scope `?1` that other members do not need and that have values. The name
/// of an app's table replaces `TABLE`.
const KEPT: &str = "SELECT p.oid FROM scope AS s JOIN TABLE AS p ON p.scope_id = s.id
    WHERE s.oid = ?1 AND p.oid <> ?1 AND p.type < ?2 AND p.rev > 0 AND p.origin IS NOT NULL
    AND p.created_seq > (SELECT MAX(v.from_seq) FROM invitation AS v
                         WHERE v.scope_id = s.id AND v.state = 'declined')";
/// Objects of scopes to which identities were invited that did not accept and saw nothing before.
const HIDDEN: &str = "SELECT v.identity_oid, p.oid FROM invitation AS v
    JOIN TABLE AS p ON p.scope_id = v.scope_id
    WHERE v.state IN ('open', 'declined') AND v.from_seq = 0";

impl World {
    /// The limits of a node. Every other operator is asked.
    pub(super) fn limits_of(&self, number: usize) -> CoreLimits {
        let mut limits = self.scenario.limits;
        if self.has(Feature::Consent) && number % 2 == 1 {
            limits.graph.accept = AcceptPolicy::Ask;
        }
        limits
    }

    /// The operator of a node decides on an invitation, perhaps on one that was declined.
    pub(super) fn decide(&mut self, node: usize) {
        let live = self.up(node).unwrap();
        let mut found = Vec::new();
        for is_declined in [false, true] {
            let filter = InvitationFilter {
                is_declined,
                app: None,
                suffix: String::new(),
            };
            let page = live.read(move |view| invitations::list(&view, &filter, 0, 1000));
            let cards = page.cards.into_iter();
            found.extend(cards.map(|card| (card.app, card.oid, card.identity.oid)));
        }
        let Some((app, scope, identity)) = found.choose(&mut self.rng).cloned() else {
            return;
        };
        let accepts = self.rng.random_bool(ACCEPTS);
        let version = self.version_at(node, &app, scope);
        let (live, slug) = (self.up(node).unwrap(), app.clone());
        if !accepts {
            let declined =
                live.graph(move |graph| invitations::decline(graph, &slug, scope, Some(identity)));
            declined.unwrap();
            return;
        }
        let accepted =
            live.graph(move |graph| invitations::accept(graph, &slug, scope, Some(identity)));
        let saved = match accepted {
            Ok(accepted) => accepted.saved.map(Ok),
            Err(InvitationError::Save(error)) => Some(Err(error)),
            Err(error) => panic!("node {node} could not accept {scope:?}: {error:?}"),
        };
        if let Some(saved) = saved {
            let kind = (ACCEPT_TYPE, saved);
            self.note_core(node, (scope, &app), identity, version, kind);
        }
    }

    /// The scopes of which a node keeps nothing.
    pub(super) fn unwanted(&self, number: usize) -> BTreeSet<Oid> {
        let node = self.up(number).unwrap();
        let connection = open(node);
        let mut statement = connection.prepare(UNWANTED).unwrap();
        let rows = statement.query_map([node.peer_id().as_bytes()], |row| {
            row.get(0).map(Oid::from_bytes)
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// Nothing of a declined scope is kept, and nothing of an invitation is shown.
    pub(super) fn check_consent(&self, number: usize) -> Result<(), String> {
        let node = self.up(number).unwrap();
        let (connection, unwanted) = (open(node), self.unwanted(number));
        for app in node.apps() {
            let table = format!("app_{app}_parent");
            let mut statement = connection.prepare(&KEPT.replace("TABLE", &table)).unwrap();
            for scope in &unwanted {
                let values = (scope.as_bytes(), CORE_TYPES_FROM);
                let mut kept = statement.query(values).unwrap();
                if let Some(row) = kept.next().unwrap() {
                    let oid = Oid::from_bytes(row.get(0).unwrap());
                    return Err(format!("node {number} keeps {oid:?} of declined {scope:?}"));
                }
            }
            let mut statement = connection
                .prepare(&HIDDEN.replace("TABLE", &table))
                .unwrap();
            let rows = statement.query_map([], |row| {
                let oid = |column| row.get(column).map(Oid::from_bytes);
                Ok((oid(0)?, oid(1)?))
            });
            for row in rows.unwrap() {
                let (identity, oid) = row.unwrap();
                if shows(node, app, identity, oid) {
                    return Err(format!(
                        "node {number} shows {oid:?} to {identity:?}, which did not accept"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether a node shows an object to an identity.
pub(super) fn shows(node: &LiveNode, app: &str, identity: Oid, oid: Oid) -> bool {
    let slug = app.to_owned();
    node.read(move |view| {
        let app = view.rows.apps().get(&slug).unwrap();
        let row = view.rows.parent(app, &oid)?.unwrap();
        view.rows.sight(Onlooker::Identity(identity)).shows(&row)
    })
}

fn open(node: &LiveNode) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    Connection::open_with_flags(node.database(), flags).unwrap()
}
