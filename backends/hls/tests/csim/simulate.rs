//! Builds and runs the testbench of a project.

use tcc_hls::csim::{COMPILERS, ap_include, compilers};
use tcc_hls::{Options, Part, Project, Simulation, project};
use tcc_passes::program::Program;

/// Makes the project of a program for the largest part.
pub fn project_of(program: &Program, options: &Options) -> Project {
    let part = Part::named("u280").unwrap();
    project(program, &part, options).unwrap_or_else(|error| panic!("{error}"))
}

/// Simulates a project with the first compiler.
pub fn simulate(test: &str, project: &Project) {
    simulate_with(test, project, &COMPILERS[..1]);
}

/// Simulates a project with every compiler.
pub fn simulate_everywhere(test: &str, project: &Project) {
    simulate_with(test, project, &COMPILERS);
}

fn simulate_with(test: &str, project: &Project, wanted: &[&str]) {
    if project.design.uses_ap_types() && ap_include().is_err() {
        eprintln!("skipped {test}: the ap_types headers cannot be fetched");
        return;
    }
    for compiler in wanted {
        if !compilers().contains(compiler) {
            eprintln!("skipped {test} with {compiler}: it is not installed");
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(test);
        let built = Simulation::build(project, &path, compiler);
        if let Err(error) = built.and_then(|simulation| simulation.check()) {
            let sources = project.files.iter().filter(|(name, _)| name.ends_with(".cpp"));
            let sources: Vec<String> =
                sources.map(|(name, contents)| format!("// {name}\n{contents}")).collect();
            panic!("{test} failed with {compiler}: {error}\n{}", sources.join("\n"));
        }
    }
}
