//! The compiled descriptors against `facts.tsv`, the recorded facts of the protocol: every name,
//! number and type is there, and nothing else is.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::collections::BTreeSet;

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
const FACTS: &str = include_str!("facts.tsv");
const PACKAGE: &str = ".docker.swarmkit.v1.";

#[test]
fn descriptors_match_the_recorded_facts() {
    let recorded: BTreeSet<String> = FACTS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let compiled = compiled_facts();

    let missing: Vec<_> = recorded.difference(&compiled).collect();
    let invented: Vec<_> = compiled.difference(&recorded).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "missing: {missing:#?}\ninvented: {invented:#?}"
    );
}

/// One line for each field, enum value and method.
fn compiled_facts() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut facts = BTreeSet::new();
    for file in set
        .file
        .iter()
        .filter(|file| file.package() == "docker.swarmkit.v1")
    {
        let name = file.name().rsplit('/').next().unwrap();
        for message in &file.message_type {
            message_facts(name, "", message, &mut facts);
        }
        for declared in &file.enum_type {
            enum_facts(name, "", declared, &mut facts);
        }
        for service in &file.service {
            for method in &service.method {
                let request = streamed(method.client_streaming(), method.input_type());
                let response = streamed(method.server_streaming(), method.output_type());
                let (service, method) = (service.name(), method.name());
                facts.insert(format!(
                    "{name}\t{service}\t{method}\t{request}\t{response}"
                ));
            }
        }
    }
    facts
}

fn streamed(is_stream: bool, type_name: &str) -> String {
    let prefix = if is_stream { "stream " } else { "" };
    format!("{prefix}{}", type_name.trim_start_matches(PACKAGE))
}

fn message_facts(file: &str, scope: &str, message: &DescriptorProto, facts: &mut BTreeSet<String>) {
    let path = format!("{scope}{}", message.name());
    for field in &message.field {
        let repeated = field.label() == Label::Repeated;
        let (kind, repeated) = match map_type(message, field) {
            Some(map) => (map, ""),
            None => (type_name(field), if repeated { "repeated" } else { "" }),
        };
        let oneof = field.oneof_index.map_or_else(String::new, |index| {
            let index = usize::try_from(index).unwrap();
            format!("oneof {}", message.oneof_decl[index].name())
        });
        let (number, name) = (field.number(), field.name());
        facts.insert(format!(
            "{file}\t{path}\t{number}\t{name}\t{repeated}\t{kind}\t{oneof}"
        ));
    }
    let scope = format!("{path}.");
    for nested in message
        .nested_type
        .iter()
        .filter(|nested| !is_map_entry(nested))
    {
        message_facts(file, &scope, nested, facts);
    }
    for declared in &message.enum_type {
        enum_facts(file, &scope, declared, facts);
    }
}

fn enum_facts(
    file: &str,
    scope: &str,
    declared: &EnumDescriptorProto,
    facts: &mut BTreeSet<String>,
) {
    for value in &declared.value {
        let (path, number, name) = (declared.name(), value.number(), value.name());
        facts.insert(format!(
            "{file}\tenum {scope}{path}\t{number}\t{name}\t\t\t"
        ));
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message
        .options
        .as_ref()
        .is_some_and(|options| options.map_entry())
}

/// `map<key,value>` when `field` is a map of `message`.
fn map_type(message: &DescriptorProto, field: &FieldDescriptorProto) -> Option<String> {
    let entry = field.type_name().rsplit('.').next()?;
    let entry = message
        .nested_type
        .iter()
        .find(|nested| nested.name() == entry)?;
    let [key, value] = &*entry.field else {
        return None;
    };
    is_map_entry(entry).then(|| format!("map<{},{}>", type_name(key), type_name(value)))
}

fn type_name(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field
            .type_name()
            .trim_start_matches(PACKAGE)
            .trim_start_matches('.')
            .to_owned(),
        Type::String => "string".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Float => "float".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Uint32 => "uint32".to_owned(),
        Type::Uint64 => "uint64".to_owned(),
        other => panic!("the protocol uses no {other:?}"),
    }
}
