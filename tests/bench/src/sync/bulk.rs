//! Goals 1 and 2: building and applying a first pull of many messages, against raw SQLite.
//!
//! Ratios compare sides of the same round. Invariant: each side starts a round with a copy of the
//! same database. Raw SQLite and apply alternate package by package, so that load on the machine
//! affects both.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use harness::ManualClock;
use keys::PublicKey;
use postern::engine::CoreHandle;
use postern::graph::decode_object;
use postern::state_engine::{
    PullRequest, StateEngine, VerifiedPackage, View, check_objects, known_keys,
};
use postern::store::StoreError;

use super::Setting;
use crate::nodes::{self, Node, Writer};
use crate::raw::{self, Entity};
use crate::report::{Goal, Report};
use crate::stopwatch::{self, Stopwatch, median, timed};

/// Messages in the store before the measurement, with `--large`.
const LARGE: usize = 1_000_000;

const MIB: f64 = 1024.0 * 1024.0;
/// MiB: two packages of 960 KiB, and the cache of a reading connection of 8 MiB.
const GROWTH_MAX: Goal = Goal::AtMost(10.0);

/// The measurements of one round, in seconds.
struct Round {
    turns: Turns,
    session: f64,
    pipeline: f64,
    build: f64,
}

/// The times of the sides that alternate package by package in one thread.
#[derive(Default)]
struct Turns {
    raw: Stopwatch,
    /// Verification and decoding of the package, without the signatures of its objects.
    reading: Stopwatch,
    /// Verification of the signatures of objects.
    checking: Stopwatch,
    applying: Stopwatch,
}

impl Turns {
    fn raw(&self) -> f64 {
        self.raw.seconds()
    }

    /// Returns the time from a received package to committed rows, without the signatures of
    /// objects.
    fn unsigned(&self) -> f64 {
        self.reading.seconds() + self.applying.seconds()
    }
}

/// Both nodes, and the content of the pull as packages and as rows.
struct Load {
    alice: Node,
    bob: Node,
    alice_core: StateEngine,
    key: PublicKey,
    folder: PathBuf,
    request: PullRequest,
    packages: Vec<Vec<u8>>,
    rows: Vec<Vec<Entity>>,
    objects: usize,
    /// Growth of the process during the build of all packages, in bytes.
    growth: Option<f64>,
}

pub(super) fn run(setting: &Setting, report: &mut Report) -> Result<()> {
    part(setting, report, 0)?;
    if setting.large {
        part(setting, report, LARGE)?;
    }
    Ok(())
}

fn part(setting: &Setting, report: &mut Report, before: usize) -> Result<()> {
    let mut load = Load::make(setting, before)?;
    let mut rounds = Vec::new();
    for number in 0..setting.rounds {
        eprintln!("round {} of {}", number + 1, setting.rounds);
        rounds.push(load.round(number)?);
    }
    let count = load.objects as f64;
    let ratio = |side: fn(&Round) -> f64| {
        median(rounds.iter().map(|round| round.turns.raw() / side(round)))
    };
    let processor = |side: fn(&Turns) -> f64| {
        let rounds = rounds.iter().map(|round| &round.turns);
        median(rounds.map(|turns| turns.raw.processor() / side(turns)))
    };
    let rate = |side: fn(&Round) -> f64| median(rounds.iter().map(|round| count / side(round)));
    let name = |text: &str| {
        if before == 0 {
            text.to_owned()
        } else {
            format!("{text}, at 1,000,000")
        }
    };
    report.heading(&format!(
        "Apply {} messages in packages of {}, {before} in the store before (goal 1)",
        setting.messages,
        nodes::PACKAGE_MESSAGES
    ));
    report.value(
        &name("raw SQLite"),
        rate(|round| round.turns.raw()),
        "messages/s",
    );
    report.value(
        &name("apply, objects checked before"),
        rate(|round| round.turns.applying.seconds()),
        "messages/s",
    );
    report.goal(
        &name("apply, objects checked before / raw"),
        ratio(|round| round.turns.applying.seconds()),
        "",
        Goal::AtLeast(0.8),
    );
    report.value(
        &name("  the same, by processor time"),
        processor(|turns| turns.applying.processor()),
        "",
    );
    report.goal(
        &name("package to rows, unsigned / raw"),
        ratio(|round| round.turns.unsigned()),
        "",
        Goal::AtLeast(0.8),
    );
    report.value(
        &name("  the same, by processor time"),
        processor(|turns| turns.reading.processor() + turns.applying.processor()),
        "",
    );
    report.value(
        &name("signatures alone, one thread"),
        rate(|round| round.turns.checking.seconds()),
        "messages/s",
    );
    if before == 0 {
        report.value(
            "all verified, parallel to the writer",
            rate(|round| round.pipeline),
            "messages/s",
        );
        report.goal(
            "all verified, parallel to the writer / raw",
            ratio(|round| round.pipeline),
            "",
            Goal::AtLeast(0.3),
        );
        report.goal(
            "all verified, package by package / raw",
            ratio(|round| round.session),
            "",
            Goal::AtLeast(0.3),
        );
        report.heading("Build and sign the same packages (goal 2)");
        report.value("build", rate(|round| round.build), "messages/s");
        report.goal(
            "build / package to rows, unsigned",
            median(
                rounds
                    .iter()
                    .map(|round| round.turns.unsigned() / round.build),
            ),
            "",
            Goal::AtLeast(1.0),
        );
        let name = "resident growth during the build";
        match load.growth {
            Some(bytes) => report.goal(name, bytes / MIB, "MiB", GROWTH_MAX),
            None => report.not_measured(name, GROWTH_MAX, "not supported by this system"),
        }
    }
    Ok(())
}

impl Load {
    fn make(setting: &Setting, before: usize) -> Result<Self> {
        let folder = setting.folder.path().join(format!("bulk-{before}"));
        std::fs::create_dir(&folder)?;
        let (alice, bob) = (Node::new(1)?, Node::new(2)?);
        let mut alice_core = alice.open(&folder.join("alice.db"))?;
        let mut bob_core = bob.open(&folder.join("before.db"))?;
        alice.publish(&mut alice_core)?;
        bob.publish(&mut bob_core)?;
        alice.meet(&mut alice_core, &bob, &bob_core)?;
        bob.meet(&mut bob_core, &alice, &alice_core)?;
        let key = alice.package_key()?;
        let epoch = alice_core.context().epoch;
        let mut writer = Writer::new(&alice, &alice_core, &bob)?;
        if before > 0 {
            eprintln!("writing {before} messages and pulling them");
            writer.write(&mut alice_core, before)?;
            let request = nodes::request(&bob, &bob_core, &alice)?;
            nodes::pull_all(&alice_core.view(), request, |bytes| {
                let mut package = nodes::verify(&bytes, (&alice, epoch), &key, &bob)?;
                let checked = nodes::check(&bob_core, package.take_objects())?;
                nodes::apply(&mut bob_core, &package, checked)
            })?;
        }
        eprintln!("writing {} messages", setting.messages);
        writer.write(&mut alice_core, setting.messages)?;
        let request = nodes::request(&bob, &bob_core, &alice)?;
        let growth = growth(&alice_core, &request)?;
        let mut packages = Vec::new();
        let objects = nodes::pull_all(&alice_core.view(), request.clone(), |bytes| {
            packages.push(bytes);
            Ok(())
        })?;
        // Closing the last connection checkpoints the WAL into the database file.
        drop(bob_core);
        let mut load = Self {
            alice,
            bob,
            alice_core,
            key,
            folder,
            request,
            packages,
            rows: Vec::new(),
            objects,
            growth,
        };
        load.read_rows()?;
        Ok(load)
    }

    /// Copies Bob's database as it was before the pull.
    fn copy(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        for ending in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.folder.join(format!("{name}{ending}")));
        }
        std::fs::copy(self.folder.join("before.db"), &path).context("copying a database")?;
        Ok(path)
    }

    fn verify(&self, bytes: &[u8]) -> Result<VerifiedPackage> {
        let epoch = self.alice_core.context().epoch;
        nodes::verify(bytes, (&self.alice, epoch), &self.key, &self.bob)
    }

    /// Applies the packages once without measuring, and reads the resulting rows.
    fn read_rows(&mut self) -> Result<()> {
        let path = self.copy("rows.db")?;
        let last_id = raw::last_id(&path)?;
        let mut core = self.bob.open(&path)?;
        let mut sizes = Vec::new();
        for bytes in &self.packages {
            let mut package = self.verify(bytes)?;
            let checked = nodes::check(&core, package.take_objects())?;
            sizes.push(checked.len());
            nodes::apply(&mut core, &package, checked)?;
        }
        drop(core);
        let mut entities = raw::read(&path, last_id)?.into_iter();
        self.rows = sizes
            .into_iter()
            .map(|size| entities.by_ref().take(size).collect())
            .collect();
        nodes::expect(
            self.rows.iter().map(Vec::len).sum(),
            self.objects,
            "objects in rows",
        )?;
        nodes::expect(entities.count(), 0, "additional objects")
    }

    fn round(&mut self, number: usize) -> Result<Round> {
        Ok(Round {
            turns: self.turns(number)?,
            build: self.build()?,
            session: self.engine(false)?,
            pipeline: self.engine(true)?,
        })
    }

    /// Alternates raw SQLite and apply package by package. The order of the two alternates as well.
    fn turns(&self, number: usize) -> Result<Turns> {
        let mut connection = raw::open(&self.copy("raw.db")?)?;
        let mut core = self.bob.open(&self.copy("apply.db")?)?;
        let limits = core.context().limits.graph;
        let mut turns = Turns::default();
        for (index, (bytes, rows)) in self.packages.iter().zip(&self.rows).enumerate() {
            let raw_first = (index + number).is_multiple_of(2);
            if raw_first {
                turns.raw.run(|| raw::write(&mut connection, rows))?;
            }
            let (package, decoded) = turns.reading.run(|| {
                let mut package = self.verify(bytes)?;
                let objects = package.take_objects().into_iter();
                let decoded: Vec<_> = objects
                    .map(|object| decode_object(object, &limits))
                    .collect();
                anyhow::Ok((package, decoded))
            })?;
            let checked = turns.checking.run(|| {
                let owners: Vec<_> = decoded
                    .iter()
                    .flatten()
                    .map(|object| object.owner())
                    .collect();
                let known = known_keys(&core.view().rows, &owners)?;
                Ok::<_, StoreError>(check_objects(decoded, &known))
            })?;
            turns
                .applying
                .run(|| nodes::apply(&mut core, &package, checked))?;
            if !raw_first {
                turns.raw.run(|| raw::write(&mut connection, rows))?;
            }
        }
        Ok(turns)
    }

    /// Builds and signs every package on a reading connection.
    fn build(&self) -> Result<f64> {
        let mut reader = self.alice_core.reader()?;
        let context = self.alice_core.context();
        let (count, seconds) = timed(|| {
            reader.snapshot(|rows| {
                nodes::pull_all(&View { rows, context }, self.request.clone(), |_| Ok(()))
            })
        });
        nodes::expect(count?, self.objects, "objects built")?;
        Ok(seconds)
    }

    /// Applies every package through [`CoreHandle`], as sessions do.
    ///
    /// With `pipeline` the next package is verified on all cores while the writer applies the
    /// current one. Otherwise each package waits until the previous one is written.
    fn engine(&self, pipeline: bool) -> Result<f64> {
        let core = self.bob.open(&self.copy("engine.db")?)?;
        let (engine, writer) = CoreHandle::spawn(core, Arc::new(ManualClock::default()), 4, 2)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()?;
        let (result, seconds) = timed(|| runtime.block_on(self.take_all(&engine, pipeline)));
        result?;
        drop((engine, runtime));
        writer.join();
        Ok(seconds)
    }

    async fn take_all(&self, engine: &CoreHandle, pipeline: bool) -> Result<()> {
        let mut writing: Option<tokio::task::JoinHandle<Result<usize>>> = None;
        let mut written = 0;
        for bytes in &self.packages {
            let mut package = self.verify(bytes)?;
            let checked = engine.verify_objects(package.take_objects()).await?;
            if let Some(before) = writing.take() {
                written += before.await??;
            }
            let engine = engine.clone();
            let write = async move {
                let work =
                    engine.write(move |core, now| core.apply_package(now, &package, checked));
                Ok(work.await?.written)
            };
            if pipeline {
                writing = Some(tokio::spawn(write));
            } else {
                written += write.await?;
            }
        }
        if let Some(last) = writing {
            written += last.await??;
        }
        nodes::expect(written, self.objects, "objects written")
    }
}

/// Returns the growth of the process in bytes while it builds every package and discards it.
fn growth(alice: &StateEngine, request: &PullRequest) -> Result<Option<f64>> {
    let mut reader = alice.reader()?;
    let context = alice.context();
    if !stopwatch::reset_peak() {
        return Ok(None);
    }
    let before = stopwatch::resident("VmRSS");
    reader
        .snapshot(|rows| nodes::pull_all(&View { rows, context }, request.clone(), |_| Ok(())))?;
    Ok(stopwatch::resident("VmHWM")
        .zip(before)
        .map(|(peak, before)| peak - before))
}
