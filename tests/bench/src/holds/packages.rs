//! Packages of hostile peers.

use anyhow::Result;
use bastion::Features;
use harness::forge::{long_record, salted, sign_with_unknown_key};
use harness::pull::meet;
use harness::{TestNode, conversation};
use keys::Oid;
use keys::protocol::SCOPES_NAMED_MAX;
use postern::object::{Attrs, Object};
use postern::state_engine::Package;

use super::{Pair, Scale, talk};

/// Objects of a full package.
const PACKAGE: usize = 4096;
/// Identity records with the longest key chains that fit into a package.
const RECORDS: u8 = 90;

/// One peer makes objects wait for a later key of its identity, then sends revisions of it.
pub(super) fn later_key(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    pair.push("rides.offers", pair.rides_under_a_later_key(1000))?;
    let revisions = pair.revisions(1000)?;
    pair.hold(|pair| pair.push("identities", revisions))
}

/// Nine more peers make objects of one identity wait. Its revisions follow, and then the key.
pub(super) fn helpers(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let waiting = pair.rides_under_a_later_key(1000);
    pair.push("rides.offers", waiting.clone())?;
    for number in 0..9 {
        let helper = TestNode::new(&format!("helper {number}"), 0);
        meet(&pair.node, &helper);
        let sent = helper.force(&pair.node, "rides.offers", waiting.clone());
        sent.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    }
    let revisions = pair.revisions(100)?;
    let (keys, identity) = (pair.peer.keys.clone(), pair.peer.identity);
    pair.hold(|pair| {
        pair.push("identities", revisions)?;
        keys.rotate(identity, &mut rand::rng())?;
        while pair
            .peer
            .write(move |core, now| core.rotation_step(now, identity))?
        {}
        pair.push("identities", pair.revisions(1)?)
    })
}

pub(super) fn forged(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let forge = |number| sign_with_unknown_key(&pair.ride(number));
    let objects = (0..PACKAGE).map(forge).collect();
    pair.hold(|pair| pair.push("rides.offers", objects))
}

pub(super) fn faulty(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let object = |number| {
        let object = pair.ride(number);
        pair.peer.sign(&Object {
            attrs: Some(Attrs::new()),
            ..object
        })
    };
    let objects = (0..PACKAGE).map(object).collect();
    pair.hold(|pair| pair.push("rides.offers", objects))
}

pub(super) fn wrong_chains(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let records = (0..RECORDS)
        .map(|number| long_record(number, false))
        .collect();
    pair.hold(|pair| pair.push("identities", records))
}

pub(super) fn long_chains(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let records = (0..RECORDS)
        .map(|number| long_record(number, true))
        .collect();
    pair.hold(|pair| pair.push("identities", records))
}

/// Fills the write-ahead log several times, so that checkpoints fall into the measurement.
pub(super) fn small_objects(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let package = |number: usize| {
        let rides = number * PACKAGE..(number + 1) * PACKAGE;
        let sign = |number| pair.peer.sign(&pair.ride(number));
        rides.map(sign).collect::<Vec<_>>()
    };
    let packages: Vec<_> = (0..scale.packages).map(package).collect();
    pair.hold(|pair| {
        let push = |package| pair.push("rides.offers", package);
        packages.into_iter().try_for_each(push)
    })
}

pub(super) fn largest_objects(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let (talk, messages) = talk(&pair, (0..58).map(|_| "x".repeat(16_384)));
    pair.push("messages", vec![talk])?;
    pair.hold(|pair| pair.push("messages", messages))
}

pub(super) fn conversations(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let owner = pair.peer.identity;
    let others = (0..62).map(|number| Oid::from_bytes([number; 16]));
    let people: Vec<_> = [owner, pair.node.identity]
        .into_iter()
        .chain(others)
        .collect();
    let make = |number: u64| {
        let (salt, attrs) = (number.to_be_bytes(), conversation(&people));
        let talk = salted(("messages", 1), salt, owner, 1, Some(attrs));
        pair.peer.sign(&talk)
    };
    let objects = (0..700).map(make).collect();
    pair.hold(|pair| pair.push("messages", objects))
}

pub(super) fn arrival(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let (talk, messages) = talk(&pair, (0..1000).map(|number| format!("message {number}")));
    pair.push("messages", messages)?;
    pair.hold(|pair| pair.push("messages", vec![talk]))
}

/// A package that names as many scopes as it may.
pub(super) fn named_scopes(scale: &Scale<'_>) -> Result<f64> {
    let pair = Pair::new(scale)?;
    let name = |number: usize| {
        let mut oid = [7; 16];
        oid[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Oid::from_bytes(oid)
    };
    let scopes = (0..SCOPES_NAMED_MAX).map(name).collect();
    let package = Package {
        scopes: Some(scopes),
        ..pair
            .peer
            .package(&pair.node, "messages", (0, 1), Vec::new())
    };
    let bytes = package.sign(&pair.peer.keys, &Features::none());
    pair.hold(|pair| {
        let taken = pair.node.take(&pair.peer, &bytes);
        taken.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        Ok(())
    })
}
