//! What all transactions of a worker share while they work.

use std::collections::VecDeque;
use std::sync::Arc;

use portcullis_sip::{Framing, Index, Limits, Message, Proxy, scan};

use crate::buffers::Buffers;
use crate::config::Config;
use crate::event::Event;
use crate::outbox::Outbox;

/// Settings, outputs and memory.
#[derive(Debug)]
pub(crate) struct Tools<T> {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) config: Config,
    pub(crate) outbox: Outbox,
    pub(crate) events: VecDeque<Event<T>>,
    pub(crate) buffers: Buffers,
    /// Bytes that the caller holds for active transactions.
    pub(crate) charged: usize,
    /// For stored messages, which are scanned again when a response or a request is made of them.
    pub(crate) index: Index,
    /// For messages while they are written.
    pub(crate) scratch: Vec<u8>,
    /// For messages that are written of what is in `scratch`.
    pub(crate) second_scratch: Vec<u8>,
}

impl<T> Tools<T> {
    pub(crate) fn new(proxy: Arc<Proxy>, config: Config) -> Self {
        Self {
            proxy,
            config,
            outbox: Outbox::default(),
            events: VecDeque::new(),
            buffers: Buffers::default(),
            charged: 0,
            index: Index::default(),
            scratch: Vec::new(),
            second_scratch: Vec::new(),
        }
    }

    /// Bytes of the messages of active transactions, and of what the caller holds.
    pub(crate) fn bytes(&self) -> usize {
        self.buffers.lent() + self.charged
    }
}

/// A stored message. It was scanned when it came or was written from such a one, so that this does not fail. The header lines of this host may
/// have taken it beyond the limits for received messages.
pub(crate) fn stored<'m>(bytes: &'m [u8], index: &'m mut Index) -> Option<Message<'m>> {
    const NONE: Limits = Limits {
        message_bytes: usize::MAX,
        header_lines: usize::MAX,
        header_bytes: usize::MAX,
        start_line_bytes: usize::MAX,
    };
    let scanned = scan(bytes, Framing::Datagram, &NONE, index);
    scanned.ok().map(|()| Message::new(bytes, index))
}
