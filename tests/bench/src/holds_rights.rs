//! The longest hold of the writer when the readers of scopes change (goal 9).
//!
//! A hostile owner can make one small object close and open many readers, and can make an identity
//! leave under any number of lists. Invariant: as in `holds.rs`, each measurement has a node of its
//! own.

use anyhow::{Context as _, Result};
use harness::{START, Setup, TestNode};
use keys::protocol::{LEAVE_TYPE, RIGHTS_ENTRIES_MAX, RIGHTS_TYPE};
use keys::{Digest, Oid, SignedObject};
use postern::object::{Attrs, Merges, Object, OidParts, Place, Rights, ScopeList, Value};
use postern::services::identities::{self, IdentityError};
use postern::store::EpochReason;

use crate::holds::{Measurement, Pair, Scale, measure};
use crate::report::Report;

/// Readers of a large list, besides its owner.
const READERS: usize = RIGHTS_ENTRIES_MAX - 1;
/// Bytes of the objects of a full package.
const BYTES: usize = 900_000;
/// Objects of a full package.
const OBJECTS: usize = 4096;

/// Measures everything.
pub(crate) fn run(scale: &Scale<'_>, report: &mut Report) -> Result<()> {
    report.heading("Longest hold of the writer when readers change (goal 9)");
    let runtime = tokio::runtime::Runtime::new()?;
    let _entered = runtime.enter();
    let all: [(&str, Measurement); 15] = [
        ("lists and leaves after many leaves", leaves),
        ("leaves under many large lists", leaves_of_large_lists),
        ("lists that exchange 255 readers", exchanges),
        ("small lists that close 255 readers", closings),
        ("small lists after many closed readers", closed_readers),
        ("deletions of scopes of 256", deletions),
        ("Parents of 256 signed again", parents),
        ("lists of 256 signed again", lists),
        ("lists that wait for a key", waiting_lists),
        ("deletions of unknown scopes", unknown),
        ("scopes founded by 256 of one peer", foundings),
        ("notes in scopes of 256", notes),
        ("notes under many large lists", notes_of_lists),
        ("end of a recovery", recovery),
        ("last peer of a recovery", last_peer),
    ];
    measure(scale, report, &all)
}

/// An app whose scopes may have as many founders as a list has entries.
const TEAMS: &str = r#"
slug = "teams"
version = 1
[[type]]
number = 1
name = "teams.team"
visibility = { participants_here = "members" }
  [[type.attr]]
  number = 1
  name = "members"
  kind = "identity"
  min = 1
  max = 256
[[type]]
number = 2
name = "teams.note"
visibility = { participants = "team" }
  [[type.attr]]
  number = 1
  name = "team"
  kind = { parent = "teams.team" }
[[domain]]
name = "teams"
parent_types = ["teams.team", "teams.note"]
mode = "allow_update"
"#;

const TEAM: u16 = 1;
const NOTE: u16 = 2;

/// A pair of nodes with the app. The peer owns the scopes.
struct Teams {
    pair: Pair,
    owner: Oid,
}

impl Teams {
    fn new(scale: &Scale<'_>) -> Result<Self> {
        let pair = Pair::with(scale, |setup: Setup| setup.own_app("teams", TEAMS))?;
        let owner = pair.peer.identity;
        Ok(Self { pair, owner })
    }

    /// More identities of the peer, which the node knows.
    fn identities(&self, count: usize) -> Result<Vec<Oid>> {
        let peer = &self.pair.peer;
        let made = add_identities(peer, count)?;
        let record = |identity: &Oid| {
            let (_, signed) = peer.object("identities", *identity).context("no record")?;
            Ok(signed)
        };
        let records = made.iter().map(record).collect::<Result<Vec<_>>>()?;
        self.pair.push("identities", records)?;
        Ok(made)
    }

    fn make(&self, (type_number, owner): (u16, Oid), salt: usize, place: &Place) -> Object {
        let parts = OidParts {
            owner: &owner,
            app: "teams",
            type_number,
            place,
        };
        Object::create(&parts, START, (salt as u64).to_be_bytes())
    }

    /// A scope of the peer's identity. The node's identity reads it.
    fn team(&self, number: usize, others: &[Oid]) -> Object {
        let fixed = [self.owner, self.pair.node.identity];
        let members = fixed.iter().chain(others).map(Value::from).collect();
        self.founded(number, Attrs::from([(1, members)]))
    }

    fn founded(&self, number: usize, attrs: Attrs) -> Object {
        let schema = self.pair.node.schemas().type_("teams", TEAM);
        let list = schema.and_then(|schema| schema.founding_list(&self.owner, &attrs));
        let place = Place::Founds(list.unwrap_or_default().digest());
        Object {
            rev: 1,
            attrs: Some(attrs),
            ..self.make((TEAM, self.owner), number, &place)
        }
    }

    /// A rights list with its digest.
    fn list(&self, scope: Oid, version: usize, others: &[Oid]) -> (Object, Digest) {
        let entries = others.iter().chain([&self.owner]);
        let list = ScopeList {
            scope,
            version: version as u64,
            merges: Merges::default(),
            list: entries.map(|oid| (*oid, Rights::READ_WRITE)).collect(),
        };
        let object = Object {
            rev: 1,
            attrs: Some(list.attrs()),
            ..self.make((RIGHTS_TYPE, self.owner), version, &Place::In(scope))
        };
        (object, list.digest())
    }

    /// A `leave` that names a list.
    fn leave(&self, scope: Oid, number: usize, identity: Oid, list: Digest) -> Object {
        Object {
            rev: 1,
            rights: Some(list),
            attrs: Some(Attrs::new()),
            ..self.make((LEAVE_TYPE, identity), number, &Place::In(scope))
        }
    }

    fn note(&self, scope: Oid, number: usize, list: Option<Digest>) -> Object {
        Object {
            rev: 1,
            rights: list,
            attrs: Some(Attrs::from([(1, vec![Value::from(&scope)])])),
            ..self.make((NOTE, self.owner), number, &Place::In(scope))
        }
    }

    /// Sends objects, in as many packages as they need.
    fn push(&self, objects: &[Object]) -> Result<()> {
        let signed = objects.iter().map(|object| self.pair.peer.sign(object));
        self.push_signed(signed.collect())
    }

    fn push_signed(&self, objects: Vec<SignedObject>) -> Result<()> {
        let (mut package, mut bytes) = (Vec::new(), 0);
        for object in objects {
            let size = object.bytes().len() + 100;
            if bytes + size > BYTES || package.len() == OBJECTS {
                self.pair.push("teams", std::mem::take(&mut package))?;
                bytes = 0;
            }
            bytes += size;
            package.push(object);
        }
        self.pair.push("teams", package)
    }

    /// The hold while objects arrive that are signed with the present keys.
    fn hold(&self, objects: &[Object]) -> Result<f64> {
        let sign = |object| self.pair.peer.sign(object);
        let signed = objects.iter().map(sign).collect();
        self.pair.hold(|_| self.push_signed(signed))
    }

    /// Rotates the key of the peer's identity. Returns the record with the new key.
    fn rotate(&self) -> Result<SignedObject> {
        let (peer, owner) = (&self.pair.peer, self.owner);
        peer.keys.rotate(owner, &mut rand::rng())?;
        while peer.write(move |core, now| core.rotation_step(now, owner))? {}
        let record = peer.object("identities", owner).context("no record")?;
        Ok(record.1)
    }
}

fn add_identities(node: &TestNode, count: usize) -> Result<Vec<Oid>> {
    let add = |_| Ok(node.keys.add_identity(&mut rand::rng())?);
    let made = (0..count).map(add).collect::<Result<Vec<_>>>()?;
    let new = made.clone();
    node.graph(move |graph| {
        for identity in new {
            identities::publish(graph, identity, None)?;
            graph.end_group();
        }
        Ok::<_, IdentityError>(())
    })?;
    Ok(made)
}

/// Oids that no node knows.
fn strangers(number: usize, count: usize) -> Vec<Oid> {
    let stranger = |index: usize| {
        let mut oid = [0xff; 16];
        oid[..8].copy_from_slice(&(index as u64).to_be_bytes());
        oid[8..].copy_from_slice(&(number as u64).to_be_bytes());
        Oid::from_bytes(oid)
    };
    (0..count).map(stranger).collect()
}

/// Identities leave a scope under every list. Then more lists and leaves follow.
fn leaves(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let people = teams.identities(16)?;
    let team = teams.team(0, &people);
    teams.push(std::slice::from_ref(&team))?;
    let (mut lists, mut leaves) = (Vec::new(), Vec::new());
    for version in 1..=scale.lists {
        let (list, digest) = teams.list(team.oid, version, &people);
        lists.push(list);
        let leave = |person: &Oid| teams.leave(team.oid, version, *person, digest);
        leaves.extend(people.iter().map(leave));
    }
    let early = scale.lists - scale.lists / 8;
    let late_lists = lists.split_off(early);
    let late_leaves = leaves.split_off(early * people.len());
    teams.push(&lists)?;
    teams.push(&leaves)?;
    teams.hold(&[late_lists, late_leaves].concat())
}

/// One identity leaves under lists with as many entries as a list may have.
fn leaves_of_large_lists(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let person = teams.identities(1)?;
    let people = [person.clone(), strangers(1, READERS - 1)].concat();
    let team = teams.team(0, &[]);
    let (mut objects, mut leaves) = (vec![team.clone()], Vec::new());
    for version in 1..=scale.lists {
        let (list, digest) = teams.list(team.oid, version, &people);
        objects.push(list);
        leaves.extend(
            person
                .iter()
                .map(|it| teams.leave(team.oid, version, *it, digest)),
        );
    }
    teams.push(&objects)?;
    teams.hold(&leaves)
}

/// Each list closes 255 readers and opens 255 others.
fn exchanges(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let known = teams.identities(READERS)?;
    let others = strangers(1, READERS);
    let team = teams.team(0, &[]);
    teams.push(std::slice::from_ref(&team))?;
    let list = |version: usize| {
        let people = if version.is_multiple_of(2) {
            &known
        } else {
            &others
        };
        teams.list(team.oid, version, people).0
    };
    let lists: Vec<_> = (1..=scale.lists).map(list).collect();
    teams.hold(&lists)
}

/// Scopes that 256 identities of the peer read.
fn large_teams(teams: &Teams, count: usize) -> Result<Vec<Object>> {
    let people = teams.identities(READERS - 1)?;
    let made: Vec<_> = (0..count).map(|it| teams.team(it, &people)).collect();
    teams.push(&made)?;
    Ok(made)
}

fn closings(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let made = large_teams(&teams, scale.lists)?;
    let close = |team: &Object| teams.list(team.oid, 1, &[]).0;
    let lists: Vec<_> = made.iter().map(close).collect();
    teams.hold(&lists)
}

/// Small lists after lists that each close 255 readers.
fn closed_readers(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let team = teams.team(0, &[]);
    teams.push(std::slice::from_ref(&team))?;
    let large = |it: usize| teams.list(team.oid, it, &strangers(it, READERS - 1)).0;
    let closing: Vec<_> = (1..=scale.lists).map(large).collect();
    teams.push(&closing)?;
    let versions = scale.lists + 1..=2 * scale.lists;
    let lists: Vec<_> = versions.map(|it| teams.list(team.oid, it, &[]).0).collect();
    teams.hold(&lists)
}

fn deleted(object: &Object) -> Object {
    Object {
        rev: object.rev + 1,
        attrs: None,
        ..object.clone()
    }
}

fn deletions(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let made = large_teams(&teams, scale.lists)?;
    let tombstones: Vec<_> = made.iter().map(deleted).collect();
    teams.hold(&tombstones)
}

/// A list of 256 replaced the founding list. The Parent under a later key puts that one in force.
fn parents(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let people = teams.identities(READERS)?;
    let made: Vec<_> = (0..scale.lists).map(|it| teams.team(it, &[])).collect();
    let lists = made.iter().map(|team| teams.list(team.oid, 1, &people).0);
    let lists: Vec<_> = lists.collect();
    teams.push(&made)?;
    teams.push(&lists)?;
    teams.pair.push("identities", vec![teams.rotate()?])?;
    teams.hold(&made)
}

/// Lists of one scope under a later key, from the lowest version up: each is in force for a while.
fn lists(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let people = teams.identities(READERS)?;
    let team = teams.team(0, &[]);
    let list = |version| teams.list(team.oid, version, &people).0;
    let lists: Vec<_> = (1..=scale.lists).map(list).collect();
    teams.push(std::slice::from_ref(&team))?;
    teams.push(&lists)?;
    teams.pair.push("identities", vec![teams.rotate()?])?;
    teams.hold(&lists)
}

/// Small lists of scopes of 256 wait for the key that signed them.
fn waiting_lists(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let made = large_teams(&teams, 64)?;
    let record = teams.rotate()?;
    let lists: Vec<_> = made.iter().map(|it| teams.list(it.oid, 1, &[]).0).collect();
    teams.push(&lists)?;
    teams
        .pair
        .hold(|pair| pair.push("identities", vec![record]))
}

fn unknown(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let made = (0..OBJECTS).map(|it| deleted(&teams.team(it, &[])));
    let tombstones: Vec<_> = made.collect();
    teams.hold(&tombstones)
}

fn foundings(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let people = teams.identities(READERS - 1)?;
    let made: Vec<_> = (0..scale.lists).map(|it| teams.team(it, &people)).collect();
    teams.hold(&made)
}

fn notes(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let made = large_teams(&teams, scale.lists)?;
    let scopes = made.iter().cycle().take(16 * made.len()).enumerate();
    let notes: Vec<_> = scopes
        .map(|(number, team)| teams.note(team.oid, number, None))
        .collect();
    teams.hold(&notes)
}

fn notes_of_lists(scale: &Scale<'_>) -> Result<f64> {
    let teams = Teams::new(scale)?;
    let people = strangers(1, READERS);
    let team = teams.team(0, &[]);
    let (mut objects, mut notes) = (vec![team.clone()], Vec::new());
    for version in 1..=scale.lists {
        let (list, digest) = teams.list(team.oid, version, &people);
        objects.push(list);
        notes.push(teams.note(team.oid, version, Some(digest)));
    }
    teams.push(&objects)?;
    teams.hold(&notes)
}

/// A node with many conversations with its peer, which recovers and whose key was rotated.
fn recovering(scale: &Scale<'_>) -> Result<Pair> {
    // Without threads, so that the database is closed before the restart.
    let pair = Pair::with(scale, |setup| setup.readers(0))?;
    let people = [pair.node.identity, pair.peer.identity];
    let talk = move |_| harness::conversation(&people);
    crate::holds::write_many(&pair, scale.messages, ("messages", 1), talk)?;
    let Pair { node, peer } = pair;
    node.write(|core, now| core.start_recovery(EpochReason::Restored, now))?;
    let node = node.into_setup().readers(2).node();
    node.keys.rotate(node.identity, &mut rand::rng())?;
    Ok(Pair { node, peer })
}

fn recovery(scale: &Scale<'_>) -> Result<f64> {
    recovering(scale)?.hold(|pair| {
        pair.node.write(|core, now| core.end_recovery(now))?;
        Ok(())
    })
}

fn last_peer(scale: &Scale<'_>) -> Result<f64> {
    recovering(scale)?.hold(|pair| {
        let peer = pair.peer.peer_id();
        pair.node
            .write(move |core, now| core.note_reclaimed_from(now, &peer, &[]))?;
        Ok(())
    })
}
