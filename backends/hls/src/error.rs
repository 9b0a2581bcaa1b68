//! Why no HLS design comes out.

use thiserror::Error;

use crate::part::Overshoot;

/// What stands in the way of a design; always found before anything is written.
#[derive(Debug, Error)]
pub enum Error {
    /// A kernel is not well formed.
    #[error("kernel {kernel}: {reason}")]
    Kernel {
        /// Name of the kernel.
        kernel: String,
        /// What is wrong.
        reason: String,
    },
    /// A kernel uses something that this backend has no C++ for.
    #[error("kernel {kernel}: HLS has no {what}; {advice}")]
    Unsupported {
        /// Name of the kernel.
        kernel: String,
        /// The construct, by name.
        what: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// An extent is decided at run time.
    #[error(
        "{what} has the open dimension '{dimension}'; hardware needs a constant, give it with --dim {dimension}=N"
    )]
    OpenDimension {
        /// The tensor or kernel.
        what: String,
        /// The dimension.
        dimension: String,
    },
    /// A step of the program is no kernel.
    #[error("step {number} is {what}, which a design of kernels cannot run; {advice}")]
    Step {
        /// Number of the step.
        number: usize,
        /// The step, by name.
        what: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// The program breaks an invariant of the manifest.
    #[error("malformed program: {0}")]
    Program(String),
    /// Text that names no number format.
    #[error("'{text}' is no number format: {reason}; write float, fixed<16,6>, fixed<16> or fixed")]
    Numbers {
        /// The text.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// Values beyond a given format.
    #[error("{layer} reaches {observed:.6}, beyond {format}; it takes {integer} integer bits")]
    Overflow {
        /// The tensor, by the name of its layer.
        layer: String,
        /// Largest magnitude on the calibration data.
        observed: f64,
        /// The format.
        format: String,
        /// Integer bits that would do.
        integer: i32,
    },
    /// No width that a search tried is accurate enough.
    #[error("fixed point of up to {widest} bits is off by {:.2} % of the largest output, more than 1 %; use --quant float", 100.0 * .error)]
    NoWidth {
        /// Widest format.
        widest: u32,
        /// Least error, relative to the largest output.
        error: f64,
    },
    /// A part that the table does not have.
    #[error("no part '{name}'; known are {known}")]
    UnknownPart {
        /// The name given.
        name: String,
        /// Names in the table.
        known: String,
    },
    /// A part description that cannot be read.
    #[error("part description: {0}")]
    PartFile(#[from] serde_json::Error),
    /// The design needs more than the part has.
    #[error("{part} is too small: {}; {}", describe(.overshoots), advice(.fits))]
    TooLarge {
        /// Name of the part.
        part: String,
        /// What does not fit, smallest relative overshoot first.
        overshoots: Vec<Overshoot>,
        /// Parts of the table that hold the design.
        fits: Vec<String>,
    },
    /// Test vectors that do not match the program.
    #[error("test vector {number}: {reason}")]
    Vector {
        /// Position of the vector.
        number: usize,
        /// What is wrong.
        reason: String,
    },
    /// A C simulation that cannot be built or run, or whose results are not the expected ones.
    #[error("C simulation: {0}")]
    Simulation(String),
    /// The project cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

fn describe(overshoots: &[Overshoot]) -> String {
    overshoots.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn advice(fits: &[String]) -> String {
    match fits {
        [] => "no known part holds it; use narrower numbers".to_string(),
        fits => format!("it fits {}", fits.join(", ")),
    }
}
