//! A thread that gets the processor soon after it wakes up, also where another one would rather keep it.

use std::io;
use std::mem::size_of;

/// What the thread asks for at a time. Linux lets a thread with a shorter slice go before the one that has the processor, whose own is
/// some milliseconds (EEVDF, from 6.12 on). It takes no privilege: the thread gets no more of the processor than before.
const SLICE_NS: u64 = 100_000;

/// Shortens the slice of the calling thread. On an older system nothing changes, nor for a thread with a policy of its own.
///
/// # Errors
/// When the system refuses: the thread goes on as it was.
#[allow(unsafe_code, reason = "there is no safe way to ask for this")]
#[cfg(target_os = "linux")]
pub(crate) fn be_prompt() -> io::Result<()> {
    let size = size_of::<libc::sched_attr>() as u32;
    let done = |result: libc::c_long| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: all fields are numbers, and 0 is one.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `attributes` is writable and has the size that is told; 0 is the calling thread.
    done(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.size = size;
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: `attributes` is readable and has the size that it tells.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// Other systems have their own ways.
#[cfg(not(target_os = "linux"))]
pub(crate) fn be_prompt() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_may() {
        std::thread::spawn(be_prompt).join().unwrap().unwrap();
    }
}
