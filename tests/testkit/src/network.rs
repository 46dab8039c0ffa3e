//! Networks of a test's own, with interfaces that it makes.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::process::{Command, Output};

use nix::sched::{CloneFlags, setns, unshare};

use crate::wait;

/// Moves this thread to a network of its own, in which only loopback is there. What the thread starts is in it as well, threads and programs.
///
/// # Panics
/// Without the right to do that.
pub fn apart() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test is run as root, in a network of its own");
    ip("link set lo up");
}

/// Runs `ip` with these words.
///
/// # Panics
/// When it fails.
pub fn ip(words: &str) {
    let output = run_ip(words);
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn run_ip(words: &str) -> Output {
    let output = Command::new("ip").args(words.split_whitespace()).output();
    output.expect("ip is installed: apt-get install iproute2")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Another network than that of this thread.
#[derive(Debug)]
pub struct Network(File);

impl Network {
    /// A new one, in which only loopback is there.
    ///
    /// # Panics
    /// Without the right to make one.
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            apart();
            File::open("/proc/thread-self/ns/net").expect("a thread has a network")
        });
        Self(made.join().unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// Calls a function in this network, on a thread of its own. What it starts is there as well, threads and programs, and stays there.
    pub fn within<T: Send>(&self, call: impl FnOnce() -> T + Send) -> T {
        let called = std::thread::scope(|threads| {
            let thread = threads.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("the network can be joined");
                call()
            });
            thread.join()
        });
        called.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// The name of this network for `ip`.
    fn name(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

/// Machines on one link, each in a network of its own. The network of the thread that makes the segment is on the link as well: callers and callees
/// live there. One address belongs to one of the machines at a time.
#[derive(Debug)]
pub struct Segment {
    machines: Vec<Network>,
}

impl Segment {
    /// The interface of each machine.
    pub const INTERFACE: &str = "lan0";

    /// The address that moves.
    pub const SHARED: Ipv4Addr = Self::address(10);

    /// An address in the network of the thread that made the segment.
    pub const OUTSIDE: Ipv4Addr = Self::address(1);

    /// Another one.
    pub const PHONES: Ipv4Addr = Self::address(2);

    /// Moves this thread to a network of its own, and makes this many machines. Their programs can bind the shared address before it is theirs.
    ///
    /// # Panics
    /// Without the right to do that.
    pub fn new(machines: u8) -> Self {
        apart();
        ip("link add segment0 type bridge");
        ip("link set segment0 up");
        for own in [Self::OUTSIDE, Self::PHONES] {
            ip(&format!("addr add {own}/24 dev segment0"));
        }
        let machines = (0..machines).map(|nth| {
            let (machine, inside) = (Network::new(), Self::INTERFACE);
            ip(&format!("link add port{nth} type veth peer name {inside}"));
            ip(&format!("link set {inside} netns {}", machine.name()));
            ip(&format!("link set port{nth} master segment0"));
            ip(&format!("link set port{nth} up"));
            machine.within(|| {
                let own = Self::own(nth.into());
                ip(&format!("addr add {own}/24 dev {inside}"));
                ip(&format!("link set {inside} up"));
                fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1")
                    .expect("net.ipv4.ip_nonlocal_bind can be set");
            });
            machine
        });
        Self {
            machines: machines.collect(),
        }
    }

    /// The address with this last part.
    pub const fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, last)
    }

    /// The own address of a machine.
    pub const fn own(machine: usize) -> Ipv4Addr {
        Self::address(11 + machine as u8)
    }

    /// The machine with this number, from 0.
    ///
    /// # Panics
    /// If there is none.
    pub fn machine(&self, number: usize) -> &Network {
        &self.machines[number]
    }

    /// Gives the shared address to this machine, and takes it from the others. As with VRRP, the neighbours hear of it by ARP; returns when the network of
    /// this thread has heard of it.
    ///
    /// # Panics
    /// If there is no such machine.
    pub fn give_to(&self, number: usize) {
        self.take();
        let (inside, shared) = (Self::INTERFACE, Self::SHARED);
        let link = self.machine(number).within(|| {
            ip(&format!("addr replace {shared}/32 dev {inside}"));
            // The first datagram after that asks for its neighbour, with the shared address as the sender's.
            ip(&format!("neigh flush dev {inside}"));
            let socket = UdpSocket::bind((shared, 0)).expect("the address is there");
            let discard = SocketAddr::from((Self::OUTSIDE, 9));
            socket
                .send_to(b"", discard)
                .expect("a datagram can be sent");
            said(&run_ip(&format!("-o link show dev {inside}")))
        });
        let (_, ethernet) = link.split_once("link/ether ").expect("it is an Ethernet");
        let ethernet = ethernet.split(' ').next().unwrap_or_default();
        wait::until("the neighbours know who has the address", || {
            let known = said(&run_ip(&format!("neigh show {shared}")));
            known.contains(ethernet).then_some(())
        });
    }

    /// Takes the shared address from all machines.
    pub fn take(&self) {
        let words = format!("addr del {}/32 dev {}", Self::SHARED, Self::INTERFACE);
        for machine in &self.machines {
            // It may not have the address.
            let _absent = machine.within(|| run_ip(&words));
        }
    }

    /// Whether this machine has the shared address.
    ///
    /// # Panics
    /// If there is no such machine.
    pub fn has(&self, number: usize) -> bool {
        let words = format!("-o -4 addr show dev {}", Self::INTERFACE);
        let output = self.machine(number).within(|| run_ip(&words));
        said(&output).contains(&format!(" {}/", Self::SHARED))
    }
}
