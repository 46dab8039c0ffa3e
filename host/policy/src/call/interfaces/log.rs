//! The interface `log`.

use tracing::Level;
use wasmtime::component::WasmStr;
use wasmtime::{AsContext, Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, timely};
use crate::call::abi::module::{ModuleContext, open, text};
use crate::call::state::Data;
use crate::contract::LOG;
use crate::failure::HostError;
use crate::log_line::LogLine;

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

/// The longest Call-ID in a log line, in bytes.
const MAX_CALL_ID: usize = 128;

impl Call {
    /// `log.log`
    fn log(&self, level: Level, message: &str) {
        let is_shown = !self.bounds.mute && enabled(level);
        let is_heard = is_shown || self.kept_log.is_some();
        if !is_heard || !self.log.take(self.bounds.log_lines) {
            return;
        }
        self.emit(
            level,
            is_shown,
            &crate::text::shown(message, self.bounds.log_bytes),
        );
    }

    /// Logs and returns how many lines were dropped. Called once, at the end of the call.
    pub(crate) fn finish_log(&self) -> u32 {
        let dropped = self.log.dropped();
        if dropped > 0 {
            let message = format!("{dropped} more lines of this call dropped (key `log-lines`)");
            self.emit(Level::WARN, !self.bounds.mute, &message);
        }
        dropped
    }

    /// Keeps a line, if the caller of the policy has asked for the lines, and logs it, if its level is enabled.
    fn emit(&self, level: Level, is_shown: bool, message: &str) {
        if let Some(kept) = &self.kept_log {
            kept.borrow_mut().push(LogLine {
                level,
                text: message.to_owned(),
            });
        }
        if is_shown && self.scope.admits_line() {
            self.write(level, message);
        }
    }

    fn write(&self, level: Level, message: &str) {
        let call_id = self.request().call_id();
        let call_id = &*crate::text::shown(&call_id, MAX_CALL_ID);
        let policy = &*self.policy;
        let tenant = Some(&*self.scope.tenant).filter(|tenant| !tenant.is_empty());
        let decision = self.decision.map(tracing::field::display);
        // Fields with `None` are omitted.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "policy",
                    event = "policy_log",
                    tenant,
                    policy,
                    call_id,
                    decision,
                    text = message,
                    "log line of a policy"
                )
            };
        }
        match level {
            Level::ERROR => line!(error),
            Level::WARN => line!(warn),
            Level::INFO => line!(info),
            _ => line!(debug),
        }
    }
}

/// Whether lines of this level are logged. Other lines do not count against the limit.
fn enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: "policy", Level::ERROR),
        Level::WARN => tracing::enabled!(target: "policy", Level::WARN),
        Level::INFO => tracing::enabled!(target: "policy", Level::INFO),
        _ => tracing::enabled!(target: "policy", Level::DEBUG),
    }
}
