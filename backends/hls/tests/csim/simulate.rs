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

/// C++ compilers that are here.
fn compilers() -> &'static [&'static str] {
    static FOUND: OnceLock<Vec<&'static str>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let all = ["g++", "clang++"].into_iter();
        all.filter(|name| Command::new(name).arg("--version").output().is_ok()).collect()
    })
}

/// Simulates a project with every compiler; the actual values of some outputs, or none where the test is skipped.
pub fn simulate(test: &str, project: &Project, outputs: &[&str]) -> Option<Vec<Vec<f64>>> {
    let mut options = vec!["-O1", "-Werror"];
    let mut include = None;
    if project.files.contains_key("src/tcc_integer.h") {
        let Some(folder) = ap_include() else {
            eprintln!("skipped {test}: the ap_types headers cannot be fetched");
            return None;
        };
        include = Some(format!("AP_INCLUDE={}", folder.display()));
        // The compiler inlines the headers into the project's code and warns of what they do.
        options.push("-Wno-uninitialized");
    }
    for missing in ["g++", "clang++"].iter().filter(|name| !compilers().contains(name)) {
        eprintln!("skipped {test} with {missing}: it is not installed");
    }
    let mut results: Option<Vec<Vec<f64>>> = None;
    for compiler in compilers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(test);
        project.write(&path).unwrap();
        let mut options = options.clone();
        if *compiler == "g++" && include.is_some() {
            options.push("-Wno-maybe-uninitialized");
        }
        let mut make = Command::new("make");
        make.current_dir(&path).arg("csim").arg(format!("CXX={compiler}"));
        make.arg(format!("CXXFLAGS={}", options.join(" "))).args(&include);
        let output = make.output().unwrap();
        if !output.status.success() {
            let text =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let sources = project.files.iter().filter(|(name, _)| name.ends_with(".cpp"));
            let sources: Vec<String> =
                sources.map(|(name, contents)| format!("// {name}\n{contents}")).collect();
            panic!("{test} failed with {compiler}:\n{}\n{}", text.concat(), sources.join("\n"));
        }
        let read = |name: &&str| -> Vec<f64> {
            let text = std::fs::read_to_string(path.join(format!("tb/{name}.actual.txt"))).unwrap();
            text.lines().skip(1).map(|line| line.parse().unwrap()).collect()
        };
        let values: Vec<Vec<f64>> = outputs.iter().map(read).collect();
        results = Some(values);
    }
    results
}
