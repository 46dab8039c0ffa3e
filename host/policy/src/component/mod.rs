//! Policies that are components: the runtime's own component model does the conversion of values.

mod ambient;

use tracing::Level;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentType, InstancePre, Lift, Linker, LinkerInstance,
    WasmStr,
};
use wasmtime::{AsContext, Engine, Store, StoreContextMut};

use crate::call::Call;
use crate::contract::{LOG, PERMISSIONS, REQUEST, RULES, TRUSTED, VALIDATE};
use crate::failure::HostError;
use crate::questions::{Peer, Rows};
use crate::verdict::{Rejection, Verdict};

type Data = Box<Call>;

/// A component, ready to be instantiated.
pub(crate) struct Prepared {
    pre: InstancePre<Data>,
    decide: ComponentExportIndex,
    validate: Option<ComponentExportIndex>,
}

/// A live instance of a component.
pub(crate) struct Live {
    decide: wasmtime::component::TypedFunc<(), (WireVerdict,)>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum WireVerdict {
    #[component(name = "relay")]
    Relay(Option<String>),
    #[component(name = "reject")]
    Reject(WireRejection),
    #[component(name = "drop")]
    Drop,
    #[component(name = "pass")]
    Pass,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct WireRejection {
    code: u16,
    reason: String,
    headers: Vec<WireHeader>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct WireHeader {
    name: String,
    value: String,
}

#[derive(Clone, Copy, ComponentType, Lift)]
#[allow(dead_code, reason = "the runtime makes them from what a policy passes")]
#[component(enum)]
#[repr(u8)]
enum WireLevel {
    #[component(name = "error")]
    Error,
    #[component(name = "warn")]
    Warn,
    #[component(name = "info")]
    Info,
    #[component(name = "debug")]
    Debug,
}

impl Prepared {
    /// Links `component` with the host's functions.
    pub(crate) fn new(engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let pre = linker(engine)?.instantiate_pre(component)?;
        let decide = component
            .get_export_index(None, "decide")
            .ok_or_else(|| wasmtime::Error::msg("the component has no export `decide`"))?;
        let validate = component.get_export_index(None, VALIDATE);
        Ok(Self {
            pre,
            decide,
            validate,
        })
    }

    /// Asks a new instance what is wrong with its settings; none if it has nothing to say about them.
    pub(crate) fn validate(
        &self,
        store: &mut Store<Data>,
    ) -> Option<wasmtime::Result<Result<(), String>>> {
        let export = self.validate.as_ref()?;
        Some(self.validate_by(store, export))
    }

    fn validate_by(
        &self,
        store: &mut Store<Data>,
        export: &ComponentExportIndex,
    ) -> wasmtime::Result<Result<(), String>> {
        let instance = self.pre.instantiate(&mut *store)?;
        let function = instance.get_typed_func::<(), (Result<(), String>,)>(&mut *store, export)?;
        let (result,) = function.call(store, ())?;
        Ok(result)
    }

    /// Makes an instance; its start functions run.
    pub(crate) fn instantiate(&self, store: &mut Store<Data>) -> wasmtime::Result<Live> {
        let instance = self.pre.instantiate(&mut *store)?;
        let decide = instance.get_typed_func(&mut *store, self.decide)?;
        Ok(Live { decide })
    }
}

impl Live {
    /// Asks for a verdict. It is as the policy gave it: nothing is checked yet.
    pub(crate) fn decide(&self, store: &mut Store<Data>) -> wasmtime::Result<Verdict> {
        let (verdict,) = self.decide.call(store, ())?;
        Ok(verdict.into())
    }
}

impl From<WireVerdict> for Verdict {
    fn from(verdict: WireVerdict) -> Self {
        match verdict {
            WireVerdict::Relay(next_hop) => Self::Relay(next_hop),
            WireVerdict::Reject(rejection) => Self::Reject(Rejection {
                code: rejection.code,
                reason: rejection.reason,
                headers: rejection
                    .headers
                    .into_iter()
                    .map(|header| (header.name, header.value))
                    .collect(),
            }),
            WireVerdict::Drop => Self::Drop,
            WireVerdict::Pass => Self::Pass,
        }
    }
}

impl From<WireLevel> for Level {
    fn from(level: WireLevel) -> Self {
        match level {
            WireLevel::Error => Self::ERROR,
            WireLevel::Warn => Self::WARN,
            WireLevel::Info => Self::INFO,
            WireLevel::Debug => Self::DEBUG,
        }
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Data>> {
    let mut linker = Linker::new(engine);
    link_permissions(&mut linker)?;
    link_request(&mut linker)?;
    link_log(&mut linker)?;
    link_trusted(&mut linker)?;
    link_rules(&mut linker)?;
    ambient::link(&mut linker)?;
    Ok(linker)
}

fn link_permissions(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut permissions = linker.instance(PERMISSIONS)?;
    permissions.func_wrap(
        "allow-source-address",
        |mut store: Context<'_>, (group,): (u32,)| {
            Ok((timely_mut(&mut store)?.allow_source_address(group),))
        },
    )?;
    permissions.func_wrap(
        "allow-address",
        |mut store: Context<'_>, (group, address, port): (u32, WasmStr, u16)| {
            let address = text(&store, &address)?;
            let call = timely_mut(&mut store)?;
            Ok((call.allow_address(group, &address, port),))
        },
    )?;
    permissions.func_wrap("source-address-group", |mut store: Context<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.source_address_group(),))
    })?;
    permissions.func_wrap(
        "address-group",
        |mut store: Context<'_>, (address, port): (WasmStr, u16)| {
            let address = text(&store, &address)?;
            let call = timely_mut(&mut store)?;
            Ok((call.address_group(&address, port),))
        },
    )?;
    permissions.func_wrap("last-tag", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.last_tag().map(str::to_owned),))
    })
}

fn link_request(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut request = linker.instance(REQUEST)?;
    request.func_wrap("method", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().method().into_owned(),))
    })?;
    request.func_wrap("uri", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().uri().into_owned(),))
    })?;
    request.func_wrap("from-uri", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().from_uri().into_owned(),))
    })?;
    request.func_wrap("to-uri", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().to_uri().into_owned(),))
    })?;
    request.func_wrap("call-id", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().call_id().into_owned(),))
    })?;
    request.func_wrap("cseq-number", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().cseq_number(),))
    })?;
    request.func_wrap("source-address", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().source().ip().to_string(),))
    })?;
    request.func_wrap("source-port", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().source().port(),))
    })?;
    request.func_wrap("transport", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().transport(),))
    })?;
    request.func_wrap("local-address", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().local().ip().to_string(),))
    })?;
    request.func_wrap("local-port", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().local().port(),))
    })?;
    request.func_wrap("body-length", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.request().body_length(),))
    })?;
    link_headers(&mut request)
}

fn link_headers(request: &mut LinkerInstance<'_, Data>) -> wasmtime::Result<()> {
    request.func_wrap("header", |store: Context<'_>, (name,): (WasmStr,)| {
        timely(&store)?;
        let context = store.as_context();
        let name = name.to_str(&context).map_err(|_| HostError::NotUtf8)?;
        let value = context.data().request().header(&name);
        Ok((value.map(|value| value.into_owned()),))
    })?;
    request.func_wrap("headers", |store: Context<'_>, (name,): (WasmStr,)| {
        timely(&store)?;
        let context = store.as_context();
        let name = name.to_str(&context).map_err(|_| HostError::NotUtf8)?;
        let mut values = Vec::new();
        let request = context.data().request();
        request.headers(&name, |value| values.push(value.into_owned()));
        Ok((values,))
    })
}

fn link_log(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut log = linker.instance(LOG)?;
    log.func_wrap(
        "log",
        |store: Context<'_>, (level, message): (WireLevel, WasmStr)| {
            timely(&store)?;
            let context = store.as_context();
            let message = message.to_str(&context).map_err(|_| HostError::NotUtf8)?;
            context.data().log(level.into(), &message);
            Ok(())
        },
    )
}

type TrustedAddress = (WasmStr, WasmStr, Option<WasmStr>);

fn link_trusted(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut trusted = linker.instance(TRUSTED)?;
    trusted.func_wrap("allow-trusted", |mut store: Context<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.trusted(Rows::First, None)? > 0,))
    })?;
    trusted.func_wrap("count-trusted", |mut store: Context<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.trusted(Rows::All, None)?,))
    })?;
    trusted.func_wrap(
        "allow-trusted-address",
        |mut store: Context<'_>, peer: TrustedAddress| {
            Ok((trusted_address(&mut store, Rows::First, &peer)? > 0,))
        },
    )?;
    trusted.func_wrap(
        "count-trusted-address",
        |mut store: Context<'_>, peer: TrustedAddress| {
            Ok((trusted_address(&mut store, Rows::All, &peer)?,))
        },
    )?;
    trusted.func_wrap("tags", |store: Context<'_>, (): ()| {
        Ok((timely(&store)?.trusted_tags().to_vec(),))
    })
}

fn trusted_address(
    store: &mut Context<'_>,
    rows: Rows,
    (address, transport, from): &TrustedAddress,
) -> wasmtime::Result<u32> {
    let (address, transport) = (text(store, address)?, text(store, transport)?);
    let from = optional(store, from)?;
    let peer = Peer {
        address: &address,
        transport: &transport,
        from: from.as_deref(),
    };
    timely_mut(store)?.trusted(rows, Some(peer))
}

fn link_rules(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    let mut rules = linker.instance(RULES)?;
    rules.func_wrap(
        "allow-routing",
        |mut store: Context<'_>, (basename,): (Option<WasmStr>,)| {
            let basename = optional(&store, &basename)?;
            Ok((timely_mut(&mut store)?.allow_routing(basename.as_deref())?,))
        },
    )?;
    for (name, ports) in [
        ("allow-register", false),
        ("allow-register-include-port", true),
    ] {
        rules.func_wrap(
            name,
            move |mut store: Context<'_>, (basename,): (Option<WasmStr>,)| {
                let basename = optional(&store, &basename)?;
                Ok((timely_mut(&mut store)?.allow_register(basename.as_deref(), ports)?,))
            },
        )?;
    }
    rules.func_wrap(
        "allow-uri",
        |mut store: Context<'_>, (basename, uri): (Option<WasmStr>, WasmStr)| {
            let (basename, uri) = (optional(&store, &basename)?, text(&store, &uri)?);
            Ok((timely_mut(&mut store)?.allow_uri(basename.as_deref(), &uri)?,))
        },
    )
}

fn optional(store: &Context<'_>, given: &Option<WasmStr>) -> wasmtime::Result<Option<String>> {
    given.as_ref().map(|given| text(store, given)).transpose()
}

type Context<'a> = StoreContextMut<'a, Data>;

/// The call, if its time is not over: a component need not loop to go from one function of the host to the next, and only loops and calls
/// of its own look at the clock.
fn timely<'s>(store: &'s Context<'_>) -> wasmtime::Result<&'s Call> {
    let call = store.data();
    call.in_time()?;
    Ok(call)
}

/// The same to change it.
fn timely_mut<'s>(store: &'s mut Context<'_>) -> wasmtime::Result<&'s mut Call> {
    let call = store.data_mut();
    call.in_time()?;
    Ok(call)
}

/// A copy of a text in the sandbox's memory.
fn text(store: &Context<'_>, text: &WasmStr) -> wasmtime::Result<String> {
    let text = text.to_str(store).map_err(|_| HostError::NotUtf8)?;
    Ok(text.into_owned())
}
