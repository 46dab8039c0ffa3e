//! The compiler in a process of its own: this program, started again with a file on standard input, with bounds on time and memory, and
//! without the rights of the host.

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
use portcullis_policy::{CompileFailure, Compiler, Limits, Target, compile};

pub use code::{CodeCacheError, Kept, keep_code, share_code};
pub use confine::Confinement;
pub(crate) use turns::{Behalf, Occasion, at_start, on, on_behalf_of};

use turns::{Turns, Work};

/// This program, also after its file has been replaced.
const SELF: &str = "/proc/self/exe";

/// How many times longer than its processor time a compiler may take by the clock: others may have the processor.
const WALL: u32 = 10;

/// How much more a host that starts allows. Files that it served before are compiled then, while everything else on the machine starts
/// too: to refuse one would take its calls down.
const START: u32 = 10;

/// The signals of what has taken too much: CPU time, memory.
const SIGXCPU: i32 = 24;
const SIGABRT: i32 = 6;

/// What the other process is told, and how it is told.
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
    /// How much it gives way to everything else (`nice`).
    #[arg(long)]
    niceness: u8,
    /// Tell what the process can still reach, in place of compiling.
    #[arg(long)]
    report: bool,
}

/// What one process may take, beside memory.
#[derive(Clone, Copy, Debug)]
struct Time {
    processor: Duration,
    wall: Duration,
}

impl Bounds {
    /// The name of the hidden subcommand.
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

/// The way to the other process, for a host whose compiler may have these limits.
pub fn elsewhere(limits: &Limits) -> Compiler {
    with_turns(Turns::new(at_start(limits.compile_bytes)))
}

/// The same for a command that looks at files.
pub fn for_a_command() -> Compiler {
    with_turns(Turns::new(0))
}

fn with_turns(turns: Turns) -> Compiler {
    Box::new(move |file, limits, target| {
        let work = Work::current();
        let _turn = turns.take(work);
        let time = Time::of(limits, work.occasion);
        run(file, limits, target, time, work.behalf)
    })
}

/// Gives the calling process the bounds of one that compiles, for good: a command that has read a file and looks into it now. It has the
/// file in memory already, so its memory comes on top of that.
///
/// # Errors
/// When the system refuses a limit.
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

/// What the process that compiles can still reach on this machine.
///
/// # Errors
/// When it can't be started, or tells nothing.
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

/// What the other process gives up before it reads anything of the file.
fn confine(bounds: &Bounds) -> io::Result<Confinement> {
    let limit = |resource, soft: u64, hard: u64| setrlimit(resource, soft, hard);
    let (bytes, seconds) = (bounds.compile_bytes as u64, bounds.compile_seconds);
    limit(Resource::RLIMIT_AS, bytes, bytes)?;
    // At the soft limit comes the signal that tells why.
    limit(Resource::RLIMIT_CPU, seconds, seconds + 1)?;
    limit(Resource::RLIMIT_CORE, 0, 0)?;
    // Threads that are made later are as nice as this one.
    rustix::process::nice(bounds.niceness.into())?;
    Ok(confine::confine())
}

/// What the other process does.
pub fn work(bounds: &Bounds) -> ExitCode {
    // A panic over the file is told as what is wrong with it.
    panic::set_hook(Box::new(|_| {}));
    let confined = match confine(bounds) {
        Ok(confined) => confined,
        Err(error) => {
            eprintln!("no bounds: {error}");
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
        eprintln!("no file: {error}");
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
    let mut child = Command::new(SELF)
        .arg(Bounds::COMMAND)
        .args(Bounds::of(limits, target, time, behalf).words())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(broken)?;
    let (code, said, is_late) = talk(&mut child, file, time.wall);
    let status = child.wait().map_err(broken)?;
    if is_late {
        let Time { wall, processor } = time;
        let cause = format!(
            "it did not have {processor:?} of processor time within {wall:?}: the machine is busy"
        );
        return Err(CompileFailure::TooCostly(cause));
    }
    outcome(status, code, &said, limits, time)
}

/// Gives the file to the process and takes what it writes; ends it if that takes too long.
fn talk(child: &mut Child, file: &[u8], most: Duration) -> (Vec<u8>, String, bool) {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (done, ended) = channel();
    thread::scope(|scope| {
        // One that ends early does not read on; that is told by its status.
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
            let cause = format!("it took more than {processor:?} of processor time");
            Err(CompileFailure::TooCostly(cause))
        }
        (Some(1), _) | (_, Some(SIGABRT)) if is_out_of_memory => {
            let bytes = limits.compile_bytes;
            let cause = format!("it took more than {bytes} bytes of memory");
            Err(CompileFailure::TooCostly(cause))
        }
        _ => Err(CompileFailure::Broken(format!("{status} {said}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_starts_has_more_patience() {
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
    fn how_it_ended_tells_what_was_wrong() {
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
        // What says nothing of the file is not held against it, and the file is not looked at here.
        for raw in [11, SIGABRT, 2 << 8, 101 << 8] {
            let failure = of(raw, "");
            assert!(matches!(failure, CompileFailure::Broken(_)), "{failure}");
        }
    }
}
