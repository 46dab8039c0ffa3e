//! The interface `rules`.

use wasmtime::component::WasmStr;
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, lifted_optional, timely_mut};
use crate::call::abi::module::{ModuleContext, open, optional, text};
use crate::call::state::Data;
use crate::contract::RULES;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let questions: [(&str, Question); 3] = [
        ("allow-routing", |call, basename| {
            call.allow_routing(basename)
        }),
        ("allow-register", |call, basename| {
            call.allow_register(basename, false)
        }),
        ("allow-register-include-port", |call, basename| {
            call.allow_register(basename, true)
        }),
    ];
    for (name, question) in questions {
        linker.func_wrap(
            RULES,
            name,
            move |mut caller: ModuleContext<'_>, is_named: u32, at: u32, length: u32| {
                let (memory, call) = open(&mut caller)?;
                let basename = optional(memory, [is_named, at, length], call.host_call_bytes())?;
                Ok(u32::from(question(call, basename)?))
            },
        )?;
    }
    linker.func_wrap(
        RULES,
        "allow-uri",
        |mut caller: ModuleContext<'_>,
         is_named: u32,
         at: u32,
         length: u32,
         uri_at: u32,
         uri_length: u32| {
            let (memory, call) = open(&mut caller)?;
            let limit = call.host_call_bytes();
            let basename = optional(memory, [is_named, at, length], limit)?;
            let uri = text(memory, uri_at, uri_length, limit)?;
            wasmtime::Result::Ok(u32::from(call.allow_uri(basename, uri)?))
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut rules = linker.instance(RULES)?;
    rules.func_wrap(
        "allow-routing",
        |mut store: ComponentContext<'_>, (basename,): (Option<WasmStr>,)| {
            let basename = lifted_optional(&store, &basename)?;
            Ok((timely_mut(&mut store)?.allow_routing(basename.as_deref())?,))
        },
    )?;
    for (name, ports) in [
        ("allow-register", false),
        ("allow-register-include-port", true),
    ] {
        rules.func_wrap(
            name,
            move |mut store: ComponentContext<'_>, (basename,): (Option<WasmStr>,)| {
                let basename = lifted_optional(&store, &basename)?;
                Ok((timely_mut(&mut store)?.allow_register(basename.as_deref(), ports)?,))
            },
        )?;
    }
    rules.func_wrap(
        "allow-uri",
        |mut store: ComponentContext<'_>, (basename, uri): (Option<WasmStr>, WasmStr)| {
            let (basename, uri) = (lifted_optional(&store, &basename)?, lifted(&store, &uri)?);
            Ok((timely_mut(&mut store)?.allow_uri(basename.as_deref(), &uri)?,))
        },
    )
}

/// A query of rules by their basename.
type Question = fn(&mut Call, Option<&str>) -> wasmtime::Result<bool>;
