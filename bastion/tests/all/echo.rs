//! The same conversation over every transport: memory, loopback and Tor.
//!
//! The Tor part starts a private network on loopback (`testnet`) and fails if C tor is missing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends here"
)]

use std::sync::Arc;

use bastion::transport::{
    DialError, Listener, Stream, Transport, loopback::LoopbackDirectory, memory::MemoryNet,
};
use keys::{OnionAddr, PublicKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
use tokio::time::timeout;

/// Deadline of a conversation, far above the slowest one.
const STALLED: std::time::Duration = std::time::Duration::from_secs(120);

/// Echoes the bytes of every accepted stream until the listener ends.
fn echo_server(mut listener: impl Listener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            tokio::spawn(echo(incoming.stream));
        }
    })
}

async fn echo(mut stream: Stream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..length]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Says `length` bytes and checks that they come back, on a fresh stream.
async fn conversation(transport: &dyn Transport, onion: &OnionAddr, length: usize) {
    let said: Vec<u8> = (0..length).map(|n| (n * 31 % 251) as u8).collect();
    let (mut reader, mut writer) = split(transport.dial(onion).await.unwrap());
    let to_say = said.clone();
    let says = tokio::spawn(async move {
        writer.write_all(&to_say).await.unwrap();
        writer.flush().await.unwrap();
        writer
    });
    let mut heard = vec![0; length];
    // A stalled relay sends no error, so the test has a deadline of its own.
    let hearing = timeout(STALLED, reader.read_exact(&mut heard));
    hearing.await.expect("the stream stalled").unwrap();
    assert!(heard == said, "the echo differs");
    says.await.unwrap();
}

/// The steps that every transport passes.
async fn story(
    transport: Arc<dyn Transport>,
    alice: OnionAddr,
    bob: OnionAddr,
    unknown: OnionAddr,
) {
    conversation(&*transport, &alice, 64 * 1024).await;
    // A second address, and the first one again, at the same time.
    tokio::join!(
        conversation(&*transport, &bob, 5_000),
        conversation(&*transport, &alice, 5_000),
        conversation(&*transport, &alice, 1),
    );
    let error = transport.dial(&unknown).await.err();
    assert_eq!(error, Some(DialError::Unreachable));
}

/// The dialler sees that the serving side ended its stream.
async fn end_is_seen(transport: &dyn Transport, onion: &OnionAddr, listener: &mut impl Listener) {
    let (stream, incoming) = tokio::join!(transport.dial(onion), listener.accept());
    let mut stream = stream.unwrap();
    drop(incoming.unwrap());
    let mut byte = [0];
    // An orderly end or an error, as the transport has it, but no byte and no waiting.
    assert!(!matches!(stream.read(&mut byte).await, Ok(1..)));
}

/// The dialling side sees that its circuit was shut.
async fn shutting_is_seen(
    transport: &dyn Transport,
    onion: &OnionAddr,
    listener: &mut impl Listener,
) {
    let (stream, incoming) = tokio::join!(transport.dial(onion), listener.accept());
    let mut stream = stream.unwrap();
    incoming.unwrap().shut();
    let mut byte = [0];
    assert!(!matches!(stream.read(&mut byte).await, Ok(1..)));
}

fn onion(n: u8) -> OnionAddr {
    OnionAddr::from_public_key(PublicKey::from_bytes([n; 32]))
}

#[tokio::test]
async fn over_memory() {
    let net = MemoryNet::new();
    let (alice, bob) = (
        echo_server(net.listen(onion(1))),
        echo_server(net.listen(onion(2))),
    );
    let transport = Arc::new(net.transport());
    story(transport.clone(), onion(1), onion(2), onion(3)).await;
    let mut listener = net.listen(onion(4));
    end_is_seen(&*transport, &onion(4), &mut listener).await;
    shutting_is_seen(&*transport, &onion(4), &mut listener).await;
    alice.abort();
    bob.abort();
}

#[tokio::test]
async fn over_loopback() {
    let directory = LoopbackDirectory::default();
    let alice = echo_server(directory.listen(onion(1)).await.unwrap());
    let bob = echo_server(directory.listen(onion(2)).await.unwrap());
    let transport = Arc::new(directory.transport());
    story(transport.clone(), onion(1), onion(2), onion(3)).await;
    let mut listener = directory.listen(onion(4)).await.unwrap();
    end_is_seen(&*transport, &onion(4), &mut listener).await;
    shutting_is_seen(&*transport, &onion(4), &mut listener).await;
    alice.abort();
    bob.abort();
}

#[cfg(feature = "tor")]
mod circuits;

#[cfg(feature = "tor")]
mod tor {
    use std::{fs, path::Path, time::Duration};

    use bastion::transport::tor::{TorConfig, TorError, TorListener, TorNode};
    use keys::OnionKey;
    use keys::protocol::ONION_PORT;
    use testnet::{Options, Testnet};
    use tokio::time::Instant;

    use super::*;

    const REACHABLE: Duration = Duration::from_secs(120);

    /// A private network, two clients and what they are called in the report.
    struct Stage {
        dir: tempfile::TempDir,
        serving: TorNode,
        dialling: TorNode,
        // Last: the clients end before their network.
        network: Testnet,
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_tor() {
        let stage = set_up().await;
        let serving = &stage.serving;
        let since = Instant::now();
        let alice = listen(serving, "alice", 1, ONION_PORT);
        let bob = listen(serving, "bob", 2, ONION_PORT);
        let mut carol = listen(serving, "carol", 3, ONION_PORT);
        let dave = listen(serving, "dave", 4, ONION_PORT + 1);
        let (alice_onion, bob_onion, carol_onion) = (alice.onion(), bob.onion(), carol.onion());
        let (alice, bob) = (echo_server(alice), echo_server(bob));
        serving
            .wait_reachable(&alice_onion, REACHABLE)
            .await
            .unwrap();
        report("first service reachable", since);
        serving.wait_reachable(&bob_onion, REACHABLE).await.unwrap();

        let transport = Arc::new(stage.dialling.transport());
        let since = Instant::now();
        drop(transport.dial(&alice_onion).await.unwrap());
        report("first dial", since);
        let since = Instant::now();
        drop(transport.dial(&alice_onion).await.unwrap());
        report("second dial", since);
        let since = Instant::now();
        conversation(&*transport, &alice_onion, 64 * 1024).await;
        report("64 KiB there and back", since);
        let since = Instant::now();
        conversation(&*transport, &alice_onion, 4 * 1024 * 1024).await;
        report("4 MiB there and back", since);
        let told = story(transport.clone(), alice_onion, bob_onion, onion_of(9));
        step("story", told).await;

        step("end", end_is_seen(&*transport, &carol_onion, &mut carol)).await;
        let shut = shutting_is_seen(&*transport, &carol_onion, &mut carol);
        step("shut", shut).await;
        let shut = shutting_ends_the_whole_circuit(&*transport, &carol_onion, &mut carol);
        step("shut the whole circuit", shut).await;
        // The circuit is gone for good, not the service: the next dial builds another.
        let seen = end_is_seen(&*transport, &carol_onion, &mut carol);
        step("end on another circuit", seen).await;
        step(
            "another port",
            another_port_is_not_served(&*transport, &dave),
        )
        .await;
        drop(dave);
        circuits::many_clients_at_once(&stage.dialling, alice_onion).await;
        let small = small_node(&stage.network, stage.dir.path()).await;
        circuits::small_service_keeps_its_limits(&small, &stage.dialling).await;
        drop(small);
        service_ends_with_its_listener_and_can_restart(serving, &*transport, carol).await;

        disk_holds_no_key(&stage.dir.path().join("serving"));
        end(alice).await;
        end(bob).await;
        restarted_node_is_reachable_for_its_peers(stage).await;
    }

    /// Fails, instead of hanging, if a step does not complete.
    async fn step<T>(name: &str, work: impl Future<Output = T>) -> T {
        let since = Instant::now();
        let done = timeout(Duration::from_secs(60), work).await;
        report(name, since);
        done.unwrap_or_else(|_| panic!("the step does not complete: {name}"))
    }

    async fn end(server: tokio::task::JoinHandle<()>) {
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
    }

    /// The dialler still holds the descriptor of before, whose introduction points are gone.
    async fn restarted_node_is_reachable_for_its_peers(stage: Stage) {
        let Stage {
            dir,
            serving,
            dialling,
            network,
        } = stage;
        drop(serving);
        let since = Instant::now();
        let serving = node(&network, dir.path(), "serving").await;
        let alice = listen(&serving, "alice", 1, ONION_PORT);
        let onion = alice.onion();
        let alice = echo_server(alice);
        serving.wait_reachable(&onion, REACHABLE).await.unwrap();
        report("restarted", since);
        let since = Instant::now();
        while let Err(error) = dialling.transport().dial(&onion).await {
            println!("  {error}");
            assert!(since.elapsed() < REACHABLE, "{error}");
        }
        report("found again", since);
        end(alice).await;
    }

    async fn set_up() -> Stage {
        let since = Instant::now();
        let network = Testnet::start(Options::default()).await.unwrap();
        report("network", since);
        let dir = tempfile::tempdir().unwrap();
        let serving = node(&network, dir.path(), "serving").await;
        let dialling = node(&network, dir.path(), "dialling").await;
        Stage {
            dir,
            serving,
            dialling,
            network,
        }
    }

    async fn node(network: &Testnet, dir: &Path, name: &str) -> TorNode {
        node_with(network, dir, name, |_| {}).await
    }

    /// One that runs into its limits soon, and asks Tor for other things than by default.
    async fn small_node(network: &Testnet, dir: &Path) -> TorNode {
        node_with(network, dir, "small", |config| {
            config.limits.circuits_max = 3;
            config.limits.streams_per_circuit_max = 2;
            config.limits.streams_per_minute_max = 4;
            config.hardening.intro_points = 4;
            config.hardening.intro_rate_per_s = 20;
            // Where it is built in, the same must hold with Tor's proof of work on.
            config.hardening.pow_queue_max = cfg!(feature = "tor-pow").then_some(64);
        })
        .await
    }

    async fn node_with(
        network: &Testnet,
        dir: &Path,
        name: &str,
        change: impl FnOnce(&mut TorConfig),
    ) -> TorNode {
        let since = Instant::now();
        let mut config = TorConfig::new(dir.join(name).join("state"), dir.join(name).join("cache"));
        config.arti = network.client_toml().parse().unwrap();
        change(&mut config);
        let node = TorNode::bootstrap(config, |progress| println!("  {progress}"))
            .await
            .unwrap();
        report("bootstrap", since);
        node
    }

    fn listen(node: &TorNode, nickname: &str, seed: u8, port: u16) -> TorListener {
        let listener = onion_key(seed).with_secret(|secret| node.listen(nickname, secret, port));
        let listener = listener.unwrap();
        assert_eq!(listener.onion(), onion_of(seed));
        listener
    }

    /// Tor carries several streams of one client on one circuit, so shutting it for one ends all.
    async fn shutting_ends_the_whole_circuit(
        transport: &dyn Transport,
        onion: &OnionAddr,
        listener: &mut TorListener,
    ) {
        let (one, incoming) = tokio::join!(transport.dial(onion), listener.accept());
        let (two, other) = tokio::join!(transport.dial(onion), listener.accept());
        let mut other = other.unwrap();
        incoming.unwrap().shut();
        assert!(other.stream.read_u8().await.is_err());
        assert!(one.unwrap().read_u8().await.is_err());
        assert!(two.unwrap().read_u8().await.is_err());
    }

    /// Dave serves another port: a dial of the usual port shuts the circuit.
    async fn another_port_is_not_served(transport: &dyn Transport, dave: &TorListener) {
        let begun = Instant::now();
        loop {
            match transport.dial(&onion_of(4)).await.err() {
                Some(DialError::Unreachable) => {
                    assert!(begun.elapsed() < REACHABLE, "dave was never published")
                }
                Some(error @ (DialError::Failed(_) | DialError::Refused)) => {
                    println!("  {error}");
                    assert!(dave.watch()().circuits.abused_total > 0);
                    return report("another port", begun);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn service_ends_with_its_listener_and_can_restart(
        node: &TorNode,
        transport: &dyn Transport,
        carol: TorListener,
    ) {
        let onion = carol.onion();
        drop(carol);
        let since = Instant::now();
        assert!(transport.dial(&onion).await.is_err());
        report("dial of an ended service", since);
        assert!(matches!(
            onion_key(5).with_secret(|secret| node.listen("carol", secret, ONION_PORT)),
            Err(TorError::Launch { .. })
        ));
        if cfg!(feature = "tor-pow") {
            // arti's threads for the work hold on to the service's state as long as the process.
            return;
        }
        let since = Instant::now();
        let carol = echo_server(listen(node, "carol", 3, ONION_PORT));
        node.wait_reachable(&onion, REACHABLE).await.unwrap();
        report("service reachable again", since);
        carol.abort();
    }

    fn disk_holds_no_key(dir: &Path) {
        let mut folders = vec![dir.to_owned()];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files += 1;
                    assert!(
                        path.extension()
                            .is_none_or(|ending| !ending.to_string_lossy().ends_with("private"))
                    );
                }
            }
        }
        assert!(files > 0, "arti keeps its state elsewhere");
    }

    fn onion_key(seed: u8) -> OnionKey {
        OnionKey::from_seed(&[seed; 32])
    }

    fn onion_of(seed: u8) -> OnionAddr {
        onion_key(seed).onion_addr()
    }

    fn report(what: &str, since: Instant) {
        println!("{what}: {:.2} s", since.elapsed().as_secs_f64());
    }
}
