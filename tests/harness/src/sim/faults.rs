//! Events of nodes and links in a simulation: ends, crashes, restores, rotations, cuts.

use std::fs;
use std::time::Duration;

use keys::Oid;
use postern::store::{self, EpochReason, WriteMode};
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use super::scenario::Feature;
use super::settle::EXPIRY_S;
use super::world::{Backup, NodeState, World, copy_files, folder};

/// Most backups of one node.
const BACKUPS_MAX: usize = 3;
/// Chance that a node does its maintenance at an event, besides at the ends of its intervals.
const MAINTENANCE: f64 = 0.05;

impl World {
    /// One random event, and the time until the next one.
    pub(super) async fn step(&mut self) {
        let pause = match self.rng.random_range(0..20) {
            0 if self.has(Feature::Quiet) => self.rng.random_range(30_000..200_000),
            0..4 => self.rng.random_range(1_000..20_000),
            _ => self.rng.random_range(0..1_000),
        };
        if self.has(Feature::LongQuiet) && self.rng.random_bool(0.01) {
            self.pass_at_once(EXPIRY_S).await;
        }
        if self.rng.random_bool(MAINTENANCE)
            && let Some(node) = self.any_up()
        {
            self.up(node).unwrap().maintain().await;
        }
        let dice = self.rng.random_range(0..100);
        let Some(node) = self.any_up() else {
            self.start_some();
            return;
        };
        match dice {
            0..3 if self.has(Feature::SchemaVersions) => self.upgrade(node).await,
            0..4 if self.has(Feature::Consent) => self.decide(node),
            4..8 if self.has(Feature::Purges) => self.purge(node),
            0..40 => self.write(node),
            40..44 if self.has(Feature::Memberships) => self.change_members(node),
            44..45 if self.has(Feature::Leaves) => self.leave_scope(node),
            45..47 => self.write_much(node),
            47..50 if self.has(Feature::Quiet) => self.leave(node),
            50..62 => self.change(node),
            62..65 if self.has(Feature::LateIdentities) => self.new_identity(node),
            65..69 if self.has(Feature::LateIdentities) => self.publish(node),
            69..72 if self.has(Feature::Rotations) => self.rotate(node),
            72..78 if self.has(Feature::Cuts) => self.cut(),
            78..81 if self.has(Feature::Quiet) => self.part(),
            81..84 if self.has(Feature::Crashes) => self.plan_crash(node),
            84..86 if self.has(Feature::Crashes) => drop(self.stop(node).await),
            86..89 => self.back_up(node),
            89..91 if self.has(Feature::Restores) => self.restore(node).await,
            91..92 if self.has(Feature::Rollbacks) => self.roll_back(node).await,
            92..94 if self.has(Feature::Hostile) && self.has(Feature::HostileScopes) => {
                self.attack(node);
            }
            98..99 if self.has(Feature::Moves) => self.begin_move(node),
            99..100 if self.has(Feature::Moves) => self.receive_some(node),
            94..96 if self.has(Feature::Hostile) => self.attack(node),
            96..98 => self.start_some(),
            _ => self.write(node),
        }
        self.pass(Duration::from_millis(pause)).await;
    }

    /// Starts a random node that does not run.
    fn start_some(&mut self) {
        let nodes = self.nodes.iter().enumerate();
        let down = nodes.filter(|(_, node)| matches!(node.state, NodeState::Down(_)));
        let down: Vec<_> = down.map(|(number, _)| number).collect();
        if let Some(number) = down.choose(&mut self.rng) {
            self.start(*number);
        }
    }

    fn any_link(&mut self) -> Option<(keys::OnionAddr, keys::OnionAddr)> {
        let (one, other) = *self.links.difference(&self.apart).choose(&mut self.rng)?;
        Some((self.nodes[one].onion, self.nodes[other].onion))
    }

    /// Breaks the connections of a random link.
    fn cut(&mut self) {
        if let Some((one, other)) = self.any_link() {
            let is_silent = self.rng.random_bool(0.3);
            self.net.cut(one, other, is_silent);
        }
    }

    /// Parts two nodes that know each other, or lets them meet again.
    fn part(&mut self) {
        if let Some((one, other)) = self.any_link() {
            let apart = self.rng.random_bool(0.6);
            self.net.set_apart(one, other, apart);
        }
    }

    /// Takes a node off the network, or puts it back.
    fn leave(&mut self, number: usize) {
        let onion = self.nodes[number].onion;
        if self.net.is_off(onion) {
            self.net.put_on(onion);
        } else {
            self.net.take_off(onion);
        }
    }

    /// Rotates the key of a node or of one of its identities.
    fn rotate(&mut self, number: usize) {
        let mut rng = self.rng.fork();
        let node = self.up(number).unwrap();
        if node.write_mode() != WriteMode::ReadWrite {
            return;
        }
        let published = self.memory.people_at(number).into_iter();
        // Only identities whose record is here: others have no key to be re-signed.
        let mut holders: Vec<_> = published
            .filter(|oid| node.home_of(*oid) == Some(node.peer_id()))
            .collect();
        holders.push(node.keys.server_oid());
        let holder = *holders.choose(&mut rng).unwrap();
        if node.keys.key_id(holder).unwrap() < 6 {
            self.rotate_identity(number, holder, &mut rng);
        }
    }

    /// Rotates the key of a node or of an identity of it.
    pub(super) fn rotate_identity(&mut self, number: usize, holder: Oid, rng: &mut ChaCha20Rng) {
        let node = self.up(number).unwrap();
        node.rotate_with(holder, rng).unwrap();
    }

    /// Copies a node's folder as it is.
    fn back_up(&mut self, number: usize) {
        if !self.has(Feature::Restores) && !self.has(Feature::Rollbacks) {
            return;
        }
        let path = self.up(number).unwrap().database();
        let backup = Backup {
            folder: copy_files(path.parent().unwrap()),
            revs: self.memory.revs_of(number),
        };
        let backups = &mut self.nodes[number].backups;
        backups.push(backup);
        if backups.len() > BACKUPS_MAX {
            backups.remove(0);
        }
    }

    /// Starts a node from a backup, as `postern restore` does.
    async fn restore(&mut self, number: usize) {
        let Some(backup) = self.take_backup(number) else {
            return;
        };
        self.stop(number).await;
        self.change_setup(number, |setup| {
            let again = setup.elsewhere().new_epoch(EpochReason::Restored);
            let again = again.folder(folder());
            store::snapshot(&backup.folder.path().join("postern.db"), &again.database()).unwrap();
            again
        });
        self.set_back(number, &backup);
    }

    /// Puts an older copy of the database in place of a node that has ended in good order. The file
    /// of reserved sequence numbers stays, so that the node notices.
    async fn roll_back(&mut self, number: usize) {
        let Some(backup) = self.take_backup(number) else {
            return;
        };
        if !self.stop(number).await {
            return;
        }
        self.change_setup(number, |setup| {
            fs::remove_file(setup.database()).unwrap();
            let copy = backup.folder.path().join("postern.db");
            store::snapshot(&copy, &setup.database()).unwrap();
            setup
        });
        self.set_back(number, &backup);
    }

    fn take_backup(&mut self, number: usize) -> Option<Backup> {
        let count = self.nodes[number].backups.len();
        // Older and newer ones would be of another epoch.
        let mut backups = std::mem::take(&mut self.nodes[number].backups);
        (count > 0).then(|| backups.swap_remove(self.rng.random_range(0..count)))
    }

    fn set_back(&mut self, number: usize, backup: &Backup) {
        self.memory.set_back(number, &backup.revs);
        self.net.dead_dials.forget(self.nodes[number].onion);
        self.start(number);
    }
}
