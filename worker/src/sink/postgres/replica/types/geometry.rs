//! Points, and well-known binary with its spatial reference.

use cdc_shared::avro::{Cell, Row, Value};

use super::fault::Fault;

/// The mark in the type number by which four bytes with the SRID follow (EWKB).
const HAS_SRID: u32 = 0x2000_0000;

/// The coordinates of `io.debezium.data.geometry.Point`.
pub(super) fn point(value: Value<'_, '_>) -> Result<(f64, f64), Fault> {
    let row = value.record().ok_or(Fault::OTHER_KIND)?;
    match (field(row, "x"), field(row, "y")) {
        (Some(Cell::Double(x)), Some(Cell::Double(y))) => Ok((x, y)),
        _ => Err(Fault::OTHER_KIND),
    }
}

/// Extended well-known binary: the `wkb` of the record, with its `srid` put in where it is not.
pub(super) fn write_ewkb(value: Value<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let row = value.record().ok_or(Fault::OTHER_KIND)?;
    let Some(Cell::Bytes(wkb)) = field(row, "wkb") else { return Err(Fault::OTHER_KIND) };
    let srid = match field(row, "srid") {
        Some(Cell::Int(srid)) if srid != 0 => srid,
        _ => {
            out.extend_from_slice(wkb);
            return Ok(());
        }
    };
    let Some((head, rest)) = wkb.split_first_chunk::<5>() else { return Err(Fault::MALFORMED) };
    let [order, number @ ..] = *head;
    let little = match order {
        0 => false,
        1 => true,
        _ => return Err(Fault::MALFORMED),
    };
    let kind = if little { u32::from_le_bytes(number) } else { u32::from_be_bytes(number) };
    if kind & HAS_SRID != 0 {
        out.extend_from_slice(wkb);
        return Ok(());
    }
    let kind = kind | HAS_SRID;
    out.push(order);
    if little {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&srid.to_le_bytes());
    } else {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&srid.to_be_bytes());
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// A record of three or four fields: walking it costs no more than a table would.
fn field<'m>(row: Row<'_, 'm>, name: &str) -> Option<Cell<'m>> {
    row.position(name).and_then(|position| row.cells().get(position).copied())
}
