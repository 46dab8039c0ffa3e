//! Attacks on the host's memory, each on its own host, and the largest increase of memory during each.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_testkit::guests::module;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use serde::Serialize;
use tempfile::TempDir;

use crate::process::Held;

/// An attack, and its bound.
struct Attack {
    name: &'static str,
    /// Prepares a host, attacks it for about this long, and returns its memory.
    run: fn(Duration) -> Result<Grown>,
    /// The largest allowed increase, MiB, as documented.
    bound_mib: u64,
}

/// The result of one attack.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Told {
    /// The name of the attack.
    pub(crate) attack: &'static str,
    /// Memory of the host before the attack, and at most during it.
    #[serde(flatten)]
    pub(crate) grown: Grown,
    /// The largest allowed increase.
    pub(crate) bound_mib: u64,
}

/// Resident memory, MiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Grown {
    /// Before the attack.
    pub(crate) before_mib: u64,
    /// At most during it.
    pub(crate) most_mib: u64,
}

const ATTACKS: [Attack; 4] = [
    Attack {
        name: "a tenant's policy that asks for much, with records on",
        run: records,
        bound_mib: 96,
    },
    Attack {
        name: "500 pushes that never end",
        run: pushes,
        bound_mib: 64,
    },
    Attack {
        name: "5,000 trusted peers with costly patterns",
        run: patterns,
        bound_mib: 192,
    },
    Attack {
        name: "60 clients that do not read a dump of 200,000 rows",
        run: dumps,
        bound_mib: 128,
    },
];

/// The token of the operator, and of attackers that need one.
const TOKEN: &str = "soak-token-of-this-host-alone";

/// Runs every attack for this long.
pub(crate) fn run(length: Duration) -> Result<Vec<Told>> {
    let attacks = ATTACKS.iter().map(|attack| {
        let grown = (attack.run)(length).with_context(|| attack.name)?;
        eprintln!("{}: {grown:?}", attack.name);
        Ok(Told {
            attack: attack.name,
            grown,
            bound_mib: attack.bound_mib,
        })
    });
    attacks.collect()
}

impl Told {
    /// Whether the host stayed within the bound.
    pub(crate) fn is_within(&self) -> bool {
        self.grown.most_mib <= self.grown.before_mib + self.bound_mib
    }

    /// One line of a report.
    pub(crate) fn text(&self) -> String {
        let Grown {
            before_mib,
            most_mib,
        } = self.grown;
        let verdict = if self.is_within() { "" } else { "   TOO MUCH" };
        format!(
            "  {:<56} {before_mib:>5} MiB before, {most_mib:>5} at most, {:>4} more expected{verdict}",
            self.attack, self.bound_mib
        )
    }
}

/// 400 requests per second, whose policy makes 40 queries of 60 KB each, in characters that take six bytes each in JSON.
fn records(length: Duration) -> Result<Grown> {
    let folder = tempfile::tempdir()?;
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set(
            "tenants.acme",
            &format!("file = {:?}", asks_for_much(&folder)?),
        )
        .set("tenants.acme", "breaker-failures = 0")
        .set("records", "file = \"records.jsonl\"")
        .start();
    let caller = UdpSocket::bind((host.lease().ip(10), 0))?;
    let local = caller.local_addr()?;
    let target = host.sip();
    let mut number = 0;
    watch(&host, length, || {
        for _ in 0..4 {
            number += 1;
            let request = format!(
                "MESSAGE sip:x@acme.example SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n\
                 From: <sip:x@acme.example>;tag=1\r\nTo: <sip:x@acme.example>\r\nCall-ID: {number}\r\nCSeq: 1 MESSAGE\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            caller.send_to(request.as_bytes(), target)?;
        }
        Ok(())
    })
}

fn asks_for_much(folder: &TempDir) -> Result<PathBuf> {
    let text = "\\01".repeat(60_000);
    let policy = module(&format!(
        r#"(module
            (import "portcullis:policy/permissions@0.1.0" "allow-address" (func $ask (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 2)
            (data (i32.const 0) "\01\00\00\00\e0\01\00\00\40\00\00\00\04\00\00\00\00\00\00\00\00\00\00\00")
            (data (i32.const 64) "Done")
            (data (i32.const 4096) "{text}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32)
                (local $n i32)
                (loop $more
                    (drop (call $ask (i32.const 1) (i32.const 4096) (i32.const 60000) (i32.const 0)))
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br_if $more (i32.lt_u (local.get $n) (i32.const 40))))
                i32.const 0))"#
    ));
    let path = folder.path().join("asks-for-much.wasm");
    std::fs::write(&path, policy)?;
    Ok(path)
}

/// Pushes of 4 MiB to a tenant's seat, with its token, each without its last byte.
fn pushes(length: Duration) -> Result<Grown> {
    const PUSHES: usize = 500;
    const SIZE: usize = 4 << 20;
    let host = Builder::new()
        .set("control", "token = \"token-of-the-operator-of-this-host\"")
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{TOKEN}\""))
        .start();
    let control = host.lease().addr(1, 8060);
    let head = format!(
        "POST /v1/policies/acme HTTP/1.1\r\nHost: {control}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/wasm\r\nContent-Length: {SIZE}\r\n\r\n"
    );
    let chunk = vec![0; 64 << 10];
    let mut pushes: Vec<Option<(TcpStream, usize)>> = (0..PUSHES).map(|_| None).collect();
    watch(&host, length, || {
        for push in &mut pushes {
            if push.is_none() {
                *push = open(control, head.as_bytes()).map(|stream| (stream, 0));
            }
            let Some((stream, sent)) = push else {
                continue;
            };
            let room = (SIZE - 1 - *sent).min(chunk.len());
            match stream.write(&chunk[..room]) {
                Ok(written) => *sent += written,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // Refused: the attacker comes back.
                Err(_) => *push = None,
            }
        }
        Ok(())
    })
}

/// Rows of `trusted` whose patterns make large automata, each within what one row may take.
fn patterns(length: Duration) -> Result<Grown> {
    let database = MariaDb::start();
    let host = Builder::new().database(&database.url()).start();
    let before = Held::of(host.pid())?.memory_mib;
    database.sql(
        "kamailio",
        "INSERT INTO trusted (src_ip, proto, from_pattern, tag) \
         SELECT CONCAT('10.9.', seq DIV 250, '.', seq MOD 250), 'any', CONCAT('\\\\([ab]\\\\{1,480\\\\}c', seq, '\\\\)\\\\{1,8\\\\}'), '' \
         FROM seq_1_to_5000",
    );
    host.signal("HUP");
    let grown = watch(&host, length, || Ok(()))?;
    Ok(Grown {
        before_mib: before,
        ..grown
    })
}

/// Clients that request the whole table over HTTP and do not read the response.
fn dumps(length: Duration) -> Result<Grown> {
    const CLIENTS: usize = 60;
    let database = MariaDb::start();
    database.fill_subnets(200_000);
    let host = Builder::new()
        .database(&database.url())
        .set("control", &format!("token = \"{TOKEN}\""))
        .start();
    let control = host.lease().addr(1, 8060);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"permissions.subnetDump"}"#;
    let request = format!(
        "POST /RPC HTTP/1.1\r\nHost: {control}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{call}",
        call.len()
    );
    let mut clients = Vec::new();
    watch(&host, length, || {
        if clients.len() < CLIENTS {
            clients.extend(open(control, request.as_bytes()));
        }
        Ok(())
    })
}

/// A non-blocking connection over which this was sent; `None` if it was refused.
fn open(target: std::net::SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_millis(500)).ok()?;
    stream.write_all(bytes).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

/// Runs steps of an attack for this long, a hundred per second, and reads the host's memory after each.
fn watch(host: &Host, length: Duration, mut step: impl FnMut() -> Result<()>) -> Result<Grown> {
    let before_mib = Held::of(host.pid())?.memory_mib;
    let mut most_mib = before_mib;
    let end = Instant::now() + length;
    while Instant::now() < end {
        step()?;
        most_mib = most_mib.max(Held::of(host.pid())?.memory_mib);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Grown {
        before_mib,
        most_mib,
    })
}
