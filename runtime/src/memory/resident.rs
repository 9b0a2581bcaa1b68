//! Giving memory back that loading needed and running does not.

/// Gives back to the system what this process no longer needs of its resident memory: pages of the heap that are free, and
/// pages of programs and libraries that are as they are in their files. Of those, the ones that are needed again are mapped
/// again from the file.
///
/// A program that links a compiler touches most of its libraries while they are bound and then runs kernels alone. Does
/// nothing where the system is not Linux.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: has no conditions; memory that is in use stays.
        unsafe { libc::malloc_trim(0) };
    }
    #[cfg(target_os = "linux")]
    {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        for (start, end) in unchanged(&smaps) {
            // SAFETY: the pages belong to a private mapping of a file that cannot be written and of which no page was
            // ever changed, so that every page is read from the file again when it is touched.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
}

/// The mappings of files, private and not writable, of which no page has a copy of its own. Parts of a library that were
/// changed while it was bound and then protected have such copies.
#[cfg(target_os = "linux")]
fn unchanged(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if first == "Anonymous:" {
            found.extend(mapping.take().filter(|_| words.next() == Some("0")));
        } else if !first.ends_with(':') {
            // start-end permissions offset device inode path
            let range = first.split_once('-').and_then(|(start, end)| {
                Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
            });
            let fixed = words.next().is_some_and(|bits| bits.ends_with('p') && !bits.contains('w'));
            let file = words.nth(3).is_some_and(|path| path.starts_with('/'));
            mapping = range.filter(|(start, end)| fixed && file && start < end);
        }
    }
    found
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn mappings_without_copies_are_found() {
        let mapping = |range: &str, bits: &str, path: &str, anonymous: u32| {
            format!(
                "{range} {bits} 00001000 fe:00 123   {path}\nRss: 8 kB\nAnonymous:   {anonymous} kB\nVmFlags: rd mr\n"
            )
        };
        let smaps = [
            mapping("1000-3000", "r-xp", "/usr/lib/a.so", 0),
            mapping("3000-4000", "r--p", "/usr/lib/a.so", 4),
            mapping("4000-5000", "rw-p", "/usr/lib/a.so", 0),
            mapping("5000-6000", "r--s", "/tmp/weights", 0),
            mapping("6000-7000", "r-xp", "[vdso]", 0),
            mapping("7000-8000", "r--p", "", 0),
            mapping("9000-a000", "r--p", "/usr/lib/with space.so", 0),
        ];
        assert_eq!(unchanged(&smaps.concat()), [(0x1000, 0x3000), (0x9000, 0xa000)]);
    }

    #[test]
    fn the_program_goes_on_with_less() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("is there");
            line.trim().trim_end_matches("kB").trim().parse::<usize>().expect("a number")
        };
        // Many small pieces with a live one behind them: freeing alone returns nothing of them.
        let pieces: Vec<Vec<u8>> = (0..4000).map(|_| vec![1; 4 << 10]).collect();
        let behind = vec![1u8; 4 << 10];
        drop(pieces);
        let before = resident();
        give_back();
        assert!(resident() < before, "{} kB, {before} kB before", resident());
        assert_eq!(behind.len(), 4 << 10);
    }
}
