//! An onion service at its limits: abuse ends the circuit, and idle circuits are evicted.

use std::time::Duration;

use bastion::transport::tor::{TorListener, TorNode, TorTransport};
use bastion::transport::{CircuitCounts, Incoming, Listener as _, Stream, Transport as _};
use futures::future::join_all;
use keys::protocol::ONION_PORT;
use keys::{OnionAddr, OnionKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, interval, timeout};

const DEADLINE: Duration = Duration::from_secs(120);

/// The service and those who dial it.
struct Small<'n> {
    listener: TorListener,
    onion: OnionAddr,
    clients: &'n TorNode,
}

/// The service of a node with three circuits, two streams on each and four within a minute.
pub(crate) async fn small_service_keeps_its_limits(small: &TorNode, clients: &TorNode) {
    let key = OnionKey::from_seed(&[7; 32]);
    let listener = key
        .with_secret(|secret| small.listen("small", secret, ONION_PORT))
        .unwrap();
    let mut small = Small {
        onion: listener.onion(),
        listener,
        clients,
    };
    small.reachable().await;
    small.shut_circuit_ends_with_all_streams().await;
    small.too_many_streams_end_the_circuit().await;
    small.frequent_reopening_ends_the_circuit().await;
    small.idle_circuits_are_evicted_and_busy_ones_stay().await;
}

impl Small<'_> {
    fn counts(&self) -> CircuitCounts {
        self.listener.watch()().circuits
    }

    /// Waits until the book says so.
    async fn until(&self, what: &str, is_so: impl Fn(CircuitCounts) -> bool) {
        let mut looks = interval(Duration::from_millis(10));
        let seen = timeout(DEADLINE, async {
            while !is_so(self.counts()) {
                looks.tick().await;
            }
        });
        assert!(seen.await.is_ok(), "{what}: {:?}", self.counts());
    }

    /// Dials until a dial succeeds, because the service may not be published yet.
    async fn reachable(&mut self) {
        let begun = Instant::now();
        loop {
            let client = self.clients.isolated_transport();
            let onion = self.onion;
            tokio::select! {
                dialled = client.dial(&onion) => match dialled {
                    Ok(_) => {}
                    Err(error) => assert!(begun.elapsed() < DEADLINE, "{error}"),
                },
                incoming = self.listener.accept() => {
                    drop(incoming.unwrap());
                    break;
                }
            }
        }
        println!(
            "small service reachable: {:.2} s",
            begun.elapsed().as_secs_f64()
        );
        let status = self.listener.watch()();
        assert_eq!(
            (
                status.hardening.intro_points,
                status.hardening.intro_rate_per_s
            ),
            (4, 20)
        );
    }

    async fn meet(&mut self, client: &TorTransport) -> (Stream, Incoming) {
        let (stream, incoming) = tokio::join!(client.dial(&self.onion), self.listener.accept());
        (stream.unwrap(), incoming.unwrap())
    }

    /// A stream that the test does not read ends as well, because the circuit ends.
    async fn shut_circuit_ends_with_all_streams(&mut self) {
        let client = self.clients.isolated_transport();
        let before = self.counts();
        let (mut one, first) = self.meet(&client).await;
        let (mut two, untouched) = self.meet(&client).await;
        assert_eq!(
            self.counts().built_total,
            before.built_total + 1,
            "two streams on one circuit"
        );
        first.circuit.shut();
        ends(&mut one).await;
        ends(&mut two).await;
        self.until("shut", |now| now.abused_total == before.abused_total + 1)
            .await;
        drop((first, untouched));
    }

    async fn too_many_streams_end_the_circuit(&mut self) {
        let client = self.clients.isolated_transport();
        let before = self.counts();
        let (mut one, first) = self.meet(&client).await;
        let (mut two, second) = self.meet(&client).await;
        assert!(client.dial(&self.onion).await.is_err());
        ends(&mut one).await;
        ends(&mut two).await;
        self.until("too many", |now| now.abused_total > before.abused_total)
            .await;
        drop((first, second));
    }

    async fn frequent_reopening_ends_the_circuit(&mut self) {
        let client = self.clients.isolated_transport();
        let before = self.counts();
        let (mut kept, first) = self.meet(&client).await;
        for _ in 0..3 {
            drop(self.meet(&client).await);
        }
        assert_eq!(self.counts().abused_total, before.abused_total);
        assert!(client.dial(&self.onion).await.is_err());
        ends(&mut kept).await;
        self.until("circling", |now| now.abused_total > before.abused_total)
            .await;
        drop(first);
    }

    async fn idle_circuits_are_evicted_and_busy_ones_stay(&mut self) {
        let busy = self.clients.isolated_transport();
        let (mut near, mut far) = self.meet(&busy).await;
        let before = self.counts();
        let mut idle = Vec::new();
        for _ in 0..5 {
            let client = self.clients.isolated_transport();
            drop(self.meet(&client).await);
            // Keeps the client's circuit open.
            idle.push(client);
            assert!(self.counts().open <= 3);
        }
        let now = self.counts();
        assert_eq!(now.built_total, before.built_total + 5);
        assert!(now.evicted_total >= before.evicted_total + 3, "{now:?}");
        // An evicted client reconnects on a new circuit.
        drop(self.meet(&idle[0]).await);
        near.write_all(b"still here").await.unwrap();
        near.flush().await.unwrap();
        let mut heard = [0; 10];
        far.stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"still here");
    }
}

/// The dialler sees its stream end, and no byte before.
async fn ends(stream: &mut Stream) {
    let end = timeout(DEADLINE, stream.read_u8()).await;
    assert!(end.expect("the stream goes on").is_err());
}

/// Reports how fast many concurrent clients get a circuit each. Asserts no timing.
pub(crate) async fn many_clients_at_once(clients: &TorNode, onion: OnionAddr) {
    const MANY: usize = 24;
    let transports: Vec<_> = (0..MANY).map(|_| clients.isolated_transport()).collect();
    let begun = Instant::now();
    let streams = join_all(transports.iter().map(|client| client.dial(&onion))).await;
    let met = streams.iter().filter(|stream| stream.is_ok()).count();
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{met} of {MANY} clients at once: {seconds:.2} s, {:.1} circuits a second",
        met as f64 / seconds
    );
    assert_eq!(met, MANY);
}
