//! Reads and modifies encoded solutions.

use anyhow::{Result, bail};
use bastion::messages::{HandshakeMessage, Solution};
use keys::protocol::UNADMITTED_FRAME_BYTES_MAX;

pub(crate) fn flip_last(bytes: &mut [u8]) {
    if let Some(byte) = bytes.last_mut() {
        *byte ^= 1;
    }
}

pub(crate) fn solution(frame: &[u8]) -> Result<Solution> {
    match HandshakeMessage::decode(frame, UNADMITTED_FRAME_BYTES_MAX)? {
        HandshakeMessage::Solution(solution) => Ok(solution),
        other => bail!("{} is no solution", other.kind()),
    }
}

pub(crate) fn modify(frame: &[u8], modify: impl FnOnce(&mut Solution)) -> Result<Vec<u8>> {
    let mut solution = solution(frame)?;
    modify(&mut solution);
    Ok(HandshakeMessage::Solution(solution).encode())
}
