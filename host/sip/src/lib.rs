//! SIP without sockets and clocks.
