//! The interfaces `trusted` and `rules`. An optional text is three numbers: whether it is there, its pointer, its length.

use wasmtime::Linker;

use crate::call::Call;
use crate::contract::{RULES, TRUSTED};
use crate::failure::HostError;
use crate::questions::{Peer, Rows};

use super::Data;
use super::functions::{Context, give_list};
use super::guest::{check, open, text, write_words};

pub(super) fn link(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    link_trusted(linker)?;
    link_rules(linker)
}

fn link_trusted(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    for (own, address, rows) in [
        ("allow-trusted", "allow-trusted-address", Rows::First),
        ("count-trusted", "count-trusted-address", Rows::All),
    ] {
        linker.func_wrap(TRUSTED, own, move |mut caller: Context<'_>| {
            check(caller.data())?;
            caller.data_mut().trusted(rows, None)
        })?;
        linker.func_wrap(
            TRUSTED,
            address,
            move |mut caller: Context<'_>,
                  at: u32,
                  length: u32,
                  transport_at: u32,
                  transport_length: u32,
                  has_from: u32,
                  from_at: u32,
                  from_length: u32| {
                let (memory, call) = open(&mut caller)?;
                let limit = call.host_call_bytes();
                let peer = Peer {
                    address: text(memory, at, length, limit)?,
                    transport: text(memory, transport_at, transport_length, limit)?,
                    from: optional(memory, [has_from, from_at, from_length], limit)?,
                };
                call.trusted(rows, Some(peer))
            },
        )?;
    }
    linker.func_wrap(TRUSTED, "tags", tags)?;
    Ok(())
}

fn tags(mut caller: Context<'_>, result: u32) -> wasmtime::Result<()> {
    open(&mut caller)?;
    // Copies: the module runs before the values are written.
    let tags = caller.data().trusted_tags().to_vec();
    let list = give_list(&mut caller, &tags)?;
    write_words(&mut caller, result, &list)
}

/// A question about a pair of files.
type Question = fn(&mut Call, Option<&str>) -> wasmtime::Result<bool>;

fn link_rules(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
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
            move |mut caller: Context<'_>, is_named: u32, at: u32, length: u32| {
                let (memory, call) = open(&mut caller)?;
                let basename = optional(memory, [is_named, at, length], call.host_call_bytes())?;
                Ok(u32::from(question(call, basename)?))
            },
        )?;
    }
    linker.func_wrap(
        RULES,
        "allow-uri",
        |mut caller: Context<'_>,
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

fn optional(
    memory: &[u8],
    [case, at, length]: [u32; 3],
    limit: usize,
) -> wasmtime::Result<Option<&str>> {
    match case {
        0 => Ok(None),
        1 => text(memory, at, length, limit).map(Some),
        case => Err(HostError::Level(case).into()),
    }
}
