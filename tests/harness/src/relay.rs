//! The core's side of a session with the feature `relay`, called by hand between two
//! [`TestNode`]s.

use bastion::{Feature, Features};
use keys::{Oid, SignedObject};
use postern::state_engine::{
    AppliedPackage, CheckedObject, FetchRequest, Fetched, PackageProgress, PackageWork, PullReply,
    PullRequest, Stub, VerifiedPackage,
};

use postern::store::PullAgain;

use crate::TestNode;
use crate::node::finish;

/// The objects and stubs that one node got from another until nothing was left.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// The length of each package, in bytes.
    pub packages: Vec<usize>,
    /// Objects that packages had whole.
    pub whole: usize,
    /// Stubs.
    pub stubs: Vec<Stub>,
    /// Objects that were fetched for stubs.
    pub fetched: Vec<Oid>,
    /// Identity records that were fetched.
    pub records: usize,
    /// The results of applying all of them.
    pub applied: AppliedPackage,
}

/// The features of the session.
fn features() -> Features {
    [Feature::Relay].into_iter().collect()
}

impl TestNode {
    /// Notes whether the last session with a peer had the feature `relay`.
    pub fn note_relay(&self, peer: &Self, relays: bool) {
        let row = postern::store::PeerRow {
            relays,
            ..self.stored_peer(peer).unwrap()
        };
        self.graph(move |graph| graph.save_peer(&row)).unwrap();
    }

    /// Pulls a domain to its end in a session that begins now.
    pub fn relay(&self, from: &TestNode, domain: &str) -> Relayed {
        self.relay_since(from, domain, from.head())
    }

    /// [`TestNode::relay`], in a session that began at a `change_seq` of the other node.
    pub fn relay_since(&self, from: &TestNode, domain: &str, start_seq: u64) -> Relayed {
        let mut sum = Relayed::default();
        loop {
            let again = self.next_again(from, domain);
            let news = PullRequest {
                features: features(),
                whole_after: Some(start_seq),
                ..self.request(from, domain)
            };
            let request = match &again {
                None => news,
                Some(again) => PullRequest {
                    last_seq: again.cursor,
                    epoch: Some(again.epoch),
                    again: Some(again.scopes.clone()),
                    ..news
                },
            };
            match (from.answer(&request), again) {
                (PullReply::Package { bytes, more, .. }, again) => {
                    let is_last = !more && again.is_none();
                    self.take_relayed(from, &bytes, again, &mut sum);
                    if is_last && self.next_again(from, domain).is_none() {
                        return sum;
                    }
                }
                (PullReply::UpToDate { .. }, Some(again)) => self.finish_again(from, domain, again),
                (PullReply::UpToDate { .. }, None) => return sum,
            }
        }
    }

    /// Builds a push to a peer that acknowledged up to a number. Returns its number of objects and
    /// the end of its window; `None`: nothing is pushed.
    pub fn push_relayed(&self, to: &TestNode, domain: &str, acked: u64) -> Option<(usize, u64)> {
        let request = PullRequest {
            peer: to.peer_id(),
            domain: domain.to_owned(),
            last_seq: acked,
            epoch: Some(self.epoch()),
            again: None,
            features: features(),
            whole_after: None,
        };
        match self.answer(&request) {
            PullReply::Package {
                objects, window, ..
            } => Some((objects, window.to_seq)),
            PullReply::UpToDate { .. } => None,
        }
    }

    /// Applies records of identities that another node relays.
    pub fn take_records(&self, from: &TestNode, records: Vec<SignedObject>) {
        let domain = "messages";
        let last_seq = self.request(from, domain).last_seq;
        let package = from.package(self, domain, (last_seq, last_seq + 1), Vec::new());
        let bytes = package.sign(&from.keys, &features());
        let package = self.verify_in(from, &bytes, &features()).unwrap();
        let records = finish(self.engine.verify_objects(records)).unwrap();
        let work = PackageWork::records(&package, records);
        self.apply(work, &mut Relayed::default());
    }

    fn finish_again(&self, from: &TestNode, domain: &str, again: PullAgain) {
        let (peer, domain) = (from.peer_id(), domain.to_owned());
        self.write(move |core, now| core.finish_pull_again(now, &peer, &domain, &again))
            .unwrap();
    }

    /// Fetches what the stubs of a package name, then applies the package.
    fn take_relayed(
        &self,
        from: &TestNode,
        bytes: &[u8],
        again: Option<PullAgain>,
        sum: &mut Relayed,
    ) {
        sum.packages.push(bytes.len());
        let mut package = self.verify_in(from, bytes, &features()).unwrap();
        if let Some(stubs) = package.take_stubs() {
            sum.stubs.extend(stubs.iter());
            let domain = package.domain().to_owned();
            let now = self.engine.now();
            let peer = from.peer_id();
            let lacking = self.read(move |view| view.lacking(&peer, &domain, &stubs, now));
            let records = self.fetch_all(from, &package, (lacking.owners, true));
            sum.records += records.len();
            self.apply(PackageWork::records(&package, records), sum);
            let objects = self.fetch_all(from, &package, (lacking.objects, false));
            sum.fetched
                .extend(objects.iter().filter_map(CheckedObject::oid));
            self.apply(
                PackageWork::fetched(&package, again.is_some(), objects),
                sum,
            );
        }
        let objects = package.take_objects();
        sum.whole += objects.len();
        let checked = finish(self.engine.verify_objects(objects)).unwrap();
        self.apply(PackageWork::new(&package, again, checked), sum);
    }

    /// Fetches objects, or the records of their owners, until all are looked up.
    fn fetch_all(
        &self,
        from: &TestNode,
        package: &VerifiedPackage,
        (mut oids, records): (Vec<Oid>, bool),
    ) -> Vec<CheckedObject> {
        let mut objects = Vec::new();
        while !oids.is_empty() {
            let fetched = from.fetched_by(self, package.domain(), &oids, records);
            assert!(fetched.looked_up > 0);
            objects.extend(fetched.objects);
            oids.drain(..fetched.looked_up);
        }
        finish(self.engine.verify_objects(objects)).unwrap()
    }

    /// The reply to another node that fetches objects, or the records of their owners.
    pub fn fetched_by(
        &self,
        other: &TestNode,
        domain: &str,
        oids: &[Oid],
        records: bool,
    ) -> Fetched {
        let request = FetchRequest {
            peer: other.peer_id(),
            domain: domain.to_owned(),
            oids: oids.to_vec(),
            records,
        };
        self.read(move |view| view.fetch(&request))
    }

    /// The objects that another node may fetch.
    pub fn objects_for(&self, other: &TestNode, domain: &str, oids: &[Oid]) -> Vec<SignedObject> {
        self.fetched_by(other, domain, oids, false).objects
    }

    fn apply(&self, mut work: PackageWork, sum: &mut Relayed) {
        loop {
            let part = self.write(move |core, now| core.apply_part(now, work));
            match part.unwrap() {
                PackageProgress::More(rest) => work = rest,
                PackageProgress::Done(applied) => {
                    sum.applied.add(&applied);
                    return;
                }
            }
        }
    }
}
