//! The admitted peer that pulls all objects repeatedly, as fast as the victim replies.
//!
//! In the first round every package is verified. Later rounds only count, so that the victim's core
//! is the bottleneck. Nothing is stored. Invariant: an object counts when its complete package has
//! the length of the package that was verified, within 16 bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use bastion::Session;
use keys::Epoch;
use postern::peer::message::{IdOnly, Pull, SessionMessage};

use super::victim::{READER, VICTIM};
use crate::nodes::{self, DOMAIN, Node};

/// Number of concurrent pulls, so that the victim does not wait for this client.
const IN_FLIGHT: usize = 3;
/// The first bytes of an encoded package message; its id follows.
const PACKAGE: &[u8] = b"\xa1\x67package\xa2\x62id";
/// Maximum size of a frame that is not a package.
const SHORT_FRAME_BYTES_MAX: usize = 1024;
/// Maximum number of packages in a round, so that the first round ends in any case.
const WINDOWS_MAX: usize = 100_000;

/// A pull request and the size of its reply.
struct Window {
    last_seq: u64,
    epoch: Option<Epoch>,
    objects: u64,
    bytes: usize,
}

/// A client with an admitted session.
pub(super) struct PullClient {
    session: Session,
    /// The victim's epoch.
    epoch: Epoch,
    reader: Node,
    next_id: u64,
}

impl PullClient {
    pub(super) fn new(session: Session, epoch: Epoch) -> Result<Self> {
        Ok(Self {
            session,
            epoch,
            reader: Node::new(READER)?,
            next_id: 1,
        })
    }

    /// Pulls until the session ends, and returns the error that ended it.
    pub(super) async fn run(mut self, objects: Arc<AtomicU64>) -> Result<()> {
        let windows = self.first_round().await?;
        let mut awaited = BTreeMap::new();
        let mut round = windows.iter().cycle();
        loop {
            while awaited.len() < IN_FLIGHT {
                let window = round.next().context("nothing to pull")?;
                let id = self.request(window.last_seq, window.epoch).await?;
                awaited.insert(id, window);
            }
            let frame = self.receive().await?;
            let id = package_id(&frame).context("no package")?;
            let window = awaited.remove(&id).context("a reply without a request")?;
            ensure!(
                frame.len().abs_diff(window.bytes) < 16,
                "the size of a package has changed"
            );
            objects.fetch_add(window.objects, Ordering::Relaxed);
        }
    }

    /// Pulls all packages once with full verification.
    async fn first_round(&mut self) -> Result<Vec<Window>> {
        let victim = Node::new(VICTIM)?;
        let key = victim.package_key()?;
        let (mut last_seq, mut epoch) = (0, None);
        let mut windows = Vec::new();
        while windows.len() < WINDOWS_MAX {
            self.request(last_seq, epoch).await?;
            let frame = self.receive().await?;
            let SessionMessage::Package(package) = SessionMessage::decode(&frame)? else {
                bail!("no package");
            };
            let mut verified =
                nodes::verify(&package.body, (&victim, self.epoch), &key, &self.reader)?;
            windows.push(Window {
                last_seq,
                epoch,
                objects: verified.take_objects().len() as u64,
                bytes: frame.len(),
            });
            (last_seq, epoch) = (verified.window().to_seq, Some(verified.epoch()));
            if !verified.more() {
                return Ok(windows);
            }
        }
        bail!("more than {WINDOWS_MAX} packages in a round")
    }

    async fn request(&mut self, last_seq: u64, epoch: Option<Epoch>) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let pull = SessionMessage::Pull(Pull {
            again: None,
            id,
            epoch,
            domain: DOMAIN.to_owned(),
            wait_s: 0,
            peer_id: self.reader.keys.peer_id(),
            last_seq,
        });
        self.session.writer.write(&pull.encode()).await?;
        Ok(id)
    }

    /// Receives the next package, and replies to other messages.
    async fn receive(&mut self) -> Result<Vec<u8>> {
        loop {
            let frame = self
                .session
                .reader
                .read()
                .await?
                .context("the session ended")?;
            if frame.len() > SHORT_FRAME_BYTES_MAX {
                return Ok(frame);
            }
            reply_to_peer(&mut self.session, &frame).await?;
        }
    }
}

/// Replies to a ping and to the epoch messages that open a session; any other message ends the
/// session.
pub(super) async fn reply_to_peer(session: &mut Session, frame: &[u8]) -> Result<()> {
    match SessionMessage::decode(frame)? {
        SessionMessage::Ping(ping) => Ok(session
            .writer
            .write(&SessionMessage::Pong(ping).encode())
            .await?),
        SessionMessage::Epoch(note) | SessionMessage::Heard(note) => {
            let noted = SessionMessage::Noted(IdOnly { id: note.id });
            Ok(session.writer.write(&noted.encode()).await?)
        }
        other => bail!("unexpected message: {other:?}"),
    }
}

/// Reads the id of a package message, which follows the constant first bytes.
fn package_id(frame: &[u8]) -> Option<u64> {
    let (head, rest) = frame.strip_prefix(PACKAGE)?.split_first()?;
    let big_endian = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    match head {
        0..=23 => Some(u64::from(*head)),
        24..=27 => rest.get(..1 << (head - 24)).map(big_endian),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern::peer::message::PackageBody;

    #[test]
    fn package_id_is_read_without_decoding_the_package() {
        for id in [0, 23, 24, 255, 256, 70_000, 1 << 40] {
            let frame = SessionMessage::Package(PackageBody {
                id,
                body: vec![1; 50],
            })
            .encode();
            assert_eq!(package_id(&frame), Some(id));
        }
        assert_eq!(package_id(b"\xa1\x64ping"), None);
    }
}
