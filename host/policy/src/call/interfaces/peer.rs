//! The interface `peer`.

use wasmtime::component::{ComponentType, Lift, WasmStr};
use wasmtime::{Linker, component};

use crate::call::abi::component::{ComponentContext, lifted, timely_mut};
use crate::call::abi::module::{
    ModuleContext, by_key, check, give_copy, give_list, give_optional, open, write_wide,
    write_words,
};
use crate::call::state::Data;
use crate::call::{Call, NameKind};
use crate::contract::PEER;
use crate::failure::HostError;

/// Functions without arguments, with their answers.
type Functions<T, const COUNT: usize> = [(&'static str, fn(&mut Call) -> T); COUNT];

const TRUTHS: Functions<bool, 3> = [
    ("is-secure", Call::is_secure),
    ("has-certificate", Call::has_certificate),
    ("is-verified", Call::is_verified),
];

const TEXTS: Functions<Option<String>, 8> = [
    ("tls-version", Call::tls_version),
    ("cipher-suite", Call::cipher_suite),
    ("server-name", Call::server_name),
    ("subject", Call::subject),
    ("issuer", Call::issuer),
    ("common-name", Call::common_name),
    ("serial-number", Call::serial_number),
    ("fingerprint", Call::fingerprint),
];

const TIMES: Functions<Option<u64>, 2> = [
    ("valid-from", Call::valid_from),
    ("valid-until", Call::valid_until),
];

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        PEER,
        "listener",
        |mut caller: ModuleContext<'_>, result: u32| {
            let (_, call) = open(&mut caller)?;
            let listener = call.listener();
            let (at, length) = give_copy(&mut caller, &listener)?;
            write_words(&mut caller, result, &[at, length])
        },
    )?;
    for (name, is_true) in TRUTHS {
        linker.func_wrap(PEER, name, move |mut caller: ModuleContext<'_>| {
            check(caller.data())?;
            wasmtime::Result::Ok(u32::from(is_true(&mut caller.data_mut().call)))
        })?;
    }
    for (name, text) in TEXTS {
        linker.func_wrap(
            PEER,
            name,
            move |mut caller: ModuleContext<'_>, result: u32| {
                let (_, call) = open(&mut caller)?;
                let text = text(call);
                give_optional(&mut caller, result, text.as_deref())
            },
        )?;
    }
    for (name, time) in TIMES {
        linker.func_wrap(
            PEER,
            name,
            move |mut caller: ModuleContext<'_>, result: u32| {
                let (_, call) = open(&mut caller)?;
                let time = time(call);
                let value = time.unwrap_or_default().to_le_bytes();
                write_wide(&mut caller, result, time.is_some(), value)
            },
        )?;
    }
    link_names(linker)
}

fn link_names(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        PEER,
        "names",
        |mut caller: ModuleContext<'_>, kind: u32, result: u32| {
            let (_, call) = open(&mut caller)?;
            let case = usize::try_from(kind).ok();
            let known = case.and_then(|case| NameKind::ALL.get(case).copied());
            let names = call.alternative_names(known.ok_or(HostError::Level(kind))?);
            let list = give_list(&mut caller, &names)?;
            write_words(&mut caller, result, &list)
        },
    )?;
    linker.func_wrap(
        PEER,
        "domains",
        |mut caller: ModuleContext<'_>, result: u32| {
            let (_, call) = open(&mut caller)?;
            let domains = call.domains();
            let list = give_list(&mut caller, &domains)?;
            write_words(&mut caller, result, &list)
        },
    )?;
    linker.func_wrap(
        PEER,
        "speaks-for",
        |mut caller: ModuleContext<'_>, at: u32, length: u32| {
            let speaks = by_key(&mut caller, at, length, Call::speaks_for)?;
            wasmtime::Result::Ok(u32::from(speaks))
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut peer = linker.instance(PEER)?;
    peer.func_wrap("listener", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.listener(),))
    })?;
    for (name, is_true) in TRUTHS {
        peer.func_wrap(name, move |mut store: ComponentContext<'_>, (): ()| {
            Ok((is_true(timely_mut(&mut store)?),))
        })?;
    }
    for (name, text) in TEXTS {
        peer.func_wrap(name, move |mut store: ComponentContext<'_>, (): ()| {
            Ok((text(timely_mut(&mut store)?),))
        })?;
    }
    for (name, time) in TIMES {
        peer.func_wrap(name, move |mut store: ComponentContext<'_>, (): ()| {
            Ok((time(timely_mut(&mut store)?),))
        })?;
    }
    peer.func_wrap(
        "names",
        |mut store: ComponentContext<'_>, (kind,): (WireNameKind,)| {
            Ok((timely_mut(&mut store)?.alternative_names(kind.into()),))
        },
    )?;
    peer.func_wrap("domains", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.domains(),))
    })?;
    peer.func_wrap(
        "speaks-for",
        |mut store: ComponentContext<'_>, (domain,): (WasmStr,)| {
            let domain = lifted(&store, &domain)?;
            Ok((timely_mut(&mut store)?.speaks_for(&domain),))
        },
    )
}

#[derive(Clone, Copy, ComponentType, Lift)]
#[allow(dead_code, reason = "the runtime constructs them from arguments")]
#[component(enum)]
#[repr(u8)]
enum WireNameKind {
    #[component(name = "uri")]
    Uri,
    #[component(name = "dns")]
    Dns,
    #[component(name = "address")]
    Address,
    #[component(name = "email")]
    Email,
}

impl From<WireNameKind> for NameKind {
    fn from(kind: WireNameKind) -> Self {
        match kind {
            WireNameKind::Uri => Self::Uri,
            WireNameKind::Dns => Self::Dns,
            WireNameKind::Address => Self::Address,
            WireNameKind::Email => Self::Email,
        }
    }
}
