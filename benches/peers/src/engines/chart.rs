//! A chart of the run: for each row, how many times better Basalt is than the best log-structured peer.

use std::fmt::Write;

use crate::{
    report::Run,
    rows::{Against, ROWS},
};

/// Points of a doubling, of a row's height, and of the names' width.
const DOUBLING: f64 = 110.0;
const HEIGHT: usize = 20;
const NAMES: f64 = 320.0;
/// The scale ends here, both ways, in doublings.
const END: f64 = 2.5;

/// An SVG picture.
pub fn draw(run: &Run<'_>) -> String {
    let rows: Vec<_> = ROWS
        .iter()
        .filter_map(|row| {
            let times = run.times(row, Against::Lsm);
            let median = *times.get(times.len() / 2)?;
            Some((row, median))
        })
        .collect();
    let (width, height) = (
        NAMES + 2.0 * END * DOUBLING + 60.0,
        HEIGHT * (rows.len() + 2),
    );
    let middle = NAMES + END * DOUBLING;
    let mut text = String::new();
    let _ = write!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{middle}\" y=\"14\" text-anchor=\"middle\">times the best log-structured peer (log scale; line: as good)</text>\n"
    );
    for (place, (row, times)) in rows.iter().enumerate() {
        let y = HEIGHT * (place + 1) + 4;
        let len = times.log2().clamp(-END, END) * DOUBLING;
        let (x, color) = if len < 0.0 {
            (middle + len, "#b5533c")
        } else {
            (middle, "#3c6eb5")
        };
        let (bar, line) = (len.abs().max(1.0), y + 12);
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{line}\" text-anchor=\"end\">{}</text><rect x=\"{x:.1}\" y=\"{y}\" width=\"{bar:.1}\" height=\"14\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{line}\">{times:.2}</text>",
            NAMES - 8.0,
            row.name,
            middle + len.max(0.0) + 4.0,
        );
    }
    let _ = writeln!(
        text,
        "<line x1=\"{middle}\" x2=\"{middle}\" y1=\"{HEIGHT}\" y2=\"{height}\" stroke=\"black\"/>\n</svg>"
    );
    text
}
