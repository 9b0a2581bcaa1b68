//! Bad input: every file of `errors/` is refused by the `tcc` program with one clear message. See `tcc_tests::hostile`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use libtest_mimic::{Arguments, Failed, Trial};
use tcc_tests::cache::tests_folder;
use tcc_tests::hostile::{self, Hostile};
use tcc_tests::program;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for path in files(&tests_folder().join("errors")).expect("the folder tests/errors can be read") {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        trials.push(Trial::test(name, move || refuse(&path).map_err(Failed::from)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "textproto"));
    files.sort();
    Ok(files)
}

fn refuse(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let hostile = Hostile::parse(&text)?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = folder.path().join("out");
    let model = folder.path().join("model");
    fs::create_dir(&out).and_then(|()| fs::create_dir(&model)).map_err(|error| error.to_string())?;
    let arguments = hostile.write(&hostile::schema()?, &model, &out.join("result"))?;
    let before = listing(&model)?;
    let ended = hostile::run_limited(&program::path()?, &arguments, folder.path(), hostile.disk)?;
    let mut written = listing(&out)?;
    written.extend(listing(&model)?.into_iter().filter(|path| !before.contains(path)));
    let result = hostile::check(&ended, &hostile.expect, &written);
    match (result, hostile.not_yet) {
        (Ok(()), Some(_)) => Err("the promise holds now: remove the `not yet:` line".to_owned()),
        (Err(_), Some(_)) => Ok(()),
        (result, None) => result,
    }
}

fn listing(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| error.to_string())).collect()
}
