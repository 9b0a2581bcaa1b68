//! Builds and runs the testbench of a project.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tcc_hls::{Options, Part, Project, project};
use tcc_passes::program::Program;

/// Where tests keep the headers of `ap_int` and `ap_fixed`: the folder in `TCC_AP_INCLUDE`, or the user's cache.
fn ap_include() -> Option<&'static PathBuf> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        if let Some(folder) = std::env::var_os("TCC_AP_INCLUDE") {
            return Some(PathBuf::from(folder));
        }
        let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
            (Some(cache), _) => PathBuf::from(cache),
            (None, Some(home)) => Path::new(&home).join(".cache"),
            (None, None) => return None,
        };
        let folder = cache.join("tcc").join("ap_types-hls4ml-1.3.0");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fetch_ap_types");
        let fetched = Command::new("sh").arg(script).arg(&folder).output().ok()?;
        fetched.status.success().then_some(folder)
    };
    FOLDER.get_or_init(find).as_ref()
}

/// Writes the project of a program for the largest part.
pub fn project_of(program: &Program, options: &Options) -> Project {
    let part = Part::named("u280").unwrap();
    project(program, &part, options).unwrap_or_else(|error| panic!("{error}"))
}

/// Simulates a project; the text of an output's actual values by name, or none where the test is skipped.
pub fn simulate(test: &str, project: &Project, outputs: &[&str]) -> Option<Vec<Vec<f64>>> {
    if Command::new("g++").arg("--version").output().is_err() {
        eprintln!("skipped {test}: no g++");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(test);
    project.write(&path).unwrap();
    let mut make = Command::new("make");
    make.current_dir(&path).arg("csim");
    if !project.files.contains_key("src/tcc_integer.h") {
        make.arg("CXXFLAGS=-O1 -Werror");
    } else {
        // The compiler inlines the headers into the project's code and warns of what they do.
        make.arg("CXXFLAGS=-O1 -Werror -Wno-uninitialized -Wno-maybe-uninitialized");
        let Some(include) = ap_include() else {
            eprintln!("skipped {test}: the ap_types headers cannot be fetched");
            return None;
        };
        make.arg(format!("AP_INCLUDE={}", include.display()));
    }
    let output = make.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let sources: Vec<String> = project
            .files
            .iter()
            .filter(|(name, _)| name.ends_with(".cpp"))
            .map(|(name, contents)| format!("// {name}\n{contents}"))
            .collect();
        panic!("{test} failed:\n{text}\n{}", sources.join("\n"));
    }
    let read = |name: &&str| {
        let text = std::fs::read_to_string(path.join(format!("tb/{name}.actual.txt"))).unwrap();
        text.lines().skip(1).map(|line| line.parse().unwrap()).collect()
    };
    Some(outputs.iter().map(read).collect())
}
