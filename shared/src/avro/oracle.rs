//! apache-avro, as the tests use it.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{AvroResult, Schema};

/// Encodes a value that fits the schema.
pub(crate) fn encode(schema: &str, value: Value) -> Vec<u8> {
    let schema = Schema::parse_str(schema).unwrap();
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

pub(crate) fn decode(schema: &str, mut datum: &[u8]) -> AvroResult<Value> {
    let schema = Schema::parse_str(schema).unwrap();
    GenericDatumReader::builder(&schema).build()?.read_value(&mut datum)
}
