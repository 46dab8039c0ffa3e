//! Random tables and questions. Their addresses are close to each other, so that networks nest, rows repeat and questions match; some columns have
//! unusual or invalid values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fastrand::Rng;

use super::case::{Ask, Case, Question, Row};

/// A generator of cases.
#[derive(Debug)]
pub struct Generator {
    rng: Rng,
    callers: Vec<SocketAddr>,
}

/// The properties that the rows and questions of one case share.
struct Theme {
    anchors: Vec<IpAddr>,
    groups: Vec<u32>,
    ports: Vec<u16>,
    /// One row in this many is odd; 0 means none.
    odd: u32,
}

impl Generator {
    /// A generator for questions from these callers. The same seed generates the same cases.
    pub fn new(seed: u64, callers: Vec<SocketAddr>) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            callers,
        }
    }

    /// The next case.
    pub fn case(&mut self) -> Case {
        let asking = self.some_callers();
        let theme = self.theme(&asking);
        let count = match self.rng.u32(..10) {
            0 => self.rng.usize(..3),
            1..=8 => self.rng.usize(3..50),
            // More networks than Kamailio holds by default.
            _ => self.rng.usize(400..900),
        };
        let mut rows = Vec::new();
        for _ in 0..count {
            let row = match rows.is_empty() || self.rng.u32(..6) > 0 {
                true => self.row(&theme),
                false => self.repeated(&rows, &theme),
            };
            rows.push(row);
        }
        let mut asks = Vec::new();
        for caller in asking {
            for question in self.questions(&rows, &theme) {
                asks.push(Ask { caller, question });
            }
        }
        Case { rows, asks }
    }

    fn some_callers(&mut self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.callers.len()).collect();
        self.rng.shuffle(&mut all);
        all.truncate(6);
        all
    }

    fn theme(&mut self, asking: &[usize]) -> Theme {
        let mut anchors: Vec<IpAddr> = asking.iter().map(|at| self.callers[*at].ip()).collect();
        let mut ports: Vec<u16> = asking.iter().map(|at| self.callers[*at].port()).collect();
        anchors.extend((0..3).map(|_| self.anchor()));
        ports.extend([5060, 5060, 5061, 1, 40_000, 65_535]);
        let pool: &[u32] = match self.rng.u32(..8) {
            0 => &LARGE_GROUPS,
            1 => &LARGEST_SIGNED,
            _ => &GROUPS,
        };
        let groups = (0..self.rng.usize(1..6)).map(|_| pool[self.rng.usize(..pool.len())]);
        Theme {
            groups: groups.collect(),
            anchors,
            ports,
            odd: [0, 4, 12, 12][self.rng.usize(..4)],
        }
    }

    fn anchor(&mut self) -> IpAddr {
        let text = ANCHORS[self.rng.usize(..ANCHORS.len())];
        text.parse().expect("an anchor is an address")
    }

    fn row(&mut self, theme: &Theme) -> Row {
        let is_odd = theme.odd > 0 && self.rng.u32(..theme.odd) == 0;
        let (ip_addr, mask) = match self.rng.u32(..8) {
            _ if is_odd => self.odd_place(theme),
            0 => (self.one_of(&NAMES).to_owned(), self.rng.i32(0..=32)),
            _ => self.place(theme),
        };
        let group = match is_odd && self.rng.u32(..10) == 0 {
            true => 0,
            false => self.of(&theme.groups),
        };
        Row {
            group,
            ip_addr,
            mask,
            port: self.port(theme),
            tag: self.tag(),
        }
    }

    /// A copy of an earlier row, either unchanged or with another value in one column.
    fn repeated(&mut self, rows: &[Row], theme: &Theme) -> Row {
        let mut row = rows[self.rng.usize(..rows.len())].clone();
        match self.rng.u32(..5) {
            0 => row.group = self.of(&theme.groups),
            1 => row.port = self.port(theme),
            2 => row.mask = (row.mask - 1).max(0),
            3 => row.tag = self.tag(),
            _ => {}
        }
        row
    }

    /// An address and mask near an anchor.
    fn place(&mut self, theme: &Theme) -> (String, i32) {
        let near = self.near(theme);
        let bits = if near.is_ipv4() { 32 } else { 128 };
        let mask = match self.rng.u32(..8) {
            0 => 0,
            1..=3 => bits,
            4 => self.rng.i32(1..bits),
            _ => bits - self.rng.i32(1..16),
        };
        (self.written(near), mask)
    }

    fn near(&mut self, theme: &Theme) -> IpAddr {
        let anchor = theme.anchors[self.rng.usize(..theme.anchors.len())];
        // Mostly the anchor itself or a close neighbour.
        let spread = [0, 0, 1, 2, 4, 8, 16, 32][self.rng.usize(..8)];
        match anchor {
            IpAddr::V4(ip) => {
                let noise = self.rng.u32(..).checked_shr(32 - spread).unwrap_or(0);
                Ipv4Addr::from_bits(ip.to_bits() ^ noise).into()
            }
            IpAddr::V6(ip) => {
                let noise = self.rng.u128(..).checked_shr(128 - spread * 3).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() ^ noise).into()
            }
        }
    }

    /// One of the common notations of an address.
    fn written(&mut self, ip: IpAddr) -> String {
        let IpAddr::V6(ip) = ip else {
            return match (self.rng.u32(..12), ip) {
                (0, IpAddr::V4(ip)) => ip.octets().map(|o| format!("{o:03}")).join("."),
                _ => ip.to_string(),
            };
        };
        match self.rng.u32(..8) {
            0 => format!("[{ip}]"),
            1 => ip.to_string().to_uppercase(),
            2 => ip.segments().map(|group| format!("{group:04x}")).join(":"),
            _ => ip.to_string(),
        }
    }

    /// An invalid or unusual value.
    fn odd_place(&mut self, theme: &Theme) -> (String, i32) {
        let near = self.near(theme);
        let bits = if near.is_ipv4() { 32 } else { 128 };
        match self.rng.u32(..8) {
            0 => (near.to_string(), self.one_of(&[-1, 33, 129, 1000])),
            1 => (format!("{near}/{}", self.rng.i32(8..bits)), bits),
            2 => (format!("{near} "), bits),
            3 => (format!("{near}:5060"), bits),
            4 if near.is_ipv4() => (format!("::ffff:{near}"), self.rng.i32(0..=128)),
            4 => (near.to_string(), 32),
            5 if near.is_ipv4() => (format!("64:ff9b::{near}"), 96),
            _ => (self.one_of(&ODD).to_owned(), self.rng.i32(0..=32)),
        }
    }

    fn questions(&mut self, rows: &[Row], theme: &Theme) -> Vec<Question> {
        let mut questions = vec![Question::SourceGroup];
        let mut groups = theme.groups.clone();
        // 1 is Kamailio's default; 77 has no row.
        groups.extend([1, 77]);
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            questions.push(Question::Source { group });
        }
        for _ in 0..12 {
            let (text, port) = (self.text(rows, theme), self.asked_port(theme));
            let group = self.of(&theme.groups);
            questions.push(Question::Address {
                group,
                text: text.clone(),
                port,
            });
            questions.push(Question::AddressGroup { text, port });
        }
        questions
    }

    fn text(&mut self, rows: &[Row], theme: &Theme) -> String {
        match self.rng.u32(..8) {
            0..=3 if !rows.is_empty() => {
                let row = &rows[self.rng.usize(..rows.len())];
                self.beside(row)
            }
            4 => self.one_of(&NAMES).to_owned(),
            5 if theme.odd > 0 => self.odd_place(theme).0,
            _ => {
                let near = self.near(theme);
                self.written(near)
            }
        }
    }

    /// The text of a row, or an address at one of the edges of its network.
    fn beside(&mut self, row: &Row) -> String {
        let Ok(ip) = row.ip_addr.parse::<IpAddr>() else {
            return row.ip_addr.clone();
        };
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let inside = match row.mask {
            1.. if row.mask < bits => (bits - row.mask) as u32,
            _ => 0,
        };
        let last = |bits: u32| (1u128 << bits) - 1;
        // An address inside, the first, the last, and one that differs in the last bit of the prefix.
        let mut change = |at: u128| match self.rng.u32(..5) {
            0 => at,
            1 => at & !last(inside),
            2 => at | last(inside),
            3 => at ^ (1u128 << inside),
            _ => at ^ (self.rng.u128(..) & last(inside)),
        };
        let beside: IpAddr = match ip {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(change(ip.to_bits().into()) as u32).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(change(ip.to_bits())).into(),
        };
        self.written(beside)
    }

    fn port(&mut self, theme: &Theme) -> u16 {
        match self.rng.bool() {
            true => 0,
            false => self.of(&theme.ports),
        }
    }

    fn asked_port(&mut self, theme: &Theme) -> u16 {
        match self.rng.u32(..10) {
            0 => 0,
            _ => self.of(&theme.ports),
        }
    }

    fn tag(&mut self) -> Option<String> {
        let tag = self.one_of(&TAGS);
        tag.map(str::to_owned)
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.rng.usize(..items.len())]
    }

    fn one_of<T: Copy, const N: usize>(&mut self, items: &[T; N]) -> T {
        items[self.rng.usize(..N)]
    }
}

const GROUPS: [u32; 8] = [1, 2, 3, 200, 250, 251, 40_000, 1_999_999_999];
const LARGEST_SIGNED: [u32; 4] = [1, 200, 2_000_000_000, i32::MAX as u32];
const LARGE_GROUPS: [u32; 6] = [1, 200, i32::MAX as u32, 1 << 31, 3_000_000_000, u32::MAX];

const TAGS: [Option<&str>; 8] = [
    None,
    None,
    Some(""),
    Some("a"),
    Some("b"),
    Some("two words"),
    Some("o'neil \"x\""),
    Some("0123456789012345678901234567890123456789012345678901234567890123"),
];

/// Addresses that no caller of these tests has.
const ANCHORS: [&str; 12] = [
    "0.0.0.0",
    "255.255.255.255",
    "127.255.255.255",
    "128.0.0.0",
    "10.0.0.1",
    "192.0.2.129",
    "::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db8::1",
    "2001:db8:0:1::ff",
    "8000::",
    "::7f00:1",
];

const NAMES: [&str; 8] = [
    "sip.example.com",
    "SIP.example.com",
    "sip.example.com.",
    "gw-1",
    "a_b",
    "localhost",
    "0x7f.0.0.1",
    "10.0.0.a",
];

const ODD: [&str; 34] = [
    "300.1.1.1",
    "256.0.0.1",
    "1..2.3",
    "...",
    ".1.2.3",
    "10.0.0",
    "127.1",
    "1.2.3.4.5",
    "0010.0.0.1",
    "010.000.000.001",
    "",
    " ",
    " 10.0.0.1",
    "10.0.0.1\t",
    "10.0.0.*",
    "*",
    "sip:gw.example.com",
    "user@gw",
    "gw.example.com:5060",
    "[10.0.0.1]",
    "[2001:db8::1",
    "2001:db8::1]",
    "[2001:db8::1]:5060",
    "[]",
    ":",
    ":::",
    "1::2::3",
    "12345::1",
    "02001:db8::1",
    "fe80::1%eth0",
    "2001:db8:1",
    "1:2:3:4:5:6:7::",
    "::2:3:4:5:6:7:8",
    "::ffff:a00:1",
];
