//! Limits of policies.

use std::time::Duration;

/// Limits of one call, of one policy file and of all sandboxes together.
///
/// The default values are those of the configuration's section `[policy]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall-clock time of one call, including instantiation. Counted in ticks of 1 ms: a call ends at most two ticks late. A call
    /// whose thread was preempted until its deadline gets up to two more ticks.
    pub deadline: Duration,
    /// Linear memory of one sandbox in bytes. Rounded down to whole pages of 64 KiB.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Stack of the compiled code in bytes. The calling thread needs this much free stack, and some more for the host functions.
    pub stack_bytes: usize,
    /// Bytes that the host copies out of the sandbox for one call of a host function or for the verdict.
    pub host_call_bytes: usize,
    /// Size of a policy file in bytes.
    pub module_bytes: usize,
    /// CPU time for compiling a file in a compiler process.
    pub compile_time: Duration,
    /// Memory for compiling a file in a compiler process, in bytes.
    pub compile_bytes: usize,
    /// Lines that one call may log. Further lines are dropped and counted.
    pub log_lines: u32,
    /// Bytes of one log line. Longer lines are cut.
    pub log_bytes: usize,
    /// Sandboxes that may exist at the same time, of all policies and threads together.
    pub instances: u32,
}

impl Limits {
    /// The lower of both values for each limit of a policy. Limits of the engine (stack, compiler, number of sandboxes) are unchanged.
    pub(crate) fn lowered_to(self, other: &Self) -> Self {
        // Without `..`, so that the compiler reports a new limit for which nothing has been decided here.
        let Self {
            deadline,
            memory_bytes,
            table_elements,
            stack_bytes: _,
            host_call_bytes,
            module_bytes,
            compile_time: _,
            compile_bytes: _,
            log_lines,
            log_bytes,
            instances: _,
        } = *other;
        Self {
            deadline: self.deadline.min(deadline),
            memory_bytes: self.memory_bytes.min(memory_bytes),
            table_elements: self.table_elements.min(table_elements),
            stack_bytes: self.stack_bytes,
            host_call_bytes: self.host_call_bytes.min(host_call_bytes),
            module_bytes: self.module_bytes.min(module_bytes),
            compile_time: self.compile_time,
            compile_bytes: self.compile_bytes,
            log_lines: self.log_lines.min(log_lines),
            log_bytes: self.log_bytes.min(log_bytes),
            instances: self.instances,
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
