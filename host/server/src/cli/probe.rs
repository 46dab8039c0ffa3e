//! `portcullis probe`: sends one request from a chosen source, and prints the responses.

mod dialog;
mod secure;
mod wire;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use portcullis_config::{Config, Host, Listen, NextHop, Socket, parse_duration};
use portcullis_rollout::resolve::Dns;
use portcullis_sip::{Candidate, Transport, is_readable_uri};

use super::database::block_on;
use super::print::{clean, stdout};
use super::way::Way;
use dialog::{Answer, Request};
use secure::Secure;
use wire::Wire;

/// Send one request and print the response.
///
/// A name leads to addresses as for the host (`portcullis resolve`); the next one is tried if no connection to an address can be opened. Over TLS,
/// the certificate of the peer is printed, and must be one that the host would accept.
///
/// The exit code is 0 for a 2xx response; 3, 4, 5 or 6 for a response of that class; 1 if no response arrives or the request cannot be
/// sent. An INVITE is completed properly: with ACK after a rejection, with ACK and BYE after a 2xx.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The request URI, which is also where the request is sent, unless --target says it: sip:HOST:PORT or sip:USER@HOST:PORT, with
    /// ;transport=tcp for TCP; sips: or ;transport=tls for TLS
    #[arg(value_name = "sip:HOST:PORT")]
    uri: String,
    /// Send the request there, whatever its URI: udp:HOST:PORT, tcp:HOST:PORT or tls:HOST:PORT
    #[arg(long, value_name = "udp:HOST:PORT")]
    target: Option<String>,
    /// The source: an address of this machine, for example 127.0.0.10, with a port if it matters. A link-local one has its interface, as in
    /// fe80::1%eth0 or [fe80::1%eth0]:5060, which is also the link of a link-local target
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
    #[command(flatten)]
    tls: secure::Args,
}

pub(super) fn run(args: &Args, named: Option<&Path>) -> anyhow::Result<ExitCode> {
    let target = Target::new(args)?;
    let mut out = stdout();
    // Whether this machine answers can be asked without a configuration.
    let config = match target.needs_configuration() {
        true => Config::find(named)?.0,
        false => Config::default(),
    };
    let mut wire = open(args, &target, &config, &mut out)?;
    let request = Request::new(&args.method, &target.uri, wire.transport(), wire.local());
    let deadline = Instant::now() + args.timeout;
    let Some(answer) = exchange(&mut wire, &request, deadline, &mut out)? else {
        eprintln!(
            "error: no final response from {} within {:?}",
            wire.peer(),
            args.timeout
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

/// A connection to the first address of the target that takes one.
fn open(
    args: &Args,
    target: &Target,
    config: &Config,
    out: &mut impl Write,
) -> anyhow::Result<Wire> {
    let addresses = target.addresses(config)?;
    if !args.tls.is_empty() && !addresses.iter().any(|one| one.transport.is_secure()) {
        bail!(
            "--ca, --certificate, --key and --insecure are for TLS, and the request goes over {}: write sips: or ;transport=tls",
            addresses
                .first()
                .map_or(Transport::Udp, |one| one.transport)
        );
    }
    let mut rest = addresses.iter().peekable();
    while let Some(address) = rest.next() {
        match open_one(args, target, config, address, out) {
            Ok(wire) => return Ok(wire),
            Err(error) => match rest.peek() {
                None => return Err(error),
                Some(next) => eprintln!(
                    "warning: {}; the next address is {} over {}",
                    clean(&format!("{error:#}")),
                    next.addr,
                    next.transport
                ),
            },
        }
    }
    bail!("{} has no address", target.hop)
}

fn open_one(
    args: &Args,
    target: &Target,
    config: &Config,
    to: &Candidate,
    out: &mut impl Write,
) -> anyhow::Result<Wire> {
    let secure = match to.transport {
        Transport::Udp | Transport::Tcp => None,
        Transport::Tls => Some(Secure::new(&args.tls, config, &target.hop.host)?),
        Transport::Ws | Transport::Wss => bail!("probe does not speak WebSocket"),
    };
    let peer = on_link(to.addr, target.from)?;
    let wire = Wire::open(to.transport, target.from, peer)?;
    match secure {
        None => Ok(wire),
        Some(secure) => wire.over(|socket| secure.connect(socket, peer, args.timeout, out)),
    }
}

/// The address of a peer, on the link of the source if it is link-local (RFC 4007 §6).
fn on_link(peer: SocketAddr, from: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let SocketAddr::V6(addr) = peer else {
        return Ok(peer);
    };
    if !addr.ip().is_unicast_link_local() {
        return Ok(peer);
    }
    let Some(SocketAddr::V6(from)) = from.filter(|from| zone_of(*from) != 0) else {
        bail!(
            "{} is link-local: --from says which link is meant, for example --from fe80::1%eth0",
            addr.ip()
        );
    };
    Ok(SocketAddrV6::new(*addr.ip(), addr.port(), 0, from.scope_id()).into())
}

/// The number of the interface of a link-local address; 0 for others.
fn zone_of(addr: SocketAddr) -> u32 {
    match addr {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(addr) => addr.scope_id(),
    }
}

/// Target, source and content of the request.
struct Target {
    uri: String,
    hop: NextHop,
    from: Option<SocketAddr>,
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
        if args.tcp && hop.transport.is_some_and(Transport::is_secure) {
            bail!("--tcp and {} differ: TLS has no --tcp", args.uri);
        }
        let host = match hop.port {
            Some(port) => format!("{}:{port}", hop.host),
            None => hop.host.to_string(),
        };
        let scheme = scheme.to_ascii_lowercase();
        Ok(Self {
            uri: match args.user.clone().or(user) {
                Some(user) => format!("{scheme}:{user}@{host}"),
                None => format!("{scheme}:{host}"),
            },
            hop: match args.tcp {
                true => NextHop {
                    transport: Some(Transport::Tcp),
                    ..hop
                },
                false => hop,
            },
            from,
        })
    }

    /// A target beside the request URI, which is then sent as it is given.
    fn apart(args: &Args, target: &str, from: Option<SocketAddr>) -> anyhow::Result<Self> {
        let mend =
            "write udp:HOST:PORT, tcp:HOST:PORT or tls:HOST:PORT, for example udp:127.0.0.1:5060";
        let named = target
            .split_once(':')
            .and_then(|(transport, socket)| Some((transport.parse::<Transport>().ok()?, socket)))
            .filter(|(transport, _)| !transport.is_websocket());
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
        let hop = NextHop {
            transport: Some(transport),
            ..hop
        };
        Ok(Self { uri, hop, from })
    }

    /// Whether the configuration says how a name is resolved, or which certificates are trusted.
    fn needs_configuration(&self) -> bool {
        let is_secure = self.hop.transport.is_some_and(Transport::is_secure);
        is_secure || matches!(self.hop.host, Host::Name(_))
    }

    /// Where the target leads, in the order in which addresses are tried; at least one.
    fn addresses(&self, config: &Config) -> anyhow::Result<Vec<Candidate>> {
        let dns = Dns::new(&config.resolver);
        let found = block_on(Way::of_hop(&self.hop).found(&dns))?;
        if let Some(error) = found.error() {
            bail!("{} leads nowhere: {error}", self.hop.host);
        }
        let fits = |one: &Candidate| {
            self.from
                .is_none_or(|from| from.is_ipv4() == one.addr.is_ipv4())
        };
        let mut fitting: Vec<_> = found.candidates.iter().copied().filter(fits).collect();
        if let (Some(from), Some(other), true) =
            (self.from, found.candidates.first(), fitting.is_empty())
        {
            bail!(
                "cannot send from {} to {}: one is IPv4, the other IPv6",
                from.ip(),
                other.ip()
            )
        }
        fitting.sort_by_key(|one| (one.order, one.priority));
        Ok(fitting)
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

fn parse_source(text: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, 0));
    }
    if text.contains('%') {
        return parse_zoned_source(text);
    }
    text.parse().with_context(|| {
        format!("--from {text}: not an address; write for example 127.0.0.10 or 127.0.0.10:5060")
    })
}

/// A link-local address with its interface: `fe80::1%eth0` or `[fe80::1%eth0]:5060`.
fn parse_zoned_source(text: &str) -> anyhow::Result<SocketAddr> {
    let place = match text.starts_with('[') {
        true => format!("udp:{text}"),
        false => format!("udp:[{text}]"),
    };
    let listen = Listen::parse(&place).map_err(|bad| {
        anyhow::anyhow!(
            "--from {text}: {}; write for example fe80::1%eth0 or [fe80::1%eth0]:5060",
            bad.what
        )
    })?;
    let sockets = Socket::of(&listen).with_context(|| format!("--from {text}"))?;
    let mut addr = sockets
        .first()
        .context("the interface has no address")?
        .addr;
    // What `listen` has by default is no port to send from.
    if !text.contains("]:") {
        addr.set_port(0);
    }
    Ok(addr)
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

    /// The target, its first address and its transport.
    fn target(words: &str) -> anyhow::Result<(Target, SocketAddr, Transport)> {
        let words = std::iter::once("probe").chain(words.split_whitespace());
        let target = Target::new(&Probe::try_parse_from(words)?.args)?;
        let addresses = target.addresses(&Config::default())?;
        let first = addresses.first().context("no address")?;
        Ok((target, first.addr, first.transport))
    }

    #[test]
    fn targets_name_place_user_and_transport() {
        for (words, uri, addr, transport) in [
            (
                "sip:127.0.0.1",
                "sip:127.0.0.1",
                "127.0.0.1:5060",
                Transport::Udp,
            ),
            (
                "sip:alice@[::1]:5070;transport=tcp --from [::1]:5080",
                "sip:alice@[::1]:5070",
                "[::1]:5070",
                Transport::Tcp,
            ),
            (
                "sip:127.0.0.1:5062 --from 127.0.0.9 --user bob --tcp",
                "sip:bob@127.0.0.1:5062",
                "127.0.0.1:5062",
                Transport::Tcp,
            ),
            (
                "SIPS:127.0.0.1",
                "sips:127.0.0.1",
                "127.0.0.1:5061",
                Transport::Tls,
            ),
            (
                "sip:bob@127.0.0.1;transport=tls --insecure",
                "sip:bob@127.0.0.1",
                "127.0.0.1:5061",
                Transport::Tls,
            ),
        ] {
            let (target, at, over) = target(words).unwrap();
            assert_eq!(target.uri, uri, "{words}");
            assert_eq!((at, over), (addr.parse().unwrap(), transport), "{words}");
            assert_eq!(target.needs_configuration(), transport.is_secure());
        }
        let (with_source, ..) = target("sip:[::1] --from [::1]:5080").unwrap();
        assert_eq!(with_source.from, Some("[::1]:5080".parse().unwrap()));
    }

    #[test]
    fn a_link_local_target_is_on_the_link_of_the_source() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let link = addr("[fe80::2]:5060");
        let source = SocketAddrV6::new("fe80::1".parse().unwrap(), 0, 0, 7);
        let peer = on_link(link, Some(source.into())).unwrap();
        assert_eq!(
            (peer.ip(), peer.port(), zone_of(peer)),
            (link.ip(), 5060, 7)
        );
        for other in ["192.0.2.1:5060", "[2001:db8::1]:5060"] {
            assert_eq!(on_link(addr(other), None).unwrap(), addr(other));
        }
        for from in [None, Some(addr("[2001:db8::1]:0"))] {
            let error = on_link(link, from).unwrap_err().to_string();
            assert!(error.contains("--from fe80::1%eth0"), "{error}");
        }
    }

    #[test]
    fn a_target_can_be_apart_from_the_request_uri() {
        for (words, uri, addr, transport) in [
            (
                "sip:+4930123@example.com;user=phone --target tcp:127.0.0.1:5070",
                "sip:+4930123@example.com;user=phone",
                "127.0.0.1:5070",
                Transport::Tcp,
            ),
            (
                "sip:bob@acme.example --target udp:[::1] --user ann",
                "sip:ann@acme.example",
                "[::1]:5060",
                Transport::Udp,
            ),
            (
                "tel:+4930123 --target tls:127.0.0.1",
                "tel:+4930123",
                "127.0.0.1:5061",
                Transport::Tls,
            ),
        ] {
            let (target, at, over) = target(words).unwrap();
            assert_eq!(target.uri, uri, "{words}");
            assert_eq!((at, over), (addr.parse().unwrap(), transport), "{words}");
        }
    }

    #[test]
    fn bad_words_are_refused_with_a_mend() {
        for (words, mend) in [
            ("127.0.0.1:5060", "write \"sip:HOST:PORT\""),
            ("sip:127.0.0.1 --from localhost", "127.0.0.10"),
            ("sip:127.0.0.1 --from ::1", "one is IPv4, the other IPv6"),
            ("sip:[::1] --from fe80::1%", "[fe80::1%eth0]:5060"),
            ("sip:[::1] --from 192.0.2.1%lo", "[fe80::1%eth0]:5060"),
            (
                "sip:[fe80::2] --from fe80::1%no-such-interface",
                "no-such-interface",
            ),
            ("sip:127.0.0.1 --timeout 5", "with its unit"),
            ("sip:127.0.0.1 --method ACK", "followed by its ACK"),
            ("sip:127.0.0.1 --user a\u{7f}b", "%XX"),
            (
                "sip:bob@example.com --target 127.0.0.1:5060",
                "write udp:HOST:PORT",
            ),
            (
                "sip:bob@example.com --target wss:127.0.0.1",
                "write udp:HOST:PORT",
            ),
            ("sips:127.0.0.1 --tcp", "TLS has no --tcp"),
            ("sips:127.0.0.1;transport=udp", "remove"),
            ("sips:127.0.0.1 --certificate a.pem", "--key"),
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
