//! What a policy may take.

use std::time::Duration;

/// Bounds on one policy call, on one policy file and on all sandboxes together.
///
/// The default values are those of the configuration's section `[policy]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock time for one call, instantiation included. Counted in ticks of 1 ms: a call ends at most two ticks late. One
    /// that is only then seen to go on, because others had the processor, gets up to two ticks more.
    pub deadline: Duration,
    /// Linear memory of one sandbox in bytes. Rounded down to whole pages of 64 KiB.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Stack of the compiled code in bytes. The calling thread needs as much head-room, and some more for the host's functions.
    pub stack_bytes: usize,
    /// Bytes that one call of a host function, or the verdict, may make the host copy out of the sandbox.
    pub host_call_bytes: usize,
    /// Size of a policy file in bytes.
    pub module_bytes: usize,
    /// Processor time for compiling a file, where that happens in another process.
    pub compile_time: Duration,
    /// Memory for compiling a file, where that happens in another process, in bytes.
    pub compile_bytes: usize,
    /// Lines that one call may log. Further ones are counted and dropped.
    pub log_lines: u32,
    /// Bytes of one logged line. Longer ones are cut.
    pub log_bytes: usize,
    /// Sandboxes that may exist at the same time, over all policies and threads.
    pub instances: u32,
}

impl Limits {
    /// These limits for one policy that has others: whichever is lower. Stack, compiler and number of sandboxes are the engine's.
    pub(crate) fn lowered_to(self, other: &Self) -> Self {
        Self {
            deadline: self.deadline.min(other.deadline),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            table_elements: self.table_elements.min(other.table_elements),
            module_bytes: self.module_bytes.min(other.module_bytes),
            host_call_bytes: self.host_call_bytes.min(other.host_call_bytes),
            log_lines: self.log_lines.min(other.log_lines),
            log_bytes: self.log_bytes.min(other.log_bytes),
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(5),
            memory_bytes: 16 << 20,
            table_elements: 10_000,
            stack_bytes: 256 << 10,
            host_call_bytes: 64 << 10,
            module_bytes: 4 << 20,
            compile_time: Duration::from_secs(10),
            compile_bytes: 1 << 30,
            log_lines: 16,
            log_bytes: 1 << 10,
            instances: 2500,
        }
    }
}
