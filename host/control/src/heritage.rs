//! Sockets of control interfaces that pass from one process of a host to the next one.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// The sockets that another process has lent, by name. A FIFO has a name only: it is opened by its path.
#[derive(Debug, Default)]
pub struct Heritage(HashMap<String, Option<OwnedFd>>);

/// A socket or a FIFO that another process can take over.
#[derive(Clone, Debug)]
pub struct Lent(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    is_inherited: bool,
    descriptor: Mutex<Option<OwnedFd>>,
    tenure: Tenure,
}

/// Whether this process removes the file of a socket at its end.
#[derive(Clone, Debug)]
pub(super) struct Tenure(Arc<AtomicBool>);

impl Heritage {
    /// Adds a socket, or the name of a FIFO.
    pub fn add(&mut self, name: String, descriptor: Option<OwnedFd>) {
        self.0.insert(name, descriptor);
    }

    /// The socket of this name.
    pub(super) fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name).flatten()
    }

    /// Whether there is a FIFO of this name.
    pub(super) fn has(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }
}

impl Lent {
    /// A new socket of this process, or one that it has inherited.
    pub(super) fn new(
        name: impl fmt::Display,
        is_inherited: bool,
        socket: Option<&dyn AsFd>,
        tenure: Tenure,
    ) -> io::Result<Self> {
        let descriptor = socket.map(|socket| socket.as_fd().try_clone_to_owned());
        Ok(Self(Arc::new(Inner {
            name: name.to_string(),
            is_inherited,
            descriptor: Mutex::new(descriptor.transpose()?),
            tenure,
        })))
    }

    /// Its name: the interface and the address.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Another descriptor of the socket; `None` for a FIFO.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn duplicate(&self) -> io::Result<Option<OwnedFd>> {
        let descriptor = self.0.descriptor.lock();
        let duplicate = descriptor.as_ref().map(OwnedFd::try_clone);
        duplicate.transpose()
    }

    /// Whether another process has lent it to this one.
    pub fn is_inherited(&self) -> bool {
        self.0.is_inherited
    }

    /// This process removes the file at its end.
    pub fn keep(&self) {
        self.0.tenure.set(true);
    }

    /// Another process answers: this one leaves the file alone.
    pub fn give_up(&self) {
        self.0.tenure.set(false);
    }

    /// Replaces the socket by a new one at the same address.
    pub(super) fn replace(&self, socket: &impl AsFd) -> io::Result<()> {
        let descriptor = socket.as_fd().try_clone_to_owned()?;
        *self.0.descriptor.lock() = Some(descriptor);
        Ok(())
    }

    pub(super) fn tenure(&self) -> &Tenure {
        &self.0.tenure
    }
}

impl Tenure {
    /// Inherited files belong to the other process until [`Lent::keep`].
    pub(super) fn of(is_inherited: bool) -> Self {
        Self(Arc::new(AtomicBool::new(!is_inherited)))
    }

    pub(super) fn is_ours(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, is_ours: bool) {
        self.0.store(is_ours, Ordering::Relaxed);
    }
}
