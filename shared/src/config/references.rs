//! References in values: `${VAR}`, `${VAR:-default}`, `${env:VAR}`, `${file:/path}`.
//!
//! They are resolved in the values of the parsed file, so that no secret can change its structure,
//! and not inside each other. `$${` stands for a plain `${`.

use std::io::Read as _;
use std::path::Path;

use super::Variables;

/// Largest file that a reference may name, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Whether a text holds a reference (or its escape).
pub(super) fn has_reference(text: &str) -> bool {
    text.contains("${")
}

/// The text with its references replaced.
///
/// # Errors
///
/// What cannot be resolved, by name.
pub(super) fn resolve(text: &str, variables: &Variables) -> Result<String, String> {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            resolved.push_str(before);
            resolved.push_str("${");
            rest = &reference[2..];
            continue;
        }
        resolved.push_str(before);
        let end = reference.find('}').ok_or("a reference begins with `${` but has no `}`")?;
        resolved.push_str(&value_of(&reference[2..end], variables)?);
        rest = &reference[end + 1..];
    }
    resolved.push_str(rest);
    Ok(resolved)
}

/// The names of the variables that a text refers to.
pub(super) fn variable_names(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| {
        let inner = rest.split('}').next()?;
        let inner = inner.strip_prefix("env:").unwrap_or(inner);
        Some(inner.split(":-").next().unwrap_or(inner))
    })
}

fn value_of(reference: &str, variables: &Variables) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        return file_text(Path::new(path));
    }
    let inner = reference.strip_prefix("env:").unwrap_or(reference);
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if default.is_some_and(|default| default.contains("${")) {
        return Err(format!("references do not nest: `${{{name}:-…}}` has another one inside"));
    }
    if !is_variable_name(name) {
        return Err(format!(
            "`${{{inner}}}` is no reference: write ${{VAR}}, ${{VAR:-default}} or ${{file:/path}}, \
             or $${{ for a plain ${{"
        ));
    }
    match (variables.get(name), default) {
        (Some(value), None) => Ok(value.clone()),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value.clone()),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("the variable {name} is not set")),
    }
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn file_text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let bytes = bounded(path, MAX_FILE_BYTES)
        .map_err(|error| format!("cannot read the file {shown}: {error}"))?
        .ok_or_else(|| format!("the file {shown} is larger than {MAX_FILE_BYTES} bytes"))?;
    let mut text =
        String::from_utf8(bytes).map_err(|_| format!("the file {shown} is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// What a file holds; `None` when that is more than `most` bytes. Not its size is believed but what
/// is read: pipes and devices have none.
pub(super) fn bounded(path: &Path, most: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables() -> Variables {
        Variables::from([("A".into(), "1".into()), ("E".into(), String::new())])
    }

    #[test]
    fn references_become_their_values() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let path = file.path().display();
        for (text, expected) in [
            ("plain $ {x}", "plain $ {x}"),
            ("${A}", "1"),
            ("${env:A}", "1"),
            ("http://${A}:${B:-80}/", "http://1:80/"),
            ("${E}", ""),
            ("${E:-x}", "x"),
            ("${B:-}", ""),
            ("$${A}", "${A}"),
            (&format!("${{file:{path}}}"), "s3cret"),
        ] {
            assert_eq!(resolve(text, &variables()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        for (text, expected) in [
            ("${B}", "the variable B is not set"),
            ("${A", "a reference begins with `${` but has no `}`"),
            ("${A:-${B}}", "references do not nest: `${A:-…}` has another one inside"),
            (
                "${a b}",
                "`${a b}` is no reference: write ${VAR}, ${VAR:-default} or ${file:/path}, or $${ \
                 for a plain ${",
            ),
            (
                "${file:/nowhere/x}",
                "cannot read the file /nowhere/x: No such file or directory (os error 2)",
            ),
            ("${file:/dev/zero}", "the file /dev/zero is larger than 1048576 bytes"),
        ] {
            assert_eq!(resolve(text, &variables()), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_names_in_a_text() {
        let names: Vec<_> = variable_names("${A}:${env:B:-1}${file:/x}").collect();
        assert_eq!(names, ["A", "B", "file:/x"]);
    }

    proptest! {
        #[test]
        fn any_text_is_resolved_or_refused(text in "[$a-bA-B{}: -]{0,30}") {
            let _ = resolve(&text, &variables());
        }

        #[test]
        fn a_value_is_never_looked_at_again(value in "[${}A-C:-]{0,20}") {
            let variables = Variables::from([("V".into(), value.clone())]);
            prop_assert_eq!(resolve("<${V}>", &variables), Ok(format!("<{value}>")));
        }
    }
}
