//! Policies in a real Galera cluster of three nodes, each with a store that writes to it.
//!
//! `cargo test -p portcullis-store --test galera -- --ignored`: without MariaDB and Galera the test fails.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test is a function of its own here, and a panic is how a test fails"
)]

use portcullis_database::{Connections, DatabaseUrl};
use portcullis_store::{NewGeneration, Store};
use portcullis_testkit::galera::{Galera, NODES};
use portcullis_testkit::wait;
use tokio::task::JoinSet;

/// Files that the seats of a round push in turn.
const FILES: [&[u8]; 3] = [b"one", b"two", b"three"];

const ROUNDS: u64 = 15;

fn store(cluster: &Galera, node: usize) -> Store {
    let url: DatabaseUrl = cluster.url(node).parse().unwrap();
    Store::new(Connections::kept(url))
}

fn policy<'n>(seat: &'n str, bytes: &'n [u8]) -> NewGeneration<'n> {
    NewGeneration {
        signature: "",
        seat,
        name: "policy.wasm",
        contract: "portcullis:policy@0.1.0",
        author: "ann",
        note: "",
        bytes,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Galera"]
async fn a_push_keeps_its_file_while_other_nodes_delete_files_without_a_generation() {
    let cluster = Galera::start();
    let stores: [Store; NODES] = std::array::from_fn(|node| store(&cluster, node));
    let mut pushed = 0;
    for round in 0..ROUNDS {
        // Old files that no generation has: each push of this round deletes those that it sees, unless another one renews them first.
        for bytes in FILES {
            stores[0].push(&policy("first", bytes), 1).await.unwrap();
        }
        stores[0].push(&policy("first", b"last"), 1).await.unwrap();
        cluster.sql(
            0,
            "kamailio",
            "DELETE FROM portcullis_generation WHERE seat <> 'first'; \
             UPDATE portcullis_artifact SET created_at = created_at - 7200",
        );
        let mut pushes = JoinSet::new();
        for (node, store) in stores.iter().enumerate() {
            for at in 0..FILES.len() {
                let (store, seat) = (store.clone(), format!("seat-{node}-{at}"));
                let bytes = FILES[(at + node) % FILES.len()];
                pushes.spawn(async move { store.push(&policy(&seat, bytes), 1).await });
            }
        }
        while let Some(done) = pushes.join_next().await {
            let generation = done.unwrap().unwrap();
            assert_eq!(generation.number, round + 1, "{}", generation.seat);
            pushed += 1;
        }
        let count = |what: &str| format!("SELECT COUNT(*) FROM portcullis_generation{what}");
        let lost = count(" WHERE digest NOT IN (SELECT digest FROM portcullis_artifact)");
        for node in 0..NODES {
            wait::until("the node has all generations", || {
                (cluster.sql(node, "kamailio", &count("")).trim() == "10").then_some(())
            });
            let lost = cluster.sql(node, "kamailio", &lost);
            assert_eq!(lost.trim(), "0", "node {node}, after {pushed} pushes");
        }
    }
}
