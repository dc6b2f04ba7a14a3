//! What a handshake and a session do with the core, by hand and at once.

use bastion::Tier;
use keys::Epoch;
use postern::services::identities;
use postern::state_engine::{
    Answer, AppliedPackage, ApplyPackageError, PackageFault, PullRequest, VerifiedPackage, Window,
};
use postern::store::{Cursor, Direction, PeerRow, StoreError, SyncStateRow};

use super::{START, TestNode, finish};

/// Why a package was not taken.
#[derive(Debug)]
pub enum NotTaken {
    Fault(PackageFault),
    Apply(ApplyPackageError),
}

/// One round of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// As asked.
    pub last_seq: u64,
    /// The window that came; none: up to date.
    pub window: Option<Window>,
    /// Objects in the package.
    pub objects: usize,
    pub more: bool,
    pub applied: AppliedPackage,
}

impl Pulled {
    /// The window as two numbers.
    pub fn seqs(&self) -> Option<(u64, u64)> {
        self.window.map(|window| (window.from_seq, window.to_seq))
    }
}

/// Two nodes learn of each other, as in a handshake.
pub fn meet(one: &TestNode, other: &TestNode) {
    one.learn_of(other);
    other.learn_of(one);
}

impl TestNode {
    /// Stores the other as a peer, then takes its identities (docs/STORY.md 1.1 steps 4 and 5).
    pub fn learn_of(&self, other: &TestNode) {
        let theirs = other.sync_domains();
        let domains: Vec<String> = self
            .sync_domains()
            .into_iter()
            .filter(|name| theirs.contains(name))
            .collect();
        self.note_peer(other, &domains);
        let objects = other.read(|view| identities::for_handshake(&view, 8));
        let checked = finish(self.engine.check(objects)).unwrap();
        let (peer, epoch) = (other.peer_id(), other.epoch());
        self.write(move |core, now| core.apply_identities(now, peer, epoch, checked))
            .unwrap();
    }

    /// Stores the other as a peer with these domains in the intersection.
    pub fn note_peer(&self, other: &TestNode, domains: &[String]) {
        let chain = other.keys.node_chain();
        let verified = chain.verify().unwrap();
        let row = PeerRow {
            peer_id: other.peer_id(),
            server_oid: other.keys.server_oid(),
            peer_apps: other.apps.clone(),
            peer_sync_domains: other.sync_domains(),
            domains: domains.to_vec(),
            onion: other.keys.onion(),
            epoch: other.epoch(),
            tier: Tier::Trusted,
            last_contact: postern::op_context::Timestamp(START),
        };
        self.write(move |core, now| {
            core.write(now, |graph| {
                graph.save_server(&chain, &verified)?;
                graph.tx().put_peer(&row)
            })
        })
        .unwrap();
    }

    pub fn epoch(&self) -> Epoch {
        self.engine.ground().epoch
    }

    /// Where a cursor of ours stands.
    pub fn cursor(
        &self,
        other: &TestNode,
        domain: &str,
        direction: Direction,
    ) -> Option<SyncStateRow> {
        let (peer, domain) = (other.peer_id(), domain.to_owned());
        self.read(move |view| {
            view.rows.sync_state(Cursor {
                peer: &peer,
                domain: &domain,
                direction,
            })
        })
    }

    /// What we would ask the other.
    pub fn request(&self, from: &TestNode, domain: &str) -> PullRequest {
        let state = self.cursor(from, domain, Direction::In);
        PullRequest {
            peer: self.peer_id(),
            domain: domain.to_owned(),
            last_seq: state.map_or(0, |state| state.last_seq),
            epoch: state.map(|state| state.epoch),
        }
    }

    /// Answers a pull: builds, and notes what is sent.
    pub fn answer(&self, request: &PullRequest) -> Answer {
        let asked = request.clone();
        let answer = finish(self.engine.read(move |view| view.build_package(&asked))).unwrap();
        let sent = match &answer {
            Answer::UpToDate {
                in_intersection: false,
                ..
            } => return answer,
            Answer::UpToDate { .. } => None,
            Answer::Package { window, .. } => Some(*window),
        };
        let asked = request.clone();
        self.write(move |core, now| core.record_sent(now, &asked, sent))
            .unwrap();
        answer
    }

    /// What we would push: everything since the acknowledged sequence number.
    pub fn push(&self, to: &TestNode, domain: &str) -> Answer {
        let state = self.cursor(to, domain, Direction::Out);
        let (peer, domain, epoch) = (to.peer_id(), domain.to_owned(), Some(self.epoch()));
        self.answer(&PullRequest {
            peer,
            domain,
            last_seq: state.map_or(0, |state| state.acked_seq),
            epoch,
        })
    }

    /// Verifies and applies a package of the other, as a session does.
    pub fn take(&self, from: &TestNode, bytes: &[u8]) -> Result<AppliedPackage, NotTaken> {
        let key = from.keys.node_chain().verify().unwrap().current();
        let limits = &self.limits().package;
        let mut package =
            VerifiedPackage::verify(bytes, limits, (&from.peer_id(), &key), &self.peer_id())
                .map_err(NotTaken::Fault)?;
        let sender = from.peer_id();
        let peer = self.read(move |view| view.rows.peer(&sender));
        if !peer.is_some_and(|peer| peer.domains.iter().any(|domain| domain == package.domain())) {
            return Err(NotTaken::Fault(PackageFault::Domain));
        }
        let checked = finish(self.engine.check(package.take_objects())).unwrap();
        self.write(move |core, now| core.apply_package(now, &package, checked))
            .map_err(NotTaken::Apply)
    }

    /// One round of a pull.
    pub fn pull(&self, from: &TestNode, domain: &str) -> Pulled {
        let request = self.request(from, domain);
        match from.answer(&request) {
            Answer::UpToDate { last_seq, .. } => {
                assert_eq!(
                    last_seq, request.last_seq,
                    "up to date is said at what was asked"
                );
                let applied = AppliedPackage {
                    last_seq,
                    ..AppliedPackage::default()
                };
                Pulled {
                    last_seq,
                    window: None,
                    objects: 0,
                    more: false,
                    applied,
                }
            }
            Answer::Package {
                window,
                objects,
                more,
                bytes,
            } => {
                let applied = self.take(from, &bytes).unwrap();
                Pulled {
                    last_seq: request.last_seq,
                    window: Some(window),
                    objects,
                    more,
                    applied,
                }
            }
        }
    }

    /// Rounds of a pull until nothing is left.
    pub fn pull_all(&self, from: &TestNode, domain: &str) -> Vec<Pulled> {
        let mut rounds = Vec::new();
        loop {
            let round = self.pull(from, domain);
            let more = round.more;
            rounds.push(round);
            if !more {
                return rounds;
            }
        }
    }

    /// Pulls every domain that both have. Says how many objects were written.
    pub fn pull_everything(&self, from: &TestNode) -> usize {
        let rounds = self
            .sync_domains()
            .into_iter()
            .flat_map(|domain| self.pull_all(from, &domain));
        rounds.map(|round| round.applied.written).sum()
    }

    /// Notes an acknowledgement of the other, as after a push.
    pub fn acked_by(&self, other: &TestNode, domain: &str, last_seq: u64) {
        let (peer, domain) = (other.peer_id(), domain.to_owned());
        self.write(move |core, now| core.record_ack(now, &peer, &domain, last_seq))
            .unwrap();
    }
}

/// The bytes of an answer that is a package.
pub fn package_bytes(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Package { bytes, .. } => bytes,
        Answer::UpToDate { .. } => panic!("there was nothing to send"),
    }
}

/// For tests that only want the store's own errors.
pub type StoreResult<T> = Result<T, StoreError>;
