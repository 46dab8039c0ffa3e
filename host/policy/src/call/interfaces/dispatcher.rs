//! The interface `dispatcher`.

use portcullis_dispatcher::{
    Algorithm, HashOf, MOST_CHOSEN, Question, Set, hash, hash_of_uri, next_hop_name,
};
use portcullis_request::Request;
use portcullis_sip::{HeaderName, NameAddr};
use serde_json::json;
use wasmtime::component::{ComponentType, Lift};
use wasmtime::{Linker, component};

use super::forwarding::WireRefusal;
use crate::call::Call;
use crate::call::abi::component::{ComponentContext, timely_mut};
use crate::call::abi::module::{ModuleContext, Parts, open, write_bytes};
use crate::call::state::Data;
use crate::contract::DISPATCHER;
use crate::failure::HostError;
use crate::forwarding::{ForwardTarget, MAX_TARGETS, Place, Refusal};
use crate::tape::SideEffect;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        DISPATCHER,
        "add-set",
        |mut caller: ModuleContext<'_>,
         set: u32,
         algorithm: u32,
         key_at: u32,
         key_length: u32,
         limit: u32,
         rank: u32,
         result: u32| {
            let (memory, call) = open(&mut caller)?;
            let case = usize::try_from(algorithm).ok();
            let known = case.and_then(|case| Algorithm::ALL.get(case).copied());
            let known = known.ok_or(HostError::Level(algorithm))?;
            let mut parts = Parts::of(memory, call.host_call_bytes());
            let key = match known == Algorithm::Key {
                true => parts.text(key_at, key_length)?.to_owned(),
                false => String::new(),
            };
            // The canonical ABI takes the low bits.
            let answer = call.add_set(set, known, &key, limit as u8, rank as u8);
            write_bytes(&mut caller, result, 1, &lowered(answer))
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut dispatcher = linker.instance(DISPATCHER)?;
    dispatcher.func_wrap(
        "add-set",
        |mut store: ComponentContext<'_>,
         (set, algorithm, limit, rank): (u32, WireAlgorithm, u8, u8)| {
            let (algorithm, key) = algorithm.parts();
            let call = timely_mut(&mut store)?;
            let answer = call.add_set(set, algorithm, &key, limit, rank);
            Ok((answer.map_err(WireRefusal::from),))
        },
    )
}

/// The memory layout of `result<u8, refusal>`.
fn lowered(answer: Result<u8, Refusal>) -> [u8; 2] {
    match answer {
        Ok(added) => [0, added],
        Err(Refusal::Unknown) => [1, 0],
        Err(Refusal::NotPermitted) => [1, 1],
        Err(Refusal::TooMany) => [1, 2],
        Err(Refusal::BadValue) => [1, 3],
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum WireAlgorithm {
    #[component(name = "call-id")]
    CallId,
    #[component(name = "from-uri")]
    FromUri,
    #[component(name = "to-uri")]
    ToUri,
    #[component(name = "request-uri")]
    RequestUri,
    #[component(name = "round-robin")]
    RoundRobin,
    #[component(name = "auth-user")]
    AuthUser,
    #[component(name = "random")]
    Random,
    #[component(name = "key")]
    Key(String),
    #[component(name = "priority")]
    Priority,
    #[component(name = "weight")]
    Weight,
    #[component(name = "call-load")]
    CallLoad,
    #[component(name = "relative-weight")]
    RelativeWeight,
    #[component(name = "parallel")]
    Parallel,
    #[component(name = "latency")]
    Latency,
    #[component(name = "srv")]
    Srv,
}

impl WireAlgorithm {
    /// The algorithm, and its text.
    fn parts(self) -> (Algorithm, String) {
        let algorithm = match self {
            Self::CallId => Algorithm::CallId,
            Self::FromUri => Algorithm::FromUri,
            Self::ToUri => Algorithm::ToUri,
            Self::RequestUri => Algorithm::RequestUri,
            Self::RoundRobin => Algorithm::RoundRobin,
            Self::AuthUser => Algorithm::AuthUser,
            Self::Random => Algorithm::Random,
            Self::Key(key) => return (Algorithm::Key, key),
            Self::Priority => Algorithm::Priority,
            Self::Weight => Algorithm::Weight,
            Self::CallLoad => Algorithm::CallLoad,
            Self::RelativeWeight => Algorithm::RelativeWeight,
            Self::Parallel => Algorithm::Parallel,
            Self::Latency => Algorithm::Latency,
            Self::Srv => Algorithm::Srv,
        };
        (algorithm, String::new())
    }
}

impl Call {
    /// `dispatcher.add-set`. The tape has the chosen destinations, so that a replay adds the same ones.
    fn add_set(
        &mut self,
        set: u32,
        algorithm: Algorithm,
        key: &str,
        limit: u8,
        rank: u8,
    ) -> Result<u8, Refusal> {
        let arguments = || match algorithm == Algorithm::Key {
            true => json!([set, algorithm.name(), limit, rank, key]),
            false => json!([set, algorithm.name(), limit, rank]),
        };
        let chosen = self.answered("dispatcher.add-set", SideEffect::None, arguments, |call| {
            call.chosen(set, algorithm, key, limit, rank)
        })?;
        let mut count = 0;
        for (step, uri) in (0..).zip(&chosen) {
            let target = ForwardTarget {
                place: Place::Member(next_hop_name(set, uri)),
                rank: match algorithm == Algorithm::Parallel {
                    true => rank,
                    false => rank.saturating_add(step),
                },
                weight: 1,
                request_uri: None,
                headers: Vec::new(),
                no_answer: None,
                ring: None,
            };
            // A replayed answer may be repeated any number of times.
            let added = self.forwarding().map_or(0, |now| now.targets.len());
            if added >= MAX_TARGETS.into() || !self.has_room(&target) {
                break;
            }
            self.forwarding_mut().targets.push(target);
            count += 1;
        }
        match (count, chosen.is_empty()) {
            (0, false) => Err(Refusal::TooMany),
            (count, _) => Ok(count),
        }
    }

    /// The URIs of the destinations that are chosen now.
    fn chosen(
        &self,
        set: u32,
        algorithm: Algorithm,
        key: &str,
        limit: u8,
        rank: u8,
    ) -> Result<Vec<String>, Refusal> {
        let limit = usize::from(limit);
        let steps = match algorithm == Algorithm::Parallel {
            true => 0,
            false => limit.saturating_sub(1),
        };
        let is_in_range = (1..=MOST_CHOSEN).contains(&limit);
        if !is_in_range || usize::from(rank) + steps > usize::from(u8::MAX) {
            return Err(Refusal::BadValue);
        }
        let before = self.failed().map_or(0, |failed| failed.named);
        let added = self.forwarding().map_or(0, |now| now.targets.len());
        let room = self.scope().targets().saturating_sub(before + added);
        if room == 0 {
            return Err(Refusal::TooMany);
        }
        let question = |set: &Set| Question {
            algorithm,
            hash: algorithm
                .hash_of()
                .and_then(|part| hash_of_request(self.request(), part, key)),
            most: limit.min(room),
            failed: self.failed_slot(set),
        };
        let mut uris = Vec::new();
        let is_new = |name: &str| !self.has_named_member(name);
        self.scope()
            .choose(set, question, is_new, |uri| uris.push(uri.to_owned()))?;
        Ok(uris)
    }

    /// The slot of the destination of this set that the request was sent to last.
    fn failed_slot(&self, set: &Set) -> Option<usize> {
        let tried = self.failed().map_or(&[][..], |failed| &failed.tried);
        tried.iter().rev().find_map(|one| match &one.place {
            Place::Member(name) => set
                .members()
                .iter()
                .position(|member| *member.name == **name),
            Place::NextHop(_) | Place::Uri(_) => None,
        })
    }

    /// Whether the call has added this destination, or the request has been there (RFC 3261 §16.5).
    fn has_named_member(&self, name: &str) -> bool {
        let is_it = |place: &Place| match place {
            Place::Member(member) => member == name,
            Place::NextHop(_) | Place::Uri(_) => false,
        };
        let tried = self.failed().map_or(&[][..], |failed| &failed.tried);
        let added = self.forwarding().map_or(&[][..], |now| &now.targets);
        tried.iter().any(|one| is_it(&one.place)) || added.iter().any(|one| is_it(&one.place))
    }
}

/// The hash of a part of a request, by which a destination is chosen. `None` if the request has no such part: then the next destination has
/// its turn.
pub fn hash_of_request(request: &Request, part: HashOf, key: &str) -> Option<u32> {
    let party = |name| {
        let field = request.message().header(name)?;
        let address = NameAddr::parse(field.value).ok()?;
        hash_of_uri(address.uri, false)
    };
    match part {
        HashOf::CallId => Some(hash(request.call_id_bytes(), None)),
        HashOf::FromUri => party(HeaderName::From),
        HashOf::ToUri => party(HeaderName::To),
        HashOf::RequestUri => hash_of_uri(request.request_uri(), false),
        HashOf::AuthUser => {
            let names = [HeaderName::ProxyAuthorization, HeaderName::Authorization];
            let mut users = names.into_iter().filter_map(|name| {
                let field = request.message().header(name)?;
                user_of(field.value)
            });
            users.next().map(|user| hash(user, None))
        }
        HashOf::Key => Some(hash(key.as_bytes(), None)),
    }
}

/// The user in credentials: the parameter `username` up to `@` (RFC 3261 §20.44).
fn user_of(credentials: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"username";
    let parameters = credentials.split(|&byte| byte == b',');
    // The first parameter follows the scheme.
    let mut values = parameters.filter_map(|parameter| {
        let equals = parameter.iter().position(|&byte| byte == b'=')?;
        let (name, value) = parameter.split_at(equals);
        let name = name.trim_ascii().rsplit(u8::is_ascii_whitespace).next()?;
        let value = value[1..].trim_ascii();
        name.eq_ignore_ascii_case(NAME).then_some(value)
    });
    let value = values.next()?;
    let quoted = value.strip_prefix(b"\"")?;
    let name = quoted.split(|&byte| byte == b'"').next()?;
    let user = name.split(|&byte| byte == b'@').next()?.trim_ascii();
    (!user.is_empty()).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::user_of;

    #[test]
    fn the_user_of_credentials_ends_at_the_domain() {
        for (credentials, user) in [
            (r#"Digest username="joe", realm="r""#, Some("joe")),
            (
                r#"Digest realm="r", Username = "joe@example.com", uri="sip:x""#,
                Some("joe"),
            ),
            (r#"Digest realm="r""#, None),
            (r#"Digest username="""#, None),
            ("Basic abc=", None),
            ("", None),
        ] {
            let found = user_of(credentials.as_bytes());
            assert_eq!(found, user.map(str::as_bytes), "{credentials}");
        }
    }
}
