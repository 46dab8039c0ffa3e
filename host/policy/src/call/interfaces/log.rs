//! The interface `log`.

use tracing::Level;
use wasmtime::component::WasmStr;
use wasmtime::{AsContext, Linker, component};

use crate::call::abi::component::{ComponentContext, timely};
use crate::call::abi::module::{ModuleContext, open, text};
use crate::call::state::Data;
use crate::contract::LOG;
use crate::failure::HostError;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(LOG, "log", log)?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut log = linker.instance(LOG)?;
    log.func_wrap(
        "log",
        |store: ComponentContext<'_>, (level, message): (WireLevel, WasmStr)| {
            timely(&store)?;
            let context = store.as_context();
            let message = message.to_str(&context).map_err(|_| HostError::NotUtf8)?;
            context.data().call.log(level.into(), &message);
            Ok(())
        },
    )
}

fn log(mut caller: ModuleContext<'_>, level: u32, at: u32, length: u32) -> wasmtime::Result<()> {
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

#[derive(Clone, Copy, component::ComponentType, component::Lift)]
#[allow(dead_code, reason = "the runtime constructs them from arguments")]
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
