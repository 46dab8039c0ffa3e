//! A socket on a tokio runtime, polled only for the readiness that is awaited.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::pending::is_pending;
use crate::{Errors, Receiver, Sender};

/// Datagrams, and reports of errors.
const RECEIVES: Interest = Interest::READABLE.add(Interest::ERROR);

/// What a socket over UDP never announces.
#[cfg(target_os = "linux")]
const NOTHING: Interest = Interest::PRIORITY;

/// A non-blocking socket on a tokio runtime.
///
/// `tokio::net::UdpSocket` polls for both directions all the time, and the kernel reports writability after each datagram that leaves the
/// send buffer: a worker that sends one response would wake up once more without reason. This socket is polled for readability, and for
/// writability only while a task waits for it.
#[derive(Debug)]
pub struct Polled {
    socket: AsyncFd<OwnedFd>,
    /// Another descriptor of the same socket: a descriptor has one registration in an epoll instance.
    twin: Rc<OwnedFd>,
    /// The registration of `twin`, which lives as long as the tasks that wait for writability.
    writability: RefCell<Weak<AsyncFd<Rc<OwnedFd>>>>,
}

impl Polled {
    /// Registers a non-blocking socket with the current runtime. It takes two descriptors.
    ///
    /// # Errors
    /// Those of `dup` and `epoll_ctl`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(socket: impl Into<OwnedFd>) -> io::Result<Self> {
        let socket = socket.into();
        Ok(Self {
            twin: Rc::new(socket.try_clone()?),
            // SAFETY: an `OwnedFd` is open and stays the same descriptor until it is dropped.
            socket: unsafe { AsyncFd::register_with_interest(socket, RECEIVES)? },
            writability: RefCell::new(Weak::new()),
        })
    }

    /// The same socket for sending only: datagrams that come do not wake the runtime up. Another process receives them. It takes two
    /// descriptors.
    ///
    /// # Errors
    /// Those of `dup` and `epoll_ctl`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[cfg(target_os = "linux")]
    pub fn for_sending(&self) -> io::Result<Self> {
        let socket = self.as_fd().try_clone_to_owned()?;
        Ok(Self {
            twin: Rc::new(socket.try_clone()?),
            // SAFETY: as in `new`.
            socket: unsafe { AsyncFd::register_with_interest(socket, NOTHING)? },
            writability: RefCell::new(Weak::new()),
        })
    }

    /// Waits until there may be something to receive.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await?.retain_ready();
        Ok(())
    }

    /// Waits until there may be something for [`Polled::recv`] or for [`Polled::recv_errors`]. The caller has to call both.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn ready(&self) -> io::Result<()> {
        self.socket.ready(RECEIVES).await?.retain_ready();
        Ok(())
    }

    /// Reads the reports of errors that wait, up to a whole batch (see [`report_errors`](crate::report_errors)). Makes no system call while the
    /// kernel has announced none.
    ///
    /// # Errors
    /// `WouldBlock` when there is none, and those of [`Errors::recv`].
    pub fn recv_errors(&self, errors: &mut Errors) -> io::Result<usize> {
        let mut received = Ok(0);
        let tried = self.socket.try_io(Interest::ERROR, |socket| {
            received = errors.recv(socket);
            match received {
                Ok(count) if count >= errors.batch() => Ok(()),
                // As in `recv`. After an error as well: it would return at once, again and again.
                _ => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        match (tried, received) {
            (Err(none), Ok(0)) => Err(none),
            (_, received) => received,
        }
    }

    /// Receives what is there, up to a whole batch. Fewer than a batch means that no more datagrams were waiting.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, and those of [`Receiver::recv`] but errors about a datagram sent earlier.
    pub fn recv(&self, receiver: &mut Receiver) -> io::Result<usize> {
        let mut received = 0;
        let tried = self.socket.try_io(Interest::READABLE, |socket| {
            received = match receiver.recv(socket) {
                // The kernel reports it once.
                Err(error) if is_pending(&error) => receiver.recv(socket)?,
                received => received?,
            };
            // The socket is empty now, and the kernel reports the next datagram. Clearing the readiness here avoids a system call that
            // would find nothing.
            if received < receiver.batch() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match tried {
            Err(error) if received == 0 => Err(error),
            _ => Ok(received),
        }
    }

    /// Sends the datagrams in `sender`; returns how many the kernel accepted.
    ///
    /// # Errors
    /// `WouldBlock` if the send buffer is full: the rest stays in `sender`. [`Polled::writable`] returns when `flush` can be called again.
    pub fn flush(&self, sender: &mut Sender) -> io::Result<usize> {
        self.send_by(|socket| sender.flush(socket))
    }

    /// Waits until the send buffer has room. A report of an error ends the wait, too, so that the caller reads it
    /// ([`Polled::recv_errors`]) before it waits again.
    ///
    /// # Errors
    /// That of `epoll_ctl`, or when the runtime ends.
    pub async fn writable(&self) -> io::Result<()> {
        let writability = self.ask_for_writability()?;
        writability.writable().await?.retain_ready();
        Ok(())
    }

    fn send_by<T>(&self, send: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let socket = self.as_fd();
        match self.writability.borrow().upgrade() {
            // While the socket is full, this makes no system call.
            Some(writability) => writability.try_io(Interest::WRITABLE, |_twin| send(socket)),
            None => send(socket),
        }
    }

    fn ask_for_writability(&self) -> io::Result<Rc<AsyncFd<Rc<OwnedFd>>>> {
        let mut registered = self.writability.borrow_mut();
        if let Some(writability) = registered.upgrade() {
            return Ok(writability);
        }
        let twin = Rc::clone(&self.twin);
        // SAFETY: an `OwnedFd` is open and stays the same descriptor until it is dropped, which the clone of the `Rc` prevents.
        let writability = unsafe { AsyncFd::register_with_interest(twin, Interest::WRITABLE)? };
        let writability = Rc::new(writability);
        *registered = Rc::downgrade(&writability);
        Ok(writability)
    }
}

impl AsFd for Polled {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use tokio::runtime::Builder;
    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::{Bind, bind};

    impl Polled {
        fn is_asking_for_writability(&self) -> bool {
            self.writability.borrow().strong_count() > 0
        }
    }

    /// Runs a future on one thread, like a worker. Returns how often the thread became idle.
    fn on_one_thread(future: impl Future<Output = ()>) -> usize {
        let pauses = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pauses);
        let runtime = Builder::new_current_thread()
            .enable_io()
            .on_thread_park(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            })
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, future);
        pauses.load(Ordering::Relaxed)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_failed_look_for_reports_is_not_repeated_until_there_is_news() {
        on_one_thread(async {
            // The writer of a pipe without a reader has an error, and is no socket.
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            let polled = Polled::new(writer).unwrap();
            polled.ready().await.unwrap();
            let mut errors = Errors::new();
            let failed = polled.recv_errors(&mut errors).unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(libc::ENOTSOCK));
            let none = polled.recv_errors(&mut errors).unwrap_err();
            assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        });
    }

    /// A datagram socket whose send buffer can be filled. UDP over loopback delivers each datagram within the call that sends it.
    fn fillable() -> (Polled, UnixDatagram) {
        let (here, there) = UnixDatagram::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        there.set_nonblocking(true).unwrap();
        (Polled::new(here).unwrap(), there)
    }

    fn send_number(polled: &Polled, number: u32) -> io::Result<()> {
        polled.send_by(|socket| {
            let socket = UnixDatagram::from(socket.try_clone_to_owned()?);
            socket.send(&number.to_le_bytes()).map(drop)
        })
    }

    fn received_number(socket: &UnixDatagram) -> Option<u32> {
        let mut bytes = [0; 4];
        match socket.recv(&mut bytes) {
            Ok(_) => Some(u32::from_le_bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Fills the send buffer; returns the first number that was not accepted.
    fn fill(polled: &Polled) -> u32 {
        let refused = (0..).find_map(|number| match send_number(polled, number) {
            Ok(()) => None,
            Err(error) => Some((number, error.kind())),
        });
        let (number, kind) = refused.unwrap();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
        number
    }

    #[test]
    fn a_socket_is_polled_for_writability_only_while_it_is_full_and_loses_nothing() {
        on_one_thread(async {
            const ALL: u32 = 5_000;
            let (polled, there) = fillable();
            let mut next = 0;
            let mut seen = Vec::new();
            let mut fillings = 0;
            while next < ALL {
                match send_number(&polled, next) {
                    Ok(()) => next += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        fillings += 1;
                        let read = async {
                            // The other future waits by now.
                            assert!(polled.is_asking_for_writability());
                            seen.extend(std::iter::from_fn(|| received_number(&there)));
                        };
                        let (writable, ()) = tokio::join!(biased; polled.writable(), read);
                        writable.unwrap();
                    }
                }
                assert!(!polled.is_asking_for_writability());
            }
            seen.extend(std::iter::from_fn(|| received_number(&there)));
            assert!(seen.iter().copied().eq(0..ALL));
            assert!(fillings > 1, "{fillings}");
        });
    }

    #[test]
    fn tasks_that_wait_for_one_socket_share_its_registration_and_all_resume() {
        on_one_thread(async {
            let (polled, there) = fillable();
            let polled = Rc::new(polled);
            let next = fill(&polled);
            let wait = || {
                let polled = Rc::clone(&polled);
                tokio::task::spawn_local(async move { polled.writable().await })
            };
            let waiting = [wait(), wait(), wait()];
            yield_now().await;
            assert_eq!(polled.writability.borrow().strong_count(), 3);
            // This makes no system call.
            let refused = send_number(&polled, next).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);

            while received_number(&there).is_some() {}
            for waiting in waiting {
                waiting.await.unwrap().unwrap();
            }
            assert!(!polled.is_asking_for_writability());
            send_number(&polled, next).unwrap();
            assert_eq!(received_number(&there), Some(next));
        });
    }

    #[test]
    fn a_task_that_ends_while_it_waits_leaves_no_registration() {
        on_one_thread(async {
            let (polled, there) = fillable();
            let polled = Rc::new(polled);
            fill(&polled);
            for _ in 0..2 {
                let its = Rc::clone(&polled);
                let waiting = tokio::task::spawn_local(async move { its.writable().await });
                yield_now().await;
                assert!(polled.is_asking_for_writability());
                waiting.abort();
                assert!(waiting.await.unwrap_err().is_cancelled());
                assert!(!polled.is_asking_for_writability());
            }
            while received_number(&there).is_some() {}
            polled.writable().await.unwrap();
        });
    }

    #[test]
    fn a_sent_datagram_wakes_no_task() {
        const ALL: usize = 200;
        let server = bind("127.0.0.1:0".parse().unwrap(), Bind::default()).unwrap();
        let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
        caller.connect(server.local_addr().unwrap()).unwrap();
        let calls = thread::spawn(move || {
            for n in 0..ALL {
                caller.send(&n.to_le_bytes()).unwrap();
                let mut answer = [0; 8];
                caller.recv(&mut answer).unwrap();
                assert_eq!(answer, n.to_le_bytes());
            }
        });
        let pauses = on_one_thread(async move {
            let polled = Polled::new(server).unwrap();
            let (mut receiver, mut sender) = (Receiver::new(8), Sender::new(8));
            let mut answered = 0;
            while answered < ALL {
                polled.readable().await.unwrap();
                let Ok(count) = polled.recv(&mut receiver) else {
                    continue;
                };
                for nth in 0..count {
                    let (bytes, source, _) = receiver.datagram(nth);
                    sender.push(bytes, source);
                }
                answered += polled.flush(&mut sender).unwrap();
            }
        });
        calls.join().unwrap();
        // At most one per received datagram, and none for sent ones.
        assert!(pauses <= ALL + 1, "{pauses} pauses");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_report_of_an_error_wakes_the_task_up_and_fails_no_other_call() {
        on_one_thread(async {
            let any = "127.0.0.1:0".parse().unwrap();
            let server = bind(any, Bind::default()).unwrap();
            crate::report_errors(&server).unwrap();
            let here = server.local_addr().unwrap();
            let gone = UdpSocket::bind(any).unwrap().local_addr().unwrap();
            let caller = UdpSocket::bind(any).unwrap();
            let polled = Polled::new(server).unwrap();
            let (mut receiver, mut sender, mut errors) =
                (Receiver::new(2), Sender::new(2), Errors::new());
            for round in 0..3 {
                let nothing = polled.recv_errors(&mut errors).unwrap_err();
                assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
                sender.push(b"INVITE", gone);
                assert_eq!(polled.flush(&mut sender).unwrap(), 1);
                // The answers to these come together or one by one.
                if round == 1 {
                    caller.send_to(b"hello", here).unwrap();
                }
                let (mut reported, mut received) = (0, 0);
                while reported == 0 || (round == 1 && received == 0) {
                    polled.ready().await.unwrap();
                    match polled.recv(&mut receiver) {
                        Ok(count) => received += count,
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                    }
                    reported += polled.recv_errors(&mut errors).unwrap_or(0);
                }
                assert_eq!((reported, errors.report(0).to), (1, gone));
                // An error that nobody has read yet fails neither a send nor a receive.
                sender.push(b"INVITE", gone);
                assert_eq!(polled.flush(&mut sender).unwrap(), 1);
                sender.push(b"hello", caller.local_addr().unwrap());
                caller.send_to(b"hello", here).unwrap();
                received = 0;
                while received == 0 {
                    polled.readable().await.unwrap();
                    received = polled.recv(&mut receiver).unwrap();
                }
                assert_eq!(polled.flush(&mut sender).unwrap(), 1);
                assert_eq!(sender.failures().count, 0);
                while polled.recv_errors(&mut errors).is_err() {
                    polled.ready().await.unwrap();
                }
            }
        });
    }

    #[test]
    fn an_emptied_socket_is_read_again_at_the_next_datagram() {
        on_one_thread(async {
            let server = bind("127.0.0.1:0".parse().unwrap(), Bind::default()).unwrap();
            let to = server.local_addr().unwrap();
            let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
            let polled = Polled::new(server).unwrap();
            let mut receiver = Receiver::new(2);
            for burst in [1, 2, 3, 4, 1] {
                for _ in 0..burst {
                    caller.send_to(b"hello", to).unwrap();
                }
                let mut received = 0;
                while received < burst {
                    polled.readable().await.unwrap();
                    received += polled.recv(&mut receiver).unwrap_or(0);
                }
                let nothing = polled.recv(&mut receiver).unwrap_err();
                assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            }
        });
    }
    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_for_sending_does_not_wake_up_for_what_comes() {
        let address = "127.0.0.1:0".parse().unwrap();
        let polled_socket = bind(address, Bind::default()).unwrap();
        let (to, caller) = (
            polled_socket.local_addr().unwrap(),
            UdpSocket::bind(address).unwrap(),
        );
        let pauses = on_one_thread(async move {
            let polled = Polled::new(polled_socket).unwrap().for_sending().unwrap();
            for _ in 0..100 {
                caller.send_to(b"hello", to).unwrap();
                yield_now().await;
            }
            let mut receiver = Receiver::new(1);
            assert_eq!(
                receiver.recv(&polled).unwrap(),
                1,
                "another process could receive it"
            );
            let mut sender = Sender::new(1);
            sender.push(b"answer", caller.local_addr().unwrap());
            assert_eq!(polled.flush(&mut sender).unwrap(), 1);
            polled.writable().await.unwrap();
        });
        assert!(pauses <= 1, "{pauses}");
    }
}
