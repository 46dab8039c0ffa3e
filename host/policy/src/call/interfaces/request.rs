//! The interface `request`.

use std::borrow::Cow;
use std::net::SocketAddr;

use portcullis_request::Request;
use wasmtime::component::WasmStr;
use wasmtime::{AsContext, Linker, component};

use crate::call::abi::component::{ComponentContext, timely};
use crate::call::abi::module::{
    ModuleContext, check, give, give_copy, give_list, open, text, write_words,
};
use crate::call::state::Data;
use crate::contract::REQUEST;
use crate::failure::HostError;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    link_texts(linker)?;
    link_numbers(linker)?;
    linker.func_wrap(REQUEST, "header", header)?;
    linker.func_wrap(REQUEST, "headers", headers)?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut request = linker.instance(REQUEST)?;
    request.func_wrap("method", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().method().into_owned(),))
    })?;
    request.func_wrap("uri", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().uri().into_owned(),))
    })?;
    request.func_wrap("from-uri", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().from_uri().into_owned(),))
    })?;
    request.func_wrap("to-uri", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().to_uri().into_owned(),))
    })?;
    request.func_wrap("call-id", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().call_id().into_owned(),))
    })?;
    request.func_wrap("cseq-number", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().cseq_number(),))
    })?;
    request.func_wrap("source-address", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().source().ip().to_string(),))
    })?;
    request.func_wrap("source-port", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().source().port(),))
    })?;
    request.func_wrap("transport", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().transport(),))
    })?;
    request.func_wrap("local-address", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().local().ip().to_string(),))
    })?;
    request.func_wrap("local-port", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().local().port(),))
    })?;
    request.func_wrap("body-length", |store: ComponentContext<'_>, (): ()| {
        Ok((timely(&store)?.request().body_length(),))
    })?;
    link_headers(&mut request)
}

/// Reads a text from the request.
type Text = fn(&Request) -> Cow<'_, str>;

/// Reads a number from the request.
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
            move |mut caller: ModuleContext<'_>, result: u32| {
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
        linker.func_wrap(REQUEST, name, move |caller: ModuleContext<'_>| {
            check(caller.data())?;
            wasmtime::Result::Ok(number(caller.data().call.request()))
        })?;
    }
    Ok(())
}

fn header(
    mut caller: ModuleContext<'_>,
    at: u32,
    length: u32,
    result: u32,
) -> wasmtime::Result<()> {
    let (memory, call) = open(&mut caller)?;
    let name = text(memory, at, length, call.host_call_bytes())?;
    // Copied, because the allocation runs code of the module, which may overwrite the name.
    let Some(value) = call.request().header(name).map(Cow::into_owned) else {
        return write_words(&mut caller, result, &[0, 0, 0]);
    };
    let (at, length) = give_copy(&mut caller, &value)?;
    write_words(&mut caller, result, &[1, at, length])
}

fn headers(
    mut caller: ModuleContext<'_>,
    at: u32,
    length: u32,
    result: u32,
) -> wasmtime::Result<()> {
    let (memory, call) = open(&mut caller)?;
    let name = text(memory, at, length, call.host_call_bytes())?;
    let mut values = Vec::new();
    call.request()
        .headers(name, |value| values.push(value.into_owned()));
    let list = give_list(&mut caller, &values)?;
    write_words(&mut caller, result, &list)
}

fn link_headers(request: &mut component::LinkerInstance<'_, Data>) -> wasmtime::Result<()> {
    request.func_wrap(
        "header",
        |store: ComponentContext<'_>, (name,): (WasmStr,)| {
            timely(&store)?;
            let context = store.as_context();
            let name = name.to_str(&context).map_err(|_| HostError::NotUtf8)?;
            let value = context.data().call.request().header(&name);
            Ok((value.map(|value| value.into_owned()),))
        },
    )?;
    request.func_wrap(
        "headers",
        |store: ComponentContext<'_>, (name,): (WasmStr,)| {
            timely(&store)?;
            let context = store.as_context();
            let name = name.to_str(&context).map_err(|_| HostError::NotUtf8)?;
            let mut values = Vec::new();
            let request = context.data().call.request();
            request.headers(&name, |value| values.push(value.into_owned()));
            Ok((values,))
        },
    )
}

fn ip(socket: SocketAddr) -> Cow<'static, str> {
    socket.ip().to_string().into()
}
