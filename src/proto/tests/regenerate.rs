//! Compares the committed generated code with what the `.proto` files generate today.
//!
//! Promises: the messages and descriptors in `src/proto/gen` and the service stubs in
//! `src/server/gen` are byte for byte what the pinned generators make of `/proto`, and nothing else
//! lies in those folders. With `REGENERATE=1` in the environment it writes them instead.
//!
//! The stubs belong to the server crate. They are made here all the same: this package builds
//! without them, so it can still run when they are out of date.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_build::{Config, Module};
use prost_types::FileDescriptorSet;

const COMMAND: &str = "REGENERATE=1 cargo test -p basalt-proto --test regenerate";

/// Contents by file name.
type Files = BTreeMap<String, Vec<u8>>;

#[test]
fn committed_messages_are_what_the_proto_files_generate() {
    let descriptors = compile();
    // A Raft message seldom has a snapshot; most of its size would be the room for one.
    let mut config = Config::new();
    config.bytes(["."]).boxed(".eraftpb.Message.snapshot");
    let mut files = generate(&mut config, &descriptors);
    files.insert(
        "descriptors.bin".to_owned(),
        without_comments(&descriptors).encode_to_vec(),
    );
    compare_or_write("src/proto/gen", &files);
}

#[test]
fn committed_service_stubs_are_what_the_proto_files_generate() {
    let descriptors = compile();
    let mut config = Config::new();
    config.service_generator(tonic_prost_build::configure().service_generator());
    for file in &descriptors.file {
        // The messages are those of this crate; only the services are generated anew.
        let package = file.package();
        config.extern_path(format!(".{package}"), format!("::basalt_proto::{package}"));
    }
    compare_or_write("src/server/gen", &generate(&mut config, &descriptors));
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compiles every file of `/proto`; imports come before the files that name them.
fn compile() -> FileDescriptorSet {
    let folder = repository().join("proto");
    let mut names = file_names(&folder);
    names.retain(|name| name.ends_with(".proto"));
    assert!(!names.is_empty(), "no .proto files in {}", folder.display());
    let mut compiler = protox::Compiler::new([&folder]).expect("the folder exists");
    compiler.include_imports(true).include_source_info(true);
    if let Err(error) = compiler.open_files(&names) {
        panic!("the .proto files do not compile: {error:?}");
    }
    compiler.file_descriptor_set()
}

fn without_comments(descriptors: &FileDescriptorSet) -> FileDescriptorSet {
    let mut stripped = descriptors.clone();
    for file in &mut stripped.file {
        file.source_code_info = None;
    }
    stripped
}

/// One Rust file for each package that has anything to generate.
fn generate(config: &mut Config, descriptors: &FileDescriptorSet) -> Files {
    let requests = descriptors
        .file
        .iter()
        .map(|file| {
            (
                Module::from_protobuf_package_name(file.package()),
                file.clone(),
            )
        })
        .collect();
    let modules = config
        .generate(requests)
        .expect("descriptors that compile can be generated");
    modules
        .into_iter()
        .map(|(module, code)| (module.to_file_name_or("_"), code.into_bytes()))
        .collect()
}

fn compare_or_write(folder_name: &str, generated: &Files) {
    let folder = &repository().join(folder_name);
    if std::env::var_os("REGENERATE").is_some() {
        write(folder, generated);
    }
    let committed: Files = file_names(folder)
        .into_iter()
        .map(|name| {
            let contents = fs::read(folder.join(&name)).expect("a listed file can be read");
            (name, contents)
        })
        .collect();
    let mut names: Vec<&String> = committed.keys().chain(generated.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| committed.get(*name) != generated.get(*name));
    assert!(
        names.is_empty(),
        "{names:?} in {folder_name} differ from what /proto generates; \
         run `{COMMAND}` and commit the result"
    );
}

/// Makes the folder hold exactly `files`; unchanged files keep their time stamp.
fn write(folder: &Path, files: &Files) {
    for name in file_names(folder) {
        if !files.contains_key(&name) {
            fs::remove_file(folder.join(name)).expect("an outdated file can be removed");
        }
    }
    for (name, contents) in files {
        let path = folder.join(name);
        if fs::read(&path).ok().as_ref() != Some(contents) {
            fs::write(path, contents).expect("a generated file can be written");
        }
    }
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder exists");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("the folder can be listed").file_name())
        .map(|name| {
            name.into_string()
                .expect("names in this repository are ASCII")
        })
        .collect();
    names.sort();
    names
}
