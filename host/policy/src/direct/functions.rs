//! The host's functions, with the signatures that the canonical ABI gives them: a text is a pointer and a length; a result that
//! is not one number goes where the last argument points.

use std::borrow::Cow;
use std::net::SocketAddr;

use portcullis_request::Request;
use tracing::Level;
use wasmtime::{Caller, Engine, Linker};

use crate::call::Call;
use crate::contract::{LOG, PERMISSIONS, REQUEST};
use crate::failure::HostError;

use super::guest::{allocate, check, fill, give, open, text, write_words};
use super::{Data, ambient, questions};

pub(super) type Context<'a> = Caller<'a, Data>;

pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Data>> {
    let mut linker = Linker::new(engine);
    link_permissions(&mut linker)?;
    link_texts(&mut linker)?;
    link_numbers(&mut linker)?;
    linker.func_wrap(REQUEST, "header", header)?;
    linker.func_wrap(REQUEST, "headers", headers)?;
    linker.func_wrap(LOG, "log", log)?;
    questions::link(&mut linker)?;
    ambient::link(&mut linker)?;
    Ok(linker)
}

fn link_permissions(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        PERMISSIONS,
        "allow-source-address",
        |mut caller: Context<'_>, group: u32| -> wasmtime::Result<u32> {
            check(caller.data())?;
            Ok(caller.data_mut().allow_source_address(group).into())
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "allow-address",
        |mut caller: Context<'_>, group: u32, at: u32, length: u32, port: u32| {
            let (memory, call) = open(&mut caller)?;
            let address = text(memory, at, length, call.host_call_bytes())?;
            let allowed = call.allow_address(group, address, port as u16);
            wasmtime::Result::Ok(u32::from(allowed))
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "source-address-group",
        |mut caller: Context<'_>, result: u32| {
            open(&mut caller)?;
            let group = caller.data_mut().source_address_group();
            give_number(&mut caller, result, group)
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "address-group",
        |mut caller: Context<'_>, at: u32, length: u32, port: u32, result: u32| {
            let (memory, call) = open(&mut caller)?;
            let address = text(memory, at, length, call.host_call_bytes())?;
            let group = call.address_group(address, port as u16);
            give_number(&mut caller, result, group)
        },
    )?;
    linker.func_wrap(
        PERMISSIONS,
        "last-tag",
        |mut caller: Context<'_>, result: u32| {
            open(&mut caller)?;
            if caller.data().last_tag().is_none() {
                return write_words(&mut caller, result, &[0, 0, 0]);
            }
            let (at, length) = give(&mut caller, last_tag)?;
            write_words(&mut caller, result, &[1, at, length])
        },
    )?;
    Ok(())
}

/// A part of the request that is a text.
type Text = fn(&Request) -> Cow<'_, str>;

/// A part of the request that is a number.
type Number = fn(&Request) -> u32;

fn link_texts(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let texts: [(&str, Text); 8] = [
        ("method", |request| request.method()),
        ("uri", |request| request.uri()),
        ("from-uri", |request| request.from_uri()),
        ("to-uri", |request| request.to_uri()),
        ("call-id", |request| request.call_id()),
        ("source-address", |request| ip(request.source())),
        ("transport", |request| request.transport().into()),
        ("local-address", |request| ip(request.local())),
    ];
    for (name, text) in texts {
        linker.func_wrap(
            REQUEST,
            name,
            move |mut caller: Context<'_>, result: u32| {
                open(&mut caller)?;
                let (at, length) = give(&mut caller, |call| text(call.request()))?;
                write_words(&mut caller, result, &[at, length])
            },
        )?;
    }
    Ok(())
}

fn link_numbers(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let numbers: [(&str, Number); 4] = [
        ("cseq-number", |request| request.cseq_number()),
        ("source-port", |request| request.source().port().into()),
        ("local-port", |request| request.local().port().into()),
        ("body-length", |request| request.body_length()),
    ];
    for (name, number) in numbers {
        linker.func_wrap(REQUEST, name, move |caller: Context<'_>| {
            check(caller.data())?;
            wasmtime::Result::Ok(number(caller.data().request()))
        })?;
    }
    Ok(())
}

fn header(mut caller: Context<'_>, at: u32, length: u32, result: u32) -> wasmtime::Result<()> {
    let (memory, call) = open(&mut caller)?;
    let name = text(memory, at, length, call.host_call_bytes())?;
    // A copy: the module runs before the value is written, and the name lies in its memory.
    let Some(value) = call.request().header(name).map(Cow::into_owned) else {
        return write_words(&mut caller, result, &[0, 0, 0]);
    };
    let (at, length) = give_copy(&mut caller, &value)?;
    write_words(&mut caller, result, &[1, at, length])
}

fn headers(mut caller: Context<'_>, at: u32, length: u32, result: u32) -> wasmtime::Result<()> {
    let (memory, call) = open(&mut caller)?;
    let name = text(memory, at, length, call.host_call_bytes())?;
    let mut values = Vec::new();
    call.request()
        .headers(name, |value| values.push(value.into_owned()));
    let list = give_list(&mut caller, &values)?;
    write_words(&mut caller, result, &list)
}

fn log(mut caller: Context<'_>, level: u32, at: u32, length: u32) -> wasmtime::Result<()> {
    let (memory, call) = open(&mut caller)?;
    let level = match level {
        0 => Level::ERROR,
        1 => Level::WARN,
        2 => Level::INFO,
        3 => Level::DEBUG,
        level => return Err(HostError::Level(level).into()),
    };
    call.log(level, text(memory, at, length, call.host_call_bytes())?);
    Ok(())
}

fn give_number(caller: &mut Context<'_>, result: u32, number: Option<u32>) -> wasmtime::Result<()> {
    let [case, number] = match number {
        Some(number) => [1, number],
        None => [0, 0],
    };
    write_words(caller, result, &[case, number])
}

pub(super) fn give_copy(caller: &mut Context<'_>, value: &str) -> wasmtime::Result<(u32, u32)> {
    let at = allocate(caller, 1, value.len())?;
    check(caller.data())?;
    fill(caller, at, value.as_bytes())?;
    Ok((at, value.len() as u32))
}

/// Gives the module a list of texts: where it lies now, and its length.
pub(super) fn give_list(caller: &mut Context<'_>, texts: &[String]) -> wasmtime::Result<[u32; 2]> {
    let list = allocate(caller, 4, 8 * texts.len())?;
    for (place, text) in (list..).step_by(8).zip(texts) {
        let (at, length) = give_copy(caller, text)?;
        write_words(caller, place, &[at, length])?;
    }
    Ok([list, texts.len() as u32])
}

fn last_tag(call: &Call) -> Cow<'_, str> {
    call.last_tag().unwrap_or_default().into()
}

fn ip(socket: SocketAddr) -> Cow<'static, str> {
    socket.ip().to_string().into()
}
