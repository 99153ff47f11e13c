//! What a table says about itself, whatever state its file is in.

use super::{
    format::{FOOTER_LEN, Footer, Properties},
    salvage::read_block,
};
use crate::fs::ReadableFile;

/// Numbers of the properties by name, and the keys at both ends.
#[derive(Debug, Default)]
pub(crate) struct TableFacts {
    pub(crate) numbers: Vec<(&'static str, u64)>,
    pub(crate) bounds: Option<(Vec<u8>, Vec<u8>)>,
    /// The upper bound is no key of the table.
    pub(crate) is_exclusive: bool,
}

/// What could be read.
#[derive(Debug, Default)]
pub(crate) struct Described {
    /// The id that every checksum is bound to; `None` where the footer does not check.
    pub(crate) table_id: Option<u64>,
    pub(crate) facts: TableFacts,
    /// Where it is broken, and how.
    pub(crate) broken: Option<(u64, String)>,
}

/// Reads footer and properties of a table.
pub(crate) fn describe(file: &dyn ReadableFile) -> Described {
    let mut described = Described::default();
    let Some(at) = file.len().checked_sub(FOOTER_LEN as u64) else {
        described.broken = Some((0, "it is shorter than a footer".to_owned()));
        return described;
    };
    let mut footer = [0; FOOTER_LEN];
    if file.read_at(at, &mut footer).is_err() {
        described.broken = Some((at, "the device does not give the footer".to_owned()));
        return described;
    }
    let footer = match Footer::decode(&footer, at) {
        Ok(footer) => footer,
        Err(what) => {
            described.broken = Some((at, what.to_owned()));
            return described;
        }
    };
    described.table_id = Some(footer.table_id);
    let offset = footer.properties.offset;
    let block = read_block(file, footer.table_id, footer.properties, &mut 0);
    let Some(block) = block else {
        described.broken = Some((offset, "the properties fail their checksum".to_owned()));
        return described;
    };
    match Properties::decode(&block) {
        Ok(properties) => described.facts = facts(properties, &footer),
        Err(what) => described.broken = Some((offset, what.to_owned())),
    }
    described
}

fn facts(properties: Properties, footer: &Footer) -> TableFacts {
    let mut numbers = vec![
        ("data_blocks", properties.data_blocks),
        ("entries", properties.entries),
        ("deletes", properties.deletes),
        ("range_deletes", properties.tombstones),
        ("smallest_seq", properties.min_seq.0),
        ("largest_seq", properties.max_seq.0),
        ("index_bytes", footer.index.stored_len() as u64),
        (
            "filter_bytes",
            footer.filter.map_or(0, |handle| handle.stored_len() as u64),
        ),
        ("has_zstd", u64::from(properties.zstd)),
    ];
    if let Some((oldest, newest)) = properties.times {
        numbers.extend([("oldest_time", oldest), ("newest_time", newest)]);
    }
    TableFacts {
        numbers,
        bounds: Some((properties.smallest, properties.largest)),
        is_exclusive: properties.largest_exclusive,
    }
}
