//! The facts as `rsip` reads them.

use std::collections::BTreeMap;

use rsip::headers::{ToTypedHeader, UntypedHeader};
use rsip::message::HeadersExt;
use rsip::{Header, Headers, Request, Response, Uri};

use super::Facts;

pub(super) fn read(bytes: &[u8]) -> Facts {
    if bytes.starts_with(b"SIP/") {
        let response = Response::try_from(bytes).ok()?;
        let mut facts = headers(&response);
        facts.insert("start", response.status_code.to_string());
        facts.insert("body", format!("{:?}", response.body));
        facts.insert(
            "bytes",
            Vec::<u8>::from(response).escape_ascii().to_string(),
        );
        return Some(facts);
    }
    let request = Request::try_from(bytes).ok()?;
    let mut facts = headers(&request);
    facts.insert("start", request.method.to_string());
    request_uri(&request.uri, &mut facts);
    facts.insert("body", format!("{:?}", request.body));
    facts.insert("bytes", Vec::<u8>::from(request).escape_ascii().to_string());
    Some(facts)
}

fn request_uri(uri: &Uri, facts: &mut BTreeMap<&'static str, String>) {
    facts.insert("uri host", uri.host().to_string());
    let loose = uri.params.contains(&rsip::Param::Lr);
    facts.insert("uri loose", loose.to_string());
    if let Some(user) = uri.user() {
        facts.insert("uri user", user.to_owned());
    }
    if let Some(port) = uri.port() {
        facts.insert("uri port", port.to_string());
    }
    if let Some(transport) = uri.transport() {
        facts.insert("uri transport", transport.to_string());
    }
}

fn headers(message: &impl HeadersExt) -> BTreeMap<&'static str, String> {
    let mut facts = BTreeMap::new();
    facts.insert("names", names(message.headers()));
    if let Ok(call_id) = message.call_id_header() {
        facts.insert("call id", call_id.value().to_owned());
    }
    if let Ok(Ok(cseq)) = message.cseq_header().map(ToTypedHeader::typed) {
        facts.insert("cseq", cseq.to_string());
    }
    if let Ok(Ok(hops)) = message.max_forwards_header().map(|hops| hops.num()) {
        facts.insert("max forwards", hops.to_string());
    }
    if let Ok(Ok(from)) = message.from_header().map(ToTypedHeader::typed) {
        facts.insert("from uri", from.uri.to_string());
        if let Some(tag) = from.tag() {
            facts.insert("from tag", tag.to_string());
        }
    }
    if let Ok(Ok(contact)) = message.contact_header().map(ToTypedHeader::typed) {
        facts.insert("contact uri", contact.uri.to_string());
    }
    vias(message, &mut facts);
    facts
}

fn vias(message: &impl HeadersExt, facts: &mut BTreeMap<&'static str, String>) {
    let is_via = |header: &&Header| matches!(header, Header::Via(_));
    let count = message.headers().iter().filter(is_via).count();
    facts.insert("via count", count.to_string());
    let Ok(Ok(via)) = message.via_header().map(ToTypedHeader::typed) else {
        return;
    };
    facts.insert("via host", via.uri.host().to_string());
    if let Some(port) = via.uri.port() {
        facts.insert("via port", port.to_string());
    }
    if let Some(branch) = via.branch() {
        facts.insert("via branch", branch.to_string());
    }
    if let Ok(Some(received)) = via.received() {
        facts.insert("via received", received.to_string());
    }
}

fn names(headers: &Headers) -> String {
    let name = |header: &Header| {
        let line = header.to_string().to_ascii_lowercase();
        line.split(':').next().unwrap_or_default().to_owned()
    };
    headers.iter().map(name).collect::<Vec<_>>().join(" ")
}
