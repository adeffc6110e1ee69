//! What an error of PostgreSQL means for delivery, and how it is told.
//!
//! Messages name the address, the database and what was being done. They never hold row data: the
//! server's own text is left out where it may quote a value (classes 21, 22, 23, 44 and errors
//! that triggers raise), and so is its detail, always.

use std::fmt;
use std::io;

use cdc_shared::error::{caused_by, causes};
use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::error::DbError;

use crate::sink::{Disposition, SinkError};

/// Server and database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Host name, address or socket directory.
    pub(super) host: String,
    /// Port.
    pub(super) port: u16,
    /// Database.
    pub(super) database: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

/// What to do about a SQLSTATE. Codes stand before their class; a class that is not listed is one
/// that the server does not send to a client like this one.
///
/// | SQLSTATE | meaning | disposition |
/// |---|---|---|
/// | 08, 40, 53, 55, 57, 58, 72, F0 | connection, conflict, resources, lock, shutdown, system | Retry |
/// | 25 | read-only server (25006), transaction ended by a timeout | Retry |
/// | 26 | prepared statement gone: a pooler changed the session | Retry |
/// | 0B, 28, 3D, 3F, 42501 | login, database, schema, permission: our access is wrong | Retry |
/// | 42P01 | table gone: held, never created again behind the operator's back | Retry |
/// | XX000 | internal error, also what poolers answer | Retry |
/// | 40002, 21, 22, 23, 44, 54, P0, 09, 20, 27, 2F, 38, 39 | data, constraint, size, trigger refuses | Reject |
/// | 42, 0A, HV, 2B | columns, types, relation kind: the table is not what was accepted | Stop |
/// | XX001, XX002 | corrupted table or index | Stop |
/// | else (02, 03, 0L, 24, 2D, 34, 3B, …) | the program breaks the protocol | Fatal |
pub(super) fn disposition(sqlstate: &str) -> Disposition {
    let class = match sqlstate {
        "42501" | "42P01" => return Disposition::Retry(None),
        "40002" => return Disposition::Reject,
        "XX001" | "XX002" => return Disposition::Stop,
        _ => sqlstate.get(..2).unwrap_or_default(),
    };
    match class {
        "08" | "0B" | "25" | "26" | "28" | "3D" | "3F" | "40" | "53" | "55" | "57" | "58"
        | "72" | "F0" | "XX" => Disposition::Retry(None),
        "09" | "20" | "21" | "22" | "23" | "27" | "2F" | "38" | "39" | "44" | "54" | "P0" => {
            Disposition::Reject
        }
        "0A" | "2B" | "42" | "HV" => Disposition::Stop,
        _ => Disposition::Fatal,
    }
}

/// What an operator can do.
fn hint(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "28P01" => "check the sink's username and password",
        "28000" => "check username, sslmode and the server's pg_hba.conf",
        "3D000" => "check the sink's database, or create it",
        "3F000" => "the schema is gone; restore it, or restart the worker to have it created",
        "42501" => {
            "grant INSERT and SELECT on the target table (with upsert also UPDATE, for a mirror \
             UPDATE and DELETE), and SELECT, INSERT and UPDATE on the progress table (for a mirror \
             the same and DELETE on cdc_mirrors and cdc_moved_rows beside it); to have them \
             created, CREATE on the schema"
        }
        "42703" | "42804" | "42P10" => {
            "the table is not what it was: mend it; a resume has it looked at again"
        }
        "42P01" => "the table is gone; restore it (it is not created again while the worker runs)",
        "25006" => "the server is a read-only standby; point the sink at the primary",
        "40001" | "40P01" => {
            "another session writes the same rows; this is repeated, and needs no help unless it \
             goes on"
        }
        "53100" => "the target's disk is full: make room, delivery goes on by itself",
        "53200" => "the server is out of memory; lower batch_size, or give it more",
        "58030" => "the server cannot read or write its files: see the server's log",
        "57P01" | "57P02" | "57P03" => {
            "the server is being restarted, or somebody ended the session"
        }
        "53300" => "the server has no connection left; lower max_connections or raise the server's",
        "55P03" => "another session holds a lock on the table for longer than lock_timeout_ms",
        "57014" => {
            "a statement took longer than statement_timeout_ms; raise it or lower batch_size"
        }
        "26000" => "a pooler in transaction mode loses prepared statements; use session mode",
        _ => return None,
    })
}

/// The server's text, or nothing where it may quote a value.
fn safe_text(error: &DbError) -> String {
    let class = error.code().code().get(..2).unwrap_or_default();
    let quotes_values =
        matches!(class, "09" | "20" | "21" | "22" | "23" | "27" | "2F" | "38" | "39" | "44" | "P0");
    if !quotes_values {
        return error.message().to_owned();
    }
    let what = match class {
        "22" => "the data does not fit",
        "23" | "44" => "a constraint refuses the data",
        _ => "code of the target refuses the data",
    };
    let objects = [
        ("constraint", error.constraint()),
        ("table", error.table()),
        ("column", error.column()),
        ("type", error.datatype()),
    ];
    let named =
        objects.iter().filter_map(|(kind, name)| name.map(|name| format!(", {kind} {name}")));
    std::iter::once(what.to_owned()).chain(named).collect()
}

/// An answer of the server.
fn from_server(place: &Place, doing: &str, error: &DbError) -> SinkError {
    let state = error.code().code();
    SinkError {
        code: format!("sqlstate_{state}"),
        message: format!("{doing} at {place}: {} ({state})", safe_text(error)),
        hint: hint(state).map(str::to_owned),
        disposition: disposition(state),
        // The cause prints the server's detail, which quotes rows.
        source: None,
    }
}

/// Any error of the client library.
pub(super) fn from_client(place: &Place, doing: &str, error: tokio_postgres::Error) -> SinkError {
    if let Some(answer) = error.as_db_error() {
        return from_server(place, doing, answer);
    }
    let io = caused_by::<io::Error>(&error);
    let tls = caused_by::<rustls::Error>(&error);
    // The library does not show what kind of error it is other than by this text.
    let kind = error.to_string();
    let (code, hint) = if tls.is_some() || kind.contains("TLS") {
        ("tls", Some("check sslmode, ssl_ca_file and the server's certificate"))
    } else if kind.starts_with("authentication") || kind.starts_with("invalid configuration") {
        ("authentication", Some("check the sink's username and password"))
    } else if let Some(io) = io {
        (io_code(io), Some("check the sink's host and port, and that the server runs"))
    } else if error.is_closed() || kind.starts_with("timeout") {
        ("connection_closed", None)
    } else {
        ("client_protocol", None)
    };
    let text = causes(&error).last().map_or_else(|| kind.clone(), ToString::to_string);
    let disposition = match code {
        "client_protocol" => Disposition::Fatal,
        _ => Disposition::Retry(None),
    };
    SinkError {
        code: code.to_owned(),
        message: format!("{doing} at {place}: {text}"),
        hint: hint.map(str::to_owned),
        disposition,
        source: Some(Box::new(error)),
    }
}

fn io_code(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection_refused",
        io::ErrorKind::TimedOut => "connection_timeout",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => "connection_lost",
        io::ErrorKind::NotFound => "not_found",
        // What resolving a name gives has no kind of its own.
        _ if error.to_string().contains("lookup") => "dns",
        _ => "connection_error",
    }
}

/// An error of the pool: almost always one of connecting.
pub(super) fn from_pool(place: &Place, doing: &str, error: PoolError) -> SinkError {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            from_client(place, doing, error)
        }
        PoolError::PostCreateHook(HookError::Message(message)) => SinkError {
            code: "read_only_server".to_owned(),
            message: format!("{doing} at {place}: {message}"),
            hint: hint("25006").map(str::to_owned),
            disposition: Disposition::Retry(None),
            source: None,
        },
        PoolError::Timeout(TimeoutType::Create) => timeout(place, doing, "no connection in time"),
        PoolError::Timeout(_) => timeout(place, doing, "no free connection in time"),
        PoolError::Closed | PoolError::NoRuntimeSpecified => SinkError {
            code: "pool_closed".to_owned(),
            message: format!("{doing} at {place}: {error}"),
            hint: None,
            disposition: Disposition::Fatal,
            source: None,
        },
    }
}

/// The server did not answer in time; what became of the statement is unknown.
pub(super) fn timeout(place: &Place, doing: &str, what: &str) -> SinkError {
    SinkError {
        code: "connection_timeout".to_owned(),
        message: format!("{doing} at {place}: {what}"),
        hint: Some("check the sink's host and port, and that the server runs".to_owned()),
        disposition: Disposition::Retry(None),
        source: None,
    }
}

/// A table that is not what the sink needs, or is missing though it was there.
pub(super) fn refused(place: &Place, code: &str, why: &str, cure: String) -> SinkError {
    SinkError {
        code: code.to_owned(),
        message: format!("{why} (at {place})"),
        hint: Some(cure),
        disposition: Disposition::Stop,
        source: None,
    }
}

/// A table that changed while it was written to: the next attempt finds it as it is.
pub(super) fn changed(place: &Place, table: &str) -> SinkError {
    SinkError {
        code: "table_changed".to_owned(),
        message: format!("writing to {table} at {place}: the table changed meanwhile"),
        hint: None,
        disposition: Disposition::Retry(None),
        source: None,
    }
}

/// Settings that cannot work.
pub(super) fn configuration(place: &Place, why: &str) -> SinkError {
    SinkError {
        code: "configuration".to_owned(),
        message: format!("postgres sink at {place}: {why}"),
        hint: None,
        disposition: Disposition::Fatal,
        source: None,
    }
}

/// What this program should never meet.
pub(super) fn internal(place: &Place, why: &str) -> SinkError {
    SinkError { code: "internal".to_owned(), ..configuration(place, why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_disposition() {
        let retry = [
            "08006", "08P01", "57P01", "57P02", "57P03", "53100", "53200", "53300", "40001",
            "40P01", "55P03", "57014", "25006", "25P03", "28P01", "28000", "3D000", "3F000",
            "42501", "42P01", "26000", "58030", "XX000",
        ];
        let reject = [
            "22001", "22003", "22P02", "22P05", "23502", "23505", "23514", "40002", "54000",
            "P0001",
        ];
        let stop = ["42703", "42804", "42P10", "42883", "0A000", "XX001", "XX002"];
        let fatal = ["03000", "24000", "2D000", "34000", "99999", "", "é"];
        for state in retry {
            assert_eq!(disposition(state), Disposition::Retry(None), "{state}");
        }
        for state in reject {
            assert_eq!(disposition(state), Disposition::Reject, "{state}");
        }
        for state in stop {
            assert_eq!(disposition(state), Disposition::Stop, "{state}");
        }
        for state in fatal {
            assert_eq!(disposition(state), Disposition::Fatal, "{state}");
        }
    }
}
