//! Body of the fuzz target of keys and values on the command line.

use super::text::{Format, parse, show};

/// A key or value in each form; what is shown of it is taken for the same.
pub(crate) fn key_text(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let mut taken = false;
    for format in [Format::Text, Format::Escaped, Format::Hex] {
        for bytes in [data.to_vec(), parse(format, &text).unwrap_or_default()] {
            let shown = show(format, &bytes);
            assert_eq!(parse(format, &shown), Ok(bytes), "{format:?} of {shown:?}");
        }
        taken |= format != Format::Text && parse(format, &text).is_ok();
    }
    taken
}
