//! The table `trusted`: one Portcullis and two Kamailios, one for each `peer_tag_mode`.

pub mod case;
pub mod generate;
pub mod view;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::json;

use super::shrink::fewest;
use super::voice::Voice;
use super::{KAMAILIO, PORTCULLIS, callers};
use crate::host::{Builder, Host};
use crate::kamailio::Kamailio;
use crate::lease::free_port_v6;
use crate::mariadb::MariaDb;
use crate::policy;

use case::{Call, Case, Mode, Question, Row, sql};
use view::View;

/// The servers, their table, and the callers.
#[derive(Debug)]
pub struct Oracle {
    voices: Vec<Voice>,
    /// A Kamailio for each mode.
    kamailios: Vec<Kamailio>,
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
    /// Portcullis does not load the table, or skips another number of rows than the exceptions predict.
    PortcullisLoads(String),
    /// The answers to a question differ.
    Answer {
        /// The index of the request.
        call: usize,
        /// The index of the question within the request.
        question: usize,
        /// The mode.
        mode: Mode,
        /// Kamailio's answer after the exceptions.
        kamailio: String,
        /// What Portcullis answers.
        portcullis: String,
    },
}

/// The answers to the questions of a case, in order: for each request those in the first mode, then those in the second.
pub type Answers = Vec<Vec<String>>;

impl Oracle {
    /// Starts all servers. The Kamailios load the table on request.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts all servers, with more parts of Kamailio's configuration.
    pub fn start_with(defines: &[&str]) -> Self {
        let database = MariaDb::start();
        let builder = Builder::new();
        let v6 = || SocketAddr::new(Ipv6Addr::LOCALHOST.into(), free_port_v6());
        let ours_v6 = v6();
        let host = builder
            .policy(policy("oracle"))
            .database(&database.url())
            .set("database", "poll = \"1h\"")
            .set("log", "level = \"error\"")
            .listen(&format!("udp:{ours_v6}"))
            .listen(&format!("tcp:{ours_v6}"))
            .start();
        let mut servers_v4 = vec![host.sip()];
        let mut servers_v6 = vec![ours_v6];
        let mut kamailios = Vec::new();
        for (nth, mode) in (4..).zip(Mode::ALL) {
            let (listen, listen_v6) = (host.lease().addr(nth, 5060), v6());
            let mut parts = vec!["WITH_TRUSTED", "IPV6", "FRESH_TAGS"];
            parts.extend((mode == Mode::Count).then_some("COUNT"));
            parts.extend(defines);
            kamailios.push(Kamailio::start(
                include_str!("../../../../oracle/kamailio.cfg"),
                &[
                    ("LISTEN", listen.to_string()),
                    ("LISTEN_V6", listen_v6.to_string()),
                    ("DATABASE", database.url()),
                ],
                &parts,
            ));
            servers_v4.push(listen);
            servers_v6.push(listen_v6);
        }
        let voices = callers(&host)
            .into_iter()
            .map(|(transport, local)| match local.ip() {
                IpAddr::V4(_) => Voice::new(transport, local, servers_v4.clone()),
                IpAddr::V6(_) => Voice::new(transport, local, servers_v6.clone()),
            })
            .collect();
        Self {
            voices,
            kamailios,
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

    /// Loads the table into all servers, asks all of them, and returns the first difference.
    pub fn differences(&mut self, case: &Case) -> Vec<Difference> {
        self.compare(case, View::of(case))
    }

    /// The same with another view for Kamailio in place of that of the exceptions.
    pub fn compare(&mut self, case: &Case, view: View) -> Vec<Difference> {
        self.database.sql("kamailio", &sql(&case.rows));
        if let Err(said) = self.load(view.skipped) {
            return vec![Difference::PortcullisLoads(said)];
        }
        let ours = self.ask_portcullis(&case.calls);
        if view.rows != case.rows {
            self.database.sql("kamailio", &sql(&view.rows));
        }
        if let Err(said) = self.load_kamailios() {
            return vec![Difference::KamailioRefuses(said)];
        }
        let theirs = self.ask_kamailios(&view.calls);
        self.met.extend(view.met);
        let mut differences = Vec::new();
        for (call, (theirs, ours)) in theirs.into_iter().zip(ours).enumerate() {
            self.decisions += theirs.len();
            let questions = case.calls[call].questions.len();
            for (at, (kamailio, portcullis)) in theirs.into_iter().zip(ours).enumerate() {
                self.matched += usize::from(kamailio != "no");
                if kamailio != portcullis {
                    differences.push(Difference::Answer {
                        call,
                        question: at % questions,
                        mode: Mode::ALL[at / questions],
                        kamailio,
                        portcullis,
                    });
                }
            }
        }
        differences
    }

    /// Kamailio's answers, without exceptions.
    ///
    /// # Errors
    /// If it refuses the table.
    pub fn kamailio_alone(&mut self, case: &Case) -> Result<Answers, String> {
        self.database.sql("kamailio", &sql(&case.rows));
        self.load_kamailios()?;
        Ok(self.ask_kamailios(&case.calls))
    }

    /// The same for Kamailios that query the table in each call instead of loading it.
    pub fn kamailio_each_time(&mut self, case: &Case) -> Answers {
        self.database.sql("kamailio", &sql(&case.rows));
        self.ask_kamailios(&case.calls)
    }

    /// What Portcullis answers.
    pub fn portcullis_alone(&mut self, case: &Case) -> Answers {
        self.database.sql("kamailio", &sql(&case.rows));
        let reload = self.host.rpc("permissions.trustedReload", json!([]));
        assert_eq!(reload["result"], "Reload OK", "{reload}");
        self.ask_portcullis(&case.calls)
    }

    /// A minimal case that still has a difference, with this view for Kamailio.
    pub fn shrink(&mut self, case: Case, view: fn(&Case) -> View) -> Case {
        let mut differs = |case: &Case| self.compare(case, view(case)).into_iter().next();
        let mut case = one_question(case, &mut differs);
        case.rows = fewest(case.rows.clone(), |rows| {
            let rows = rows.to_vec();
            differs(&Case {
                rows,
                ..case.clone()
            })
            .is_some()
        });
        let plain: [fn(&mut Row); 5] = [
            |row| row.proto = "any".into(),
            |row| row.from = None,
            |row| row.ruri = None,
            |row| row.tag = None,
            |row| row.priority = 0,
        ];
        for at in 0..case.rows.len() {
            for make_plain in plain {
                let mut simpler = case.clone();
                make_plain(&mut simpler.rows[at]);
                if simpler != case && differs(&simpler).is_some() {
                    case = simpler;
                }
            }
        }
        case
    }

    /// A difference of this case, as text for a report.
    pub fn told(&self, case: &Case, difference: &Difference) -> String {
        let mut told = format!("The table:\n    {}\n", sql(&case.rows));
        let view = View::of(case);
        if view.rows != case.rows {
            let names = Vec::from_iter(view.met).join(", ");
            told += &format!(
                "For Kamailio, by the exceptions {names}:\n    {}\n",
                sql(&view.rows)
            );
        }
        if let Difference::Answer { call, question, .. } = difference {
            let Call {
                caller,
                envelope,
                questions,
            } = &case.calls[*call];
            let (voice, question) = (&self.voices[*caller], &questions[*question]);
            told += &format!("The question, from {voice} in {envelope:?}:\n    {question}\n");
        }
        told + &difference.to_string()
    }

    fn load(&self, skipped: usize) -> Result<(), String> {
        let reload = self.host.rpc("permissions.trustedReload", json!([]));
        if reload["result"] != "Reload OK" {
            return Err(reload.to_string());
        }
        let status = &self.host.rpc("portcullis.status", json!([]))["result"]["trusted"];
        match status["skipped"] == skipped {
            true => Ok(()),
            false => Err(format!("{skipped} rows should be skipped: {status}")),
        }
    }

    fn load_kamailios(&self) -> Result<(), String> {
        self.kamailios.iter().try_for_each(Kamailio::reload_trusted)
    }

    fn ask_portcullis(&mut self, calls: &[Call]) -> Answers {
        let mut answers = Vec::new();
        for call in calls {
            let lines = Mode::ALL.map(|mode| lines(&call.questions, mode)).concat();
            answers.push(self.voices[call.caller].ask(PORTCULLIS, &call.envelope, &lines));
        }
        answers
    }

    fn ask_kamailios(&mut self, calls: &[Call]) -> Answers {
        let mut answers = Vec::new();
        for call in calls {
            let mut of_both = Vec::new();
            for (server, mode) in (KAMAILIO..).zip(Mode::ALL) {
                let lines = lines(&call.questions, mode);
                of_both.extend(self.voices[call.caller].ask(server, &call.envelope, &lines));
            }
            answers.push(of_both);
        }
        answers
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KamailioRefuses(said) => write!(f, "Kamailio refuses it: {said}"),
            Self::PortcullisLoads(said) => write!(f, "Portcullis loads it otherwise: {said}"),
            Self::Answer {
                mode,
                kamailio,
                portcullis,
                ..
            } => write!(
                f,
                "In mode {mode:?}\nKamailio:   {kamailio}\nPortcullis: {portcullis}"
            ),
        }
    }
}

/// Only the question that is answered differently; no question if the difference is in the load.
fn one_question(case: Case, differs: &mut impl FnMut(&Case) -> Option<Difference>) -> Case {
    let calls = match differs(&case) {
        Some(Difference::Answer { call, question, .. }) => {
            let call = &case.calls[call];
            vec![Call {
                questions: vec![call.questions[question].clone()],
                ..call.clone()
            }]
        }
        Some(_) => Vec::new(),
        None => return case,
    };
    let alone = Case {
        calls,
        ..case.clone()
    };
    match differs(&alone) {
        Some(_) => alone,
        // The difference depends on the other questions.
        None => case,
    }
}

fn lines(questions: &[Question], mode: Mode) -> Vec<String> {
    questions
        .iter()
        .map(|question| question.line(mode))
        .collect()
}
