//! Where the `tcc` program lies.

use std::env;
use std::path::PathBuf;

/// `$TCC_PROGRAM`, or the program that cargo built beside this test.
///
/// # Errors
/// There is none: cargo builds the program of another package only when asked to.
pub fn path() -> Result<PathBuf, String> {
    if let Some(program) = env::var_os("TCC_PROGRAM") {
        return Ok(program.into());
    }
    // Tests run from TARGET/PROFILE/deps, programs lie in TARGET/PROFILE.
    let test = env::current_exe().map_err(|error| error.to_string())?;
    let built = test.ancestors().nth(2).map(|profile| profile.join("tcc"));
    built
        .filter(|program| program.is_file())
        .ok_or_else(|| "run `cargo build` first, or set TCC_PROGRAM".to_owned())
}
