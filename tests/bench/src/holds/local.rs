//! Long work of the node: rotations, restamped and ended scopes, bits of new domains.

use std::collections::VecDeque;

use anyhow::{Context as _, Result};
use harness::{conversation, message};
use postern::graph::{GraphManager, SaveError, WriteRequest};
use postern::object::Attrs;
use postern::store::{SettlingWork, StoreError};

use super::wiki::{FOLDER, PAGE, SCROLL, SHEET, WIKI, Wiki, later_schema};
use super::{Pair, Scale};

/// Objects of the largest size: more than one portion.
fn sheets(scale: &Scale<'_>) -> usize {
    scale.messages.min(600)
}

/// Bytes of a value of a sheet: some 54 KiB in all.
const LINE_BYTES: usize = 200;
/// Sheets of that size that fit into a package.
const SHEETS_MAX: usize = 16;

/// Writes objects of the node's identity, each as a change group of its own. No transaction is
/// larger than those of a node, because the hold after it would count a sync of all its pages.
pub(crate) fn write_many(
    pair: &Pair,
    count: usize,
    (app, type_number): (&'static str, u16),
    attrs: impl Fn(usize) -> Attrs + Clone + Send + 'static,
) -> Result<()> {
    let (context, owner) = (
        pair.node.context(pair.node.identity, app),
        pair.node.identity,
    );
    let together = match type_number {
        SHEET | SCROLL => SHEETS_MAX,
        _ => 1000,
    };
    for start in (0..count).step_by(together) {
        let (context, attrs) = (context.clone(), attrs.clone());
        pair.node.graph(move |graph| {
            for number in start..count.min(start + together) {
                let request = WriteRequest {
                    app: app.into(),
                    type_number,
                    oid: None,
                    owner,
                    attrs: Some(attrs(number)),
                };
                graph.save_with_sync(&context, request)?;
                graph.end_group();
            }
            Ok::<_, SaveError>(())
        })?;
    }
    Ok(())
}

/// Rotates the key of the node's identity.
fn rotate(pair: &Pair) -> Result<f64> {
    let identity = pair.node.identity;
    pair.node.keys.rotate(identity, &mut rand::rng())?;
    pair.hold(|pair| {
        while pair
            .node
            .write(move |core, now| core.rotation_step(now, identity))?
        {}
        Ok(())
    })
}

pub(super) fn rotation(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let people = [pair.node.identity, pair.peer.identity];
    let talk = pair.node.make("messages", 1, conversation(&people))?.oid;
    let text = move |number| message(talk, &format!("message {number}"));
    write_many(&pair, scale.messages, ("messages", 2), text)?;
    rotate(&pair)
}

/// A rotation of objects with as many values as possible.
pub(super) fn largest_rotation(scale: &Scale<'_>) -> Result<f64> {
    let wiki = Wiki::of_node(scale)?;
    let sheet = wiki.sheet(LINE_BYTES);
    write_many(&wiki.pair, sheets(scale), (WIKI, SHEET), move |_| {
        sheet.clone()
    })?;
    rotate(&wiki.pair)
}

/// Restamps objects of a type.
fn restamp_type(scale: &Scale<'_>, type_number: u16, attrs: fn(&Wiki) -> Attrs) -> Result<f64> {
    let wiki = Wiki::of_node(scale)?;
    let values = attrs(&wiki);
    let kind = (WIKI, type_number);
    write_many(&wiki.pair, sheets(scale), kind, move |_| values.clone())?;
    let folder = wiki.pair.node.parent(WIKI, wiki.folder);
    let scope = folder.context("no folder")?.scope_id;
    wiki.pair.hold(|pair| {
        let until_seq = pair.node.head();
        let note = move |graph: &mut GraphManager<'_>| {
            let app = graph.tx().apps().get(WIKI).map(|app| app.id);
            app.map_or(Ok(()), |app| {
                let work = SettlingWork::Restamp(app, scope);
                graph.tx().note_span(&work, until_seq)
            })
        };
        Ok(pair.node.graph(note)?)
    })
}

/// Restamps objects with as many values as possible.
pub(super) fn restamp_sheets(scale: &Scale<'_>) -> Result<f64> {
    restamp_type(scale, SHEET, |wiki| wiki.sheet(LINE_BYTES))
}

/// Restamps objects with a value of the largest size.
pub(super) fn restamp_scrolls(scale: &Scale<'_>) -> Result<f64> {
    restamp_type(scale, SCROLL, Wiki::scroll)
}

/// Starts the node with a new domain of objects that it has, and sets its bit in all of them.
fn flag(
    scale: &Scale<'_>,
    type_number: u16,
    count: usize,
    attrs: fn(&Wiki) -> Attrs,
) -> Result<f64> {
    let wiki = Wiki::of_node(scale)?;
    let values = attrs(&wiki);
    let kind = (WIKI, type_number);
    write_many(&wiki.pair, count, kind, move |_| values.clone())?;
    let Pair { node, peer } = wiki.pair;
    let node = node.into_setup().own_app(WIKI, &later_schema()?).node();
    // The thread begins with the bits.
    let pair = Pair { node, peer };
    pair.settle();
    Ok(1e3 * pair.node.engine.holds().take_longest().as_secs_f64())
}

/// Sets the bit of a new domain in many small objects.
pub(super) fn flag_pages(scale: &Scale<'_>) -> Result<f64> {
    flag(scale, PAGE, scale.messages, Wiki::page)
}

/// Sets the bit of a new domain in objects with as many values as possible.
pub(super) fn flag_sheets(scale: &Scale<'_>) -> Result<f64> {
    flag(scale, SHEET, sheets(scale), |wiki| wiki.sheet(LINE_BYTES))
}

/// Ends the node's folder, and drops what the peer sent of it.
fn end(wiki: &Wiki) -> Result<f64> {
    let folder = wiki.folder;
    wiki.pair.hold(|pair| {
        pair.node.change(WIKI, FOLDER, folder, None)?;
        while pair.node.write(|core, now| core.drop_ended_step(now))? {}
        Ok(())
    })
}

pub(super) fn ended_scope(scale: &Scale<'_>) -> Result<f64> {
    let wiki = Wiki::of_node(scale)?;
    let page = |number| wiki.object(PAGE, number, wiki.page());
    wiki.push_many((scale.messages, 2000), page)?;
    end(&wiki)
}

/// An ended scope of objects with as many values as possible.
pub(super) fn largest_ended(scale: &Scale<'_>) -> Result<f64> {
    let wiki = Wiki::of_node(scale)?;
    let sheet = |number| wiki.object(SHEET, number, wiki.sheet(LINE_BYTES));
    wiki.push_many((sheets(scale), SHEETS_MAX), sheet)?;
    end(&wiki)
}

/// A package of objects with as many values as possible, of one byte each.
pub(super) fn many_values(scale: &Scale<'_>) -> Result<f64> {
    let wiki = Wiki::of_peer(scale)?;
    let sheet = |number| wiki.object(SHEET, number, wiki.sheet(1));
    wiki.pair
        .hold(|_| wiki.push_many((sheets(scale), 600), sheet))
}

/// Objects of the node that a peer returns after a restore, each of as many small values as
/// possible. A session passes at most 16 KiB at a time.
pub(super) fn returned(scale: &Scale<'_>) -> Result<f64> {
    const RETURNED_TOGETHER: usize = 16;
    let wiki = Wiki::of_node(scale)?;
    let (node, peer) = (&wiki.pair.node, wiki.pair.peer.peer_id());
    let sheet = |number| {
        let object = wiki.object_of(node.identity, (SHEET, number), wiki.sheet(1));
        node.sign(&object)
    };
    let sheets: Vec<_> = (0..RETURNED_TOGETHER * 8).map(sheet).collect();
    wiki.pair.hold(|pair| {
        for part in sheets.chunks(RETURNED_TOGETHER) {
            let mut rest = VecDeque::from(part.to_vec());
            while !rest.is_empty() {
                rest = pair.node.write(move |core, now| {
                    core.reclaim_some(now, peer, &mut rest)?;
                    Ok::<_, StoreError>(rest)
                })?;
            }
        }
        Ok(())
    })
}
