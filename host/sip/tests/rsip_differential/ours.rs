//! The facts as our scanner reads them.

use std::collections::BTreeMap;

use portcullis_sip::{
    Framing, HeaderName, Index, Limits, Message, NameAddr, StartLine, Uri, Via, scan, values,
};

use super::Facts;

pub(super) fn read(bytes: &[u8]) -> Facts {
    let mut index = Index::default();
    scan(bytes, Framing::Datagram, &Limits::default(), &mut index).ok()?;
    let message = Message::new(bytes, &index);
    let mut facts = BTreeMap::new();
    start(message.start_line(), &mut facts);
    headers(message, &mut facts);
    facts.insert("body", format!("{:?}", message.body()));
    facts.insert("bytes", message.bytes().escape_ascii().to_string());
    Some(facts)
}

fn start(line: StartLine<'_>, facts: &mut BTreeMap<&'static str, String>) {
    match line {
        StartLine::Request { method, uri, .. } => {
            facts.insert("start", text(method));
            request_uri(uri, facts);
        }
        StartLine::Response { code, reason, .. } => {
            facts.insert("start", format!("{code} {}", text(reason)));
        }
    }
}

fn request_uri(uri: &[u8], facts: &mut BTreeMap<&'static str, String>) {
    let Ok(uri) = Uri::parse(uri) else {
        return;
    };
    facts.insert("uri host", uri.host.to_string());
    facts.insert("uri loose", uri.is_loose_router().to_string());
    if let Some(user) = uri.user {
        facts.insert("uri user", text(user));
    }
    if let Some(port) = uri.port {
        facts.insert("uri port", port.to_string());
    }
    if let Some(transport) = uri.transport() {
        facts.insert("uri transport", text(transport).to_ascii_uppercase());
    }
}

fn headers(message: Message<'_>, facts: &mut BTreeMap<&'static str, String>) {
    let names = message.fields().map(|field| match field.name {
        HeaderName::Other => text(field.raw_name).to_ascii_lowercase(),
        known => known.as_str().to_ascii_lowercase(),
    });
    facts.insert("names", names.collect::<Vec<_>>().join(" "));
    let value = |name| message.header(name).map(|field| field.value);
    if let Some(call_id) = value(HeaderName::CallId) {
        facts.insert("call id", text(call_id));
    }
    if let Some(cseq) = message.cseq() {
        facts.insert("cseq", format!("{} {}", cseq.number, text(cseq.method)));
    }
    if let Some(hops) = message.max_forwards() {
        facts.insert("max forwards", hops.to_string());
    }
    if let Some(from) = value(HeaderName::From).and_then(|value| NameAddr::parse(value).ok()) {
        facts.insert("from uri", text(from.uri));
        if let Some(tag) = from.tag() {
            facts.insert("from tag", text(tag));
        }
    }
    if let Some(contact) = value(HeaderName::Contact).and_then(|value| NameAddr::parse(value).ok())
    {
        facts.insert("contact uri", text(contact.uri));
    }
    vias(message, facts);
}

fn vias(message: Message<'_>, facts: &mut BTreeMap<&'static str, String>) {
    let all = message
        .headers(HeaderName::Via)
        .flat_map(|field| values(field.value));
    facts.insert("via count", all.count().to_string());
    let Some(Ok(via)) = message
        .header(HeaderName::Via)
        .map(|field| Via::parse(field.value))
    else {
        return;
    };
    facts.insert("via host", via.host.to_string());
    if let Some(port) = via.port {
        facts.insert("via port", port.to_string());
    }
    if let Some(branch) = via.branch() {
        facts.insert("via branch", text(branch));
    }
    if let Some(received) = via.received() {
        facts.insert("via received", received.to_string());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
