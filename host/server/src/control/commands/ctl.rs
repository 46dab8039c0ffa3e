//! `ctl.…`: the sockets of BINRPC and who is connected to them (`src/modules/ctl`).

use portcullis_rpc::{Call, Fault, Reply, Value};

use super::super::Control;
use crate::config::Endpoint;

impl Control {
    /// Protocol, transport, address and port of each socket, one after another.
    pub(super) fn listen(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        let records = self.listening.binrpc.iter().flat_map(|endpoint| {
            let (address, port) = match endpoint {
                Endpoint::UnixStream(path) | Endpoint::UnixDatagram(path) => {
                    (path.display().to_string(), String::new())
                }
                Endpoint::Tcp(addr) | Endpoint::Udp(addr) => {
                    (addr.ip().to_string(), addr.port().to_string())
                }
            };
            [
                Value::from("binrpc"),
                endpoint.transport().into(),
                address.into(),
                port.into(),
            ]
        });
        Ok(Reply::Each(records.collect()))
    }

    /// Protocol, transport and both ends of each stream connection, one after another.
    pub(super) fn who(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        let all = self.connections.all();
        if all.is_empty() {
            return Err(Fault::new(400, "no open stream connection"));
        }
        let records = all.into_iter().flat_map(|ends| {
            [
                Value::from("binrpc"),
                ends.transport.into(),
                ends.from.0.into(),
                ends.from.1.into(),
                ends.to.0.into(),
                ends.to.1.into(),
            ]
        });
        Ok(Reply::Each(records.collect()))
    }

    /// How many stream connections there are.
    pub(super) fn connections(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        Ok(Reply::One(self.connections.all().len().into()))
    }
}
