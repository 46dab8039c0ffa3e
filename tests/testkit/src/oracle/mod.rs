//! The oracle: a real Kamailio and Portcullis read the same table of the same MariaDB, and get the same questions from the same addresses. A
//! different answer is a defect, unless the list of [`exceptions`] has it.

pub mod case;
pub mod exceptions;
pub mod files;
pub mod generate;
pub mod shrink;
mod text;
pub mod trusted;
mod voice;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use crate::host::{Builder, Host};
use crate::kamailio::Kamailio;
use crate::lease::free_port_v6;
use crate::mariadb::MariaDb;
use crate::policy;
use crate::sip::{Caller, Transport};

use case::{Answer, Ask, Case, Question, Row, read_answer, shown};
use exceptions::View;
pub use voice::Envelope;
use voice::Voice;

/// Questions in one request.
const BATCH: usize = 40;

/// The indices of the servers in a [`Voice`].
const PORTCULLIS: usize = 0;
const KAMAILIO: usize = 1;

/// Both servers, their table, and the callers.
#[derive(Debug)]
pub struct Oracle {
    voices: Vec<Voice>,
    kamailio: Kamailio,
    host: Host,
    database: MariaDb,
    /// The exceptions that have applied so far.
    pub met: BTreeSet<&'static str>,
    /// Number of answers compared so far.
    pub decisions: usize,
    /// Number of these answers that are a match.
    pub matched: usize,
}

/// A difference between the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Kamailio does not load a table that is valid for it.
    KamailioRefuses(String),
    /// Portcullis does not load the table.
    PortcullisRefuses(String),
    /// Portcullis skips another number of rows than the exceptions predict.
    Skipped {
        /// The predicted number.
        expected: usize,
        /// The number that Portcullis reports.
        reload: String,
    },
    /// The answers to a question differ.
    Answer {
        /// The index of the question.
        at: usize,
        /// Kamailio's answer after the exceptions.
        kamailio: Answer,
        /// The answer of Portcullis.
        portcullis: Answer,
    },
}

/// A case with a difference, as text for a report.
#[derive(Debug)]
pub struct Finding<'o> {
    oracle: &'o Oracle,
    case: Case,
    difference: Difference,
}

impl Oracle {
    /// Starts both servers. Kamailio's limit of networks is raised, and it reports the tag of each question.
    pub fn start() -> Self {
        Self::start_with(&["IPV6", "ROOM", "FRESH_TAGS"])
    }

    /// Starts both servers with these parts of Kamailio's configuration.
    pub fn start_with(defines: &[&str]) -> Self {
        let database = MariaDb::start();
        let builder = Builder::new();
        let (kamailio_v4, port_v6) = (builder.lease().addr(4, 5060), free_port_v6());
        let ours_v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port_v6);
        let host = builder
            .policy(policy("oracle"))
            .database(&database.url())
            // Reloads only on request: the table changes between the two loads.
            .set("database", "poll = \"1h\"")
            .set("log", "level = \"error\"")
            .listen(&format!("udp:{ours_v6}"))
            .listen(&format!("tcp:{ours_v6}"))
            .start();
        let kamailio_v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), free_port_v6());
        let kamailio = Kamailio::start(
            include_str!("../../../oracle/kamailio.cfg"),
            &[
                ("LISTEN", kamailio_v4.to_string()),
                ("LISTEN_V6", kamailio_v6.to_string()),
                ("DATABASE", database.url()),
            ],
            defines,
        );
        let voices = callers(&host)
            .into_iter()
            .map(|(transport, local)| match local.ip() {
                IpAddr::V4(_) => Voice::new(transport, local, vec![host.sip(), kamailio_v4]),
                IpAddr::V6(_) => Voice::new(transport, local, vec![ours_v6, kamailio_v6]),
            })
            .collect();
        Self {
            voices,
            kamailio,
            host,
            database,
            met: BTreeSet::new(),
            decisions: 0,
            matched: 0,
        }
    }

    /// The addresses of the callers, by their numbers.
    pub fn callers(&self) -> Vec<SocketAddr> {
        self.voices.iter().map(Voice::local).collect()
    }

    /// Loads the table into both servers, asks both all questions, and returns the first difference.
    pub fn differences(&mut self, case: &Case) -> Vec<Difference> {
        let view = View::of(case);
        self.compare(case, view)
    }

    /// The same with another view for Kamailio in place of that of the exceptions.
    pub fn compare(&mut self, case: &Case, mut view: View) -> Vec<Difference> {
        self.write(&case.rows);
        let reload = self.host.rpc("address.reload", json!([]));
        if let Some(difference) = wrong_reload(&reload, view.skipped) {
            return vec![difference];
        }
        let ours = self.ask(case, &case.questions(), PORTCULLIS);
        if view.rows != case.rows {
            self.write(&view.rows);
        }
        if let Err(said) = self.kamailio.reload() {
            return vec![Difference::KamailioRefuses(said)];
        }
        let questions: Vec<_> = view.questions.iter().collect();
        let theirs = self.ask(case, &questions, KAMAILIO);
        let mut differences = Vec::new();
        for (at, (kamailio, portcullis)) in theirs.into_iter().zip(ours).enumerate() {
            let kamailio = view.expected(at, kamailio);
            self.matched += usize::from(kamailio.is_some());
            if !view.accepts(at, &kamailio, &portcullis) {
                differences.push(Difference::Answer {
                    at,
                    kamailio,
                    portcullis,
                });
            }
        }
        self.decisions += case.asks.len();
        self.met.extend(view.met);
        differences
    }

    /// Kamailio's answers, without exceptions.
    ///
    /// # Errors
    /// If it refuses the table.
    pub fn kamailio_alone(&mut self, case: &Case) -> Result<Vec<Answer>, String> {
        self.write(&case.rows);
        self.kamailio.reload()?;
        Ok(self.ask(case, &case.questions(), KAMAILIO))
    }

    /// What Portcullis answers.
    pub fn portcullis_alone(&mut self, case: &Case) -> Vec<Answer> {
        self.write(&case.rows);
        let reload = self.host.rpc("address.reload", json!([]));
        assert_eq!(reload["result"]["status"], "Reload OK", "{reload}");
        self.ask(case, &case.questions(), PORTCULLIS)
    }

    /// A difference and its case, to be printed.
    pub fn finding(&self, case: Case, difference: Difference) -> Finding<'_> {
        Finding {
            oracle: self,
            case,
            difference,
        }
    }

    fn write(&self, rows: &[Row]) {
        self.database.sql("kamailio", &case::sql(rows));
    }

    /// Sends these questions, one for each question of the case, from the addresses of its callers.
    fn ask(&mut self, case: &Case, questions: &[&Question], server: usize) -> Vec<Answer> {
        let mut answers = vec![None; questions.len()];
        for (caller, voice) in self.voices.iter_mut().enumerate() {
            let of_caller = |at: &usize| case.asks[*at].caller == caller;
            let mine: Vec<usize> = (0..questions.len()).filter(of_caller).collect();
            for batch in mine.chunks(BATCH) {
                let lines: Vec<_> = batch.iter().map(|at| questions[*at].line()).collect();
                let told = voice.ask(server, &Envelope::default(), &lines);
                for (at, answer) in batch.iter().zip(told) {
                    answers[*at] = read_answer(&answer);
                }
            }
        }
        answers
    }
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = View::of(&self.case);
        writeln!(f, "The table:\n    {}", case::sql(&self.case.rows))?;
        if view.rows != self.case.rows {
            let names: Vec<_> = view.met.iter().copied().collect();
            let names = names.join(", ");
            let sql = case::sql(&view.rows);
            writeln!(f, "For Kamailio, by the exceptions {names}:\n    {sql}")?;
        }
        match &self.difference {
            Difference::KamailioRefuses(said) => write!(f, "Kamailio refuses it: {said}"),
            Difference::PortcullisRefuses(said) => write!(f, "Portcullis refuses it: {said}"),
            Difference::Skipped { expected, reload } => {
                write!(
                    f,
                    "Portcullis should skip {expected} rows, but says {reload}"
                )
            }
            Difference::Answer {
                at,
                kamailio,
                portcullis,
            } => {
                let Ask { caller, question } = &self.case.asks[*at];
                let voice = &self.oracle.voices[*caller];
                writeln!(f, "The question, from {voice}:\n    {question}")?;
                if view.questions[*at] != *question {
                    writeln!(f, "For Kamailio:\n    {}", view.questions[*at])?;
                }
                writeln!(f, "Kamailio:   {}", shown(kamailio))?;
                write!(f, "Portcullis: {}", shown(portcullis))
            }
        }
    }
}

/// Sends these questions in one request to a host with the policy `oracle`, and returns the answers.
///
/// # Panics
/// If no response comes, or one to another request.
pub fn ask(caller: &mut Caller, questions: &[Question]) -> Vec<Answer> {
    let lines: Vec<_> = questions.iter().map(Question::line).collect();
    let told = voice::ask(caller, &Envelope::default(), &lines);
    told.iter().map(|answer| read_answer(answer)).collect()
}

fn wrong_reload(reload: &Value, expected: usize) -> Option<Difference> {
    let result = &reload["result"];
    if result["status"] != "Reload OK" {
        return Some(Difference::PortcullisRefuses(reload.to_string()));
    }
    (result["skipped"] != expected).then(|| Difference::Skipped {
        expected,
        reload: result.to_string(),
    })
}

/// The callers: known and unknown addresses, from ports that rows name and from others, over UDP and TCP.
fn callers(host: &Host) -> Vec<(Transport, SocketAddr)> {
    let lease = host.lease();
    let near = [10, 11, 12, 16, 127, 128].map(|n| lease.ip(n));
    let far = [0, 1, 2, 3].map(|n| lease.far(n));
    let mut callers = Vec::new();
    for (nth, ip) in near.into_iter().chain(far).enumerate() {
        let port = [5060, 5061, 40_000][nth % 3];
        callers.push((Transport::Udp, SocketAddr::new(ip, port)));
        callers.push((Transport::Udp, SocketAddr::new(ip, 65_535)));
        callers.push((Transport::Tcp, SocketAddr::new(ip, port)));
        callers.push((Transport::Tcp, SocketAddr::new(ip, 0)));
    }
    for _ in 0..3 {
        let ip = Ipv6Addr::LOCALHOST.into();
        callers.push((Transport::Udp, SocketAddr::new(ip, 0)));
        callers.push((Transport::Tcp, SocketAddr::new(ip, free_port_v6())));
    }
    callers
}
