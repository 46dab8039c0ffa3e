//! The limit of open files: each connection takes one.

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open beside connections, at most.
const OTHERS: u64 = 64;

/// Raises the limit of this process so that it can have this many connections.
///
/// # Errors
/// If the system does not permit it. The error says how to permit it.
pub(crate) fn permit(connections: usize) -> Result<()> {
    let needed = connections as u64 + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let advice = || {
        format!(
            "{connections} connections need {needed} open files: raise the limit with `ulimit -Hn {needed}` as root"
        )
    };
    let maximum = match maximum {
        // Only root may.
        Some(maximum) if maximum < needed => Some(needed),
        maximum => maximum,
    };
    let raised = Rlimit {
        current: Some(needed),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).with_context(advice)?;
    ensure!(
        getrlimit(Resource::Nofile)
            .current
            .is_none_or(|current| current >= needed),
        "{}",
        advice()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_impossible_is_refused_with_advice() {
        // Beyond fs.nr_open, even root may not.
        let refusal = permit(usize::MAX / 4).unwrap_err();
        assert!(format!("{refusal:#}").contains("ulimit -Hn"), "{refusal:#}");
    }
}
