//! CPU profiles of the running process: stacks sampled by a timer, as folded stacks or as a flame graph.
//!
//! Promises: nothing is sampled before somebody asks; one profile at a time, of at most [`MAX_SECONDS`]; names of
//! functions and threads only.
//!
//! The first profile reads the debug information of the binary, and what it needs of it stays in memory.

use std::{collections::BTreeMap, fmt::Write as _, thread, time::Duration};

use axum::http::StatusCode;

use super::{Query, access::Refused};

/// Longest profile.
const MAX_SECONDS: u64 = 60;
/// Length of one where nothing is said.
const USUAL_SECONDS: u64 = 5;
/// Samples a second of CPU time: a prime, so that it does not run in step with anything.
const FREQUENCY: i32 = 97;

/// Deepest stack that is drawn.
const MAX_DEPTH: usize = 120;
/// Pixels of the picture.
const WIDTH: f64 = 1200.0;
const ROW: f64 = 18.0;
/// Narrower boxes are left out.
const MIN_WIDTH: f64 = 0.5;
/// Pixels of a letter, about.
const LETTER: f64 = 6.6;

/// What is asked for.
pub(super) struct Wanted {
    seconds: u64,
    as_svg: bool,
}

impl Wanted {
    pub(super) fn of(query: &Query) -> Result<Self, Refused> {
        let seconds = query.number("seconds", USUAL_SECONDS)?;
        if !(1..=MAX_SECONDS).contains(&seconds) {
            return Err(Refused::wrong(format!("seconds is 1 to {MAX_SECONDS}")));
        }
        let as_svg = match query.get("format").unwrap_or("svg") {
            "svg" => true,
            "folded" => false,
            other => {
                return Err(Refused::wrong(format!(
                    "format is svg or folded, not {other:?}"
                )));
            }
        };
        Ok(Self { seconds, as_svg })
    }
}

/// Samples by stack, the outermost frame first.
type Stacks = BTreeMap<Vec<String>, u64>;

/// Takes a profile: its content type, and its text. Blocks for as long as it lasts.
pub(super) fn take(wanted: Wanted) -> Result<(&'static str, String), Refused> {
    let unable = |error: pprof::Error| {
        let why = format!("cannot take a profile: {error}");
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, why)
    };
    let guard = pprof::ProfilerGuardBuilder::default()
        .frequency(FREQUENCY)
        // Unwinding from within these may meet a lock that is held.
        .blocklist(&["libc", "libgcc", "pthread", "vdso"])
        .build()
        .map_err(unable)?;
    thread::sleep(Duration::from_secs(wanted.seconds));
    let report = guard.report().build().map_err(unable)?;
    drop(guard);
    let mut stacks = Stacks::new();
    for (frames, count) in &report.data {
        let thread = frames.thread_name_or_id();
        let inner = frames
            .frames
            .iter()
            .rev()
            .flatten()
            .map(pprof::Symbol::name);
        let stack = std::iter::once(thread).chain(inner);
        *stacks.entry(stack.collect()).or_default() += u64::try_from(*count).unwrap_or(0);
    }
    Ok(match wanted.as_svg {
        true => ("image/svg+xml; charset=utf-8", svg(&stacks, wanted.seconds)),
        false => ("text/plain; charset=utf-8", folded(&stacks)),
    })
}

fn folded(stacks: &Stacks) -> String {
    let mut text = String::new();
    for (stack, count) in stacks {
        let names: Vec<String> = stack.iter().map(|name| name.replace(';', ":")).collect();
        let _ = writeln!(text, "{} {count}", names.join(";"));
    }
    text
}

/// A frame with what was called from it.
#[derive(Default)]
struct Node {
    count: u64,
    inner: BTreeMap<String, Node>,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[expect(clippy::cast_precision_loss, reason = "pixels")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn svg(stacks: &Stacks, seconds: u64) -> String {
    let mut root = Node::default();
    for (stack, count) in stacks {
        root.count += count;
        let mut node = &mut root;
        for name in stack.iter().take(MAX_DEPTH) {
            node = node.inner.entry(name.clone()).or_default();
            node.count += count;
        }
    }
    let depth = stacks
        .keys()
        .map(Vec::len)
        .max()
        .unwrap_or(0)
        .min(MAX_DEPTH);
    let mut boxes = String::new();
    draw(&mut boxes, "all", &root, root.count, (0.0, 0.0));
    let depth = u32::try_from(depth + 2).expect("it is bounded");
    let height = ROW * f64::from(depth) + 8.0;
    let samples = root.count;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" font-family=\"ui-monospace, monospace\" font-size=\"11\">\
         <title>CPU profile: {samples} samples in {seconds} s at {FREQUENCY} a second of CPU time</title>\
         <rect width=\"100%\" height=\"100%\" fill=\"#fffaf3\"/>{boxes}</svg>\n"
    )
}

/// A colour by name, warm and light enough for black letters.
fn colour(name: &str) -> String {
    let sum = name.bytes().fold(7_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    format!("hsl({} 80% {}%)", 20 + sum % 35, 66 + sum / 64 % 12)
}

fn draw(out: &mut String, name: &str, node: &Node, all: u64, (x, y): (f64, f64)) {
    let width = WIDTH * share(node.count, all);
    if width < MIN_WIDTH {
        return;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "letters of a box"
    )]
    let letters = (width / LETTER) as usize;
    let shown: String = match name.chars().count() {
        _ if letters < 3 => String::new(),
        len if len <= letters => name.to_owned(),
        _ => name.chars().take(letters - 2).chain("..".chars()).collect(),
    };
    let percent = 100.0 * share(node.count, all);
    let full = escape(name);
    let _ = write!(
        out,
        "<g><title>{full}: {} samples, {percent:.1} %</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" \
         height=\"{}\" rx=\"2\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{}\" fill=\"#1b1f24\">{}</text></g>",
        node.count,
        ROW - 1.0,
        colour(name),
        x + 3.0,
        y + 12.5,
        escape(&shown),
    );
    let mut at = x;
    for (name, inner) in &node.inner {
        draw(out, name, inner, all, (at, y + ROW));
        at += WIDTH * share(inner.count, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks() -> Stacks {
        let stack = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Stacks::from([
            (stack(&["t", "main", "a<u8>"]), 3),
            (stack(&["t", "main", "b;c"]), 1),
        ])
    }

    #[test]
    fn folded_stacks_have_a_line_each() {
        assert_eq!(folded(&stacks()), "t;main;a<u8> 3\nt;main;b:c 1\n");
    }

    #[test]
    fn a_flame_graph_has_a_box_a_frame_as_wide_as_its_share() {
        let text = svg(&stacks(), 5);
        assert!(
            text.contains("<title>main: 4 samples, 100.0 %</title>"),
            "{text}"
        );
        assert!(
            text.contains("<title>a&lt;u8&gt;: 3 samples, 75.0 %</title>"),
            "{text}"
        );
        assert!(text.contains("width=\"900.0\""), "{text}");
        assert!(!text.contains("<u8>"), "{text}");
        assert!(svg(&Stacks::new(), 1).contains("0 samples"));
    }
}
