//! Adding and removing a member, and sending, in a conversation of 256 among many (goal 5).

use anyhow::{Context as _, Result};
use keys::Oid;
use keys::protocol::RIGHTS_ENTRIES_MAX;
use postern::graph::SaveError;
use postern::object::Rights;
use postern::op_context::Timestamp;
use postern::services::conversations::{self, Addition, ConversationError};
use postern::services::messages::APP;

use crate::graph::{Graph, Scale};
use crate::nodes::{PairWriter, START, context};
use crate::report::{Goal, Report};
use crate::stopwatch::{Stopwatch, median};

/// Additions, removals and messages of one round.
const PER_ROUND: usize = 8;

/// A store with a conversation that has room for one more member.
struct LargeTalk {
    graph: Graph,
    author: Oid,
    talk: Oid,
    guest: Oid,
}

impl LargeTalk {
    fn make(scale: &Scale, name: &str, conversations: usize) -> Result<Self> {
        eprintln!("a store of {conversations} conversations of two, and one of 256");
        let mut graph = Graph::make(scale, name)?;
        let mut writer = PairWriter::new(&graph.alice, &graph.bob, &graph.core)?;
        writer.converse(&mut graph.core, conversations)?;
        let (author, guest) = writer.pair();
        let carols = PairWriter::new(&graph.alice, &graph.carol, &graph.core)?;
        let carol = carols.pair().1;
        let mut others = graph.alice.keys.identities().into_iter();
        let other = others.find(|oid| *oid != author);
        let founders = [carol, other.context("a node with one identity")?];
        let now = Timestamp(START);
        let founded = graph.core.write(now, |graph| {
            conversations::found(graph, author, &founders, None)
        })?;
        let context = context(&graph.core.view(), &author)?;
        let stranger = |number: usize| {
            let mut oid = [7; 16];
            oid[..8].copy_from_slice(&(number as u64).to_be_bytes());
            (Oid::from_bytes(oid), Some(Rights::READ_WRITE))
        };
        let strangers: Vec<_> = (0..RIGHTS_ENTRIES_MAX - 4).map(stranger).collect();
        graph.core.write(now, |graph| {
            graph.save_rights(&context, APP, &founded.oid, &strangers)?;
            Ok::<_, SaveError>(())
        })?;
        Ok(Self {
            graph,
            author,
            talk: founded.oid,
            guest,
        })
    }

    /// Microseconds of adding and removing a member, and of a message.
    fn round(&mut self) -> Result<(f64, f64)> {
        let (talk, guest, author) = (self.talk, self.guest, self.author);
        let (mut change, mut send) = (Stopwatch::default(), Stopwatch::default());
        let (core, now) = (&mut self.graph.core, Timestamp(START));
        for _ in 0..PER_ROUND {
            change.run(|| {
                core.write(now, |graph| match conversations::add(graph, talk, guest)? {
                    Addition::Added(_) => Ok::<_, ConversationError>(()),
                    Addition::Founded(_) => Err(ConversationError::Alone),
                })?;
                core.write(now, |graph| conversations::remove(graph, talk, guest))
            })?;
            send.run(|| {
                core.write(now, |graph| {
                    conversations::send(graph, talk, author, "a message of some words")
                })
            })?;
        }
        let each = |watch: Stopwatch| 1e6 * watch.seconds() / PER_ROUND as f64;
        Ok((each(change), each(send)))
    }
}

/// Measures in a store with few and in one with many other conversations.
pub(crate) fn run(scale: &Scale, report: &mut Report) -> Result<()> {
    let many = scale.scopes[0];
    let mut few = LargeTalk::make(scale, "talk-few", 10)?;
    let mut lots = LargeTalk::make(scale, "talk-many", many)?;
    let round = |_| Ok((few.round()?, lots.round()?));
    let costs = (0..scale.rounds).map(round).collect::<Result<Vec<_>>>()?;
    report.heading(&format!(
        "Change members of a conversation of 256, and send to it, among {many} and 10 (goal 5)"
    ));
    for (name, pick) in [
        ("add and remove", (|it| it.0) as fn(&(f64, f64)) -> f64),
        ("send", |it| it.1),
    ] {
        let side = |of: fn(&Costs) -> (f64, f64)| median(costs.iter().map(|it| pick(&of(it))));
        report.value(&format!("{name}, among 10"), side(|it| it.0), "us");
        report.value(&format!("{name}, among many"), side(|it| it.1), "us");
        let ratio = median(costs.iter().map(|(few, many)| pick(many) / pick(few)));
        report.goal(&format!("{name}, many / few"), ratio, "", Goal::AtMost(1.2));
    }
    Ok(())
}

/// Microseconds among few and among many.
type Costs = ((f64, f64), (f64, f64));
