//! What a look-up costs: 10, 100,000 and 1,000,000 rows; known sources, unknown ones far from all networks and right beside
//! them, and networks inside of networks. `prefix-trie`, a general longest-prefix table, stands beside for scale.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::Ipv4Net;
use portcullis_address::{Row, Table, TableBuilder};
use prefix_trie::PrefixMap;

const SIZES: [usize; 3] = [10, 100_000, 1_000_000];
/// Sources asked for in turn: more than the caches hold of a large table.
const SOURCES: usize = 1 << 16;

criterion_group!(
    benches,
    known,
    unknown_far,
    unknown_near,
    nested,
    tagged,
    hosts_v6,
    beside
);
criterion_main!(benches);

/// A /24 network a row.
fn known(c: &mut Criterion) {
    bench(c, "hit", networks, inside);
}

/// Sources in 240/4, where no network is.
fn unknown_far(c: &mut Criterion) {
    let far = |rng: &mut Rng, _: u32| Ipv4Addr::from_bits(0xf000_0000 | rng.next() as u32).into();
    bench(c, "miss/far", networks, far);
}

/// Sources in the /24 beside a known one.
fn unknown_near(c: &mut Criterion) {
    let near = |rng: &mut Rng, net| inside(rng, net ^ 0x100);
    bench(c, "miss/near", networks, near);
}

/// Each source is in a /24, a /16, a /8 and a /1, all of other groups, and the group asked for is that of the /1.
fn nested(c: &mut Criterion) {
    let nets = |rng: &mut Rng, rows: usize| {
        let mut table = TableBuilder::default();
        push(&mut table, 200, Ipv4Addr::UNSPECIFIED.into(), 1, "");
        push(&mut table, 200, Ipv4Addr::new(128, 0, 0, 0).into(), 1, "");
        for first in 1..240 {
            push(&mut table, 300, Ipv4Addr::new(first, 0, 0, 0).into(), 8, "");
        }
        for first in 0..rows.min(20_000) {
            push(
                &mut table,
                400,
                Ipv4Addr::from_bits((first as u32) << 16).into(),
                16,
                "",
            );
        }
        let nets = fill(&mut table, rng, rows, 500, |_| String::new());
        (table.build(), nets)
    };
    bench(c, "nested", nets, inside);
}

/// A tag of its own for each row.
fn tagged(c: &mut Criterion) {
    let nets = |rng: &mut Rng, rows| {
        let mut table = TableBuilder::default();
        let nets = fill(&mut table, rng, rows, 200, |n| format!("customer{n}"));
        (table.build(), nets)
    };
    bench(c, "hit/own tags", nets, inside);
}

fn hosts_v6(c: &mut Criterion) {
    let mut group = c.benchmark_group("hit/IPv6 hosts");
    for rows in SIZES {
        let mut rng = Rng(7);
        let mut table = TableBuilder::default();
        let hosts: Vec<IpAddr> = (0..rows)
            .map(|_| {
                let site = u128::from(rng.next() % (1 << 28)) << 68;
                Ipv6Addr::from_bits(0x2001_0db8 << 96 | site | u128::from(rng.next())).into()
            })
            .collect();
        for &host in &hosts {
            push(&mut table, 200, host, 128, "");
        }
        let sources = pick(&mut rng, &hosts, |_, host| host);
        ask(&mut group, rows, &table.build(), &sources);
    }
}

/// The same /24 networks in a longest-prefix table, which answers less: one row a source.
fn beside(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefix-trie hit");
    for rows in SIZES {
        let mut rng = Rng(7);
        let mut table = PrefixMap::new();
        let nets: Vec<u32> = (0..rows).map(|_| net(&mut rng)).collect();
        for &net in &nets {
            table.insert(prefix(net, 24), 200u32);
        }
        let sources = pick(&mut rng, &nets, |rng, net| {
            prefix(net | rng.next() as u32 & 0xff, 32)
        });
        group.throughput(Throughput::Elements(sources.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |b| {
            b.iter(|| {
                sources
                    .iter()
                    .filter(|source| table.get_lpm(source).is_some())
                    .count()
            });
        });
    }
}

fn bench(
    c: &mut Criterion,
    name: &str,
    make: impl Fn(&mut Rng, usize) -> (Table, Vec<u32>),
    source: impl Fn(&mut Rng, u32) -> IpAddr,
) {
    let mut group = c.benchmark_group(name);
    for rows in SIZES {
        let mut rng = Rng(7);
        let (table, nets) = make(&mut rng, rows);
        let sources = pick(&mut rng, &nets, &source);
        ask(&mut group, rows, &table, &sources);
    }
}

fn ask(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    rows: usize,
    table: &Table,
    sources: &[IpAddr],
) {
    group.throughput(Throughput::Elements(sources.len() as u64));
    group.bench_function(BenchmarkId::from_parameter(rows), |b| {
        b.iter(|| {
            for &source in sources {
                black_box(table.lookup(source).find(200, 5060));
            }
        });
    });
}

fn networks(rng: &mut Rng, rows: usize) -> (Table, Vec<u32>) {
    let mut table = TableBuilder::default();
    let nets = fill(&mut table, rng, rows, 200, |_| String::new());
    (table.build(), nets)
}

/// Random /24 networks below 240/4.
fn fill(
    table: &mut TableBuilder,
    rng: &mut Rng,
    rows: usize,
    group: i64,
    tag: impl Fn(usize) -> String,
) -> Vec<u32> {
    let nets: Vec<u32> = (0..rows).map(|_| net(rng)).collect();
    for (n, &net) in nets.iter().enumerate() {
        push(table, group, Ipv4Addr::from_bits(net).into(), 24, &tag(n));
    }
    nets
}

fn push(table: &mut TableBuilder, group: i64, ip: IpAddr, mask: i64, tag: &str) {
    let row = Row {
        id: 1,
        group,
        ip_addr: &ip.to_string(),
        mask,
        port: 0,
        tag: Some(tag),
    };
    table.push(row).expect("a good row");
}

/// Sources at random places of the table.
fn pick<N: Copy, S>(rng: &mut Rng, nets: &[N], source: impl Fn(&mut Rng, N) -> S) -> Vec<S> {
    (0..SOURCES)
        .map(|_| {
            let net = nets[rng.next() as usize % nets.len()];
            source(rng, net)
        })
        .collect()
}

fn net(rng: &mut Rng) -> u32 {
    (rng.next() as u32 % 0xf000_0000) & 0xffff_ff00
}

fn inside(rng: &mut Rng, net: u32) -> IpAddr {
    Ipv4Addr::from_bits(net | rng.next() as u32 & 0xff).into()
}

fn prefix(addr: u32, bits: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::from_bits(addr), bits).expect("a mask of IPv4")
}

/// The same numbers in each run.
struct Rng(u64);

impl Rng {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}
