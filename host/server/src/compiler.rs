//! The compiler in a process of its own: this program, started again with a file on standard input and bounds on time and memory.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use parking_lot::{Condvar, Mutex};
use portcullis_policy::{CompileFailure, Compiler, Limits, compile};

/// This program, also after its file has been replaced.
const SELF: &str = "/proc/self/exe";

/// Processes that compile at the same time; further files wait. A load must not take all cores.
const AT_ONCE: usize = 2;

/// The signals of what has taken too much: CPU time, memory.
const SIGXCPU: i32 = 24;
const SIGABRT: i32 = 6;

/// What the other process is told, and how it is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Bounds {
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
}

impl Bounds {
    /// The name of the hidden subcommand.
    pub(crate) const COMMAND: &str = "compile-policy";

    fn of(limits: &Limits) -> Self {
        Self {
            module_bytes: limits.module_bytes,
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            stack_bytes: limits.stack_bytes,
            compile_bytes: limits.compile_bytes,
            compile_seconds: limits.compile_time.as_secs().saturating_add(1),
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
        ];
        let words = pairs.map(|(name, value)| [name.to_owned(), value.to_string()]);
        words.into_iter().flatten().map(OsString::from).collect()
    }
}

/// The way to the other process.
pub(crate) fn elsewhere() -> Compiler {
    let turns = Turns::default();
    Box::new(move |file, limits| {
        let _turn = turns.take();
        run(file, limits)
    })
}

/// What the other process does.
pub(crate) fn work(bounds: &Bounds) -> ExitCode {
    let limit = |resource, most: u64| setrlimit(resource, most, most);
    let limited = limit(Resource::RLIMIT_AS, bounds.compile_bytes as u64)
        .and_then(|()| limit(Resource::RLIMIT_CPU, bounds.compile_seconds))
        .and_then(|()| limit(Resource::RLIMIT_CORE, 0));
    if let Err(error) = limited {
        eprintln!("no bounds: {error}");
        return ExitCode::from(2);
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
    match compile(&file, &limits) {
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

fn run(file: &[u8], limits: &Limits) -> Result<Vec<u8>, CompileFailure> {
    let broken = |error: io::Error| CompileFailure::Broken(error.to_string());
    let mut child = Command::new(SELF)
        .arg(Bounds::COMMAND)
        .args(Bounds::of(limits).words())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(broken)?;
    let (code, said, is_late) = talk(&mut child, file, limits.compile_time);
    let status = child.wait().map_err(broken)?;
    if is_late {
        let limit = limits.compile_time;
        let cause = format!("it took longer than {limit:?}");
        return Err(CompileFailure::TooCostly(cause));
    }
    outcome(status, code, &said, limits)
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
) -> Result<Vec<u8>, CompileFailure> {
    let is_out_of_memory =
        said.contains("memory allocation of") || said.contains("Cannot allocate memory");
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(code),
        (Some(1), _) if !is_out_of_memory => Err(CompileFailure::Refused(said.to_owned())),
        (_, Some(SIGXCPU)) => {
            let limit = limits.compile_time;
            let cause = format!("it took more than {limit:?} of processor time");
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

/// Who may compile now.
#[derive(Default)]
struct Turns {
    taken: Mutex<usize>,
    free: Condvar,
}

struct Turn<'t>(&'t Turns);

impl Turns {
    fn take(&self) -> Turn<'_> {
        let mut taken = self.taken.lock();
        while *taken == AT_ONCE {
            self.free.wait(&mut taken);
        }
        *taken += 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock() -= 1;
        self.0.free.notify_one();
    }
}
