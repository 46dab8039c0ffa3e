//! The interface `forwarding`.

use std::time::Duration;

use serde_json::json;
use wasmtime::component::{ComponentType, Lift, Lower};
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, timely_mut};
use crate::call::abi::module::{ModuleContext, Parts, check, open, write_bytes};
use crate::call::state::Data;
use crate::contract::FORWARDING;
use crate::failure::HostError;
use crate::forwarding::{
    ForwardTarget, Forwarding, MAX_MEMO, MAX_TARGET_BYTES, MAX_TARGETS, Place, Refusal, check_codes,
};
use crate::tape::{Answer, SideEffect};

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    link_add(linker)?;
    linker.func_wrap(
        FORWARDING,
        "share",
        |mut caller: ModuleContext<'_>, on: u32| {
            check(caller.data())?;
            caller.data_mut().call.share(on != 0);
            wasmtime::Result::Ok(())
        },
    )?;
    linker.func_wrap(
        FORWARDING,
        "retry-on",
        |mut caller: ModuleContext<'_>, at: u32, count: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let mut parts = Parts::of(memory, call.host_call_bytes());
            let raw = parts.list::<2>(at, count, 2)?;
            let codes = raw.iter().copied().map(u16::from_le_bytes).collect();
            let answer = call.retry_on(codes);
            write_bytes(&mut caller, result, 1, &lowered(answer))
        },
    )?;
    linker.func_wrap(
        FORWARDING,
        "memo",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let mut parts = Parts::of(memory, call.host_call_bytes());
            let raw = parts.list::<1>(at, length, 1)?;
            let answer = call.set_memo(raw.as_flattened().to_vec());
            write_bytes(&mut caller, result, 1, &lowered(answer))
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut forwarding = linker.instance(FORWARDING)?;
    forwarding.func_wrap(
        "add",
        |mut store: ComponentContext<'_>, (target,): (WireTarget,)| {
            let answer = timely_mut(&mut store)?.add_target(target.into());
            Ok((answer.map_err(WireRefusal::from),))
        },
    )?;
    forwarding.func_wrap(
        "share",
        |mut store: ComponentContext<'_>, (on,): (bool,)| {
            timely_mut(&mut store)?.share(on);
            Ok(())
        },
    )?;
    forwarding.func_wrap(
        "retry-on",
        |mut store: ComponentContext<'_>, (codes,): (Vec<u16>,)| {
            let answer = timely_mut(&mut store)?.retry_on(codes);
            Ok((answer.map_err(WireRefusal::from),))
        },
    )?;
    forwarding.func_wrap(
        "memo",
        |mut store: ComponentContext<'_>, (bytes,): (Vec<u8>,)| {
            let answer = timely_mut(&mut store)?.set_memo(bytes);
            Ok((answer.map_err(WireRefusal::from),))
        },
    )
}

fn link_add(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        FORWARDING,
        "add",
        |mut caller: ModuleContext<'_>,
         place: u32,
         place_at: u32,
         place_length: u32,
         rank: u32,
         weight: u32,
         has_uri: u32,
         uri_at: u32,
         uri_length: u32,
         headers_at: u32,
         headers: u32,
         has_no_answer: u32,
         no_answer: u32,
         has_ring: u32,
         ring: u32,
         result: u32| {
            let (memory, call) = open(&mut caller)?;
            let mut parts = Parts::of(memory, call.host_call_bytes());
            let place_text = parts.text(place_at, place_length)?.to_owned();
            let target = ForwardTarget {
                place: match place {
                    0 => Place::NextHop(place_text),
                    1 => Place::Uri(place_text),
                    case => return Err(HostError::Level(case).into()),
                },
                // The canonical ABI takes the low bits.
                rank: rank as u8,
                weight: weight as u16,
                request_uri: match is_some(has_uri)? {
                    true => Some(parts.text(uri_at, uri_length)?.to_owned()),
                    false => None,
                },
                headers: headers_of(&mut parts, headers_at, headers)?,
                no_answer: is_some(has_no_answer)?.then(|| milliseconds(no_answer)),
                ring: is_some(has_ring)?.then(|| milliseconds(ring)),
            };
            let answer = call.add_target(target);
            write_bytes(&mut caller, result, 1, &lowered(answer))
        },
    )?;
    Ok(())
}

/// Names and values: four words for each header field.
fn headers_of(
    parts: &mut Parts<'_>,
    at: u32,
    count: u32,
) -> wasmtime::Result<Vec<(String, String)>> {
    let raw = parts.list::<16>(at, count, 4)?;
    // The host's own memory for the list counts, too, as it does for components.
    parts.spend(raw.len() * (size_of::<(String, String)>() - 16))?;
    let mut headers = Vec::with_capacity(raw.len());
    for field in raw {
        let word = |at: usize| {
            u32::from_le_bytes([field[at], field[at + 1], field[at + 2], field[at + 3]])
        };
        let name = parts.text(word(0), word(4))?.to_owned();
        let value = parts.text(word(8), word(12))?.to_owned();
        headers.push((name, value));
    }
    Ok(headers)
}

fn is_some(case: u32) -> Result<bool, HostError> {
    match case {
        0 => Ok(false),
        1 => Ok(true),
        case => Err(HostError::Level(case)),
    }
}

fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(number.into())
}

/// The memory layout of `result<_, refusal>`.
fn lowered(answer: Result<(), Refusal>) -> [u8; 2] {
    match answer {
        Ok(()) => [0, 0],
        Err(Refusal::Unknown) => [1, 0],
        Err(Refusal::NotPermitted) => [1, 1],
        Err(Refusal::TooMany) => [1, 2],
        Err(Refusal::BadValue) => [1, 3],
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WireTarget {
    place: WirePlace,
    rank: u8,
    weight: u16,
    #[component(name = "request-uri")]
    request_uri: Option<String>,
    headers: Vec<WireHeader>,
    #[component(name = "no-answer")]
    no_answer: Option<u32>,
    ring: Option<u32>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum WirePlace {
    #[component(name = "next-hop")]
    NextHop(String),
    #[component(name = "uri")]
    Uri(String),
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WireHeader {
    name: String,
    value: String,
}

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub(super) enum WireRefusal {
    #[component(name = "unknown")]
    Unknown,
    #[component(name = "not-permitted")]
    NotPermitted,
    #[component(name = "too-many")]
    TooMany,
    #[component(name = "bad-value")]
    BadValue,
}

impl From<WireTarget> for ForwardTarget {
    fn from(target: WireTarget) -> Self {
        let headers = target.headers.into_iter();
        Self {
            place: match target.place {
                WirePlace::NextHop(name) => Place::NextHop(name),
                WirePlace::Uri(uri) => Place::Uri(uri),
            },
            rank: target.rank,
            weight: target.weight,
            request_uri: target.request_uri,
            headers: headers.map(|field| (field.name, field.value)).collect(),
            no_answer: target.no_answer.map(milliseconds),
            ring: target.ring.map(milliseconds),
        }
    }
}

impl From<Refusal> for WireRefusal {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::Unknown,
            Refusal::NotPermitted => Self::NotPermitted,
            Refusal::TooMany => Self::TooMany,
            Refusal::BadValue => Self::BadValue,
        }
    }
}

impl Call {
    /// `forwarding.add`
    fn add_target(&mut self, target: ForwardTarget) -> Result<(), Refusal> {
        let arguments = || json!([target.as_json()]);
        let none = SideEffect::None;
        self.answered("forwarding.add", none, arguments, |call| {
            call.admit_target(&target)
        })?;
        // A replayed answer may be repeated any number of times.
        let added = self.forwarding().map_or(0, |now| now.targets.len());
        if added >= MAX_TARGETS.into() || !self.has_room(&target) {
            return Err(Refusal::TooMany);
        }
        self.forwarding_mut().targets.push(target);
        Ok(())
    }

    /// `forwarding.share`
    fn share(&mut self, on: bool) {
        let arguments = || json!([on]);
        let none = SideEffect::None;
        self.answered("forwarding.share", none, arguments, |_| ());
        self.forwarding_mut().share = on;
    }

    /// `forwarding.retry-on`
    fn retry_on(&mut self, codes: Vec<u16>) -> Result<(), Refusal> {
        let arguments = || json!([codes]);
        let none = SideEffect::None;
        self.answered("forwarding.retry-on", none, arguments, |_| {
            check_codes(&codes)
        })?;
        self.forwarding_mut().retry_on = Some(codes);
        Ok(())
    }

    /// `forwarding.memo`
    fn set_memo(&mut self, bytes: Vec<u8>) -> Result<(), Refusal> {
        let arguments = || json!([bytes.write()]);
        let none = SideEffect::None;
        self.answered("forwarding.memo", none, arguments, |_| {
            match bytes.len() <= MAX_MEMO {
                true => Ok(()),
                false => Err(Refusal::BadValue),
            }
        })?;
        self.forwarding_mut().memo = bytes;
        Ok(())
    }

    /// What the call has said about where the request goes, if anything.
    pub(crate) fn forwarding(&self) -> Option<&Forwarding> {
        self.forwarding.as_deref()
    }

    /// Takes what the call has said about where the request goes.
    pub(crate) fn take_forwarding(&mut self) -> Option<Box<Forwarding>> {
        self.forwarding.take()
    }

    /// Whether the call has added a target.
    pub(crate) fn has_targets(&self) -> bool {
        self.forwarding()
            .is_some_and(|forwarding| !forwarding.targets.is_empty())
    }

    fn admit_target(&self, target: &ForwardTarget) -> Result<(), Refusal> {
        target.check()?;
        if self.has_named(target) {
            return Err(Refusal::BadValue);
        }
        let before = self.failed().map_or(0, |failed| failed.named);
        let added = self.forwarding().map_or(0, |now| now.targets.len());
        if before + added >= self.scope().targets() || !self.has_room(target) {
            return Err(Refusal::TooMany);
        }
        let mut headers = target.headers.iter();
        if !headers.all(|(name, _)| self.scope().admits_header(name)) {
            return Err(Refusal::NotPermitted);
        }
        self.scope().admit_place(&target.place)
    }

    /// Whether the texts of all targets of the request stay within their limit with this one.
    pub(super) fn has_room(&self, target: &ForwardTarget) -> bool {
        let before = self.failed().map_or(0, |failed| failed.named_bytes);
        let added = self.forwarding().map_or(&[][..], |now| &now.targets);
        let added: usize = added.iter().map(ForwardTarget::text_bytes).sum();
        before + added + target.text_bytes() + MAX_MEMO <= MAX_TARGET_BYTES
    }

    /// Whether the call has added the same place with the same request URI, or the request has been there (RFC 3261 §16.5).
    fn has_named(&self, target: &ForwardTarget) -> bool {
        let is_same = |place: &Place, request_uri: &Option<String>| {
            *place == target.place
                && self.sent_uri(request_uri) == self.sent_uri(&target.request_uri)
        };
        let tried = self.failed().map_or(&[][..], |failed| &failed.tried);
        let added = self.forwarding().map_or(&[][..], |now| &now.targets);
        tried
            .iter()
            .any(|one| is_same(&one.place, &one.request_uri))
            || added
                .iter()
                .any(|one| is_same(&one.place, &one.request_uri))
    }

    /// The request URI of a target.
    fn sent_uri<'c>(&'c self, own: &'c Option<String>) -> &'c [u8] {
        match own {
            Some(uri) => uri.as_bytes(),
            None => self.request().request_uri(),
        }
    }

    pub(super) fn forwarding_mut(&mut self) -> &mut Forwarding {
        let failed = self.failed.as_deref();
        self.forwarding.get_or_insert_with(|| {
            Box::new(Forwarding {
                memo: failed.map(|failed| failed.memo.clone()).unwrap_or_default(),
                ..Forwarding::default()
            })
        })
    }
}
