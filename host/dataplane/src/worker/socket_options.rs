//! Options of sockets that carry SIP.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// How long sent bytes may be unacknowledged, or wait because the peer accepts none, before the system closes the connection (RFC 5482).
/// Timers B and F (RFC 3261 §17.1) have expired then, so nothing that waits is still of use.
const UNACKNOWLEDGED: Duration = Duration::from_secs(32);

/// Sets the options of a socket that carries SIP. A system without one of them has its own defaults.
pub(super) fn set_options(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // Messages are written as a whole; delaying them to fill a segment only adds latency.
    let _best_effort = socket.set_tcp_nodelay(true);
    let _best_effort = socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}
