//! The scheduler time slice of a thread. A thread with a short slice runs soon after it wakes up, even on a busy processor.

use std::io;
use std::mem::size_of;

/// The requested slice in nanoseconds. Under EEVDF (Linux 6.12 and later), a thread with a shorter slice preempts the running one, whose
/// slice is some milliseconds. This needs no privilege, because the share of the processor stays the same.
const SLICE_NS: u64 = 100_000;

/// Shortens the slice of the calling thread. Has no effect on older kernels and on threads with another scheduling policy.
///
/// # Errors
/// If the system call fails. The slice is unchanged then.
#[allow(unsafe_code, reason = "the system call has no safe wrapper")]
#[cfg(target_os = "linux")]
pub(crate) fn shorten() -> io::Result<()> {
    let size = size_of::<libc::sched_attr>() as u32;
    let done = |result: libc::c_long| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: all fields are integers, for which zero is valid.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `attributes` is writable and `size` bytes long; 0 is the calling thread.
    done(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.size = size;
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: `attributes` is readable and its `size` field is its size.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// Does nothing on other systems.
#[cfg(not(target_os = "linux"))]
pub(crate) fn shorten() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_may_shorten_its_slice() {
        std::thread::spawn(shorten).join().unwrap().unwrap();
    }
}
