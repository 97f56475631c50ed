//! Values as the texts of refusals show them: the type names and the notation of Erlang terms,
//! which clients and their tests read.

use model::{Name, Table, Value};
use std::fmt::Write;

/// The name of a value's type.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::I8(_) => "byte",
        Value::U8(_) => "unsignedbyte",
        Value::I16(_) => "short",
        Value::U16(_) => "unsignedshort",
        Value::I32(_) => "signedint",
        Value::U32(_) => "unsignedint",
        Value::I64(_) => "long",
        Value::F32(_) => "float",
        Value::F64(_) => "double",
        Value::Decimal(..) => "decimal",
        Value::LongString(_) => "longstr",
        Value::ByteArray(_) => "binary",
        Value::Array(_) => "array",
        Value::Timestamp(_) => "timestamp",
        Value::Table(_) => "table",
        Value::Void => "void",
    }
}

/// The value as it stands between quotes: text as it is, all else as a term.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::LongString(it) | Value::ByteArray(it) => String::from_utf8_lossy(it).into_owned(),
        other => term(other),
    }
}

/// The value as a term.
pub(crate) fn term(value: &Value) -> String {
    match value {
        Value::Bool(it) => it.to_string(),
        Value::I8(_)
        | Value::U8(_)
        | Value::I16(_)
        | Value::U16(_)
        | Value::I32(_)
        | Value::U32(_)
        | Value::I64(_) => value.as_integer().unwrap_or_default().to_string(),
        Value::F32(it) => float((*it).into()),
        Value::F64(it) => float(*it),
        Value::Decimal(scale, it) => format!("{{{scale},{it}}}"),
        Value::LongString(it) | Value::ByteArray(it) => binary(it),
        Value::Array(items) => {
            let items: Vec<_> =
                items.iter().map(|it| format!("{{{},{}}}", type_name(it), term(it))).collect();
            format!("[{}]", items.join(","))
        }
        Value::Timestamp(it) => it.to_string(),
        Value::Table(table) => entries(table),
        Value::Void => "undefined".to_owned(),
    }
}

fn entries(table: &Table) -> String {
    let one = |(key, value): &(Name, Value)| {
        format!("{{{},{},{}}}", binary(key.as_bytes()), type_name(value), term(value))
    };
    format!("[{}]", table.0.iter().map(one).collect::<Vec<_>>().join(","))
}

/// Octets as a binary: text where it is printable, numbers otherwise.
pub(crate) fn binary(octets: &[u8]) -> String {
    match std::str::from_utf8(octets) {
        Ok(text) if !text.chars().any(char::is_control) => {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let marked = if text.is_ascii() { "" } else { "/utf8" };
            format!("<<\"{escaped}\"{marked}>>")
        }
        _ => {
            let mut out = String::from("<<");
            for (at, octet) in octets.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{octet}");
            }
            out + ">>"
        }
    }
}

/// The shortest notation; scientific from a thousand with zeros at the end.
fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let places = digits.trim_start_matches('-').len().saturating_sub(2);
    let zeros = exponent - i32::try_from(places).unwrap_or(i32::MAX);
    if (-3..=i32::MAX).contains(&exponent) && zeros < 3 {
        format!("{value:?}")
    } else {
        let point = if digits.contains('.') { "" } else { ".0" };
        format!("{digits}{point}e{exponent}")
    }
}

/// Two values are one by the rules of redeclaration: whole numbers and decimals of any width are
/// one class, floats another, and all else equals its own type only.
pub(crate) fn equivalent(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::F32(_) | Value::F64(_), Value::F32(_) | Value::F64(_)) => {
            number(left) == number(right)
        }
        _ => match (left.as_integer(), right.as_integer()) {
            (Some(left), Some(right)) => left == right,
            (None, None) => left == right,
            _ => false,
        },
    }
}

fn number(value: &Value) -> Option<f64> {
    match *value {
        Value::F32(it) => Some(it.into()),
        Value::F64(it) => Some(it),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_terms() {
        let table = Table(vec![(Name::new("k"), Value::I32(1))]);
        for (value, text) in [
            (Value::I64(-5), "-5"),
            (Value::Bool(true), "true"),
            (Value::Void, "undefined"),
            (Value::F64(1000.0), "1.0e3"),
            (Value::F64(100.0), "100.0"),
            (Value::F64(2.5), "2.5"),
            (Value::Decimal(2, 314), "{2,314}"),
            (Value::text("a\"b"), "<<\"a\\\"b\">>"),
            (Value::LongString(vec![0, 255].into()), "<<0,255>>"),
            (
                Value::Array(vec![Value::I32(1), Value::text("x")]),
                "[{signedint,1},{longstr,<<\"x\">>}]",
            ),
            (Value::Table(table), "[{<<\"k\">>,signedint,1}]"),
        ] {
            assert_eq!(term(&value), text);
        }
    }
}
