//! The compiler process: this program, started again with a policy file on standard input, with limits on time and memory, and without
//! the privileges of the host.

mod code;
mod confine;
mod turns;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use portcullis_policy::{CompileFailure, Compiler, Limits, Target, compile, scheduling};

pub use code::{CodeCacheError, CodeCacheState, keep_code, share_code};
pub use confine::Confinement;
pub(crate) use turns::{Behalf, Occasion, at_start, on, on_behalf_of};

use turns::{CompilePurpose, Turns};

/// The running program, even if its file has been replaced.
const SELF: &str = "/proc/self/exe";

/// Limit of the wall time of a compilation, as a multiple of the limit of its processor time. Other processes may use the processor.
const WALL: u32 = 10;

/// Factor for both limits while the host starts. Everything else on the machine may be starting too, and a policy that is refused then
/// would leave its requests without a decision.
const START: u32 = 10;

/// Signal for a process that has exceeded its limit of processor time.
const SIGXCPU: i32 = 24;
const SIGABRT: i32 = 6;

/// Arguments of the compiler process.
#[derive(Clone, Debug, clap::Args)]
pub struct Bounds {
    #[arg(long)]
    module_bytes: usize,
    #[arg(long)]
    memory_bytes: usize,
    #[arg(long)]
    table_elements: usize,
    #[arg(long)]
    stack_bytes: usize,
    #[arg(long)]
    compile_bytes: usize,
    #[arg(long)]
    compile_seconds: u64,
    #[arg(long)]
    metered: bool,
    /// Scheduling priority of the process (`nice`).
    #[arg(long)]
    niceness: u8,
    /// Report what the process can still access, instead of compiling.
    #[arg(long)]
    report: bool,
}

/// Time limits of one compiler process.
#[derive(Clone, Copy, Debug)]
struct Time {
    processor: Duration,
    wall: Duration,
}

impl Bounds {
    /// Name of the hidden subcommand.
    pub const COMMAND: &str = "compile-policy";

    fn of(limits: &Limits, target: Target, time: Time, behalf: Behalf) -> Self {
        Self {
            module_bytes: limits.module_bytes,
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            stack_bytes: limits.stack_bytes,
            compile_bytes: limits.compile_bytes,
            // The system counts whole seconds.
            compile_seconds: time.processor.as_millis().div_ceil(1000) as u64,
            metered: target == Target::Metered,
            niceness: behalf.niceness(),
            report: false,
        }
    }

    fn words(&self) -> Vec<OsString> {
        let pairs = [
            ("--module-bytes", self.module_bytes as u64),
            ("--memory-bytes", self.memory_bytes as u64),
            ("--table-elements", self.table_elements as u64),
            ("--stack-bytes", self.stack_bytes as u64),
            ("--compile-bytes", self.compile_bytes as u64),
            ("--compile-seconds", self.compile_seconds),
            ("--niceness", self.niceness.into()),
        ];
        let words = pairs.map(|(name, value)| [name.to_owned(), value.to_string()]);
        let metered = self.metered.then(|| "--metered".to_owned());
        let report = self.report.then(|| "--report".to_owned());
        let words = words.into_iter().flatten().chain(metered).chain(report);
        words.map(OsString::from).collect()
    }
}

impl Time {
    fn of(limits: &Limits, occasion: Occasion) -> Self {
        let times = match occasion {
            Occasion::Start => START,
            Occasion::Usual => 1,
        };
        let processor = limits.compile_time.saturating_mul(times);
        Self {
            processor,
            wall: processor.saturating_mul(WALL),
        }
    }
}

/// Returns a compiler that runs in a process of its own, with the limits in `limits`.
pub fn elsewhere(limits: &Limits) -> Compiler {
    with_turns(Turns::new(at_start(limits.compile_bytes)))
}

/// The same for a command that inspects files.
pub fn for_a_command() -> Compiler {
    with_turns(Turns::new(0))
}

fn with_turns(turns: Turns) -> Compiler {
    Box::new(move |file, limits, target| {
        let work = CompilePurpose::current();
        let _turn = turns.take(work);
        let time = Time::of(limits, work.occasion);
        run(file, limits, target, time, work.behalf)
    })
}

/// Applies the limits of a compiler process to the calling process, permanently: for a command that has read a file and inspects it in its
/// own process. The memory that the process uses already is added to the limit.
///
/// # Errors
/// If the system refuses a limit.
pub fn confine_this_process() -> io::Result<()> {
    let limits = Limits::default();
    let time = Time::of(&limits, Occasion::Usual);
    let bounds = Bounds::of(&limits, Target::Serving, time, Behalf::Operator);
    confine(&Bounds {
        compile_bytes: 2 * limits.compile_bytes,
        ..bounds
    })
    .map(drop)
}

/// Finds out what the compiler process can still access on this machine.
///
/// # Errors
/// If the process cannot be started, or does not report.
pub fn confinement() -> io::Result<Confinement> {
    let limits = Limits::default();
    let time = Time::of(&limits, Occasion::Usual);
    let bounds = Bounds {
        report: true,
        ..Bounds::of(&limits, Target::Serving, time, Behalf::Operator)
    };
    let said = Command::new(SELF)
        .arg(Bounds::COMMAND)
        .args(bounds.words())
        .env_clear()
        .stdin(Stdio::null())
        .output()?;
    let line = String::from_utf8_lossy(&said.stdout);
    Confinement::parse(&line).ok_or_else(|| {
        let wrong = String::from_utf8_lossy(&said.stderr).into_owned();
        io::Error::other(format!("{} {wrong}", said.status))
    })
}

/// Drops the privileges of the compiler process, before it reads the file.
fn confine(bounds: &Bounds) -> io::Result<Confinement> {
    let limit = |resource, soft: u64, hard: u64| setrlimit(resource, soft, hard);
    let (bytes, seconds) = (bounds.compile_bytes as u64, bounds.compile_seconds);
    limit(Resource::RLIMIT_AS, bytes, bytes)?;
    // At the soft limit, the process gets a signal that names the cause.
    limit(Resource::RLIMIT_CPU, seconds, seconds + 1)?;
    limit(Resource::RLIMIT_CORE, 0, 0)?;
    // Threads that are created later inherit this.
    scheduling::to_background(bounds.niceness)?;
    Ok(confine::confine())
}

/// Main function of the compiler process.
pub fn work(bounds: &Bounds) -> ExitCode {
    // A panic while compiling is reported as an error of the file.
    panic::set_hook(Box::new(|_| {}));
    // Confined processes cannot create timers. Without this one, requests may wait longer for the processor.
    let _yields = scheduling::yield_at_intervals();
    let confined = match confine(bounds) {
        Ok(confined) => confined,
        Err(error) => {
            eprintln!("cannot apply the limits: {error}");
            return ExitCode::from(2);
        }
    };
    if bounds.report {
        println!("{}", confined.try_out().line());
        return ExitCode::SUCCESS;
    }
    let limits = Limits {
        module_bytes: bounds.module_bytes,
        memory_bytes: bounds.memory_bytes,
        table_elements: bounds.table_elements,
        stack_bytes: bounds.stack_bytes,
        ..Limits::default()
    };
    let mut file = Vec::new();
    if let Err(error) = io::stdin().lock().read_to_end(&mut file) {
        eprintln!("cannot read the file: {error}");
        return ExitCode::from(2);
    }
    let target = match bounds.metered {
        true => Target::Metered,
        false => Target::Serving,
    };
    match compile(&file, &limits, target) {
        Ok(code) => match io::stdout().lock().write_all(&code) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(2),
        },
        Err(cause) => {
            eprint!("{cause}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    file: &[u8],
    limits: &Limits,
    target: Target,
    time: Time,
    behalf: Behalf,
) -> Result<Vec<u8>, CompileFailure> {
    let broken = |error: io::Error| CompileFailure::Broken(error.to_string());
    let mut command = Command::new(SELF);
    command
        .arg(Bounds::COMMAND)
        .args(Bounds::of(limits, target, time, behalf).words())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn_in_background(&mut command, behalf).map_err(broken)?;
    let (code, said, is_late) = talk(&mut child, file, time.wall);
    let status = child.wait().map_err(broken)?;
    if is_late {
        let Time { wall, processor } = time;
        let cause = format!(
            "it did not get {processor:?} of processor time within {wall:?}: the machine is busy"
        );
        return Err(CompileFailure::TooCostly(cause));
    }
    outcome(status, code, &said, limits, time)
}

/// Starts the process on a thread in the background. The process inherits that: its start alone takes milliseconds of processor time.
fn spawn_in_background(command: &mut Command, behalf: Behalf) -> io::Result<Child> {
    let spawn = || {
        // The process tries this again, and reports why it cannot.
        let _refused = scheduling::to_background(behalf.niceness());
        command.spawn()
    };
    thread::scope(|scope| match scope.spawn(spawn).join() {
        Ok(child) => child,
        Err(_) => Err(io::Error::other("the thread that starts it has panicked")),
    })
}

/// Writes the file to the process and reads its output; kills the process if that takes too long.
fn talk(child: &mut Child, file: &[u8], most: Duration) -> (Vec<u8>, String, bool) {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (done, ended) = channel();
    thread::scope(|scope| {
        // A process that ends early does not read the whole file; its status says why.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(file)));
        let errors = scope.spawn(move || read(stderr));
        let code = scope.spawn(move || {
            let code = read(stdout);
            let _nobody_waits = done.send(());
            code
        });
        let is_late = ended.recv_timeout(most) == Err(RecvTimeoutError::Timeout);
        if is_late {
            let _ended_already = child.kill();
        }
        let code = code.join().unwrap_or_default();
        let said = errors.join().unwrap_or_default();
        (code, String::from_utf8_lossy(&said).into_owned(), is_late)
    })
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _what_there_is = pipe.read_to_end(&mut bytes);
    }
    bytes
}

fn outcome(
    status: ExitStatus,
    code: Vec<u8>,
    said: &str,
    limits: &Limits,
    time: Time,
) -> Result<Vec<u8>, CompileFailure> {
    let is_out_of_memory =
        said.contains("memory allocation of") || said.contains("Cannot allocate memory");
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(code),
        (Some(1), _) if !is_out_of_memory => Err(CompileFailure::Refused(said.to_owned())),
        (_, Some(SIGXCPU)) => {
            let Time { processor, .. } = time;
            let cause = format!("it exceeded {processor:?} of processor time");
            Err(CompileFailure::TooCostly(cause))
        }
        (Some(1), _) | (_, Some(SIGABRT)) if is_out_of_memory => {
            let bytes = limits.compile_bytes;
            let cause = format!("it exceeded {bytes} bytes of memory");
            Err(CompileFailure::TooCostly(cause))
        }
        _ => Err(CompileFailure::Broken(format!("{status} {said}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_has_higher_limits() {
        let limits = Limits {
            compile_time: Duration::from_millis(2500),
            ..Limits::default()
        };
        let time = Time::of(&limits, Occasion::Usual);
        assert_eq!(time.processor, Duration::from_millis(2500));
        assert_eq!(time.wall, Duration::from_secs(25));
        let words = Bounds::of(&limits, Target::Serving, time, Behalf::Operator);
        assert_eq!(words.compile_seconds, 3, "the system counts whole seconds");
        let start = Time::of(&limits, Occasion::Start);
        assert_eq!(start.processor, Duration::from_secs(25));
        assert_eq!(start.wall, Duration::from_secs(250));
    }

    #[test]
    fn the_exit_status_determines_the_error() {
        let limits = Limits::default();
        let time = Time::of(&limits, Occasion::Usual);
        let of = |raw, said: &str| {
            outcome(ExitStatus::from_raw(raw), Vec::new(), said, &limits, time).unwrap_err()
        };
        let is_costly = |failure| matches!(failure, CompileFailure::TooCostly(_));
        assert!(is_costly(of(SIGXCPU, "")));
        assert!(is_costly(of(
            SIGABRT,
            "memory allocation of 8 bytes failed"
        )));
        assert!(is_costly(of(
            1 << 8,
            "Cannot allocate memory (os error 12)"
        )));
        let refused = of(1 << 8, "the file is empty");
        assert_eq!(refused, CompileFailure::Refused("the file is empty".into()));
        // A crash that the file may not have caused does not refuse the file, and the file is not compiled in this process instead.
        for raw in [11, SIGABRT, 2 << 8, 101 << 8] {
            let failure = of(raw, "");
            assert!(matches!(failure, CompileFailure::Broken(_)), "{failure}");
        }
    }
}
