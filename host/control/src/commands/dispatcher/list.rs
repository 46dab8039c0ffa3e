//! `dispatcher.list`.

use std::borrow::Cow;

use portcullis_config::TokenRole;
use portcullis_dispatcher::{Member, Set, Sets};
use portcullis_rpc::{Call, Fault, Reply, Value};
use portcullis_sip::Transport;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::Control;
use crate::caller::{Caller, Door};
use crate::commands::reply::IntoReply;
use crate::commands::{FromCall, Procedure};

/// `dispatcher.list`: `short` leaves the attributes out, `full` adds the parts of the URI.
#[derive(Debug)]
pub(crate) struct ListSets {
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Short,
    Usual,
    Full,
}

/// The reply, as the protocols need it.
pub(crate) struct Listed(Value<'static>);

/// The reply of `dispatcher.list`, with Kamailio's names in Kamailio's order. BINRPC has a structure that repeats the member's name in place of each list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub struct SetList {
    /// Number of sets.
    pub nrsets: u64,
    /// The sets, by number.
    pub records: Vec<SetRecord>,
}

/// A set in the reply of `dispatcher.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub struct SetRecord {
    /// The set.
    pub set: SetTargets,
}

/// A set with its destinations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub struct SetTargets {
    /// The number.
    pub id: u32,
    /// The destinations, in the order of their slots.
    pub targets: Vec<TargetRecord>,
}

/// A destination in the reply of `dispatcher.list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub struct TargetRecord {
    /// The destination.
    pub dest: Destination,
}

/// A destination. `full` adds the parts of the URI: HOST, IPADDR, PORT, PROTOID, DNSTIME_SEC and DNSTIME_USEC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub struct Destination {
    /// The URI.
    pub uri: String,
    /// The state: two letters.
    pub flags: String,
    /// The priority.
    pub priority: i32,
    /// The attributes; absent if there are none, and with `short`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attrs: Option<DestinationAttrs>,
    /// The latencies; absent if nothing is pinged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<DestinationLatency>,
    /// The calls.
    pub runtime: DestinationRuntime,
}

/// The attributes of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub struct DestinationAttrs {
    /// The column as it is.
    pub body: String,
    /// The name of the destination for commands.
    pub duid: Option<String>,
    /// Most calls at the same time; 0: no limit.
    pub maxload: u32,
    /// The share.
    pub weight: u32,
    /// The relative share.
    pub rweight: u32,
    /// The socket to send from.
    pub socket: Option<String>,
    /// The name of the socket to send from, without effect.
    pub sockname: Option<String>,
    /// The proxy for probes, without effect.
    pub obproxy: Option<String>,
}

/// How long a destination takes to answer pings, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub struct DestinationLatency {
    /// The average.
    pub avg: f64,
    /// The standard deviation.
    pub std: f64,
    /// What the next answer is expected to take.
    pub est: f64,
    /// The longest.
    pub max: u32,
    /// Number of pings without an answer.
    pub timeout: u32,
}

/// The calls of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub struct DestinationRuntime {
    /// Calls that are counted now.
    pub dlgload: u32,
}

impl FromCall for ListSets {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let mode = call.params.first().and_then(super::text_of);
        // Kamailio takes any other word for none.
        let mode = match mode.as_deref() {
            Some("short") => Mode::Short,
            Some("full") => Mode::Full,
            Some(_) | None => Mode::Usual,
        };
        Ok(Self { mode })
    }
}

impl Procedure for ListSets {
    type Reply = Listed;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Listed, Fault> {
        let sets = control.shared.dispatcher.current();
        if sets.is_empty() {
            return Err(Fault::new(500, "No Destination Sets"));
        }
        let writer = Writer {
            mode: self.mode,
            is_binary: caller.door() == Door::Binrpc,
            has_latency: !control.shared.dispatcher.rules().pings.interval.is_zero(),
        };
        Ok(Listed(writer.list(&sets)))
    }
}

impl IntoReply for Listed {
    fn into_reply(self) -> Result<Reply, Fault> {
        Ok(Reply::One(self.0))
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<SetList>()
    }
}

/// Writes sets in the form of a protocol.
#[derive(Clone, Copy)]
struct Writer {
    mode: Mode,
    /// BINRPC has no lists within structures: Kamailio repeats the name of the member there.
    is_binary: bool,
    /// Whether anything is pinged (Kamailio: `ds_ping_latency_stats`).
    has_latency: bool,
}

type Members = Vec<(Cow<'static, str>, Value<'static>)>;

impl Writer {
    fn list(self, sets: &Sets) -> Value<'static> {
        let records = sets.iter().map(|set| self.set(set)).collect();
        Value::Struct(vec![
            ("NRSETS".into(), number(sets.len() as i64)),
            ("RECORDS".into(), self.each("SET", records)),
        ])
    }

    fn set(self, set: &Set) -> Value<'static> {
        let targets = set.members().iter().map(|member| self.member(member));
        let targets = self.each("DEST", targets.collect());
        Value::Struct(vec![
            ("ID".into(), number(set.id())),
            ("TARGETS".into(), targets),
        ])
    }

    /// Values of one name: a list of structures with this one member, or one structure with all of them.
    fn each(self, name: &'static str, values: Vec<Value<'static>>) -> Value<'static> {
        let members = values.into_iter().map(|value| (name.into(), value));
        match self.is_binary {
            true => Value::Struct(members.collect()),
            false => Value::List(members.map(|member| Value::Struct(vec![member])).collect()),
        }
    }

    fn member(self, member: &Member) -> Value<'static> {
        let runtime = &member.runtime;
        let mut members: Members = vec![
            ("URI".into(), text(&member.uri)),
            ("FLAGS".into(), text(&runtime.state().to_string())),
            ("PRIORITY".into(), number(member.priority)),
        ];
        if self.mode == Mode::Full {
            members.extend(self.parts(member));
        }
        if self.mode != Mode::Short && !member.attrs.body.is_empty() {
            members.push(("ATTRS".into(), self.attrs(member)));
        }
        if self.has_latency {
            members.push(("LATENCY".into(), latency(member)));
        }
        let load = Value::Struct(vec![("DLGLOAD".into(), number(member.calls()))]);
        members.push(("RUNTIME".into(), load));
        Value::Struct(members)
    }

    fn parts(self, member: &Member) -> Members {
        let ip = member.ip().map(|ip| ip.to_string());
        vec![
            ("HOST".into(), text(member.host())),
            ("IPADDR".into(), text(ip.as_deref().unwrap_or("0.0.0.0"))),
            ("PORT".into(), number(member.named_port().unwrap_or(0))),
            ("PROTOID".into(), number(protocol(member))),
            ("DNSTIME_SEC".into(), number(0)),
            ("DNSTIME_USEC".into(), number(0)),
        ]
    }

    fn attrs(self, member: &Member) -> Value<'static> {
        let attrs = &member.attrs;
        Value::Struct(vec![
            ("BODY".into(), text(&attrs.body)),
            ("DUID".into(), self.optional(&attrs.duid)),
            ("MAXLOAD".into(), number(attrs.maxload)),
            ("WEIGHT".into(), number(attrs.weight)),
            ("RWEIGHT".into(), number(attrs.rweight)),
            ("SOCKET".into(), self.optional(&attrs.socket)),
            ("SOCKNAME".into(), self.optional(&attrs.sockname)),
            ("OBPROXY".into(), self.optional(&attrs.obproxy)),
        ])
    }

    /// A text that may be absent. Kamailio's clients show `<null string>`.
    fn optional(self, content: &str) -> Value<'static> {
        match (content, self.is_binary) {
            ("", true) => text("<null string>"),
            ("", false) => Value::Null,
            (content, _) => text(content),
        }
    }
}

fn latency(member: &Member) -> Value<'static> {
    let latencies = member.runtime.latencies();
    // A cast from a float keeps to the range of the integer.
    let longest = latencies.longest.round() as u32;
    Value::Struct(vec![
        ("AVG".into(), Value::Double(latencies.average)),
        ("STD".into(), Value::Double(latencies.deviation)),
        ("EST".into(), Value::Double(latencies.estimate)),
        ("MAX".into(), number(longest)),
        ("TIMEOUT".into(), number(latencies.timeouts)),
    ])
}

/// Kamailio's number of the transport; 0 if the URI has none.
fn protocol(member: &Member) -> u8 {
    if !member.hop.contains(";transport=") {
        return 0;
    }
    match member.transport() {
        Transport::Udp => 1,
        Transport::Tcp => 2,
        Transport::Tls => 3,
        Transport::Ws => 5,
        Transport::Wss => 6,
    }
}

fn text(content: &str) -> Value<'static> {
    Value::Text(content.to_owned().into())
}

fn number(number: impl Into<i64>) -> Value<'static> {
    Value::Int(number.into())
}
