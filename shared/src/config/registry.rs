//! Addresses of the schema registry.
//!
//! Two kinds of client meet one registry: ours speak Confluent's interface, Apicurio's converter
//! speaks Apicurio's own. Apicurio serves both below one address, by different paths.

/// Path of Confluent's interface in Apicurio.
pub const APICURIO_COMPAT_PATH: &str = "/apis/ccompat/v7";
/// Path of Apicurio's own interface.
pub const APICURIO_NATIVE_PATH: &str = "/apis/registry/v2";

/// The address that our clients use, given that the registry is Apicurio: a bare address gets the
/// Confluent-compatible path, an Apicurio path of either kind is replaced by it, any other path is
/// left as it is.
pub fn apicurio_compat_url(url: &str) -> String {
    with_apicurio_path(url, APICURIO_COMPAT_PATH)
}

/// The address that Apicurio's converter uses: like [`apicurio_compat_url`], with Apicurio's own
/// path.
pub fn apicurio_native_url(url: &str) -> String {
    with_apicurio_path(url, APICURIO_NATIVE_PATH)
}

/// Whether the address has no path, so that it does not tell which kind of registry it is. A caller
/// then asks the registry (Apicurio answers at `/apis/registry/v2/system/info`).
pub fn is_bare(url: &str) -> bool {
    split_path(url).1.is_empty()
}

fn with_apicurio_path(url: &str, path: &str) -> String {
    let (origin, given) = split_path(url);
    match given.find("/apis/") {
        Some(at) => format!("{origin}{}{path}", &given[..at]),
        None if given.is_empty() => format!("{origin}{path}"),
        None => format!("{origin}{given}"),
    }
}

/// Scheme and host, and the path without its last slash.
fn split_path(url: &str) -> (&str, &str) {
    let url = url.trim_end_matches('/');
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or((url, ""), |at| url.split_at(host + at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_address_is_completed_for_both_sides() {
        for (given, compat, native) in [
            ("http://r:8081", "http://r:8081/apis/ccompat/v7", "http://r:8081/apis/registry/v2"),
            ("http://r:8081/", "http://r:8081/apis/ccompat/v7", "http://r:8081/apis/registry/v2"),
            ("http://r/apis/ccompat/v7/", "http://r/apis/ccompat/v7", "http://r/apis/registry/v2"),
            (
                "http://r/in/apis/registry/v2",
                "http://r/in/apis/ccompat/v7",
                "http://r/in/apis/registry/v2",
            ),
            ("https://r/schemas", "https://r/schemas", "https://r/schemas"),
        ] {
            assert_eq!(apicurio_compat_url(given), compat);
            assert_eq!(apicurio_native_url(given), native);
        }
        assert!(is_bare("http://r:8081/"));
        assert!(!is_bare("http://r:8081/apis/ccompat/v7"));
    }
}
