//! Columns as wide as their widest cell.

use std::io::Write;

/// Blanks between columns.
const GAP: usize = 3;

/// Writes rows of `N` cells; the first are the headings.
pub(crate) fn write<const N: usize>(
    rows: &[[String; N]],
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0) + GAP
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
