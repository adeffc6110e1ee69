//! What is compared of a table and of its source. Pure.

use super::forms::{Form, OfTable, in_words, of_mysql, of_postgres};
use crate::sink::name::{TableName, quote};
use crate::sink::verify::TaskFailure;
use crate::sink::verify::plan::{self, Plan, SidePlan};
use crate::sink::verify::shape::{Column, Shape};
use crate::sink::verify::upstream::Found;

/// The plan of a comparison, and the form of each column by its name.
pub(super) struct LakePlan {
    pub(super) plan: Plan,
    /// The table in the words that the source's plan is made of.
    pub(super) shape: Shape,
    forms: Vec<(String, Form)>,
}

impl LakePlan {
    /// `columns`: name and type of the table's columns.
    ///
    /// # Errors
    /// A source without a key, or a table without its columns, or with a key that cannot be compared.
    pub(super) fn new(
        found: &Found,
        name: &TableName,
        columns: &[(String, String)],
    ) -> Result<Self, TaskFailure> {
        let source = &found.shape;
        let is_postgres = found.types.is_empty();
        let (mut twins, mut forms, mut not_compared) = (Vec::new(), Vec::new(), Vec::new());
        for (at, column) in source.columns.iter().enumerate().filter(|(_, c)| !c.generated) {
            let Some((_, ty)) = columns.iter().find(|(name, _)| *name == column.name) else {
                continue;
            };
            let form = match found.types.get(at) {
                Some(of_mysql_type) => {
                    of_mysql(&of_mysql_type.name, ty).map(|of_table| Form { sql: None, of_table })
                }
                None => of_postgres(&column.base, &column.declared, ty),
            };
            match form {
                Some(form) => forms.push((column.name.clone(), form)),
                None => not_compared.push((column.name.clone(), ty.clone())),
            }
            twins.push(twin(column, ty, is_postgres));
        }
        let shape = Shape { name: name.clone(), columns: twins, rows: 0 };
        let mut plan = plan::of_rows(source, &shape)?;
        for (column, ty) in not_compared {
            leave_out(&mut plan, source, &column, &ty)?;
        }
        for (column, form) in &forms {
            if let Some(sql) = form.sql {
                express(&mut plan, column, &sql.replace("{}", &format!("t.{}", quote(column))));
            }
        }
        Ok(Self { plan, shape, forms })
    }

    /// The forms of some columns of the table.
    pub(super) fn forms(&self, names: &[String]) -> Vec<(String, OfTable)> {
        let of = |name: &String| {
            let form = self.forms.iter().find(|(known, _)| known == name);
            (name.clone(), form.map_or(OfTable::AsIs, |(_, form)| form.of_table))
        };
        names.iter().map(of).collect()
    }
}

/// The table's column as a server would describe it.
fn twin(column: &Column, ty: &str, is_postgres: bool) -> Column {
    let (declared, base) = in_words(ty);
    Column {
        name: column.name.clone(),
        declared,
        bare: base.to_owned(),
        base: base.to_owned(),
        generated: false,
        key: None,
        // Only the source goes by it. MySQL's order of texts is not always that of its comparisons.
        order: if is_postgres { column.order.clone() } else { String::new() },
    }
}

/// Takes a column out that cannot be compared.
fn leave_out(plan: &mut Plan, source: &Shape, name: &str, ty: &str) -> Result<(), TaskFailure> {
    let declared = source.columns.iter().find(|column| column.name == name);
    let declared = declared.map_or("", |column| column.declared.as_str());
    if plan.key.iter().any(|key| key == name) {
        return Err(TaskFailure::failed(format!(
            "column {name} ({declared}) is in the key of {}, and a table's column of type {ty} \
             cannot be compared with it",
            source.name
        )));
    }
    if let Some(at) = plan.columns.iter().position(|column| column == name) {
        plan.columns.remove(at);
        plan.source.texts.remove(at);
        plan.mirror.texts.remove(at);
        let why = format!("column {name} ({declared}) is not compared: the table has it as {ty}");
        plan.notes.push(why);
    }
    Ok(())
}

/// Gives a column another text at the source.
fn express(plan: &mut Plan, name: &str, sql: &str) {
    let Plan { source, key, columns, native, .. } = plan;
    let SidePlan { key: of_key, texts, .. } = source;
    if let Some(at) = columns.iter().position(|column| column == name)
        && let Some(text) = texts.get_mut(at)
    {
        sql.clone_into(text);
    }
    if let Some(at) = key.iter().position(|column| column == name)
        && let Some(part) = of_key.get_mut(at)
    {
        sql.clone_into(&mut part.text);
        if native.get(at) == Some(&false) {
            part.order = format!("({sql}) COLLATE \"C\"");
        }
    }
}
