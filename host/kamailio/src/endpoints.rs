//! Control endpoints: the modules `ctl` (BINRPC) and `jsonrpcs` (FIFO, datagrams, HTTP), as `[control]`.

use super::draft::{Draft, Origin};
use super::finding::{Finding, Place, excerpt};
use super::statement::Value;

/// Parameters of `ctl` and `jsonrpcs`: several parameters define one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    /// `run_dir`: the directory of the default endpoints.
    pub(super) run_dir: String,
    ctl: Option<Place>,
    jsonrpcs: Option<Place>,
    binrpc: Vec<(String, Place)>,
    fifo: Option<(String, Place)>,
    datagram: Option<(String, Place)>,
    transport: i64,
    modes: Vec<(u32, Place)>,
}

impl Endpoints {
    pub(super) fn new() -> Self {
        Self {
            run_dir: "/run/kamailio".into(),
            ctl: None,
            jsonrpcs: None,
            binrpc: Vec::new(),
            fifo: None,
            datagram: None,
            transport: 0,
            modes: Vec::new(),
        }
    }

    /// Notes that a module is loaded.
    pub(super) fn module(&mut self, name: &str, place: &Place) {
        match name {
            "ctl" => self.ctl = Some(place.clone()),
            "jsonrpcs" => self.jsonrpcs = Some(place.clone()),
            _ => {}
        }
    }

    /// A parameter of `ctl`.
    pub(super) fn ctl(
        &mut self,
        name: &str,
        value: &Value,
        place: &Place,
        draft: &mut Draft,
        findings: &mut Vec<Finding>,
    ) {
        match name {
            "binrpc" => self.binrpc.push((value.text().to_owned(), place.clone())),
            "mode" => self.mode(value, place, findings),
            "user" | "group" => owner(name, value, place, draft),
            _ => findings.push(note("ctl", name, value, place)),
        }
    }

    /// A parameter of `jsonrpcs`.
    pub(super) fn jsonrpcs(
        &mut self,
        name: &str,
        value: &Value,
        place: &Place,
        draft: &mut Draft,
        findings: &mut Vec<Finding>,
    ) {
        match name {
            "fifo_name" => self.fifo = Some((value.text().to_owned(), place.clone())),
            "dgram_socket" => self.datagram = Some((value.text().to_owned(), place.clone())),
            "fifo_reply_dir" => {
                let folder = value.text().to_owned();
                draft.set("control", "fifo-reply-dir", folder, Origin::line(place));
            }
            "fifo_mode" | "dgram_mode" => self.mode(value, place, findings),
            "fifo_user" | "dgram_user" => owner("user", value, place, draft),
            "fifo_group" | "dgram_group" => owner("group", value, place, draft),
            "pretty_format" => {}
            "transport" => match value.number() {
                Some(bits) => self.transport = bits,
                None => findings.push(note("jsonrpcs", name, value, place)),
            },
            _ => findings.push(note("jsonrpcs", name, value, place)),
        }
    }

    /// Writes the endpoints, including the default ones.
    pub(super) fn write(self, draft: &mut Draft, findings: &mut Vec<Finding>) {
        self.write_binrpc(draft, findings);
        self.write_jsonrpcs(draft, findings);
        self.write_mode(draft, findings);
    }

    fn write_binrpc(&self, draft: &mut Draft, findings: &mut Vec<Finding>) {
        let Some(module) = &self.ctl else {
            return;
        };
        if self.binrpc.is_empty() {
            let endpoint = format!("unix:{}/kamailio_ctl", self.run_dir);
            let origin = Origin::remark(module, "ctl's default, where kamcmd looks");
            draft.push("control", "binrpc", endpoint, origin);
        }
        for (named, place) in &self.binrpc {
            let endpoint = self.endpoint(named, "udp");
            if endpoint.contains('/') && !named.contains(":/") && !named.starts_with('/') {
                let what = format!("ctl: binrpc = {}", excerpt(named));
                let mend = format!(
                    "a relative path, which ctl takes from the directory that Kamailio runs in; here it is {endpoint}"
                );
                findings.push(Finding::at(place, what, mend));
            }
            draft.push("control", "binrpc", endpoint, Origin::line(place));
        }
    }

    fn write_jsonrpcs(&self, draft: &mut Draft, findings: &mut Vec<Finding>) {
        let Some(module) = &self.jsonrpcs else {
            return;
        };
        let on = |bit: i64| self.transport == 0 || self.transport & bit != 0;
        let or_default = |named: &Option<(String, Place)>, name: &str| match named {
            Some((path, place)) => (path.clone(), Origin::line(place)),
            None => (
                format!("{}/{name}", self.run_dir),
                Origin::remark(module, "jsonrpcs' default, where Kamailio's tools look"),
            ),
        };
        if on(FIFO) {
            let (path, origin) = or_default(&self.fifo, "kamailio_rpc.fifo");
            if !path.is_empty() {
                draft.set("control", "fifo", self.absolute(&path), origin);
            }
        }
        if on(DATAGRAM) {
            let (path, origin) = or_default(&self.datagram, "kamailio_rpc.sock");
            if !path.is_empty() {
                draft.push("control", "datagram", self.endpoint(&path, "unix"), origin);
            }
        }
        if self.transport & HTTP != 0 {
            let mend = "JSON-RPC over HTTP is served at http://127.0.0.1:8060/RPC, not on a SIP port: see `listen` in [control]";
            findings.push(Finding::at(module, "jsonrpcs over HTTP", mend));
        }
    }

    /// There is one mode for all endpoints here: the most restrictive of those configured.
    fn write_mode(&self, draft: &mut Draft, findings: &mut Vec<Finding>) {
        let Some((first, place)) = self.modes.first() else {
            return;
        };
        let narrowest = self
            .modes
            .iter()
            .fold(*first, |mode, (next, _)| mode & next);
        let mode = format!("{narrowest:04o}");
        draft.set("control", "socket-mode", mode, Origin::line(place));
        if self.modes.iter().any(|(mode, _)| *mode != narrowest) {
            let mend = format!(
                "one mode applies to FIFO and sockets here; the narrowest, {narrowest:04o}, is taken"
            );
            findings.push(Finding::at(
                place,
                "different modes for control endpoints",
                mend,
            ));
        }
    }

    fn mode(&mut self, value: &Value, place: &Place, findings: &mut Vec<Finding>) {
        // A number with a leading zero is octal, also as a text, as in "0660".
        match u32::from_str_radix(value.text(), 8) {
            Ok(mode) if mode <= 0o777 => self.modes.push((mode, place.clone())),
            _ => {
                let what = format!("mode {}", excerpt(value.text()));
                let mend = "not an octal mode such as 0660: set `socket-mode` in [control]";
                findings.push(Finding::at(place, what, mend));
            }
        }
    }

    /// An endpoint with its kind. Without a kind, a text with a slash is a path, relative to `run_dir`; otherwise `bare` decides.
    fn endpoint(&self, text: &str, bare: &str) -> String {
        match text.split_once(':') {
            Some((kind @ ("unix" | "unixs" | "unixd"), path)) => {
                format!("{kind}:{}", self.absolute(path))
            }
            Some(_) => text.to_owned(),
            None if text.contains('/') || bare == "unix" => format!("unix:{}", self.absolute(text)),
            None => format!("{bare}:{text}"),
        }
    }

    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.run_dir),
        }
    }
}

fn owner(kind: &str, value: &Value, place: &Place, draft: &mut Draft) {
    let key = match kind {
        "user" => "socket-user",
        _ => "socket-group",
    };
    let name = value.text().to_owned();
    draft.set("control", key, name, Origin::line(place));
}

fn note(module: &str, name: &str, value: &Value, place: &Place) -> Finding {
    let what = format!("{module}: {name} = {}", excerpt(value.text()));
    let mend = match name {
        "fifo" => "the old line protocol is not supported: use kamcmd, kamctl or kamcli",
        "tcp_socket" => "JSON-RPC over plain TCP is not supported: use HTTP at /RPC",
        "pretty_format"
        | "autoconversion"
        | "dgram_workers"
        | "dgram_timeout"
        | "max_line_size"
        | "binrpc_max_body_size"
        | "binrpc_struct_max_body_size"
        | "binrpc_buffer_size" => "not needed: replies have no such limits",
        _ => "no counterpart",
    };
    Finding::at(place, what, mend)
}

/// Bits of `transport` of `jsonrpcs`.
const HTTP: i64 = 1;
const FIFO: i64 = 2;
const DATAGRAM: i64 = 4;
