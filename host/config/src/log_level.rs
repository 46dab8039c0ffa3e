//! Values of `[log] level`.

use tracing_subscriber::EnvFilter;

/// Checks a value of `[log] level`.
pub(super) fn check(level: &str) -> Result<(), String> {
    // EnvFilter would take a misspelt level for the name of a module.
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    for part in level.split(',') {
        let word = part.rsplit('=').next().unwrap_or(part).trim();
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(format!("`{word}` is not a level"));
        }
    }
    EnvFilter::try_new(level)
        .map(drop)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked() {
        for good in ["info", "WARN", "off", "info,portcullis_address=debug"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "loud", "info,portcullis=loud", "info,,debug"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
