//! Stalled connections: each stops at one step of the handshake and is dialled again when it is
//! closed.
//!
//! Invariant: a stalled connection sends nothing more and waits until the other side closes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use keys::OnionAddr;
use keys::protocol::UNADMITTED_FRAME_BYTES_MAX;
use rand::RngExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::bogus::{nonce, read_challenge};
use super::generator::{Aim, Shared};

/// Number of steps at which connections stall.
const STEPS: u64 = 5;
/// Pause before the next dial, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 50..150;

/// Stalls one connection after another at the current target, without end.
pub(super) async fn stall_repeatedly(
    number: u64,
    shared: Arc<Shared>,
    mut aimed: watch::Receiver<Aim>,
) {
    loop {
        let Some(at) = aimed.borrow_and_update().at else {
            if aimed.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = aimed.changed() => if changed.is_err() { return },
            // The result does not matter, because the next connection follows in any case.
            _ = stall(number % STEPS, &shared, &at) => {
                let pause = rand::rng().random_range(PAUSE_MS);
                sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}

/// Stalls one connection until it is closed.
async fn stall(step: u64, shared: &Shared, at: &OnionAddr) -> Result<()> {
    let dialler = shared.access.dialler();
    let mut stream = timeout(shared.attack_timeout, dialler.dial(at)).await??;
    shared.counters.stalls.fetch_add(1, Ordering::Relaxed);
    let hello = framed(shared.forger.hello());
    match step {
        // Connected, no bytes sent.
        0 => {}
        // Half of a frame's length field.
        1 => stream.write_all(&[0, 0]).await?,
        // Half of a frame.
        2 => stream.write_all(half(&hello)).await?,
        // A complete hello, and no reply to the challenge.
        3 => stream.write_all(&hello).await?,
        // Half of a solution.
        _ => {
            stream.write_all(&hello).await?;
            stream.flush().await?;
            let length = usize::try_from(stream.read_u32().await?)?.min(UNADMITTED_FRAME_BYTES_MAX);
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
    // Over Tor a partly filled cell is sent only after a flush.
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
