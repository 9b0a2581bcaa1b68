//! The assembler takes every kernel for several generations and spills nothing.
//!
//! It comes with a proprietary package that `tests/fetch-ptxas` installs into the user's cache.

use std::path::PathBuf;
use std::process::Command;

use tcc_kernel::Kernel;
use tcc_ptx::{Target, module};

use crate::cases::{matrices, operators, vectors};
use crate::tiled::{Defect, matmul};

/// A program of the toolkit in the user's cache.
pub fn tool(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let path = cache.join("tcc/ptxas").join(name);
    path.exists().then_some(path)
}

/// Every kernel of the tests for a target. Single functions differ little between targets, and are many.
fn kernels(target: &Target) -> Vec<Kernel> {
    let mut kernels: Vec<Kernel> = vec![matmul(Defect::None)];
    let matrices = if target.tensor_cores() { matrices() } else { Vec::new() };
    for case in operators().into_iter().chain(vectors()).chain(matrices) {
        kernels.extend(case.lowered(target).launches.into_iter().map(|launch| launch.kernel));
    }
    if target.name == "sm_80" {
        kernels.extend(crate::functions::kernels());
    }
    kernels.extend(crate::weights::kernels(target));
    if target.tensor_cores() {
        kernels.extend(crate::flash::kernels(target));
    }
    for (number, kernel) in kernels.iter_mut().enumerate() {
        kernel.name = format!("{}_{number}", kernel.name);
    }
    kernels
}

#[test]
fn ptxas_takes_every_kernel_without_spills() {
    let Some(ptxas) = tool("ptxas") else {
        eprintln!("skipped: no ptxas; tests/fetch-ptxas installs it");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for name in ["sm_75", "sm_80", "sm_90a", "sm_120a"] {
        let target = Target::named(name).unwrap();
        let kernels = kernels(&target);
        let ptx = module(&kernels, &target).unwrap();
        let file = folder.path().join("module.ptx");
        std::fs::write(&file, &ptx.text).unwrap();
        let output = Command::new(&ptxas)
            .args(["-v", "-arch", name, "-o"])
            .arg(folder.path().join("module.cubin"))
            .arg(&file)
            .output()
            .unwrap();
        let log =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {log}");
        let figures: Vec<&str> = log.lines().filter(|line| line.contains("spill stores")).collect();
        assert_eq!(figures.len(), kernels.len(), "{name}: figures of every kernel");
        for figure in figures {
            assert!(figure.contains("0 bytes spill stores, 0 bytes spill loads"), "{name}: {figure}");
        }
    }
}
