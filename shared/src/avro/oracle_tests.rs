//! apache-avro as the oracle: schemas and data are generated, encoded by it, decoded by both,
//! and compared cell by cell.

use apache_avro::types::Value as Oracle;
use proptest::prelude::*;

use super::*;

/// A generated schema, as JSON and as something to generate data from.
#[derive(Debug, Clone)]
enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(usize),
    Decimal,
    Date,
    Timestamp,
    Array(Box<Shape>),
    Map(Box<Shape>),
    Optional(Box<Shape>, bool),
    Union(Vec<Shape>),
    Record(Vec<Shape>),
}

fn leaf() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Null),
        Just(Shape::Boolean),
        Just(Shape::Int),
        Just(Shape::Long),
        Just(Shape::Float),
        Just(Shape::Double),
        Just(Shape::Bytes),
        Just(Shape::String),
        (0_usize..20).prop_map(Shape::Fixed),
        (1_usize..5).prop_map(Shape::Enum),
        Just(Shape::Decimal),
        Just(Shape::Date),
        Just(Shape::Timestamp),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    leaf().prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            inner.clone().prop_map(|item| Shape::Array(Box::new(item))),
            inner.clone().prop_map(|item| Shape::Map(Box::new(item))),
            (inner.clone(), any::<bool>()).prop_filter_map(
                "no union in a union",
                |(item, first)| {
                    let fits = !matches!(item, Shape::Null | Shape::Optional(..) | Shape::Union(_));
                    fits.then(|| Shape::Optional(Box::new(item), first))
                }
            ),
            Just(Shape::Union(vec![Shape::Int, Shape::Null, Shape::String, Shape::Double])),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Shape::Union(vec![
                Shape::Record(vec![a]),
                Shape::Long,
                Shape::Array(Box::new(b)),
            ])),
            prop::collection::vec(inner, 0..5).prop_map(Shape::Record),
        ]
    })
}

/// Named types are numbered, so that no two have one name.
fn json(shape: &Shape, names: &mut usize) -> String {
    let mut name = || {
        *names += 1;
        format!("N{names}")
    };
    match shape {
        Shape::Null => r#""null""#.into(),
        Shape::Boolean => r#""boolean""#.into(),
        Shape::Int => r#""int""#.into(),
        Shape::Long => r#""long""#.into(),
        Shape::Float => r#""float""#.into(),
        Shape::Double => r#""double""#.into(),
        Shape::Bytes => r#""bytes""#.into(),
        Shape::String => r#"{"type":"string","connect.name":"io.debezium.data.Json"}"#.into(),
        Shape::Fixed(size) => {
            format!(r#"{{"type":"fixed","name":"{}","size":{size}}}"#, name())
        }
        Shape::Enum(count) => {
            let symbols: Vec<String> = (0..*count).map(|n| format!(r#""S{n}""#)).collect();
            let name = name();
            format!(r#"{{"type":"enum","name":"{name}","symbols":[{}]}}"#, symbols.join(","))
        }
        Shape::Decimal => {
            r#"{"type":"bytes","logicalType":"decimal","precision":60,"scale":5}"#.into()
        }
        Shape::Date => r#"{"type":"int","logicalType":"date"}"#.into(),
        Shape::Timestamp => r#"{"type":"long","logicalType":"timestamp-micros"}"#.into(),
        Shape::Array(item) => {
            format!(r#"{{"type":"array","items":{}}}"#, json(item, names))
        }
        Shape::Map(item) => format!(r#"{{"type":"map","values":{}}}"#, json(item, names)),
        Shape::Optional(item, true) => format!(r#"["null",{}]"#, json(item, names)),
        Shape::Optional(item, false) => format!(r#"[{},"null"]"#, json(item, names)),
        Shape::Union(branches) => {
            let branches: Vec<String> = branches.iter().map(|branch| json(branch, names)).collect();
            format!("[{}]", branches.join(","))
        }
        Shape::Record(fields) => {
            let name = name();
            let fields: Vec<String> = fields
                .iter()
                .enumerate()
                .map(|(n, field)| format!(r#"{{"name":"f{n}","type":{}}}"#, json(field, names)))
                .collect();
            format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, fields.join(","))
        }
    }
}

fn data(shape: &Shape) -> BoxedStrategy<Oracle> {
    match shape {
        Shape::Null => Just(Oracle::Null).boxed(),
        Shape::Boolean => any::<bool>().prop_map(Oracle::Boolean).boxed(),
        Shape::Int => any::<i32>().prop_map(Oracle::Int).boxed(),
        Shape::Long => any::<i64>().prop_map(Oracle::Long).boxed(),
        Shape::Float => any::<f32>().prop_map(Oracle::Float).boxed(),
        Shape::Double => any::<f64>().prop_map(Oracle::Double).boxed(),
        Shape::Bytes => prop::collection::vec(any::<u8>(), 0..40).prop_map(Oracle::Bytes).boxed(),
        Shape::String => ".{0,20}".prop_map(Oracle::String).boxed(),
        Shape::Fixed(size) => {
            let size = *size;
            prop::collection::vec(any::<u8>(), size)
                .prop_map(move |bytes| Oracle::Fixed(size, bytes))
                .boxed()
        }
        Shape::Enum(count) => {
            (0..*count).prop_map(|n| Oracle::Enum(n as u32, format!("S{n}"))).boxed()
        }
        Shape::Decimal => prop::collection::vec(any::<u8>(), 1..24)
            .prop_map(|bytes| Oracle::Decimal(bytes.into()))
            .boxed(),
        Shape::Date => any::<i32>().prop_map(Oracle::Date).boxed(),
        Shape::Timestamp => any::<i64>().prop_map(Oracle::TimestampMicros).boxed(),
        Shape::Array(item) => {
            prop::collection::vec(data(item), 0..4).prop_map(Oracle::Array).boxed()
        }
        Shape::Map(item) => {
            prop::collection::hash_map("[a-z]{0,5}", data(item), 0..4).prop_map(Oracle::Map).boxed()
        }
        Shape::Optional(item, null_first) => {
            let (null, other) = if *null_first { (0, 1) } else { (1, 0) };
            prop_oneof![
                Just(Oracle::Union(null, Box::new(Oracle::Null))),
                data(item).prop_map(move |value| Oracle::Union(other, Box::new(value))),
            ]
            .boxed()
        }
        Shape::Union(branches) => {
            let branches = branches.iter().enumerate().map(|(n, branch)| {
                data(branch).prop_map(move |value| Oracle::Union(n as u32, Box::new(value))).boxed()
            });
            proptest::strategy::Union::new(branches).boxed()
        }
        Shape::Record(fields) => {
            let fields: Vec<_> = fields.iter().map(data).collect();
            fields
                .prop_map(|values| {
                    let named = |(n, value)| (format!("f{n}"), value);
                    Oracle::Record(values.into_iter().enumerate().map(named).collect())
                })
                .boxed()
        }
    }
}

fn same(ours: Value<'_, '_>, theirs: &Oracle) -> Result<(), TestCaseError> {
    match theirs {
        Oracle::Union(_, inner) => same(ours, inner)?,
        Oracle::Null => prop_assert!(ours.is_null()),
        Oracle::Boolean(b) => prop_assert_eq!(ours.as_bool(), Some(*b)),
        Oracle::Int(n) | Oracle::Date(n) => prop_assert_eq!(ours.cell(), Cell::Int(*n)),
        Oracle::Long(n) | Oracle::TimestampMicros(n) => {
            prop_assert_eq!(ours.cell(), Cell::Long(*n));
        }
        Oracle::Float(n) => {
            let Cell::Float(float) = ours.cell() else { panic!("{ours:?}") };
            prop_assert_eq!(float.to_bits(), n.to_bits());
        }
        Oracle::Double(n) => {
            prop_assert_eq!(ours.as_f64().map(f64::to_bits), Some(n.to_bits()));
        }
        Oracle::Bytes(bytes) | Oracle::Fixed(_, bytes) => {
            prop_assert_eq!(ours.as_bytes(), Some(bytes.as_slice()));
        }
        Oracle::Decimal(decimal) => {
            let bytes: Vec<u8> = decimal.try_into().unwrap();
            prop_assert_eq!(ours.as_bytes(), Some(bytes.as_slice()));
        }
        Oracle::String(text) => prop_assert_eq!(ours.as_str(), Some(text.as_str())),
        Oracle::Enum(n, symbol) => {
            prop_assert_eq!(ours.cell(), Cell::Enum(*n));
            prop_assert_eq!(ours.symbol(), Some(symbol.as_str()));
        }
        Oracle::Array(items) => {
            let ours: Vec<_> = ours.items().unwrap().collect();
            prop_assert_eq!(ours.len(), items.len());
            for (ours, theirs) in ours.into_iter().zip(items) {
                same(ours, theirs)?;
            }
        }
        Oracle::Map(entries) => {
            let ours: Vec<_> = ours.entries().unwrap().collect();
            prop_assert_eq!(ours.len(), entries.len());
            for (key, value) in ours {
                same(value, &entries[key])?;
            }
        }
        Oracle::Record(fields) => {
            let row = ours.record().unwrap();
            prop_assert_eq!(row.len(), fields.len());
            for ((column, value), (name, theirs)) in row.iter().zip(fields) {
                prop_assert_eq!(&column.name, name);
                same(value, theirs)?;
            }
        }
        other => panic!("not generated: {other:?}"),
    }
    Ok(())
}

fn schema_and_data() -> impl Strategy<Value = (String, Oracle)> {
    shape().prop_flat_map(|shape| {
        let json = json(&shape, &mut 0);
        data(&shape).prop_map(move |data| (json.clone(), data))
    })
}

fn compiled(schema: &str) -> Plan {
    Plan::compile(1, schema, &[] as &[(&str, &str)]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn both_decoders_agree((schema, value) in schema_and_data()) {
        let datum = oracle::encode(&schema, value);
        let theirs = oracle::decode(&schema, &datum).unwrap();
        let plan = compiled(&schema);
        let mut cells = CellBuf::new();
        let root = plan.decode(&datum, &mut cells).unwrap();
        same(plan.view(root, &cells), &theirs)?;
        let mut json = Vec::new();
        let options = crate::json::JsonOptions::default();
        crate::json::write_value(plan.view(root, &cells), &options, &mut json).unwrap();
        prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        // A datum is never also a shorter or a longer one.
        if !datum.is_empty() {
            let cut = plan.decode(&datum[..datum.len() - 1], &mut CellBuf::new());
            prop_assert!(cut.is_err());
        }
        let longer = [datum.as_slice(), &[0]].concat();
        prop_assert!(plan.decode(&longer, &mut CellBuf::new()).is_err());
    }

    /// Where the damage leaves a datum that is still valid, both read the same from it.
    #[test]
    fn damaged_data_never_panic(
        (schema, value) in schema_and_data(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut datum = oracle::encode(&schema, value);
        prop_assume!(!datum.is_empty());
        for (at, byte) in damage {
            let at = at.index(datum.len());
            datum[at] = byte;
        }
        let plan = compiled(&schema);
        let mut cells = CellBuf::new();
        if let Ok(root) = plan.decode(&datum, &mut cells) {
            let theirs = oracle::decode(&schema, &datum);
            // apache-avro keeps the last of two equal keys of a map.
            if let Ok(theirs) = theirs && !schema.contains("map") {
                same(plan.view(root, &cells), &theirs)?;
            }
        }
    }
}
