//! The interface `dispatcher`.

use portcullis_dispatcher::Algorithm;
use wasmtime::component::{ComponentType, Lift};
use wasmtime::{Linker, component};

use super::forwarding::WireRefusal;
use crate::call::abi::component::{ComponentContext, timely_mut};
use crate::call::abi::module::{ModuleContext, Parts, open, write_bytes};
use crate::call::state::Data;
use crate::contract::DISPATCHER;
use crate::failure::HostError;
use crate::forwarding::Refusal;

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
