//! Random allow and deny files: lines as people write them, and lines that are put together at random.

use fastrand::Rng;

use super::super::Envelope;
use super::case::{Call, Case, ODD_BYTE, Pair, Question};

/// Makes cases.
#[derive(Debug)]
pub struct Generator {
    rng: Rng,
}

/// Requests of a case.
const CALLS: usize = 16;

impl Generator {
    /// The same seed makes the same cases.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
        }
    }

    /// The next case.
    pub fn case(&mut self) -> Case {
        let pairs: Vec<_> = (0..Case::MOST_PAIRS).map(|_| self.pair()).collect();
        let calls = (0..CALLS).map(|_| self.call(pairs.len())).collect();
        Case { pairs, calls }
    }

    fn pair(&mut self) -> Pair {
        let odd = self.of(&[0, 0, 2, 5]);
        let mut lines = || {
            let count = self.rng.usize(..5);
            (0..count).map(|_| self.line(odd)).collect()
        };
        Pair {
            allow: lines(),
            deny: lines(),
        }
    }

    /// A line; one in `odd` is what nobody should write.
    fn line(&mut self, odd: u32) -> String {
        if odd > 0 && self.rng.u32(..odd) == 0 {
            return self.odd_line();
        }
        let (left, right) = (self.side(&LEFT), self.side(&RIGHT));
        let colon = self.of(&[":", " : ", ":  ", "\t:\t", " :"]);
        let end = self.of(&[
            "",
            "",
            "",
            " ",
            " # who: \"why\"",
            "#",
            " # f\u{e0ff}r",
            "\r",
        ]);
        format!("{left}{colon}{right}{end}")
    }

    fn side(&mut self, patterns: &[&str]) -> String {
        let mut side = match self.rng.u32(..4) {
            0 => "ALL".to_owned(),
            _ => self.list(patterns),
        };
        if self.rng.u32(..4) == 0 {
            side += " EXCEPT ";
            side += &self.list(patterns);
        }
        side
    }

    fn list(&mut self, patterns: &[&str]) -> String {
        let count = self.of(&[1, 1, 1, 2, 3]);
        let patterns: Vec<_> = (0..count)
            .map(|_| {
                let pattern = patterns[self.rng.usize(..patterns.len())];
                match self.rng.u32(..12) {
                    0 if !pattern.contains([':', ',', '#']) => pattern.to_owned(),
                    _ => format!("\"{pattern}\""),
                }
            })
            .collect();
        patterns.join(self.of(&[",", ", ", " , "]))
    }

    fn odd_line(&mut self) -> String {
        match self.rng.u32(..5) {
            0 => self.of(&ODD_LINES).to_owned(),
            1 => format!("\"{}\" : ALL", self.of(&REFERRING)),
            2 => self.long_line(),
            3 => format!("\"bob{ODD_BYTE}\", \"^sip:alice@\" : ALL"),
            _ => {
                let count = self.rng.usize(1..10);
                (0..count).map(|_| self.of(&PIECES)).collect()
            }
        }
    }

    /// Around the longest pattern and the longest line that Kamailio reads.
    fn long_line(&mut self) -> String {
        let length = self.of(&[490, 497, 498, 499, 500, 501, 510, 520]);
        match self.rng.u32(..4) {
            0 => {
                let length = self.of(&[253, 254, 255, 256, 257]);
                format!("\"{}\" : ALL", &"e|".repeat(length)[..length])
            }
            1 => {
                let (list, rest) = ("\"^sip:alice@\",", "\"^sip:bob@\" : ALL");
                let blanks = " ".repeat(length - list.len() - rest.len());
                format!("{list}{blanks}{rest}")
            }
            // What is behind the longest line may look like another.
            2 => format!("# {} ALL : ALL", "x".repeat(length)),
            _ => format!("\"^sip:alice@\" : ALL # {}", "x".repeat(length - 24)),
        }
    }

    fn call(&mut self, pairs: usize) -> Call {
        let mut questions = Vec::new();
        for at in 0..pairs {
            questions.push((at, Question::Routing));
            questions.push((at, Question::Register));
            let uri = match self.rng.u32(..30) {
                0 => self.long_uri(),
                _ => self.of(&URIS).to_owned(),
            };
            questions.push((at, Question::Uri(uri)));
        }
        Call {
            envelope: self.envelope(),
            questions,
        }
    }

    fn envelope(&mut self) -> Envelope {
        let mut envelope = Envelope::to(self.of(&REQUEST_URIS));
        if self.rng.u32(..16) == 0 {
            envelope.uri = self.long_uri();
        }
        envelope.method = self.of(&["MESSAGE", "REGISTER"]).into();
        envelope.from = Some(self.party());
        envelope.to = Some(self.party());
        envelope.contacts = Some(self.contacts());
        envelope
    }

    fn contacts(&mut self) -> Vec<String> {
        match self.rng.u32(..8) {
            0 => Vec::new(),
            1 | 2 => self.stars(),
            3 => vec![format!("{}, {}", self.contact(), self.contact())],
            4 => vec![self.contact(), self.contact()],
            _ => vec![self.contact()],
        }
    }

    /// A star, or one among others, which nobody should write.
    fn stars(&mut self) -> Vec<String> {
        match self.rng.u32(..5) {
            0 => vec!["*".into(), self.contact()],
            1 | 2 => vec![self.contact(), "*".into()],
            _ => vec!["*".into()],
        }
    }

    fn contact(&mut self) -> String {
        let address = self.address();
        address + self.of(&["", "", ";q=0.5", ";expires=3600;q=1"])
    }

    /// The value of From or To. One that cannot be read is answered 400 before a policy is asked (`tests/tests/first_look.rs`).
    fn party(&mut self) -> String {
        loop {
            let uri = self.uri();
            if !UNREADABLE.contains(&uri.as_str()) {
                return self.address_with(&uri);
            }
        }
    }

    /// The value of a header field that names somebody.
    fn address(&mut self) -> String {
        let uri = self.uri();
        self.address_with(&uri)
    }

    fn uri(&mut self) -> String {
        match self.rng.u32(..24) {
            0 => self.long_uri(),
            _ => self.of(&URIS).to_owned(),
        }
    }

    fn address_with(&mut self, uri: &str) -> String {
        match self.rng.u32(..4) {
            // What stands behind a URI without brackets belongs to the header field.
            0 if !uri.contains([';', '?']) => uri.to_owned(),
            1 => format!("\"A, <b>\" <{uri}>"),
            2 => format!("Alice <{uri}>"),
            _ => format!("<{uri}>"),
        }
    }

    /// Around the longest that Kamailio compares.
    fn long_uri(&mut self) -> String {
        let (start, end) = ("sip:", "@example.com");
        let length = self.of(&[250, 254, 255, 256, 257, 258, 300]);
        format!(
            "{start}{}{end}",
            "e".repeat(length - start.len() - end.len())
        )
    }

    fn of<T: Copy, const N: usize>(&mut self, items: &[T; N]) -> T {
        items[self.rng.usize(..N)]
    }
}

const LEFT: [&str; 19] = [
    "ü",
    "Ü",
    "m..ller",
    "^sip:alice@",
    "^SIP:ALICE@example\\.com$",
    "@example\\.com",
    "example",
    "^sips?:",
    "^sip:(alice|bob)@",
    "^sip:[^@]+@192\\.0\\.2\\.",
    "e{3}",
    "^tel:",
    "bob.*;",
    "a, b",
    "a : b",
    "#",
    ".",
    "^$",
    "^sip:[[:alnum:]]+@",
];

const RIGHT: [&str; 16] = [
    "^sip:\\+49",
    "^sip:\\+(33|49)[0-9]+@",
    "^sip:@",
    "^sip:example\\.com",
    "@example\\.com$",
    ":50[68]0$",
    "^sip:alice@",
    "^sip:bob@EXAMPLE",
    "\\[2001:db8::1\\]$",
    "user=phone",
    "%20",
    "e{200}",
    "sip",
    "^sip:[^;]*$",
    "tel|secret",
    ".",
];

/// Patterns with back-references.
pub(super) const REFERRING: [&str; 2] = ["(e)\\1", "^sip:(.)\\1"];

const ODD_LINES: [&str; 34] = [
    "",
    " ",
    "\t",
    "# ALL : ALL",
    "   # only a comment",
    ":",
    " : ",
    "ALL",
    "ALL :",
    ": ALL",
    "ALL : # nothing",
    "ALL : ALL : ALL",
    "ALL ALL : ALL",
    "ALL, \"bob\" : ALL",
    "\"bob\", ALL : ALL",
    "all : ALL",
    "\"ALL\" : ALL",
    "\" EXCEPT \" : ALL",
    "ALL EXCEPT ALL : ALL",
    "ALL EXCEPT \"bob\" EXCEPT \"bob\" : ALL",
    "ALL EXCEPT : ALL",
    " EXCEPT \"bob\" : ALL",
    "EXCEPT \"bob\" : ALL",
    "\"\" : ALL",
    "\"bob\",, \"alice\" : ALL",
    "\"bob\", : ALL",
    "\"bob : ALL",
    "bob\" : ALL",
    "\"bob\" \"alice\" : ALL",
    "\"[bob\" : ALL",
    "\"(bob\" : ALL",
    "sip:bob@ : ALL",
    "ALL : \"\\\"\"",
    "ALL:ALL",
];

/// What random lines are made of.
const PIECES: [&str; 18] = [
    "\"", "\"", ",", ":", ":", " ", " ", "\t", " EXCEPT ", "EXCEPT", "ALL", "#", "bob", "e",
    "\"e\"", "\"sip\"", "\r", "\\",
];

/// A URI with a colon and no port behind it, unless something follows.
pub(super) const NO_PORT: &str = "sip:bob@no-port.example:";

const REQUEST_URIS: [&str; 15] = [
    "sip:bob;ext=1@example.com",
    "sip:b?b@example.com",
    "sip:bob:@example.com",
    "sip:+49-30.(1)@example.com",
    "sip:alice@example.com.",
    "sip:alice@192.0.2.1:05060",
    "sip:alice@example.com",
    "sip:bob@example.com:5080;transport=udp",
    "SIP:bob@EXAMPLE.com",
    "sip:+4930123@example.com;user=phone",
    "sip:+3312345@example.com",
    "sip:example.com",
    "sip:bob:secret@example.org:5060",
    "sip:alice@[2001:db8::1]:5060",
    "sip:a%20b@example.com",
];

/// Those of [`URIS`] that cannot be read.
const UNREADABLE: [&str; 8] = [
    "sip:@example.com",
    "sip::secret@example.com",
    "sip:bob@@example.com",
    NO_PORT,
    "sip:bob@no-port.example:0",
    "sip:bob@example.com:99999",
    "sip:bob@[2001:db8::1",
    "sip:alice@",
];

const URIS: [&str; 38] = [
    "sip:@example.com",
    "sip::secret@example.com",
    "sip:example.com;x=@y",
    "sip:example.com?x=a@b.com",
    "sip:bob@@example.com",
    NO_PORT,
    "sip:bob@no-port.example:0",
    "sip:bob@example.com:99999",
    "sip:bob@300.1.1.1",
    "sip:bob@exam_ple.com",
    "sip:bob@[2001:db8::1",
    "sip:bob;ext=1@example.com",
    "sip:b?b@example.com",
    "sip:bob:@example.com",
    "sip:+49-30.(1)@example.com",
    "sip:alice@example.com.",
    "sip:alice@192.0.2.1:05060",
    "sip:alice@[2001:DB8::1]",
    "sip:alice@",
    "sips:example.com:5061;x",
    "sip:*@example.com",
    "sip:a%40b@example.com",
    "sip:alice@example.com",
    "sip:alice@example.com:5060;transport=udp",
    "SIP:alice@EXAMPLE.com",
    "sips:alice@example.com",
    "sip:bob@example.com:5080",
    "sip:bob:secret@example.org?x=y",
    "sip:bob@192.0.2.1;lr",
    "sip:+4930123@example.com;user=phone",
    "sip:+3312345@example.com",
    "sip:example.com",
    "sip:example.com:5080",
    "sip:a%20b@example.com",
    "sip:alice@[2001:db8::1]:5060",
    "tel:+4930123",
    "mailto:alice@example.com",
    "sip:müller@example.com",
];
