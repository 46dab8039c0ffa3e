//! The interface `forwarding`.

use std::time::Duration;

use wasmtime::component::{ComponentType, Lift, Lower};
use wasmtime::{Linker, component};

use crate::call::abi::component::{ComponentContext, timely_mut};
use crate::call::abi::module::{ModuleContext, Parts, check, open, write_bytes};
use crate::call::state::Data;
use crate::contract::FORWARDING;
use crate::failure::HostError;
use crate::forwarding::{ForwardTarget, Place, Refusal};

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
