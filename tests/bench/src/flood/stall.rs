//! The crowd that stalls: connections that stop at every step of a handshake and come again when hung up on.
//!
//! Never says a whole word too many. Invariant: each waits where it stopped until the other side ends it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use keys::OnionAddr;
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::bogus::{nonce, read_challenge};
use super::generator::{Aim, FRAME_BYTES_MAX, Shared};

/// Steps to stop at.
const STEPS: u64 = 5;
/// Pause before coming again, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 50..150;

/// Stalls for ever, one connection after another, at whatever is aimed at.
pub(super) async fn keep(number: u64, shared: Arc<Shared>, mut aimed: watch::Receiver<Aim>) {
    loop {
        let Some(at) = aimed.borrow_and_update().at else {
            if aimed.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = aimed.changed() => if changed.is_err() { return },
            // However it ends, the next one begins.
            _ = stall(number % STEPS, &shared, &at) => {
                let pause = rand::rng().random_range(PAUSE_MS);
                sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}

/// One connection, until it is ended.
async fn stall(step: u64, shared: &Shared, at: &OnionAddr) -> Result<()> {
    let dialler = shared.ground.dialler();
    let mut stream = timeout(shared.patience, dialler.dial(at)).await??;
    shared.counters.stalls.fetch_add(1, Ordering::Relaxed);
    let hello = framed(shared.forger.hello());
    match step {
        // Connected and silent.
        0 => {}
        // Half of a length.
        1 => stream.write_all(&[0, 0]).await?,
        // Half of a frame.
        2 => stream.write_all(half(&hello)).await?,
        // Hello, and no answer to the challenge.
        3 => stream.write_all(&hello).await?,
        // Half of a solution.
        _ => {
            stream.write_all(&hello).await?;
            stream.flush().await?;
            let length = usize::try_from(stream.read_u32().await?)?.min(FRAME_BYTES_MAX);
            let mut frame = vec![0; length];
            stream.read_exact(&mut frame).await?;
            let challenge = read_challenge(&frame)?;
            let solution = framed(
                &shared
                    .forger
                    .solution(&challenge, nonce(&challenge, false)?),
            );
            stream.write_all(half(&solution)).await?;
        }
    }
    // Over Tor a part of a cell waits for this.
    stream.flush().await?;
    let mut scratch = [0; 1024];
    while stream.read(&mut scratch).await? > 0 {}
    Ok(())
}

fn framed(frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), frame].concat()
}

fn half(bytes: &[u8]) -> &[u8] {
    bytes.split_at(bytes.len() / 2).0
}
