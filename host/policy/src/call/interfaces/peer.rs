//! The interface `peer`. The session of the connection is looked up once in a call, and only if the policy asks and the transport has TLS.

use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_tls::{Certificate, Session};
use serde_json::json;
use wasmtime::component::{ComponentType, Lift, WasmStr};
use wasmtime::{Linker, component};

use crate::call::Call;
use crate::call::abi::component::{ComponentContext, lifted, timely_mut};
use crate::call::abi::module::{
    ModuleContext, by_key, check, give_copy, give_list, give_optional, open, write_wide,
    write_words,
};
use crate::call::state::Data;
use crate::contract::PEER;
use crate::failure::HostError;
use crate::tape::{Answer, SideEffect};

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

/// A kind of alternative names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameKind {
    Uri,
    Dns,
    Address,
    Email,
}

impl NameKind {
    /// Every kind, in the order of the contract.
    const ALL: [Self; 4] = [Self::Uri, Self::Dns, Self::Address, Self::Email];

    /// As the contract and the tape name it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Uri => "uri",
            Self::Dns => "dns",
            Self::Address => "address",
            Self::Email => "email",
        }
    }
}

impl Call {
    /// `peer.listener`
    fn listener(&mut self) -> String {
        self.answered(
            "peer.listener",
            SideEffect::None,
            || json!([]),
            |call| {
                let arrival = &call.request().arrival;
                format!("{}:{}", arrival.transport.parameter(), arrival.local)
            },
        )
    }

    /// `peer.is-secure`
    fn is_secure(&mut self) -> bool {
        self.answered(
            "peer.is-secure",
            SideEffect::None,
            || json!([]),
            |call| call.request().arrival.transport.is_secure(),
        )
    }

    /// `peer.tls-version`
    fn tls_version(&mut self) -> Option<String> {
        self.of_session("peer.tls-version", |session| Some(session.version.clone()))
    }

    /// `peer.cipher-suite`
    fn cipher_suite(&mut self) -> Option<String> {
        self.of_session("peer.cipher-suite", |session| {
            Some(session.cipher_suite.clone())
        })
    }

    /// `peer.server-name`
    fn server_name(&mut self) -> Option<String> {
        self.of_session("peer.server-name", |session| session.server_name.clone())
    }

    /// `peer.has-certificate`
    fn has_certificate(&mut self) -> bool {
        self.of_session("peer.has-certificate", |session| session.shows_certificate)
    }

    /// `peer.is-verified`
    fn is_verified(&mut self) -> bool {
        self.of_certificate("peer.is-verified", |_| true)
    }

    /// `peer.names`
    fn alternative_names(&mut self, kind: NameKind) -> Vec<String> {
        self.answered(
            "peer.names",
            SideEffect::None,
            || json!([kind.as_str()]),
            |call| {
                let Some(certificate) = call.certificate() else {
                    return Vec::new();
                };
                match kind {
                    NameKind::Uri => certificate.uris.clone(),
                    NameKind::Dns => certificate.names.dns.clone(),
                    NameKind::Address => {
                        let addresses = certificate.names.addresses.iter();
                        addresses.map(ToString::to_string).collect()
                    }
                    NameKind::Email => certificate.emails.clone(),
                }
            },
        )
    }

    /// `peer.domains`
    fn domains(&mut self) -> Vec<String> {
        self.of_certificate("peer.domains", |certificate| {
            certificate.names.domains().to_vec()
        })
    }

    /// `peer.speaks-for`
    fn speaks_for(&mut self, domain: &str) -> bool {
        self.answered(
            "peer.speaks-for",
            SideEffect::None,
            || json!([domain]),
            |call| {
                let certificate = call.certificate();
                certificate.is_some_and(|certificate| certificate.names.speak_for(domain))
            },
        )
    }

    /// `peer.subject`
    fn subject(&mut self) -> Option<String> {
        self.of_certificate("peer.subject", |certificate| {
            Some(certificate.subject.clone())
        })
    }

    /// `peer.issuer`
    fn issuer(&mut self) -> Option<String> {
        self.of_certificate("peer.issuer", |certificate| {
            Some(certificate.issuer.clone())
        })
    }

    /// `peer.common-name`
    fn common_name(&mut self) -> Option<String> {
        self.of_certificate("peer.common-name", |certificate| {
            certificate.common_name.clone()
        })
    }

    /// `peer.serial-number`
    fn serial_number(&mut self) -> Option<String> {
        self.of_certificate("peer.serial-number", |certificate| {
            Some(certificate.serial_number.clone())
        })
    }

    /// `peer.fingerprint`
    fn fingerprint(&mut self) -> Option<String> {
        self.of_certificate("peer.fingerprint", |certificate| {
            Some(hex::encode(certificate.fingerprint))
        })
    }

    /// `peer.valid-from`
    fn valid_from(&mut self) -> Option<u64> {
        self.of_certificate("peer.valid-from", |certificate| {
            Some(milliseconds(certificate.not_before))
        })
    }

    /// `peer.valid-until`
    fn valid_until(&mut self) -> Option<u64> {
        self.of_certificate("peer.valid-until", |certificate| {
            Some(milliseconds(certificate.not_after))
        })
    }

    /// Answers a query from the session; with nothing, if there is none.
    fn of_session<T: Answer + Default>(
        &mut self,
        function: &'static str,
        read: impl FnOnce(&Session) -> T,
    ) -> T {
        self.answered(
            function,
            SideEffect::None,
            || json!([]),
            |call| call.session().map(read).unwrap_or_default(),
        )
    }

    /// Answers a query from the verified certificate; with nothing, if there is none.
    fn of_certificate<T: Answer + Default>(
        &mut self,
        function: &'static str,
        read: impl FnOnce(&Certificate) -> T,
    ) -> T {
        self.answered(
            function,
            SideEffect::None,
            || json!([]),
            |call| call.certificate().map(read).unwrap_or_default(),
        )
    }

    fn certificate(&mut self) -> Option<&Certificate> {
        self.session()?.peer.as_ref()
    }
}

/// Milliseconds since 1970; 0 for an earlier time.
fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
