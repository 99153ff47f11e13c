//! raft-engine as a store of Raft logs. Its entries are protobuf messages; the one here is an index and bytes, in the
//! field numbers of Raft's own.

use std::path::Path;

use protobuf::{
    CachedSize, Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields,
    reflect::MessageDescriptor, rt, wire_format::WireType,
};
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::logs::RaftLog;

const INDEX: u32 = 3;
const DATA: u32 = 4;

#[derive(Clone, Default, Debug, PartialEq)]
struct Entry {
    index: u64,
    data: Vec<u8>,
    unknown: UnknownFields,
    size: CachedSize,
}

impl Clear for Entry {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for Entry {
    fn descriptor(&self) -> &'static MessageDescriptor {
        unreachable!("nobody asks an entry for its description")
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, input: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        while !input.eof()? {
            let (field, wire) = input.read_tag_unpack()?;
            match field {
                INDEX => self.index = input.read_uint64()?,
                DATA => self.data = input.read_bytes()?,
                _ => rt::read_unknown_or_skip_group(field, wire, input, &mut self.unknown)?,
            }
        }
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, output: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        output.write_uint64(INDEX, self.index)?;
        output.write_bytes(DATA, &self.data)
    }

    fn compute_size(&self) -> u32 {
        let index = rt::value_size(INDEX, self.index, WireType::WireTypeVarint);
        let size = index + rt::bytes_size(DATA, &self.data);
        self.size.set(size);
        size
    }

    fn get_cached_size(&self) -> u32 {
        self.size.get()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        static EMPTY: std::sync::OnceLock<Entry> = std::sync::OnceLock::new();
        EMPTY.get_or_init(Self::default)
    }
}

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

pub struct RaftEngine(Engine);

impl RaftEngine {
    pub fn open(dir: &Path) -> Self {
        let config = Config {
            dir: dir.to_str().expect("a path of text").to_owned(),
            // By default it purges nothing below 10 GiB: no run here would see it.
            purge_threshold: ReadableSize(256 << 20),
            target_file_size: ReadableSize(64 << 20),
            ..Config::default()
        };
        Self(Engine::open(config).expect("open"))
    }
}

impl RaftLog for RaftEngine {
    fn append(&self, region: u64, first: u64, entries: &[Vec<u8>], durable: bool) {
        let entries = (first..).zip(entries).map(|(index, data)| Entry {
            index,
            data: data.clone(),
            ..Entry::default()
        });
        let entries: Vec<_> = entries.collect();
        let mut batch = LogBatch::with_capacity(1);
        // Its regions begin with 1.
        batch
            .add_entries::<Entries>(region + 1, &entries)
            .expect("a batch");
        self.0.write(&mut batch, durable).expect("an append");
    }

    fn fetch(&self, region: u64, from: u64, to: u64, see: &mut dyn FnMut(u64, &[u8])) {
        let mut entries = Vec::with_capacity((to - from) as usize);
        let fetched = self
            .0
            .fetch_entries_to::<Entries>(region + 1, from, to, None, &mut entries);
        fetched.expect("a fetch");
        for entry in &entries {
            see(entry.index, &entry.data);
        }
    }

    fn cut(&self, region: u64, _from: u64, to: u64) {
        self.0.compact_to(region + 1, to);
    }

    fn tend(&self) {
        self.0.purge_expired_files().expect("a purge");
    }

    fn settle(&self) {
        self.tend();
        self.0.sync().expect("a sync");
    }
}
