//! `portcullis probe`: sends one request from a chosen source, and prints the responses.

mod dialog;
mod wire;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use portcullis_sip::{Transport, is_readable_uri};

use dialog::{Answer, Request};
use portcullis_config::{Host, NextHop, parse_duration};
use wire::Wire;

use super::print::{clean, stdout};

/// Send one request and print the response.
///
/// The exit code is 0 for a 2xx response; 3, 4, 5 or 6 for a response of that class; 1 if no response arrives or the request cannot be
/// sent. An INVITE is completed properly: with ACK after a rejection, with ACK and BYE after a 2xx.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The request URI, which is also where the request is sent, unless --target says it: sip:HOST:PORT or sip:USER@HOST:PORT
    #[arg(value_name = "sip:HOST:PORT")]
    uri: String,
    /// Send the request there, whatever its URI: udp:HOST:PORT or tcp:HOST:PORT
    #[arg(long, value_name = "udp:HOST:PORT")]
    target: Option<String>,
    /// The source: an address of this machine, for example 127.0.0.10, with a port if it matters
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    from: Option<String>,
    /// The method
    #[arg(long, default_value = "OPTIONS", value_parser = parse_method)]
    method: String,
    /// The user part of the request URI. A host answers OPTIONS without a user itself, without a policy call
    #[arg(long, value_parser = parse_user)]
    user: Option<String>,
    /// Use TCP
    #[arg(long)]
    tcp: bool,
    /// Time limit for the final response
    #[arg(long, default_value = "5s", value_parser = parse_timeout)]
    timeout: Duration,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let target = Target::new(args)?;
    let mut out = stdout();
    let mut wire = Wire::open(target.transport, target.from, target.addr)?;
    let request = Request::new(&args.method, &target.uri, target.transport, wire.local());
    let deadline = Instant::now() + args.timeout;
    let Some(answer) = exchange(&mut wire, &request, deadline, &mut out)? else {
        eprintln!(
            "error: no final response from {} within {:?}",
            target.addr, args.timeout
        );
        return Ok(ExitCode::FAILURE);
    };
    if args.method == "INVITE" {
        end_call(&mut wire, &request, &answer, args.timeout, &mut out)?;
    }
    Ok(match answer.code / 100 {
        2 => ExitCode::SUCCESS,
        class => ExitCode::from(u8::try_from(class).unwrap_or(1)),
    })
}

/// Target, source and content of the request.
struct Target {
    uri: String,
    addr: SocketAddr,
    from: Option<SocketAddr>,
    transport: Transport,
}

impl Target {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let from = args.from.as_deref().map(parse_source).transpose()?;
        if let Some(target) = &args.target {
            return Self::apart(args, target, from);
        }
        let (scheme, rest) = args.uri.split_once(':').context(
            "the target is not a SIP URI: write sip:HOST:PORT, for example sip:127.0.0.1:5060",
        )?;
        let (user, socket) = match rest.rsplit_once('@') {
            Some((user, socket)) => (Some(user.to_owned()), socket),
            None => (None, rest),
        };
        let hop = NextHop::parse(&format!("{scheme}:{socket}")).map_err(|bad| {
            anyhow::anyhow!(
                "the target {}: {}; {} (with --target, the request URI can be any)",
                args.uri,
                bad.what,
                bad.mend
            )
        })?;
        let transport = if args.tcp {
            Transport::Tcp
        } else {
            hop.transport.unwrap_or(Transport::Udp)
        };
        if transport.is_secure() {
            bail!(
                "probe speaks no TLS: `openssl s_client -connect HOST:5061` shows whether a host does"
            );
        }
        let host = match hop.port {
            Some(port) => format!("{}:{port}", hop.host),
            None => hop.host.to_string(),
        };
        Ok(Self {
            uri: match args.user.clone().or(user) {
                Some(user) => format!("sip:{user}@{host}"),
                None => format!("sip:{host}"),
            },
            addr: resolve(&hop, from)?,
            from,
            transport,
        })
    }

    /// A target beside the request URI, which is then sent as it is given.
    fn apart(args: &Args, target: &str, from: Option<SocketAddr>) -> anyhow::Result<Self> {
        let mend = "write udp:HOST:PORT or tcp:HOST:PORT, for example udp:127.0.0.1:5060";
        let named = target
            .split_once(':')
            .and_then(|(transport, socket)| Some((transport.parse::<Transport>().ok()?, socket)))
            .filter(|(transport, _)| !transport.is_secure() && !transport.is_websocket());
        let (transport, socket) = named.with_context(|| format!("--target {target}: {mend}"))?;
        let hop = NextHop::parse(&format!("sip:{socket}"));
        let hop = hop.map_err(|bad| anyhow::anyhow!("--target {target}: {}; {mend}", bad.what))?;
        if args.tcp && transport != Transport::Tcp {
            bail!("--tcp and --target {target} differ: write tcp:{socket}");
        }
        let uri = match (&args.user, args.uri.split_once(':')) {
            (Some(user), Some((scheme, rest))) => {
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                format!("{scheme}:{user}@{host}")
            }
            _ => args.uri.clone(),
        };
        if !is_readable_uri(uri.as_bytes()) {
            bail!("{uri} is not a request URI: write for example sip:bob@example.com");
        }
        Ok(Self {
            uri,
            addr: resolve(&hop, from)?,
            from,
            transport,
        })
    }
}

/// Sends a request, with retransmissions over UDP as in RFC 3261 §17.1, and prints everything until the final response.
fn exchange(
    wire: &mut Wire,
    request: &Request,
    deadline: Instant,
    out: &mut impl Write,
) -> anyhow::Result<Option<Answer>> {
    const T2: Duration = Duration::from_secs(4);
    show(out, "sent", wire, &request.text)?;
    let began = Instant::now();
    let mut pause = Duration::from_millis(500);
    let mut provisional = false;
    wire.send(&request.text)?;
    loop {
        let again = if wire.is_reliable() || provisional {
            deadline
        } else {
            deadline.min(Instant::now() + pause)
        };
        match wire.receive(again)? {
            Some(text) => {
                let took = began.elapsed();
                let Some(answer) = Answer::read(text) else {
                    writeln!(out, "ignored: not a SIP response")?;
                    continue;
                };
                show(
                    out,
                    &format!("response after {took:.1?}"),
                    wire,
                    &answer.text,
                )?;
                if !request.is_answered_by(&answer) {
                    writeln!(out, "ignored: a response to another request\n")?;
                } else if answer.code >= 200 {
                    return Ok(Some(answer));
                } else {
                    provisional = true;
                }
            }
            None if Instant::now() >= deadline => return Ok(None),
            None => {
                writeln!(
                    out,
                    "no response after {:.1?}: sent again\n",
                    began.elapsed()
                )?;
                wire.send(&request.text)?;
                pause = T2.min(pause * 2);
            }
        }
    }
}

/// Acknowledges the final response to an INVITE, and hangs up after a 2xx.
fn end_call(
    wire: &mut Wire,
    invite: &Request,
    answer: &Answer,
    timeout: Duration,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let ack = invite.ack(answer);
    show(out, "sent", wire, &ack.text)?;
    wire.send(&ack.text)?;
    if answer.code < 300 {
        let bye = invite.bye(answer);
        if exchange(wire, &bye, Instant::now() + timeout, out)?.is_none() {
            eprintln!("warning: the BYE was not answered within {timeout:?}");
        }
    }
    Ok(())
}

fn show(out: &mut impl Write, what: &str, wire: &Wire, message: &[u8]) -> std::io::Result<()> {
    let (local, peer, transport) = (wire.local(), wire.peer(), wire.transport());
    match what {
        "sent" => writeln!(out, "sent over {transport} from {local} to {peer}:")?,
        what => writeln!(out, "{what} from {peer}:")?,
    }
    let text = String::from_utf8_lossy(message);
    for line in text.trim_end().lines() {
        writeln!(out, "    {}", clean(line))?;
    }
    writeln!(out)?;
    out.flush()
}

fn resolve(hop: &NextHop, from: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let port = hop.port_or_default();
    let addr = match &hop.host {
        Host::Addr(ip) => SocketAddr::new(*ip, port),
        Host::Name(name) => (name.as_str(), port)
            .to_socket_addrs()
            .with_context(|| format!("the name {name} has no address"))?
            .find(|addr| from.is_none_or(|from| from.is_ipv4() == addr.is_ipv4()))
            .with_context(|| format!("the name {name} has no address of the family of --from"))?,
    };
    match from {
        Some(from) if from.is_ipv4() != addr.is_ipv4() => {
            bail!(
                "cannot send from {} to {}: one is IPv4, the other IPv6",
                from.ip(),
                addr.ip()
            )
        }
        _ => Ok(addr),
    }
}

fn parse_source(text: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, 0));
    }
    text.parse().with_context(|| {
        format!("--from {text}: not an address; write for example 127.0.0.10 or 127.0.0.10:5060")
    })
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "write a time with its unit, for example 500ms or 5s".into())
}

fn parse_method(text: &str) -> Result<String, String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    match text {
        "" => Err("the method is empty".into()),
        "ACK" | "CANCEL" => {
            Err("it has no answer of its own; an INVITE is followed by its ACK anyway".into())
        }
        text if text.bytes().all(token) => Ok(text.to_owned()),
        _ => Err("a method is one word of letters and digits".into()),
    }
}

/// The user part of a SIP URI (RFC 3261 §25.1), already escaped.
fn parse_user(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/%".contains(&byte);
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(
            "a user is made of letters, digits and -_.!~*'()&=+$,;?/; write others as %XX".into(),
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Probe {
        #[command(flatten)]
        args: Args,
    }

    fn target(words: &str) -> anyhow::Result<Target> {
        let words = std::iter::once("probe").chain(words.split_whitespace());
        Target::new(&Probe::try_parse_from(words)?.args)
    }

    #[test]
    fn targets_name_place_user_and_transport() {
        let plain = target("sip:127.0.0.1").unwrap();
        assert_eq!(plain.uri, "sip:127.0.0.1");
        assert_eq!(plain.addr, "127.0.0.1:5060".parse().unwrap());
        assert_eq!(plain.transport, Transport::Udp);

        let full = target("sip:alice@[::1]:5070;transport=tcp --from [::1]:5080").unwrap();
        assert_eq!(full.uri, "sip:alice@[::1]:5070");
        assert_eq!(full.from, Some("[::1]:5080".parse().unwrap()));
        assert_eq!(full.transport, Transport::Tcp);

        let asked = target("sip:127.0.0.1:5062 --from 127.0.0.9 --user bob --tcp").unwrap();
        assert_eq!(asked.uri, "sip:bob@127.0.0.1:5062");
        assert_eq!(asked.transport, Transport::Tcp);
    }

    #[test]
    fn a_target_can_be_apart_from_the_request_uri() {
        let apart =
            target("sip:+4930123@example.com;user=phone --target tcp:127.0.0.1:5070").unwrap();
        assert_eq!(apart.uri, "sip:+4930123@example.com;user=phone");
        assert_eq!(apart.addr, "127.0.0.1:5070".parse().unwrap());
        assert_eq!(apart.transport, Transport::Tcp);

        let other = target("sip:bob@acme.example --target udp:[::1] --user ann").unwrap();
        assert_eq!(other.uri, "sip:ann@acme.example");
        assert_eq!(other.addr, "[::1]:5060".parse().unwrap());
        assert_eq!(other.transport, Transport::Udp);
        let number = target("tel:+4930123 --target udp:127.0.0.1").unwrap();
        assert_eq!(number.uri, "tel:+4930123");
    }

    #[test]
    fn bad_words_are_refused_with_a_mend() {
        for (words, mend) in [
            ("127.0.0.1:5060", "write \"sip:HOST:PORT\""),
            ("sip:127.0.0.1 --from localhost", "127.0.0.10"),
            ("sip:127.0.0.1 --from ::1", "one is IPv4, the other IPv6"),
            ("sip:127.0.0.1 --timeout 5", "with its unit"),
            ("sip:127.0.0.1 --method ACK", "followed by its ACK"),
            ("sip:127.0.0.1 --user a\u{7f}b", "%XX"),
            (
                "sip:bob@example.com --target 127.0.0.1:5060",
                "write udp:HOST:PORT",
            ),
            (
                "sip:bob@example.com --target tls:127.0.0.1",
                "write udp:HOST:PORT",
            ),
            (
                "sip:bob@example.com --target udp:127.0.0.1 --tcp",
                "write tcp:127.0.0.1",
            ),
            ("bob --target udp:127.0.0.1", "write for example sip:bob@"),
        ] {
            let error = target(words).err().unwrap();
            assert!(format!("{error:#}").contains(mend), "{words}: {error:#}");
        }
    }
}
