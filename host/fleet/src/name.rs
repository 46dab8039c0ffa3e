//! The name of a host.

use crate::directory::NAME_CHARACTERS;

/// Returns the name of this host in its fleet: the configured one, or that of the system, in the characters that a name may have.
pub fn host_name(configured: Option<&str>) -> String {
    let name = configured.map_or_else(system_name, str::to_owned);
    let known = |c: char| match c {
        c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') => c,
        _ => '-',
    };
    let name: String = name.chars().map(known).take(NAME_CHARACTERS).collect();
    match name.is_empty() {
        true => "host".to_owned(),
        false => name,
    }
}

fn system_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_that_fits_its_column() {
        assert_eq!(host_name(Some("edge-1.example.com")), "edge-1.example.com");
        assert_eq!(host_name(Some("edge 1/ü")), "edge-1--");
        assert_eq!(host_name(Some(&"a".repeat(100))).len(), NAME_CHARACTERS);
        assert_eq!(host_name(Some("")), "host");
        assert!(!host_name(None).is_empty());
    }
}
