//! The privileges of this process and of the process that compiles policies.

use nix::unistd::geteuid;

use portcullis_rollout::compiler;

/// A finding about privileges.
pub(crate) enum Finding {
    /// As intended.
    Good(String),
    /// More than necessary.
    Odd(String),
}

/// The user that the host runs as.
pub(crate) fn user() -> Finding {
    let user = geteuid();
    match user.is_root() {
        true => Finding::Odd(
            "root: a vulnerability in the host would give access to the whole machine; run it as a user of its own (docs/operations.md has a unit for systemd)"
                .to_owned(),
        ),
        false => Finding::Good(format!("uid {user}")),
    }
}

/// What the process that compiles policies can access. Starts one to find out.
pub(crate) fn compiler() -> Finding {
    match compiler::confinement() {
        Ok(confined) if confined.holds() => Finding::Good(confined.to_string()),
        Ok(confined) => Finding::Odd(format!(
            "{confined}: a policy file that exploits the compiler gets these privileges of the host"
        )),
        Err(error) => Finding::Odd(format!("it cannot be started: {error}")),
    }
}

/// Logs excessive privileges, and how the compiler is confined.
pub(crate) fn tell() {
    if let Finding::Odd(text) = user() {
        tracing::warn!(event = "runs_as_root", "the host runs as {text}");
    }
    match compiler() {
        Finding::Good(confined) => {
            tracing::info!(
                event = "compiler_confined",
                confined,
                "policies are compiled in a confined process"
            );
        }
        Finding::Odd(confined) => tracing::warn!(
            event = "compiler_not_confined",
            confined,
            "the process that compiles policies is not fully confined"
        ),
    }
}
