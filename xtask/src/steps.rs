//! A sequence of steps, reported as they run and summarised at the end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

/// The steps so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    passed: Vec<(&'static str, Duration)>,
    failed: Option<(&'static str, Duration)>,
    left_out: Vec<String>,
}

impl Steps {
    /// Runs a step, unless an earlier one has failed.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        if self.failed.is_some() {
            return;
        }
        eprintln!("\n== {name}");
        let began = Instant::now();
        let done = work();
        let took = began.elapsed();
        match done {
            Ok(()) => self.passed.push((name, took)),
            Err(error) => {
                eprintln!("error: {error:#}");
                self.failed = Some((name, took));
            }
        }
    }

    /// Notes something that is skipped, for the summary.
    pub(crate) fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }

    /// Prints the summary, whose last line is `N passed, N failed`.
    pub(crate) fn finish(self) -> ExitCode {
        println!("\n{}", self.summary());
        match self.failed {
            Some(_) => ExitCode::FAILURE,
            None => ExitCode::SUCCESS,
        }
    }

    fn summary(&self) -> String {
        let line = |word: &str, (name, took): &(&str, Duration)| {
            format!("{word:<8}{:>7.1} s  {name}\n", took.as_secs_f64())
        };
        let mut text = String::new();
        text.extend(self.passed.iter().map(|step| line("passed", step)));
        text.extend(self.failed.iter().map(|step| line("FAILED", step)));
        text.extend(
            self.left_out
                .iter()
                .map(|what| format!("left out: {what}\n")),
        );
        text + &format!(
            "{} passed, {} failed",
            self.passed.len(),
            u8::from(self.failed.is_some())
        )
    }
}

/// A known number of steps, each of which is announced with a line.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    steps: usize,
    told: usize,
}

impl Progress {
    /// No step has begun yet.
    pub(crate) fn new(steps: usize) -> Self {
        Self {
            begun: Instant::now(),
            steps,
            told: 0,
        }
    }

    /// Announces the next step.
    pub(crate) fn next(&mut self, step: &str) {
        eprintln!("{}", self.line(step, self.begun.elapsed()));
    }

    fn line(&mut self, step: &str, since_start: Duration) -> String {
        self.told += 1;
        format!(
            "== {}/{} after {:.0} s: {step}",
            self.told,
            self.steps,
            since_start.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failure_ends_the_sequence() {
        let mut steps = Steps::default();
        let mut done = Vec::new();
        steps.step("one", || {
            done.push(1);
            Ok(())
        });
        steps.step("two", || bail!("no"));
        steps.step("three", || {
            done.push(3);
            Ok(())
        });

        assert_eq!(done, [1]);
        let summary = steps.summary();
        assert!(summary.ends_with("s  two\n1 passed, 1 failed"), "{summary}");
        assert_eq!(steps.finish(), ExitCode::FAILURE);
    }

    #[test]
    fn progress_has_one_line_per_step() {
        let mut progress = Progress::new(2);
        let mut line = |step: &str, seconds| progress.line(step, Duration::from_secs(seconds));
        assert_eq!(line("Building", 0), "== 1/2 after 0 s: Building");
        assert_eq!(line("Starting", 75), "== 2/2 after 75 s: Starting");
    }

    #[test]
    fn skipped_steps_are_listed() {
        let mut steps = Steps::default();
        steps.step("one", || Ok(()));
        steps.leave_out("two, as asked");

        let summary = steps.summary();
        assert!(
            summary.ends_with("s  one\nleft out: two, as asked\n1 passed, 0 failed"),
            "{summary}"
        );
        assert_eq!(steps.finish(), ExitCode::SUCCESS);
    }
}
