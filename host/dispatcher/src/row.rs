//! A row of the table `dispatcher`, and whether it can be used.
//!
//! | column | Kamailio | here |
//! |---|---|---|
//! | `setid` | any number | 0 to 4294967295 |
//! | `destination` | a SIP URI; the name is resolved at load, and a row whose name has no address is skipped | `sip:HOST` or `sips:HOST` with port and transport; the name is resolved all the time |
//! | `flags` | 1 inactive, 2 trying, 4 disabled, 8 probing, 16 no address at load, 32 no probes | the same; 16 is always so |
//! | `priority` | a number | the same |
//! | `attrs` | `name=value;…` | the same; `sockname` and `obproxy` have no effect, and a warning |

use portcullis_address::{RowError, RowWarning};
use portcullis_database::shown;

use crate::attrs::Attrs;
use crate::member::{Parts, hop_of};

/// Most bytes of a URI, as wide as the column.
const LONGEST_URI: usize = 192;

/// All flags of Kamailio.
const KNOWN_FLAGS: u32 = 1 | 2 | 4 | 8 | 16 | 32;

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct DispatcherRow<'r> {
    /// Column `id`; the line in a file.
    pub id: i64,
    /// Column `setid`.
    pub setid: i64,
    /// Column `destination`.
    pub destination: &'r str,
    /// Column `flags`.
    pub flags: i64,
    /// Column `priority`.
    pub priority: i64,
    /// Column `attrs`.
    pub attrs: &'r str,
    /// Column `description`.
    pub description: &'r str,
}

impl DispatcherRow<'_> {
    /// Checks that a load would use the row. Returns its warning, if there is one.
    ///
    /// # Errors
    /// If a load would skip it.
    pub fn check(&self) -> Result<Option<RowWarning>, RowError> {
        self.parts().map(|(_, warning)| warning)
    }

    pub(crate) fn parts(&self) -> Result<(Parts, Option<RowWarning>), RowError> {
        let set = u32::try_from(self.setid).map_err(|_| {
            let fault = "is not the number of a set";
            self.error(
                "setid",
                self.setid.to_string(),
                fault,
                "write a number from 0 to 4294967295",
            )
        })?;
        let uri = self.destination.trim();
        if uri.len() > LONGEST_URI {
            let mend = format!("write at most {LONGEST_URI} characters");
            return Err(self.error("destination", shown(uri), "is too long", &mend));
        }
        let hop = hop_of(uri)
            .map_err(|(fault, mend)| self.error("destination", shown(uri), &fault, mend))?;
        let flags = u32::try_from(self.flags).map_err(|_| {
            let mend = "write the sum of 1 (inactive), 2 (trying), 4 (disabled), 8 (probing) and 32 (no probes), or 0";
            self.error("flags", self.flags.to_string(), "are not flags", mend)
        })?;
        let priority = i32::try_from(self.priority).map_err(|_| {
            let mend = "write a number from -2147483648 to 2147483647";
            self.error(
                "priority",
                self.priority.to_string(),
                "is not a priority",
                mend,
            )
        })?;
        let attrs = Attrs::parse(self.attrs).map_err(|error| {
            let mend = format!("correct `{}`", error.name);
            self.error(
                "attrs",
                shown(self.attrs),
                &format!("cannot be used: {error}"),
                &mend,
            )
        })?;
        let warning = self.warning(flags, &attrs);
        let parts = Parts {
            set,
            uri: uri.into(),
            flags,
            priority,
            attrs,
            description: self.description.into(),
            hop,
        };
        Ok((parts, warning))
    }

    fn warning(&self, flags: u32, attrs: &Attrs) -> Option<RowWarning> {
        if flags & !KNOWN_FLAGS != 0 {
            return Some(self.odd(
                "flags",
                flags.to_string(),
                "has bits without a meaning",
                "they are ignored; write the sum of 1, 2, 4, 8, 16 and 32",
            ));
        }
        const SOCKET: &str =
            "sockets have no names here: write `socket=udp:IP:PORT`, with an address of `listen`";
        const PINGS: &str = "pings go to the destination itself: remove `obproxy`";
        let (fault, mend) = match attrs.without_effect()[..] {
            [] => return None,
            [name] => {
                let mend = if name == "obproxy" { PINGS } else { SOCKET };
                (
                    format!("has `{name}`, which has no effect"),
                    mend.to_owned(),
                )
            }
            [..] => (
                "has `sockname` and `obproxy`, which have no effect".to_owned(),
                format!("{SOCKET}; {PINGS}"),
            ),
        };
        Some(self.odd("attrs", shown(self.attrs), &fault, &mend))
    }

    fn error(&self, column: &'static str, value: String, fault: &str, mend: &str) -> RowError {
        RowError {
            id: self.id,
            place: None,
            column,
            value,
            fault: fault.to_owned(),
            mend: mend.to_owned(),
        }
    }

    fn odd(&self, column: &'static str, value: String, fault: &str, mend: &str) -> RowWarning {
        RowWarning {
            id: self.id,
            place: None,
            column,
            value,
            fault: fault.to_owned(),
            mend: mend.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: DispatcherRow<'_> = DispatcherRow {
        id: 3,
        setid: 1,
        destination: "sip:192.0.2.1:5060",
        flags: 0,
        priority: 0,
        attrs: "",
        description: "",
    };

    #[test]
    fn a_row_that_cannot_be_used_is_named() {
        let long = format!("sip:{}.example", "a".repeat(200));
        for (row, said) in [
            (
                DispatcherRow { setid: -1, ..ROW },
                "row 3: setid -1 is not the number of a set",
            ),
            (
                DispatcherRow {
                    destination: "gw",
                    ..ROW
                },
                "destination \"gw\" has no scheme",
            ),
            (
                DispatcherRow {
                    destination: &long,
                    ..ROW
                },
                "is too long",
            ),
            (DispatcherRow { flags: -1, ..ROW }, "flags -1 are not flags"),
            (
                DispatcherRow {
                    priority: 1 << 40,
                    ..ROW
                },
                "is not a priority",
            ),
            (
                DispatcherRow {
                    attrs: "weight=x",
                    ..ROW
                },
                "weight=x is not a number from 0 to 65535; correct `weight`",
            ),
        ] {
            let error = row.check().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_row_with_an_effectless_attribute_has_a_warning() {
        let socket = DispatcherRow {
            attrs: "weight=1;sockname=edge",
            ..ROW
        };
        let warning = |row: DispatcherRow<'_>| row.check().unwrap().unwrap().to_string();
        let said = warning(socket);
        assert!(
            said.contains("`sockname`, which has no effect; sockets have"),
            "{said}"
        );
        let proxy = "obproxy=sip:192.0.2.5";
        let said = warning(DispatcherRow {
            attrs: proxy,
            ..ROW
        });
        assert!(
            said.contains("`obproxy`, which has no effect; pings go"),
            "{said}"
        );
        let both = format!("sockname=edge;{proxy}");
        let said = warning(DispatcherRow {
            attrs: &both,
            ..ROW
        });
        assert!(
            said.contains("`sockname` and `obproxy`, which have no effect; sockets have")
                && said.contains("remove `obproxy`"),
            "{said}"
        );
        let flags = DispatcherRow { flags: 64, ..ROW };
        assert!(flags.check().unwrap().is_some());
        assert_eq!(ROW.check(), Ok(None));
        assert_eq!(DispatcherRow { flags: 63, ..ROW }.check(), Ok(None));
    }
}
