//! The core's side of a handshake and of a session, called by hand between two [`TestNode`]s.

use bastion::{Features, Tier};
use keys::cose::Sign1;
use keys::{Context, Epoch, Limits, codec};
use postern::op_context::Timestamp;
use postern::services::identities;
use postern::state_engine::{
    AppliedPackage, ApplyPackageError, Expected, Package, PackageFault, PackageProgress,
    PackageWork, PullReply, PullRequest, VerifiedPackage, Window,
};
use postern::store::{Cursor, Direction, PeerRow, PullAgain, SyncStateRow};

use crate::node::finish;
use crate::{START, TestNode};

/// Why a node did not apply a package.
#[derive(Debug)]
pub enum TakeError {
    /// The package is malformed, forged or of a domain outside the intersection.
    Fault(PackageFault),
    /// The core refused the package.
    Apply(ApplyPackageError),
}

/// One round of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The cursor of the request.
    pub last_seq: u64,
    /// The window of the package; none if the node is up to date.
    pub window: Option<Window>,
    /// Number of objects in the package.
    pub objects: usize,
    /// Whether another package follows.
    pub more: bool,
    /// The result of applying the package.
    pub applied: AppliedPackage,
}

impl Pulled {
    /// The window as two numbers.
    pub fn seqs(&self) -> Option<(u64, u64)> {
        self.window.map(|window| (window.from_seq, window.to_seq))
    }
}

/// Stores each node at the other as a trusted peer, as a handshake does.
pub fn meet(one: &TestNode, other: &TestNode) {
    one.learn_of(other);
    other.learn_of(one);
}

impl TestNode {
    /// Stores the other as a peer, then takes its identities (docs/STORY.md 1.1 steps 4 and 5).
    pub fn learn_of(&self, other: &TestNode) {
        let offered = other.sync_domains();
        let mut domains = self.sync_domains();
        domains.retain(|name| offered.contains(name));
        self.note_peer(other, &domains);
        let objects = other.read(|view| identities::for_handshake(&view, 8));
        let checked = finish(self.engine.verify_objects(objects)).unwrap();
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
            peer_apps: other.engine.context().schemas.claims(),
            peer_sync_domains: other.sync_domains(),
            domains: domains.to_vec(),
            onion: other.keys.onion(),
            epoch: other.epoch(),
            tier: Tier::Trusted,
            last_contact: Timestamp(START),
            relays: false,
        };
        self.graph(move |graph| {
            graph.save_server(&chain, &verified)?;
            graph.save_peer(&row)
        })
        .unwrap();
    }

    /// The node's epoch.
    pub fn epoch(&self) -> Epoch {
        self.engine.context().epoch
    }

    /// This node's cursor for a domain of another node.
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

    /// The pull request for what is new that this node would send next.
    pub fn request(&self, from: &TestNode, domain: &str) -> PullRequest {
        let state = self.cursor(from, domain, Direction::In);
        PullRequest {
            again: None,
            peer: self.peer_id(),
            domain: domain.to_owned(),
            last_seq: state.map_or(0, |state| state.last_seq),
            epoch: state.map(|state| state.epoch),
            features: Features::none(),
            whole_after: None,
        }
    }

    /// The scopes that this node would pull again before what is new.
    pub fn next_again(&self, from: &TestNode, domain: &str) -> Option<PullAgain> {
        let (peer, domain, now) = (from.peer_id(), domain.to_owned(), self.clock.timestamp());
        self.read(move |view| view.next_pull(&peer, &domain, now))
            .again
    }

    /// The number of scopes and domains of another node that this node has to pull again.
    pub fn again_count(&self, from: &TestNode) -> u64 {
        let peer = from.peer_id();
        let counts = self.read(move |view| view.rows.pull_again_counts(&peer));
        counts.no_room + counts.expired + counts.named
    }

    /// Builds the reply to a pull request and records what it sends.
    pub fn answer(&self, request: &PullRequest) -> PullReply {
        let asked = request.clone();
        let answer = finish(self.engine.read(move |view| view.build_package(&asked))).unwrap();
        if request.again.is_some() {
            return answer;
        }
        let sent = match &answer {
            PullReply::UpToDate {
                in_intersection: false,
                ..
            } => return answer,
            PullReply::UpToDate { .. } => None,
            PullReply::Package { window, .. } => Some(*window),
        };
        let asked = request.clone();
        self.write(move |core, now| core.record_sent(now, &asked, sent))
            .unwrap();
        answer
    }

    /// Builds a push: everything after the acknowledged sequence number.
    pub fn push(&self, to: &TestNode, domain: &str) -> PullReply {
        let state = self.cursor(to, domain, Direction::Out);
        let (peer, domain, epoch) = (to.peer_id(), domain.to_owned(), Some(self.epoch()));
        self.answer(&PullRequest {
            again: None,
            peer,
            domain,
            last_seq: state.map_or(0, |state| state.acked_seq),
            epoch,
            features: Features::none(),
            whole_after: None,
        })
    }

    /// Verifies a package of another node, as a session without features does. The session is
    /// taken to have the epoch that the package names.
    pub fn verify(&self, from: &TestNode, bytes: &[u8]) -> Result<VerifiedPackage, PackageFault> {
        self.verify_in(from, bytes, &Features::none())
    }

    /// [`TestNode::verify`] in a session with features.
    pub(crate) fn verify_in(
        &self,
        from: &TestNode,
        bytes: &[u8],
        features: &Features,
    ) -> Result<VerifiedPackage, PackageFault> {
        let payload = Sign1::parse(bytes, self.limits().package.bytes_max)?
            .verify(&from.public_key(), Context::Package, &[&features.encode()])
            .map_err(|_| PackageFault::BadSignature)?;
        let limits = Limits {
            bytes_max: payload.len(),
            depth_max: 4,
            items_max: usize::MAX,
        };
        let named = codec::decode::<Package>(&payload, &limits);
        let expected = Expected {
            sender: &from.peer_id(),
            key: &from.public_key(),
            recipient: &self.peer_id(),
            epoch: named.map_or_else(|_| from.epoch(), |package| package.epoch),
            features,
        };
        VerifiedPackage::verify(bytes, &self.limits().package, &expected)
    }

    /// Verifies and applies a package of another node, as a session does.
    pub fn take(&self, from: &TestNode, bytes: &[u8]) -> Result<AppliedPackage, TakeError> {
        self.take_again(from, None, bytes)
    }

    /// Verifies and applies a package that answers a pull of `again`.
    pub fn take_again(
        &self,
        from: &TestNode,
        again: Option<PullAgain>,
        bytes: &[u8],
    ) -> Result<AppliedPackage, TakeError> {
        let mut package = self.verify(from, bytes).map_err(TakeError::Fault)?;
        let is_shared = |domain| {
            self.stored_peer(from)
                .is_some_and(|peer| peer.domains.contains(domain))
        };
        if !is_shared(&package.domain().to_owned()) {
            return Err(TakeError::Fault(PackageFault::Domain));
        }
        let checked = finish(self.engine.verify_objects(package.take_objects())).unwrap();
        let mut work = PackageWork::new(&package, again, checked);
        loop {
            let part = self.write(move |core, now| core.apply_part(now, work));
            match part.map_err(TakeError::Apply)? {
                PackageProgress::More(rest) => work = rest,
                PackageProgress::Done(applied) => return Ok(applied),
            }
        }
    }

    /// One round of a pull.
    pub fn pull(&self, from: &TestNode, domain: &str) -> Pulled {
        let again = self.next_again(from, domain);
        let request = match &again {
            Some(again) => PullRequest {
                last_seq: again.cursor,
                epoch: Some(again.epoch),
                again: Some(again.scopes.clone()),
                ..self.request(from, domain)
            },
            None => self.request(from, domain),
        };
        let is_again = again.is_some();
        match from.answer(&request) {
            PullReply::UpToDate { last_seq, .. } => {
                assert_eq!(
                    last_seq, request.last_seq,
                    "a node that is up to date repeats the cursor"
                );
                if let Some(again) = again {
                    let (peer, domain) = (from.peer_id(), domain.to_owned());
                    self.write(move |core, now| {
                        core.finish_pull_again(now, &peer, &domain, &again)
                    })
                    .unwrap();
                }
                let applied = AppliedPackage {
                    last_seq,
                    ..AppliedPackage::default()
                };
                Pulled {
                    last_seq,
                    window: None,
                    objects: 0,
                    more: is_again,
                    applied,
                }
            }
            PullReply::Package {
                window,
                objects,
                more,
                bytes,
            } => {
                let applied = self.take_again(from, again, &bytes).unwrap();
                Pulled {
                    last_seq: request.last_seq,
                    window: Some(window),
                    objects,
                    // A package may name scopes that are to be pulled again at once.
                    more: more || is_again || self.next_again(from, domain).is_some(),
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

    /// Pulls every domain that both nodes have. Returns how many objects were written.
    pub fn pull_everything(&self, from: &TestNode) -> usize {
        let rounds = self
            .sync_domains()
            .into_iter()
            .flat_map(|domain| self.pull_all(from, &domain));
        rounds.map(|round| round.applied.written).sum()
    }

    /// Records another node's acknowledgement of a push.
    pub fn acked_by(&self, other: &TestNode, domain: &str, last_seq: u64) {
        let (peer, domain) = (other.peer_id(), domain.to_owned());
        self.write(move |core, now| core.record_ack(now, &peer, &domain, last_seq))
            .unwrap();
    }
}

/// The bytes of a reply that is a package.
pub fn package_bytes(answer: PullReply) -> Vec<u8> {
    match answer {
        PullReply::Package { bytes, .. } => bytes,
        PullReply::UpToDate { .. } => panic!("the reply is no package"),
    }
}
