//! The interface `guard`.

use serde_json::json;
use wasmtime::component::{ComponentType, Lift, Lower};
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, timely_mut};
use crate::call::abi::module::{ModuleContext, check};
use crate::call::state::Data;
use crate::contract::GUARD;
use crate::failure::HostError;
use crate::standing::{Offence, Standing};
use crate::tape::SideEffect;

pub(super) fn link_module(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    linker.func_wrap(GUARD, "source-standing", |mut caller: ModuleContext<'_>| {
        check(caller.data())?;
        let standing = caller.data_mut().call.source_standing();
        wasmtime::Result::Ok(WireStanding::from(standing) as u32)
    })?;
    linker.func_wrap(
        GUARD,
        "report",
        |mut caller: ModuleContext<'_>, offence: u32| {
            check(caller.data())?;
            let case = usize::try_from(offence).ok();
            let known = case.and_then(|case| Offence::ALL.get(case).copied());
            let known = known.ok_or(HostError::Level(offence))?;
            wasmtime::Result::Ok(u32::from(caller.data_mut().call.report(known)))
        },
    )?;
    Ok(())
}

pub(super) fn link_component(linker: &mut component::Linker<Data>) -> wasmtime::Result<()> {
    let mut guard = linker.instance(GUARD)?;
    guard.func_wrap(
        "source-standing",
        |mut store: ComponentContext<'_>, (): ()| {
            let standing = timely_mut(&mut store)?.source_standing();
            Ok((WireStanding::from(standing),))
        },
    )?;
    guard.func_wrap(
        "report",
        |mut store: ComponentContext<'_>, (offence,): (WireOffence,)| {
            Ok((timely_mut(&mut store)?.report(offence.into()),))
        },
    )
}

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
enum WireStanding {
    #[component(name = "exempt")]
    Exempt,
    #[component(name = "observed")]
    Observed,
    #[component(name = "held")]
    Held,
    #[component(name = "banned")]
    Banned,
}

#[derive(Clone, Copy, ComponentType, Lift)]
#[allow(dead_code, reason = "the runtime constructs them from arguments")]
#[component(enum)]
#[repr(u8)]
enum WireOffence {
    #[component(name = "guess")]
    Guess,
    #[component(name = "scan")]
    Scan,
}

impl From<Standing> for WireStanding {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Exempt => Self::Exempt,
            Standing::Observed => Self::Observed,
            Standing::Held => Self::Held,
            Standing::Banned => Self::Banned,
        }
    }
}

impl From<WireOffence> for Offence {
    fn from(offence: WireOffence) -> Self {
        match offence {
            WireOffence::Guess => Self::Guess,
            WireOffence::Scan => Self::Scan,
        }
    }
}

impl Call {
    /// `guard.source-standing`
    fn source_standing(&mut self) -> Standing {
        self.answered(
            "guard.source-standing",
            SideEffect::None,
            || json!([]),
            |call| call.standing_now(),
        )
    }

    /// `guard.report`
    fn report(&mut self, offence: Offence) -> bool {
        let counts = self.answered(
            "guard.report",
            SideEffect::None,
            || json!([offence.as_str()]),
            |call| call.wishes().report.is_none() && call.standing_now() != Standing::Exempt,
        );
        if counts {
            self.wishes_mut().report = Some(offence);
        }
        counts
    }

    fn standing_now(&self) -> Standing {
        let arrival = &self.request().arrival;
        let host = self.host();
        host.map_or(Standing::Exempt, |host| host.standing(arrival))
    }
}
