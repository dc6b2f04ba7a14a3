//! Rows that a peer makes the node keep: waiting objects, and scopes that are to be pulled again.

use anyhow::{Context as _, Result};
use bastion::Tier;
use harness::forge::{object, salted, sign_with_later_key, tombstone};
use harness::{START, conversation, manual_sync, message};
use keys::{Digest, Epoch, Oid, PeerId, SignedObject};
use postern::object::Object;
use postern::op_context::{AppId, Timestamp};
use postern::peer::SyncService;
use postern::store::{
    Account, Cause, Cursor, Direction, PeerRow, PullAgainCause, PullAgainNote, RejectRow,
    StoreError, SyncStateRow, WaitingRow, WriteTx,
};
use tokio_util::sync::CancellationToken;

use super::wiki::{SHEET, WIKI, Wiki};
use super::{Pair, Scale};

/// Most objects of one peer that wait, by default.
const WAITING: usize = 1000;
/// Most objects of one peer that wait under an unknown key, by default.
const UNVERIFIED: u64 = 64;
/// Most scopes of a peer and domain that are pulled again one by one.
const SCOPES: usize = 256;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Revisions of a tombstone, while 64 large versions under a later key wait.
pub(super) fn tombstones(scale: &Scale<'_>) -> Result<f64> {
    let wiki = Wiki::of_peer(scale)?;
    let version = |number: usize| Object {
        rev: 1 + number as u64,
        ..wiki.object(SHEET, 0, wiki.sheet(200))
    };
    for start in (0..UNVERIFIED).step_by(16) {
        let large = (start..start + 16).map(|rev| sign_with_later_key(&version(rev as usize)));
        wiki.pair.push(WIKI, large.collect())?;
    }
    let gone = |number| {
        wiki.pair
            .peer
            .sign(&tombstone(&version(number), 2 + number as u64))
    };
    let count = scale.messages.min(4096);
    wiki.pair
        .hold(|pair| pair.push(WIKI, (0..count).map(gone).collect()))
}

/// Deletions of many objects of which many versions wait.
pub(super) fn deletions(scale: &Scale<'_>) -> Result<f64> {
    let wiki = Wiki::of_peer(scale)?;
    let (owner, peer) = (&wiki.pair.peer, wiki.pair.peer.peer_id());
    let version = |number: usize| wiki.object(SHEET, number, wiki.sheet(1));
    let count = scale.messages.min(256);
    for number in 0..count {
        let live = version(number);
        let signature = *owner.sign(&live).signature();
        wiki.pair.node.graph(move |graph| {
            for rev in 1..=UNVERIFIED {
                let bytes = Object {
                    rev,
                    ..live.clone()
                }
                .to_bytes();
                let object = SignedObject::from_parts(0, bytes, signature);
                graph.put_waiting(&waiting_row(peer, WIKI, live.oid, object))?;
            }
            Ok::<_, StoreError>(())
        })?;
    }
    let gone = |number| owner.sign(&tombstone(&version(number), 2));
    wiki.pair
        .hold(|pair| pair.push(WIKI, (0..count).map(gone).collect()))
}

fn waiting_row(peer: PeerId, domain: &str, oid: Oid, object: SignedObject) -> WaitingRow {
    WaitingRow {
        id: 0,
        peer,
        domain: domain.into(),
        epoch: Epoch::from_bytes([1; 16]),
        seq: 1,
        oid,
        cause: Cause::Rights(Digest::from_bytes([1; 32])),
        is_reclaimed: false,
        account: Account::Own,
        object,
    }
}

/// The conversation of the peer and the node that has a number.
fn talk_number(pair: &Pair, number: u8) -> Object {
    let owner = pair.peer.identity;
    let people = conversation(&[owner, pair.node.identity]);
    object("messages", 1, number, owner, 1, Some(people))
}

/// Messages of the peer in conversations in turn, which have numbers from `first` on.
fn messages_of(pair: &Pair, count: usize, talks: &[Object]) -> Vec<SignedObject> {
    let message = |(number, talk): (usize, &Object)| {
        let attrs = message(talk.oid, &format!("message {number}"));
        let salt = (number as u64).to_be_bytes();
        let message = salted(("messages", 2), salt, pair.peer.identity, 1, Some(attrs));
        pair.peer.sign(&message)
    };
    (0..count).zip(talks.iter().cycle()).map(message).collect()
}

/// A full package of messages in 250 missing conversations, for which there is no room.
pub(super) fn no_room(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    pair.push(
        "messages",
        messages_of(&pair, WAITING, &[talk_number(&pair, 0)]),
    )?;
    let talks: Vec<_> = (1..=250).map(|number| talk_number(&pair, number)).collect();
    let messages = messages_of(&pair, scale.messages.min(4096), &talks);
    pair.hold(|pair| pair.push("messages", messages))
}

/// 1,000 objects wait for one, and 250 scopes of their domain are to be pulled again.
pub(super) fn release(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let first = talk_number(&pair, 0);
    pair.push(
        "messages",
        messages_of(&pair, WAITING, std::slice::from_ref(&first)),
    )?;
    let talks: Vec<_> = (1..=250).map(|number| talk_number(&pair, number)).collect();
    pair.push("messages", messages_of(&pair, 250, &talks))?;
    let talk = pair.peer.sign(&first);
    pair.hold(|pair| pair.push("messages", vec![talk]))
}

fn crowd_id(number: usize) -> PeerId {
    let mut id = [9; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    PeerId::from_bytes(id)
}

fn scope_number(number: usize) -> Oid {
    let mut oid = [7; 16];
    oid[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Oid::from_bytes(oid)
}

/// Stores untrusted peers with a cursor, and lets `more` store further rows of each.
fn crowd(
    pair: &Pair,
    count: usize,
    domain: &'static str,
    more: impl Fn(&WriteTx<'_>, &PeerId) -> Result<(), StoreError> + Copy + Send + 'static,
) -> Result<()> {
    let (server_oid, onion) = (pair.peer.keys.server_oid(), pair.peer.onion());
    let epoch = Epoch::from_bytes([1; 16]);
    for number in 0..count {
        pair.node.graph(move |graph| {
            let peer_id = crowd_id(number);
            graph.tx().put_peer(&PeerRow {
                peer_id,
                server_oid,
                peer_apps: Vec::new(),
                peer_sync_domains: vec![domain.to_owned()],
                domains: vec![domain.to_owned()],
                onion,
                epoch,
                tier: Tier::Untrusted,
                last_contact: Timestamp(START),
                relays: false,
            })?;
            let cursor = Cursor {
                peer: &peer_id,
                domain,
                direction: Direction::In,
            };
            let state = SyncStateRow {
                epoch,
                last_seq: 1,
                acked_seq: 1,
            };
            graph.tx().put_sync_state(cursor, &state)?;
            more(graph.tx(), &peer_id)
        })?;
    }
    Ok(())
}

/// Notes scopes of a peer that found no room.
fn note_scopes(tx: &WriteTx<'_>, peer: &PeerId, domain: &str) -> Result<(), StoreError> {
    for number in 0..SCOPES {
        let note = PullAgainNote {
            peer,
            domain,
            scope: Some(scope_number(number)),
            epoch: Epoch::from_bytes([1; 16]),
            until_seq: 1,
            cause: PullAgainCause::NoRoom,
            is_again: false,
            is_own: true,
        };
        tx.note_pull_again(&note, Timestamp(START))?;
    }
    Ok(())
}

/// Objects that wait for one, each sent by another peer, of which 256 scopes are to be pulled
/// again.
pub(super) fn crowd_released(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let first = talk_number(&pair, 0);
    let messages = messages_of(&pair, 1, std::slice::from_ref(&first));
    let message = messages.into_iter().next().context("no message")?;
    let app = pair
        .node
        .read(|view| Ok(view.rows.apps().get("messages").map(|app| app.id)));
    let app: AppId = app.context("no app")?;
    let put = move |tx: &WriteTx<'_>, peer: &PeerId| note_scopes(tx, peer, "messages");
    let count = scale.crowd / 50;
    crowd(&pair, count, "messages", put)?;
    for number in 0..count {
        let waiting = WaitingRow {
            cause: Cause::Arrived(app, first.oid),
            ..waiting_row(crowd_id(number), "messages", first.oid, message.clone())
        };
        pair.node.graph(move |graph| graph.put_waiting(&waiting))?;
    }
    let talk = pair.peer.sign(&first);
    pair.hold(|pair| pair.push("messages", vec![talk]))
}

/// Objects of many peers that have waited for 30 days.
pub(super) fn expired(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let messages = messages_of(&pair, 1, &[talk_number(&pair, 0)]);
    let message = messages.into_iter().next().context("no message")?;
    let put = move |tx: &WriteTx<'_>, peer: &PeerId| note_scopes(tx, peer, "messages");
    let count = scale.crowd / 50;
    crowd(&pair, count, "messages", put)?;
    for number in 0..count {
        let waiting = waiting_row(
            crowd_id(number),
            "messages",
            scope_number(0),
            message.clone(),
        );
        pair.node.graph(move |graph| graph.put_waiting(&waiting))?;
    }
    pair.node.clock.advance_ms(31 * DAY_MS);
    pair.hold(|pair| {
        while pair.node.write(|core, now| core.expire_step(now))? {}
        Ok(())
    })
}

/// A deletion of a folder that its owner's next key overrules, while many peers are known.
pub(super) fn overruled(scale: &Scale<'_>) -> Result<f64> {
    let wiki = Wiki::of_peer(scale)?;
    crowd(&wiki.pair, scale.crowd, WIKI, |_, _| Ok(()))?;
    let owner = &wiki.pair.peer;
    let (folder, _) = owner.object(WIKI, wiki.folder).context("no folder")?;
    let gone = owner.sign(&tombstone(&folder, 2));
    wiki.pair.push(WIKI, vec![gone])?;
    let identity = owner.identity;
    owner.keys.rotate(identity, &mut rand::rng())?;
    while owner.write(move |core, now| core.rotation_step(now, identity))? {}
    wiki.pair.push("identities", wiki.pair.revisions(1)?)?;
    let (_, live) = owner.object(WIKI, wiki.folder).context("no folder")?;
    wiki.pair.hold(|pair| pair.push(WIKI, vec![live]))
}

/// Forgets untrusted peers, each of which left as much as it may.
pub(super) fn forgotten(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let messages = messages_of(&pair, 1, &[talk_number(&pair, 0)]);
    let message = messages.first().context("no message")?;
    let (bytes, signature) = (message.bytes().to_vec(), *message.signature());
    let count = scale.crowd / 200;
    crowd(&pair, count, "messages", |tx, peer| {
        note_scopes(tx, peer, "messages")
    })?;
    for number in 0..count {
        let (peer, bytes) = (crowd_id(number), bytes.clone());
        pair.node.graph(move |graph| {
            for number in 0..WAITING {
                let key_number = number as u32;
                let object = SignedObject::from_parts(key_number, bytes.clone(), signature);
                let waiting = waiting_row(peer, "messages", scope_number(number), object);
                graph.put_waiting(&waiting)?;
            }
            let reject = |number| RejectRow {
                peer: Some(peer),
                domain: "messages".into(),
                epoch: Epoch::from_bytes([1; 16]),
                seq: 1,
                oid: Some(scope_number(number)),
                type_name: None,
                code: "schema".into(),
                at: Timestamp(START),
            };
            let rejects: Vec<_> = (0..WAITING).map(reject).collect();
            graph
                .tx()
                .put_rejects(Some(&peer), &rejects, WAITING as u64)
        })?;
    }
    pair.node.clock.advance_ms(31 * DAY_MS);
    let stop = CancellationToken::new();
    let service = SyncService::new(pair.node.engine.clone(), manual_sync(), stop);
    let runtime = tokio::runtime::Handle::current();
    pair.hold(|_| {
        runtime.block_on(service.forget_idle(30))?;
        Ok(())
    })
}
