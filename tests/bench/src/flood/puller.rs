//! The admitted peer that pulls everything, again and again, as fast as it is answered.
//!
//! Verifies and reads every package the first time round; after that it only counts, so that the victim's core is the
//! limit and not its own. Never stores anything. Invariant: what is counted are objects of packages that came whole and
//! have the length of the ones that were verified.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use bastion::Session;
use keys::Epoch;
use postern::peer::message::{IdOnly, Pull, SessionMessage};

use super::victim::{READER, VICTIM};
use crate::nodes::{self, DOMAIN, Node};

/// Pulls that are asked for ahead, so that the victim never waits for us.
const IN_FLIGHT: usize = 3;
/// A package's answer begins so; its id follows.
const PACKAGE: &[u8] = b"\xa1\x67package\xa2\x62id";
/// Frames that are no packages are short.
const WORDS_BYTES_MAX: usize = 1024;
/// Packages of one round at most: an end to asking whatever comes.
const WINDOWS_MAX: usize = 100_000;

/// What one pull brings.
struct Window {
    last_seq: u64,
    epoch: Option<Epoch>,
    objects: u64,
    bytes: usize,
}

/// Asks on an admitted session.
pub(super) struct Puller {
    session: Session,
    reader: Node,
    next_id: u64,
}

impl Puller {
    pub(super) fn new(session: Session) -> Result<Self> {
        Ok(Self {
            session,
            reader: Node::new(READER)?,
            next_id: 1,
        })
    }

    /// Pulls until the session ends, and says why it did.
    pub(super) async fn run(mut self, objects: Arc<AtomicU64>) -> Result<()> {
        let windows = self.learn().await?;
        let mut awaited = BTreeMap::new();
        let mut round = windows.iter().cycle();
        loop {
            while awaited.len() < IN_FLIGHT {
                let window = round.next().context("nothing to pull")?;
                let id = self.ask(window.last_seq, window.epoch).await?;
                awaited.insert(id, window);
            }
            let frame = self.hear().await?;
            let id = package_id(&frame).context("no package")?;
            let window = awaited.remove(&id).context("an answer to nothing")?;
            ensure!(
                frame.len().abs_diff(window.bytes) < 16,
                "another package than before"
            );
            objects.fetch_add(window.objects, Ordering::Relaxed);
        }
    }

    /// One round with every check.
    async fn learn(&mut self) -> Result<Vec<Window>> {
        let victim = Node::new(VICTIM)?;
        let key = victim.package_key()?;
        let (mut last_seq, mut epoch) = (0, None);
        let mut windows = Vec::new();
        while windows.len() < WINDOWS_MAX {
            self.ask(last_seq, epoch).await?;
            let frame = self.hear().await?;
            let SessionMessage::Package(package) = SessionMessage::decode(&frame)? else {
                bail!("no package");
            };
            let mut verified = nodes::verify(&package.body, &victim, &key, &self.reader)?;
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
        bail!("the pull has no end")
    }

    async fn ask(&mut self, last_seq: u64, epoch: Option<Epoch>) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let pull = SessionMessage::Pull(Pull {
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

    /// The next frame that is a package.
    async fn hear(&mut self) -> Result<Vec<u8>> {
        loop {
            let frame = self
                .session
                .reader
                .read()
                .await?
                .context("the session ended")?;
            if frame.len() > WORDS_BYTES_MAX {
                return Ok(frame);
            }
            answer(&mut self.session, &frame).await?;
        }
    }
}

/// Replies to a ping and to the epoch messages that open a session; any other message ends the
/// session.
pub(super) async fn answer(session: &mut Session, frame: &[u8]) -> Result<()> {
    match SessionMessage::decode(frame)? {
        SessionMessage::Ping(ping) => Ok(session
            .writer
            .write(&SessionMessage::Pong(ping).encode())
            .await?),
        SessionMessage::Epoch(note) | SessionMessage::Heard(note) => {
            let noted = SessionMessage::Noted(IdOnly { id: note.id });
            Ok(session.writer.write(&noted.encode()).await?)
        }
        other => bail!("{other:?}"),
    }
}

/// The id of a package's answer: the number behind a fixed beginning.
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
    fn the_id_is_read_without_the_package() {
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
