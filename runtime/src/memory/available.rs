//! How much memory the machine has left.

/// Bytes that may be taken before the system starts to swap or to end programs: what is available of the machine's
/// memory, or of the limit of this process's control group where that is less. `None` where the system does not say.
pub fn available_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_line(&text));
    let number = |file: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse().ok()
    };
    let group = match (number("memory.max"), number("memory.current")) {
        (Some(limit), Some(used)) => {
            // Page cache counts as used and is given back on demand.
            let cache = std::fs::read_to_string("/sys/fs/cgroup/memory.stat").ok();
            let cache = cache.as_deref().and_then(|text| field(text, "inactive_file")).unwrap_or(0);
            Some(limit.saturating_sub(used.saturating_sub(cache)))
        }
        _ => None,
    };
    machine.into_iter().chain(group).min()
}

/// The bytes of the line `MemAvailable: N kB`.
fn available_line(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found() {
        let text = "MemTotal: 100 kB\nMemAvailable:     1234 kB\n";
        assert_eq!(available_line(text), Some(1234 * 1024));
        assert_eq!(available_line("MemAvailable: x kB"), None);
        assert_eq!(field("inactive_files 3\ninactive_file 42\n", "inactive_file"), Some(42));
    }
}
