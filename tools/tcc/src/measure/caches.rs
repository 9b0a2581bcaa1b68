//! The caches of the first core, as the system describes them.

use std::path::Path;

/// One cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cache {
    /// Capacity.
    pub bytes: u64,
    /// True where several cores share it.
    pub shared: bool,
}

/// Data caches by level, innermost first; empty where the system does not tell.
pub fn of_this_host() -> Vec<Cache> {
    read(Path::new("/sys/devices/system/cpu/cpu0/cache"))
}

fn read(folder: &Path) -> Vec<Cache> {
    let mut found = Vec::new();
    for index in 0..8 {
        let text = |name: &str| {
            std::fs::read_to_string(folder.join(format!("index{index}/{name}")))
                .map(|text| text.trim().to_string())
        };
        let (Ok(kind), Ok(level), Ok(size)) = (text("type"), text("level"), text("size")) else { continue };
        let level: Option<u32> = level.parse().ok();
        if let (Some(level), Some(bytes), true) = (level, parse_size(&size), kind != "Instruction") {
            // A list such as `0` names one core, `0-7` or `0,4` several.
            let shared = text("shared_cpu_list").is_ok_and(|list| list.contains([',', '-']));
            found.push((level, Cache { bytes, shared }));
        }
    }
    found.sort_by_key(|(level, _)| *level);
    found.into_iter().map(|(_, cache)| cache).collect()
}

/// `48K`, `32M`.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix('M') {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read_innermost_first() {
        let folder = tempfile::tempdir().unwrap();
        for (index, (kind, level, size, cores)) in
            [("Data", "1", "48K", "0"), ("Instruction", "1", "32K", "0"), ("Unified", "3", "32M", "0-7")]
                .iter()
                .enumerate()
        {
            let path = folder.path().join(format!("index{index}"));
            std::fs::create_dir(&path).unwrap();
            for (name, text) in [("type", kind), ("level", level), ("size", size), ("shared_cpu_list", cores)]
            {
                std::fs::write(path.join(name), format!("{text}\n")).unwrap();
            }
        }
        let expected = [Cache { bytes: 48 << 10, shared: false }, Cache { bytes: 32 << 20, shared: true }];
        assert_eq!(read(folder.path()), expected);
        assert!(read(&folder.path().join("missing")).is_empty());
        assert_eq!(parse_size("0K"), None);
    }
}
