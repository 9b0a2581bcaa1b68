//! Tables of the functions that fixed-point designs look up, as C++ arrays.

use tcc_kernel::fixed::{Exact, Fixed, Table};

use crate::numbers::format_name;

/// The C++ name of a table whose entries have the format.
pub fn name(table: &Table, format: Fixed) -> String {
    format!("{}_{}", table.function.text(), format_name(format))
}

/// A number as a C++ literal of its exact value, which has at most 53 significant bits or is rounded to them.
pub fn literal(value: Exact) -> String {
    format!("{:?}", value.to_f64())
}

/// The C++ definition of a table.
pub fn definition(table: &Table, format: Fixed) -> String {
    let entries: Vec<String> =
        (0..=table.intervals()).map(|number| literal(table.entry(number, format))).collect();
    format!(
        "// {} over {} to {}, {} entries a unit; interpolation error at most {:.1e}, relative above 1.\n\
         static const {} {}[{}] = {{\n{}\n}};\n",
        table.function.text(),
        table.low,
        table.high,
        1 << table.shift,
        table.error(format),
        format_name(format),
        name(table, format),
        table.intervals() + 1,
        rows(&entries),
    )
}

/// Comma-separated numbers, several to a line.
pub fn rows(numbers: &[String]) -> String {
    numbers.chunks(8).map(|row| format!("  {}", row.join(", "))).collect::<Vec<_>>().join(",\n")
}
