//! The help of each command, for `system.methodHelp`.

use super::table::command_table;

macro_rules! help {
    (
        rpc { $($name:literal, $help:literal => $variant:ident($type:ty),)+ }
        http { $($http:tt)* }
    ) => {
        /// Each command of JSON-RPC and BINRPC with its help, in the order of their names.
        pub(super) const HELP: &[(&str, &str)] = &[$(($name, $help),)+];
    };
}

command_table!(help);
