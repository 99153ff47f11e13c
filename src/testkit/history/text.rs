//! Operations and their outcomes as text: a line a record, with its times.

use std::fmt;

use super::{Operation, Outcome, Record};

/// Bytes as they stand in Rust source.
pub(super) fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// A value, or that there is none.
pub(super) fn value(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "nothing".to_owned(), quoted)
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "put {} = {}", quoted(key), quoted(value)),
            Self::Delete { key } => write!(f, "delete {}", quoted(key)),
            Self::Get { key } => write!(f, "get {}", quoted(key)),
            Self::Scan { start, end, limit } => {
                write!(f, "scan {}..", quoted(start))?;
                if let Some(end) = end {
                    f.write_str(&quoted(end))?;
                }
                write!(f, " limit {limit}")
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written => f.write_str("ok"),
            Self::Value(found) => f.write_str(&value(found.as_deref())),
            Self::Rows(rows) => {
                let row = |(key, value): &(Vec<u8>, Vec<u8>)| {
                    let (key, value) = (quoted(key), quoted(value));
                    format!("{key} = {value}")
                };
                let rows: Vec<String> = rows.iter().map(row).collect();
                write!(f, "[{}]", rows.join(", "))
            }
            Self::Failed => f.write_str("failed"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client,
            operation,
            invoked,
            ..
        } = self;
        match &self.completed {
            Some((time, outcome)) => write!(
                f,
                "{invoked:>12} .. {time:<12}  client {client}: {operation} -> {outcome}"
            ),
            None => write!(
                f,
                "{invoked:>12} .. {:<12}  client {client}: {operation} -> no response",
                ""
            ),
        }
    }
}
