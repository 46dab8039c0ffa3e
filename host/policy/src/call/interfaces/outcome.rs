//! The interface `outcome`.

use serde_json::json;
use wasmtime::component::{ComponentType, Lower, WasmStr};
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, timely_mut};
use crate::call::abi::module::{
    ModuleContext, allocate, by_key, check, fill, give_copy, give_list, open, write_bytes,
    write_words,
};
use crate::call::state::Data;
use crate::contract::OUTCOME;
use crate::failed_attempts::{Attempt, Cause, FailedAttempts};
use crate::tape::{Answer, SideEffect};

/// Bytes of an attempt in memory: address and length of the place, status, cause, milliseconds.
const ATTEMPT: usize = 16;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    link_attempts(linker)?;
    linker.func_wrap(
        OUTCOME,
        "header",
        |mut caller: ModuleContext<'_>, at: u32, length: u32, result: u32| {
            let Some(found) = by_key(&mut caller, at, length, Call::response_header)? else {
                return write_words(&mut caller, result, &[0, 0, 0]);
            };
            let (at, length) = give_copy(&mut caller, &found)?;
            write_words(&mut caller, result, &[1, at, length])
        },
    )?;
    linker.func_wrap(
        OUTCOME,
        "contacts",
        |mut caller: ModuleContext<'_>, result: u32| {
            let (_, call) = open(&mut caller)?;
            let contacts = call.contacts();
            let list = give_list(&mut caller, &contacts)?;
            write_words(&mut caller, result, &list)
        },
    )?;
    linker.func_wrap(OUTCOME, "tries-left", |mut caller: ModuleContext<'_>| {
        check(caller.data())?;
        wasmtime::Result::Ok(u32::from(caller.data_mut().call.tries_left()))
    })?;
    linker.func_wrap(
        OUTCOME,
        "memo",
        |mut caller: ModuleContext<'_>, result: u32| {
            let (_, call) = open(&mut caller)?;
            let memo = call.memo();
            let at = allocate(&mut caller, 1, memo.len())?;
            check(caller.data())?;
            fill(&mut caller, at, &memo)?;
            write_words(&mut caller, result, &[at, memo.len() as u32])
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut outcome = linker.instance(OUTCOME)?;
    outcome.func_wrap("attempts", |mut store: ComponentContext<'_>, (): ()| {
        let attempts = timely_mut(&mut store)?.attempts().into_iter();
        Ok((attempts.map(WireAttempt::from).collect::<Vec<_>>(),))
    })?;
    outcome.func_wrap("best", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.best().map(WireAttempt::from),))
    })?;
    outcome.func_wrap(
        "header",
        |mut store: ComponentContext<'_>, (name,): (WasmStr,)| {
            let name = lifted(&store, &name)?;
            Ok((timely_mut(&mut store)?.response_header(&name),))
        },
    )?;
    outcome.func_wrap("contacts", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.contacts(),))
    })?;
    outcome.func_wrap("tries-left", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.tries_left(),))
    })?;
    outcome.func_wrap("memo", |mut store: ComponentContext<'_>, (): ()| {
        Ok((timely_mut(&mut store)?.memo(),))
    })
}

fn link_attempts(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(
        OUTCOME,
        "attempts",
        |mut caller: ModuleContext<'_>, result: u32| {
            let (_, call) = open(&mut caller)?;
            let attempts = call.attempts();
            let list = allocate(&mut caller, 4, ATTEMPT * attempts.len())?;
            for (at, attempt) in (list..).step_by(ATTEMPT).zip(&attempts) {
                let lowered = lowered(&mut caller, attempt)?;
                write_bytes(&mut caller, at, 4, &lowered)?;
            }
            write_words(&mut caller, result, &[list, attempts.len() as u32])
        },
    )?;
    linker.func_wrap(
        OUTCOME,
        "best",
        |mut caller: ModuleContext<'_>, result: u32| {
            let (_, call) = open(&mut caller)?;
            let mut bytes = [0; 4 + ATTEMPT];
            if let Some(best) = call.best() {
                bytes[0] = 1;
                bytes[4..].copy_from_slice(&lowered(&mut caller, &best)?);
            }
            write_bytes(&mut caller, result, 4, &bytes)
        },
    )?;
    Ok(())
}

/// The memory layout of `attempt`. Its text is copied into the memory of the module.
fn lowered(caller: &mut ModuleContext<'_>, attempt: &Attempt) -> wasmtime::Result<[u8; ATTEMPT]> {
    let (at, length) = give_copy(caller, &attempt.place)?;
    let mut bytes = [0; ATTEMPT];
    bytes[..4].copy_from_slice(&at.to_le_bytes());
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..10].copy_from_slice(&attempt.status.to_le_bytes());
    bytes[10] = WireCause::from(attempt.cause) as u8;
    bytes[12..].copy_from_slice(&attempt.milliseconds.to_le_bytes());
    Ok(bytes)
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct WireAttempt {
    place: String,
    status: u16,
    cause: WireCause,
    milliseconds: u32,
}

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
enum WireCause {
    #[component(name = "answered")]
    Answered,
    #[component(name = "no-answer")]
    NoAnswer,
    #[component(name = "rang-out")]
    RangOut,
    #[component(name = "cancelled")]
    Cancelled,
    #[component(name = "unreachable")]
    Unreachable,
    #[component(name = "unresolved")]
    Unresolved,
    #[component(name = "refused")]
    Refused,
}

impl From<Attempt> for WireAttempt {
    fn from(attempt: Attempt) -> Self {
        Self {
            place: attempt.place,
            status: attempt.status,
            cause: attempt.cause.into(),
            milliseconds: attempt.milliseconds,
        }
    }
}

impl From<Cause> for WireCause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Answered => Self::Answered,
            Cause::NoAnswer => Self::NoAnswer,
            Cause::RangOut => Self::RangOut,
            Cause::Cancelled => Self::Cancelled,
            Cause::Unreachable => Self::Unreachable,
            Cause::Unresolved => Self::Unresolved,
            Cause::Refused => Self::Refused,
        }
    }
}

impl Call {
    /// `outcome.attempts`
    fn attempts(&mut self) -> Vec<Attempt> {
        self.outcome("outcome.attempts", |failed| failed.attempts.clone())
    }

    /// `outcome.best`
    fn best(&mut self) -> Option<Attempt> {
        self.outcome("outcome.best", |failed| failed.best().cloned())
    }

    /// `outcome.header`
    fn response_header(&mut self, name: &str) -> Option<String> {
        let arguments = || json!([name]);
        let none = SideEffect::None;
        self.answered("outcome.header", none, arguments, |call| {
            call.failed().and_then(|failed| failed.header(name))
        })
    }

    /// `outcome.contacts`
    fn contacts(&mut self) -> Vec<String> {
        self.outcome("outcome.contacts", FailedAttempts::contacts)
    }

    /// `outcome.tries-left`
    fn tries_left(&mut self) -> u8 {
        self.outcome("outcome.tries-left", |failed| failed.tries_left)
    }

    /// `outcome.memo`
    fn memo(&mut self) -> Vec<u8> {
        self.outcome("outcome.memo", |failed| failed.memo.clone())
    }

    /// What the call of `on-failure` is about; `None` in other calls.
    pub(crate) fn failed(&self) -> Option<&FailedAttempts> {
        self.failed.as_deref()
    }

    fn outcome<T: Answer + Default>(
        &mut self,
        function: &'static str,
        read: impl FnOnce(&FailedAttempts) -> T,
    ) -> T {
        let arguments = || json!([]);
        self.answered(function, SideEffect::None, arguments, |call| {
            call.failed().map(read).unwrap_or_default()
        })
    }
}
