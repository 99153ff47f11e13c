//! The wire contract with TinyKV, held against facts that were not generated from `/proto`: counts
//! of everything in the schema, one checksum over all of its names, numbers and types, and messages
//! whose bytes were worked out by hand from the protobuf encoding.
//!
//! What Basalt adds to TinyKV's packages is a list in `extensions`: without it the schema is
//! TinyKV's, with it the schema is ours, and nothing else is in it.
//!
//! A failure here means that clients or peers of TinyKV would no longer understand the server, or it
//! them.

#[path = "wire/extensions.rs"]
mod extensions;
#[path = "wire/messages.rs"]
mod messages;

use std::collections::BTreeMap;

use basalt_proto::FILE_DESCRIPTOR_SET;
use extensions::EXTENSIONS;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// The files of TinyKV: everything but Basalt's own package.
fn tinykv_files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the constant decodes");
    set.file
        .into_iter()
        .filter(|file| file.package() != "basaltpb")
        .collect()
}

/// Messages, fields, enums, services, RPCs of each package among the facts of `lines`.
fn counts(lines: &[String]) -> BTreeMap<&str, [usize; 5]> {
    let mut packages: BTreeMap<&str, [usize; 5]> = BTreeMap::new();
    for line in lines {
        let (kind, rest) = line.split_once(' ').expect("a fact has a kind");
        let kinds = ["message", "field", "enum", "service", "rpc"];
        if let Some(place) = kinds.iter().position(|counted| *counted == kind) {
            let (package, _) = rest.split_once('.').expect("its name has a package");
            packages.entry(package).or_default()[place] += 1;
        }
    }
    packages
}

#[test]
fn tinykv_packages_have_the_messages_fields_enums_services_and_rpcs_of_upstream() {
    let want = BTreeMap::from([
        ("coprocessor", [3, 12, 0, 0, 0]),
        ("eraftpb", [7, 26, 3, 0, 0]),
        ("errorpb", [7, 17, 0, 0, 0]),
        ("kvrpcpb", [28, 91, 2, 0, 0]),
        ("metapb", [5, 14, 1, 0, 0]),
        ("raft_cmdpb", [24, 52, 2, 0, 0]),
        ("raft_serverpb", [12, 31, 1, 0, 0]),
        ("schedulerpb", [52, 130, 2, 1, 21]),
        ("tinykvpb", [0, 0, 0, 1, 14]),
    ]);
    let upstream = upstream();
    let have = counts(&upstream);
    assert_eq!(have, want);
    assert_eq!(tinykv_files().len(), 9, "one file a package");

    let mut total = [0; 5];
    for counts in have.values() {
        for (sum, count) in total.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert_eq!(total, [138, 373, 11, 2, 35]);
}

/// Every fact of the schema as one line: `field kvrpcpb.RawGetRequest 2 key bytes singular`.
fn contract(file: &FileDescriptorProto) -> Vec<String> {
    let package = file.package();
    let mut lines = Vec::new();
    for import in &file.dependency {
        lines.push(format!("import {package} {import}"));
    }
    for item in &file.enum_type {
        let name = format!("{package}.{}", item.name());
        lines.push(format!("enum {name}"));
        for value in &item.value {
            lines.push(format!("value {name} {} {}", value.number(), value.name()));
        }
    }
    for message in &file.message_type {
        let name = format!("{package}.{}", message.name());
        lines.push(format!("message {name}"));
        for reserved in &message.reserved_name {
            lines.push(format!("reserved {name} {reserved}"));
        }
        for field in &message.field {
            let label = if field.label() == Label::Repeated {
                "repeated"
            } else {
                "singular"
            };
            let (number, field_name, kind) = (field.number(), field.name(), kind(field));
            lines.push(format!("field {name} {number} {field_name} {kind} {label}"));
        }
    }
    for service in &file.service {
        let name = format!("{package}.{}", service.name());
        lines.push(format!("service {name}"));
        for rpc in &service.method {
            let input = stream(rpc.client_streaming(), rpc.input_type());
            let output = stream(rpc.server_streaming(), rpc.output_type());
            lines.push(format!("rpc {name} {} {input} {output}", rpc.name()));
        }
    }
    lines
}

fn kind(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    }
}

fn stream(streaming: bool, message: &str) -> String {
    let label = if streaming { "stream " } else { "" };
    format!("{label}{}", message.trim_start_matches('.'))
}

/// All facts of TinyKV's packages as they are here, sorted.
fn schema() -> Vec<String> {
    let mut lines: Vec<String> = tinykv_files().iter().flat_map(contract).collect();
    lines.sort();
    lines
}

/// The facts that are not Basalt's own: what TinyKV has.
fn upstream() -> Vec<String> {
    let mut lines = schema();
    lines.retain(|line| !EXTENSIONS.contains(&line.as_str()));
    lines
}

/// The number was computed from the tables of TinyKV's wire contract, not from `/proto`.
#[test]
fn every_name_number_and_type_of_the_tinykv_packages_is_that_of_upstream() {
    let lines = upstream();
    let text: String = lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect();
    assert_eq!(lines.len(), 625, "facts in the contract");
    assert_eq!(
        crc32fast::hash(text.as_bytes()),
        0x0c5b_fe9d,
        "a name, number, type, label or import of a TinyKV package has changed, or an addition is \
         not among the extensions:\n{text}"
    );
}

#[test]
fn the_extensions_are_exactly_those_listed() {
    let schema = schema();
    assert!(EXTENSIONS.is_sorted(), "the list is in order");
    for extension in EXTENSIONS {
        let times = schema.iter().filter(|line| *line == extension).count();
        assert_eq!(times, 1, "{extension:?} in the schema");
    }
    assert_eq!(schema.len(), 625 + EXTENSIONS.len());
}

/// A field's or enum value's owner and number; `None` for other facts.
fn numbered(line: &str) -> Option<(&str, i32)> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let owner = words.next()?;
    let number = words.next()?;
    let has_number = ["field", "value"].contains(&kind);
    has_number.then(|| (owner, number.parse().expect("a number")))
}

/// A number in a gap could be one that TinyKV once had.
#[test]
fn extensions_have_numbers_above_all_of_upstream() {
    let upstream = upstream();
    let mut highest: BTreeMap<&str, i32> = BTreeMap::new();
    for (owner, number) in upstream.iter().filter_map(|line| numbered(line)) {
        let top = highest.entry(owner).or_insert(number);
        *top = number.max(*top);
    }
    let mut extended = 0;
    for (owner, number) in EXTENSIONS.iter().filter_map(|line| numbered(line)) {
        if let Some(top) = highest.get(owner) {
            assert!(number > *top, "{owner} {number}, upstream goes up to {top}");
            extended += 1;
        }
    }
    assert_eq!(extended, 35, "additions to what TinyKV has");
}

#[test]
fn descriptors_list_every_file_after_its_imports() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the constant decodes");
    let mut seen: Vec<&str> = Vec::new();
    for file in &set.file {
        for import in &file.dependency {
            assert!(
                seen.contains(&import.as_str()),
                "{} comes before {import}",
                file.name()
            );
        }
        assert!(
            file.source_code_info.is_none(),
            "{} still has its comments",
            file.name()
        );
        seen.push(file.name());
    }
    assert!(seen.contains(&"basaltpb.proto"));
}
