//! What `SHOW GRANTS` says. Pure.
//!
//! A line may hold a password's hash: nothing of it is kept but scopes and names of privileges.

use std::collections::BTreeSet;

/// Privileges of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Grants {
    global: BTreeSet<String>,
    /// Pattern of a database, and what is granted on all of it.
    databases: Vec<(String, BTreeSet<String>)>,
}

impl Grants {
    /// Reads the lines of `SHOW GRANTS`.
    pub(super) fn parse<S: AsRef<str>>(lines: &[S]) -> Self {
        let mut grants = Self::default();
        for line in lines {
            let Some(rest) = line.as_ref().strip_prefix("GRANT ") else { continue };
            // A role (GRANT `r`@`%` TO …) has no scope.
            let Some((privileges, rest)) = rest.split_once(" ON ") else { continue };
            let scope = rest.split_once(" TO ").map_or(rest, |(scope, _)| scope).trim();
            let privileges: BTreeSet<String> = names(privileges);
            if scope == "*.*" {
                grants.global.extend(privileges);
            } else if let Some(database) = scope.strip_suffix(".*") {
                grants.databases.push((unquoted(database), privileges));
            }
        }
        grants
    }

    /// Whether one of these privileges is held on the whole server.
    pub(super) fn global(&self, any: &[&str]) -> bool {
        has(&self.global, any)
    }

    /// Whether one of these privileges is held on all of a database.
    pub(super) fn database(&self, database: &str, any: &[&str]) -> bool {
        self.global(any)
            || self
                .databases
                .iter()
                .any(|(pattern, privileges)| matches(pattern, database) && has(privileges, any))
    }
}

fn has(privileges: &BTreeSet<String>, any: &[&str]) -> bool {
    let all = ["ALL PRIVILEGES", "ALL"];
    any.iter().chain(&all).any(|name| privileges.contains(*name))
}

fn names(list: &str) -> BTreeSet<String> {
    // Columns of a privilege, such as `SELECT (a, b)`, belong to tables, which are not read here.
    list.split(',').map(|name| name.trim().to_ascii_uppercase()).collect()
}

fn unquoted(name: &str) -> String {
    match name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) {
        Some(inner) => inner.replace("``", "`"),
        None => name.to_owned(),
    }
}

/// A database's pattern as `LIKE` reads it: `%`, `_`, and `\` before one that is meant literally.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pattern_left = pattern.chars();
    match pattern_left.next() {
        None => name.is_empty(),
        Some('%') => {
            let rest = pattern_left.as_str();
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| matches(rest, &name[at..]))
        }
        Some(c) => {
            let literal = match c {
                '\\' => pattern_left.next().unwrap_or('\\'),
                c => c,
            };
            let mut name_left = name.chars();
            let Some(first) = name_left.next() else { return false };
            (c == '_' || first == literal) && matches(pattern_left.as_str(), name_left.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_of_both_products_are_read() {
        let grants = Grants::parse(&[
            "GRANT SELECT, RELOAD, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `u`@`%` IDENTIFIED BY \
             PASSWORD '*0123'",
            "GRANT LOCK TABLES, `INSERT` ON `my\\_shop`.* TO `u`@`%`",
            "GRANT SELECT (`a`, `b`) ON `crm`.`people` TO `u`@`%`",
            "GRANT `reader`@`%` TO `u`@`%`",
            "REVOKE SELECT ON `x`.* FROM `u`@`%`",
        ]);
        assert!(grants.global(&["RELOAD"]) && !grants.global(&["REPLICATION CLIENT"]));
        assert!(grants.global(&["REPLICATION CLIENT", "BINLOG MONITOR"]));
        assert!(grants.database("my_shop", &["LOCK TABLES"]));
        assert!(grants.database("crm", &["SELECT"]), "from the whole server");
        assert!(!grants.database("my-shop", &["LOCK TABLES"]), "a literal _");
        assert!(!format!("{grants:?}").contains("0123"));
    }

    #[test]
    fn all_is_everything() {
        let grants = Grants::parse(&["GRANT ALL PRIVILEGES ON *.* TO 'root'@'localhost'"]);
        assert!(grants.global(&["REPLICATION SLAVE"]) && grants.database("a", &["LOCK TABLES"]));
        let one = Grants::parse(&["GRANT ALL PRIVILEGES ON `shop%`.* TO `u`@`%`"]);
        assert!(one.database("shop_eu", &["LOCK TABLES"]) && !one.global(&["RELOAD"]));
        assert!(!one.database("crm", &["LOCK TABLES"]));
    }

    #[test]
    fn patterns_are_like() {
        for (pattern, name, expected) in [
            ("a%c", "abbc", true),
            ("a%c", "abb", false),
            ("a_c", "abc", true),
            ("a_c", "ac", false),
            (r"a\%", "a%", true),
            (r"a\%", "ab", false),
            ("%", "", true),
            ("ü%", "über", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
