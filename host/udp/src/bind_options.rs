//! Options of a new socket.

/// How a socket is bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bind {
    /// Several sockets share the address, and the kernel spreads flows over them (`SO_REUSEPORT`).
    pub share_port: bool,
    /// The receive buffer to ask for, in bytes; 0 for the system's default. The system grants at most `net.core.rmem_max`,
    /// unless the process may administer the network. [`buffers`](crate::buffers) returns the granted sizes.
    pub receive_buffer: usize,
    /// The send buffer to ask for, in bytes; 0 for the system's default. The limit is `net.core.wmem_max`.
    pub send_buffer: usize,
}
