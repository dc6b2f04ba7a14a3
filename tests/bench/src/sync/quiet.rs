//! Goal 3: the cost of a pull when nothing is new.
//!
//! The requesting side is not measured. Invariant: every reply is the expected one.

use std::sync::Arc;

use anyhow::{Result, ensure};
use bastion::{Features, Tier};
use harness::ManualClock;
use keys::{Epoch, TraceId};
use postern::config::SyncConfig;
use postern::engine::CoreHandle;
use postern::peer::handle::SessionInfo;
use postern::peer::message::{Pull, SessionMessage};
use postern::peer::serve::{ReplyTurns, RequestServer};
use postern::state_engine::{PullRequest, StateEngine};

use crate::report::{Goal, Report};
use crate::stopwatch::{process_seconds, timed};

/// Number of requests per measurement.
const REQUESTS: u32 = 5000;
/// Bytes of the length field before a frame.
const FRAME_HEAD_BYTES: usize = 4;

pub(super) fn run(core: StateEngine, request: &PullRequest, report: &mut Report) -> Result<()> {
    report.heading("Pull when nothing is new (goal 3)");
    let (alone, seconds) = timed(|| -> Result<()> {
        for _ in 0..REQUESTS {
            core.view().build_package(request)?;
        }
        Ok(())
    });
    alone?;
    let (engine, writer) = CoreHandle::spawn(core, Arc::new(ManualClock::default()), 4, 2)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?;
    let server = RequestServer::new(engine, &SyncConfig::default());
    let pull_message = pull_message(request).encode();
    let session = SessionInfo {
        start_seq: 0,
        peer: request.peer,
        epoch: Epoch::from_bytes([1; 16]),
        features: Features::none(),
        tier: Tier::Trusted,
        trace: TraceId(0),
    };
    let answer = runtime.block_on(answer(&server, &session, &pull_message))?;
    let bytes = pull_message.len() + answer.len() + 2 * FRAME_HEAD_BYTES;
    report.goal(
        "bytes, both ways, before padding",
        bytes as f64,
        "bytes",
        Goal::AtMost(400.0),
    );
    report.value("core alone", 1e6 * seconds / f64::from(REQUESTS), "us");
    let before = process_seconds();
    let (all, elapsed) = timed(|| {
        runtime.block_on(async {
            for _ in 0..REQUESTS {
                repeat_request(&server, &session, &pull_message, &answer).await?;
            }
            anyhow::Ok(())
        })
    });
    all?;
    let spent = process_seconds() - before;
    report.value(
        "server's time, sequential requests",
        1e6 * elapsed / f64::from(REQUESTS),
        "us",
    );
    report.goal(
        "server's processor, frame to frame",
        1e6 * spent / f64::from(REQUESTS),
        "us",
        Goal::AtMost(50.0),
    );
    drop((server, runtime));
    writer.join();
    Ok(())
}

fn pull_message(request: &PullRequest) -> SessionMessage {
    SessionMessage::Pull(Pull {
        again: None,
        id: 1000,
        epoch: request.epoch,
        domain: request.domain.clone(),
        wait_s: 0,
        peer_id: request.peer,
        last_seq: request.last_seq,
    })
}

async fn answer(
    server: &RequestServer,
    session: &SessionInfo,
    pull_message: &[u8],
) -> Result<Vec<u8>> {
    let message = SessionMessage::decode(pull_message)?;
    let turns = ReplyTurns::default();
    let answer = server.reply(session, message, &turns).await.message;
    ensure!(
        matches!(answer, SessionMessage::UpToDate(_)),
        "the reply contains new objects"
    );
    Ok(answer.encode())
}

async fn repeat_request(
    server: &RequestServer,
    session: &SessionInfo,
    pull_message: &[u8],
    expected: &[u8],
) -> Result<()> {
    ensure!(
        answer(server, session, pull_message).await? == expected,
        "the reply has changed"
    );
    Ok(())
}
