//! Bad bytes, limits, and the shapes of data that a writer may choose.

use proptest::prelude::*;

use super::*;

fn plan(schema: &str) -> Plan {
    Plan::compile(3, schema, &[] as &[(&str, &str)]).unwrap()
}

fn fault(schema: &str, datum: &[u8]) -> Fault {
    plan(schema).decode(datum, &mut CellBuf::new()).unwrap_err().fault
}

const LIST: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"id","type":"int"},
    {"name":"list","type":{"type":"array","items":{"type":"record","name":"I","fields":[
        {"name":"text","type":["null","string"]}]}}}]}"#;

#[test]
fn every_fault_has_its_own_name() {
    assert_eq!(fault(r#""int""#, &[]), Fault::CutShort);
    assert_eq!(fault(r#""long""#, &[0x80, 0x80]), Fault::CutShort);
    assert_eq!(fault(r#""double""#, &[0; 7]), Fault::CutShort);
    assert_eq!(fault(r#""int""#, &[2, 9]), Fault::Trailing(1));
    assert_eq!(fault(r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0x1f]), Fault::Number);
    assert_eq!(fault(r#""long""#, &[0xff; 10]), Fault::Number);
    assert_eq!(fault(r#""boolean""#, &[2]), Fault::Boolean);
    assert_eq!(fault(r#""string""#, &[4, 0xc3, 0x28]), Fault::Utf8);
    assert_eq!(fault(r#""bytes""#, &[1]), Fault::Length(-1));
    assert_eq!(fault(r#""bytes""#, &[0xfe, 0xff, 0xff, 0xff, 0x0f]), Fault::CutShort);
    assert_eq!(fault(r#"["null","int"]"#, &[4]), Fault::Branch(2));
    assert_eq!(fault(r#"["null","int"]"#, &[1]), Fault::Branch(-1));
    assert_eq!(fault(r#"["int","string","null"]"#, &[6]), Fault::Branch(3));
    assert_eq!(fault(r#"{"type":"enum","name":"E","symbols":["A"]}"#, &[2]), Fault::Symbol(1));
    assert_eq!(fault(r#"{"type":"fixed","name":"F","size":4}"#, &[0; 3]), Fault::CutShort);
}

#[test]
fn the_error_says_where() {
    let error =
        plan(LIST).decode(&[2, 4, 2, 2, b'a', 2, 2, 0xff, 0], &mut CellBuf::new()).unwrap_err();
    assert_eq!(error.path, "list[1].text");
    assert_eq!(error.fault, Fault::Utf8);
    let text = error.to_string();
    assert!(text.contains("`list[1].text`") && text.contains("schema 3"), "{text}");
}

#[test]
fn a_failed_datum_leaves_the_buffer_as_it_was() {
    let plan = plan(LIST);
    let mut cells = CellBuf::new();
    let root = plan.decode(&[2, 2, 2, 2, b'a', 0], &mut cells).unwrap();
    let held = cells.len();
    assert!(plan.decode(&[2, 4, 2, 2, b'b', 2], &mut cells).is_err());
    assert_eq!(cells.len(), held);
    assert!(cells.scratch.is_empty());
    let again = plan.decode(&[4, 0], &mut cells).unwrap();
    // Both messages of the batch are still there.
    let text = |root| {
        let row = plan.row(root, &cells).unwrap();
        let list: Vec<_> = row
            .get(1)
            .unwrap()
            .items()
            .unwrap()
            .map(|item| item.record().unwrap().get(0).unwrap().as_str())
            .collect();
        (row.get(0).unwrap().as_i64(), list)
    };
    assert_eq!(text(root), (Some(1), vec![Some("a")]));
    assert_eq!(text(again), (Some(2), vec![]));
}

#[test]
fn blocks_may_be_many_and_may_say_their_size() {
    let plan = plan(r#"{"type":"array","items":{"type":"map","values":"int"}}"#);
    // {a:1} and {} in a block of two that says its size, then {b:2} in a block of its own,
    // whose entries say their size too.
    let a = [2, 2, b'a', 2, 0];
    let b = [1, 6, 2, b'b', 4, 0];
    let sized = |size: u8| [&[3, size][..], &a, &[0], &[2], &b, &[0]].concat();
    let datum = sized(12);
    let mut cells = CellBuf::new();
    let root = plan.decode(&datum, &mut cells).unwrap();
    let maps: Vec<Vec<_>> = plan
        .view(root, &cells)
        .items()
        .unwrap()
        .map(|map| map.entries().unwrap().map(|(key, value)| (key, value.as_i64())).collect())
        .collect();
    assert_eq!(maps, [vec![("a", Some(1))], vec![], vec![("b", Some(2))]]);

    let wrong = |size| plan.decode(&sized(size), &mut CellBuf::new()).map(|_| ()).unwrap_err();
    assert_eq!(wrong(10).fault, Fault::BlockSize);
    assert_eq!(wrong(126).fault, Fault::CutShort);
    assert_eq!(wrong(1).fault, Fault::Length(-1));
}

#[test]
fn limits_hold() {
    // An array of nulls costs no bytes: its count alone must not take the memory.
    let nulls = plan(r#"{"type":"array","items":"null"}"#);
    let mut datum = vec![];
    varint(1 << 40, &mut datum);
    datum.push(0);
    let error = nulls.decode(&datum, &mut CellBuf::new()).unwrap_err();
    assert_eq!(error.fault, Fault::TooManyCells);
    let mut few = vec![];
    varint(1000, &mut few);
    few.push(0);
    let mut cells = CellBuf::new();
    let root = nulls.decode(&few, &mut cells).unwrap();
    assert_eq!(nulls.view(root, &cells).items().unwrap().len(), 1000);

    assert_eq!(fault(r#"{"type":"array","items":"int"}"#, &[20, 0, 0]), Fault::Block);
    assert_eq!(
        fault(r#"{"type":"array","items":"double"}"#, &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Fault::Block
    );
    let mut least = vec![];
    varint(i64::MIN, &mut least);
    least.extend([0, 0]);
    assert_eq!(fault(r#"{"type":"array","items":"null"}"#, &least), Fault::TooManyCells);

    let limits = Limits { max_bytes: 4, ..Limits::DEFAULT };
    let error = plan(r#""bytes""#).decode_within(&limits, &[8; 5], &mut CellBuf::new());
    assert_eq!(error.unwrap_err().fault, Fault::TooLarge(4));
}

#[test]
fn records_that_double_without_a_byte_are_stopped() {
    use std::fmt::Write as _;
    let mut schema = String::new();
    let depth = 40;
    for level in 0..depth {
        let _ =
            write!(schema, r#"{{"type":"record","name":"L{level}","fields":[{{"name":"a","type":"#);
    }
    schema.push_str(r#""null""#);
    for level in (0..depth).rev() {
        let twin = if level + 1 < depth { format!("L{}", level + 1) } else { "null".into() };
        let _ = write!(schema, r#"}},{{"name":"b","type":"{twin}"}}]}}"#);
    }
    assert_eq!(fault(&schema, &[]), Fault::TooManyCells);
}

#[test]
fn depth_is_limited() {
    let tree = plan(
        r#"{"type":"record","name":"Tree","fields":[{"name":"next","type":["null","Tree"]}]}"#,
    );
    let mut cells = CellBuf::new();
    let chain = |depth: usize| {
        let mut datum = vec![2; depth - 1];
        datum.push(0);
        datum
    };
    let fits = chain(64);
    tree.decode(&fits, &mut cells).unwrap();
    let error = tree.decode(&chain(65), &mut CellBuf::new()).map(|_| ()).unwrap_err();
    assert_eq!(error.fault, Fault::TooDeep(64));
    let endless = plan(r#"{"type":"record","name":"E","fields":[{"name":"e","type":"E"}]}"#);
    assert_eq!(endless.decode(&[], &mut CellBuf::new()).unwrap_err().fault, Fault::TooDeep(64));
}

#[test]
fn two_hundred_columns_and_a_large_value() {
    let fields: Vec<String> =
        (0..200).map(|n| format!(r#"{{"name":"c{n}","type":["null","string"]}}"#)).collect();
    let wide =
        plan(&format!(r#"{{"type":"record","name":"Wide","fields":[{}]}}"#, fields.join(",")));
    let text = "é".repeat(50_000);
    let mut datum = vec![0; 199];
    datum.push(2);
    varint(text.len() as i64, &mut datum);
    datum.extend_from_slice(text.as_bytes());
    let mut cells = CellBuf::new();
    let root = wide.decode(&datum, &mut cells).unwrap();
    let row = wide.row(root, &cells).unwrap();
    assert_eq!(row.get(199).unwrap().as_str(), Some(text.as_str()));
    assert_eq!(row.iter().filter(|(_, value)| value.is_null()).count(), 199);
    assert_eq!(cells.len(), 200);
    // The text is not copied.
    let inside = datum.as_ptr_range();
    assert!(inside.contains(&row.get(199).unwrap().as_str().unwrap().as_ptr()));
}

fn varint(value: i64, out: &mut Vec<u8>) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

proptest! {
    #[test]
    fn longs_come_back(value: i64) {
        let plan = plan(r#""long""#);
        let mut datum = vec![];
        varint(value, &mut datum);
        prop_assert_eq!(plan.decode(&datum, &mut CellBuf::new()).unwrap(), Cell::Long(value));
    }

    #[test]
    fn random_bytes_never_panic(datum in prop::collection::vec(any::<u8>(), 0..400)) {
        let schemas = [
            include_str!("../../benches/envelope.avsc"),
            LIST,
            r#"{"type":"map","values":["int","string",{"type":"array","items":"null"}]}"#,
            r#"{"type":"record","name":"T","fields":[{"name":"t","type":{"type":"array",
                "items":["null","T"]}},{"name":"n","type":"null"}]}"#,
        ];
        for schema in schemas {
            let plan = plan(schema);
            let mut cells = CellBuf::new();
            if let Ok(root) = plan.decode(&datum, &mut cells) {
                let mut out = Vec::new();
                let value = plan.view(root, &cells);
                crate::json::write_value(value, &crate::json::JsonOptions::default(), &mut out)
                    .unwrap();
                serde_json::from_slice::<serde_json::Value>(&out).unwrap();
            }
        }
    }
}
