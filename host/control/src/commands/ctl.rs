//! `ctl.…`: the sockets of BINRPC and who is connected to them (`src/modules/ctl`).

use portcullis_config::{Endpoint, TokenRole};
use portcullis_rpc::{Call, Fault};

use super::{FromCall, Procedure};
use crate::Control;
use crate::caller::Caller;

/// `ctl.connections`: how many stream connections there are.
#[derive(Debug)]
pub(crate) struct Connections;

/// `ctl.listen`: protocol, transport, address and port of each socket, one after another.
#[derive(Debug)]
pub(crate) struct Listen;

/// `ctl.who`: protocol, transport and both ends of each stream connection, one after another.
#[derive(Debug)]
pub(crate) struct Who;

impl FromCall for Connections {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Connections {
    type Reply = u64;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<u64, Fault> {
        Ok(control.connections.all().len() as u64)
    }
}

impl FromCall for Listen {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Listen {
    type Reply = Vec<String>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<String>, Fault> {
        let records = control.listening.binrpc.iter().flat_map(|endpoint| {
            let (address, port) = match endpoint {
                Endpoint::UnixStream(path) | Endpoint::UnixDatagram(path) => {
                    (path.display().to_string(), String::new())
                }
                Endpoint::Tcp(addr) | Endpoint::Udp(addr) => {
                    (addr.ip().to_string(), addr.port().to_string())
                }
            };
            [
                "binrpc".to_owned(),
                endpoint.transport().to_owned(),
                address,
                port,
            ]
        });
        Ok(records.collect())
    }
}

impl FromCall for Who {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Who {
    type Reply = Vec<String>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<String>, Fault> {
        let all = control.connections.all();
        if all.is_empty() {
            return Err(Fault::new(400, "no open stream connection"));
        }
        let records = all.into_iter().flat_map(|ends| {
            [
                "binrpc".to_owned(),
                ends.transport.to_owned(),
                ends.from.0,
                ends.from.1,
                ends.to.0,
                ends.to.1,
            ]
        });
        Ok(records.collect())
    }
}
