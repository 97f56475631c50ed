//! Values of headers and arguments, and their canonical encoding. The log stores it, and it is the
//! one that the protocols of this family share, so that a table can pass through untouched.

use crate::{limits, names::Name};
use bytes::{BufMut, Bytes};

/// One value. Widths are kept: what came as 16 bit leaves as 16 bit.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    /// Digits after the point, and the number without it.
    Decimal(u8, i32),
    LongString(Bytes),
    ByteArray(Bytes),
    Array(Vec<Value>),
    /// Seconds since the Unix epoch.
    Timestamp(u64),
    Table(Table),
    Void,
}

/// A table in the order it was written. A key may stand in it twice; the first one counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table(pub Vec<(Name, Value)>);

/// Why octets are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("table ends in the middle of a value")]
    Truncated,
    #[error("unknown field type {0:#04x}")]
    UnknownType(u8),
    #[error("nested deeper than {} levels", limits::TABLE_DEPTH_MAX)]
    TooDeep,
    #[error("more than {} entries", limits::TABLE_ENTRIES_MAX)]
    TooMany,
    #[error("field name is not UTF-8")]
    NotUtf8,
}

impl Value {
    /// A long string from text.
    pub fn text(text: &str) -> Self {
        Self::LongString(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// The value as a whole number, whatever its width. A float is none.
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(it) => Some(it.into()),
            Self::U8(it) => Some(it.into()),
            Self::I16(it) => Some(it.into()),
            Self::U16(it) => Some(it.into()),
            Self::I32(it) => Some(it.into()),
            Self::U32(it) => Some(it.into()),
            Self::I64(it) => Some(it),
            _ => None,
        }
    }

    /// The name of its type in the texts of refusals.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal(..) => "decimal",
            Self::LongString(_) => "longstr",
            Self::ByteArray(_) => "binary",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
        }
    }

    /// The text of a long string, if it is UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::LongString(it) => std::str::from_utf8(it).ok(),
            _ => None,
        }
    }

    /// Appends type letter and value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(it) => out.put_slice(&[b't', u8::from(*it)]),
            Self::I8(it) => out.put_slice(&[b'b', it.cast_unsigned()]),
            Self::U8(it) => out.put_slice(&[b'B', *it]),
            Self::I16(it) => number(out, b's', &it.to_be_bytes()),
            Self::U16(it) => number(out, b'u', &it.to_be_bytes()),
            Self::I32(it) => number(out, b'I', &it.to_be_bytes()),
            Self::U32(it) => number(out, b'i', &it.to_be_bytes()),
            Self::I64(it) => number(out, b'l', &it.to_be_bytes()),
            Self::F32(it) => number(out, b'f', &it.to_be_bytes()),
            Self::F64(it) => number(out, b'd', &it.to_be_bytes()),
            Self::Decimal(scale, it) => {
                out.put_slice(&[b'D', *scale]);
                out.put_i32(*it);
            }
            Self::LongString(it) => octets(out, b'S', it),
            Self::ByteArray(it) => octets(out, b'x', it),
            Self::Array(items) => {
                out.put_u8(b'A');
                counted(out, |out| items.iter().for_each(|it| it.encode(out)));
            }
            Self::Timestamp(it) => number(out, b'T', &it.to_be_bytes()),
            Self::Table(it) => {
                out.put_u8(b'F');
                it.encode(out);
            }
            Self::Void => out.put_u8(b'V'),
        }
    }
}

fn number(out: &mut Vec<u8>, letter: u8, octets: &[u8]) {
    out.put_u8(letter);
    out.put_slice(octets);
}

fn octets(out: &mut Vec<u8>, letter: u8, it: &[u8]) {
    out.put_u8(letter);
    out.put_u32(u32::try_from(it.len()).expect("a value fits its frame"));
    out.put_slice(it);
}

/// Writes what `fill` writes behind its length in octets.
fn counted(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32(0);
    fill(out);
    let length = u32::try_from(out.len() - start - 4).expect("a value fits its frame");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

impl Table {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(it, _)| it.as_str() == key).map(|(_, value)| value)
    }

    /// Replaces the value of `key`, or adds it at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.0.iter_mut().find(|(it, _)| it.as_str() == key) {
            Some((_, old)) => *old = value,
            None => {
                // Tables of arguments live long, and seldom grow again.
                self.0.reserve_exact(1);
                self.0.push((Name::new(key), value));
            }
        }
    }

    /// Takes every value of `key` out; returns the first.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(it, _)| it.as_str() == key)?;
        let (_, value) = self.0.remove(at);
        self.0.retain(|(it, _)| it.as_str() != key);
        Some(value)
    }

    /// Appends length and entries.
    pub fn encode(&self, out: &mut Vec<u8>) {
        counted(out, |out| {
            for (key, value) in &self.0 {
                out.put_u8(u8::try_from(key.len()).expect("a key has at most 255 octets"));
                out.put_slice(key.as_bytes());
                value.encode(out);
            }
        });
    }

    /// Reads a table with its length in front; returns it and the octets that follow.
    ///
    /// # Errors
    /// [`TableError`], when the octets are cut short, name an unknown type, or pass a limit.
    /// Nothing is allocated beyond what the octets can hold.
    pub fn decode(octets: &[u8]) -> Result<(Self, &[u8]), TableError> {
        Reader { rest: octets, depth: 0, entries: 0, is_aliased: false }.whole_table()
    }
}

/// What a look at a table has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The octets that follow the table.
    pub rest: &'a [u8],
    /// Some value is spelled in another way than the canonical one.
    pub is_aliased: bool,
}

/// Checks a table with its length in front without building it.
///
/// # Errors
/// As [`Table::decode`].
pub fn check_table(octets: &[u8]) -> Result<Checked<'_>, TableError> {
    // Building costs an allocation per entry, so publishes with headers go through here.
    let mut reader = Reader { rest: octets, depth: 0, entries: 0, is_aliased: false };
    reader.skip_table()?;
    Ok(Checked { rest: reader.rest, is_aliased: reader.is_aliased })
}

struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
    entries: usize,
    is_aliased: bool,
}

impl<'a> Reader<'a> {
    fn whole_table(mut self) -> Result<(Table, &'a [u8]), TableError> {
        let table = self.table()?;
        Ok((table, self.rest))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], TableError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(TableError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], TableError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(TableError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn counted(&mut self) -> Result<&'a [u8], TableError> {
        let length = u32::from_be_bytes(self.fixed()?) as usize;
        self.take(length)
    }

    fn entry(&mut self) -> Result<(), TableError> {
        self.entries += 1;
        if limits::TABLE_ENTRIES_MAX < self.entries { Err(TableError::TooMany) } else { Ok(()) }
    }

    fn key(&mut self) -> Result<&'a str, TableError> {
        self.entry()?;
        let [length] = self.fixed()?;
        let key = self.take(length.into())?;
        std::str::from_utf8(key).map_err(|_| TableError::NotUtf8)
    }

    /// Runs `read` on the counted octets that follow, one level deeper.
    fn nested<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, TableError>,
    ) -> Result<Vec<T>, TableError> {
        let inner = self.counted()?;
        if self.depth == limits::TABLE_DEPTH_MAX {
            return Err(TableError::TooDeep);
        }
        let (depth, entries) = (self.depth + 1, self.entries);
        let mut reader = Reader { rest: inner, depth, entries, is_aliased: false };
        let mut items = Vec::new();
        while !reader.rest.is_empty() {
            items.push(read(&mut reader)?);
        }
        self.entries = reader.entries;
        self.is_aliased |= reader.is_aliased;
        Ok(items)
    }

    fn table(&mut self) -> Result<Table, TableError> {
        let entries = self.nested(|it| Ok((Name::new(it.key()?), it.value()?)))?;
        Ok(Table(entries))
    }

    fn skip_table(&mut self) -> Result<(), TableError> {
        self.nested(|it| it.key().and_then(|_| it.skip_value())).map(drop)
    }

    fn value(&mut self) -> Result<Value, TableError> {
        let [letter] = self.fixed()?;
        Ok(match letter {
            b't' => Value::Bool(self.fixed::<1>()? != [0]),
            b'b' => Value::I8(i8::from_be_bytes(self.fixed()?)),
            b'B' => Value::U8(u8::from_be_bytes(self.fixed()?)),
            b's' => Value::I16(i16::from_be_bytes(self.fixed()?)),
            b'u' => Value::U16(u16::from_be_bytes(self.fixed()?)),
            b'I' => Value::I32(i32::from_be_bytes(self.fixed()?)),
            b'i' => Value::U32(u32::from_be_bytes(self.fixed()?)),
            b'l' | b'L' => Value::I64(i64::from_be_bytes(self.fixed()?)),
            b'f' => Value::F32(f32::from_be_bytes(self.fixed()?)),
            b'd' => Value::F64(f64::from_be_bytes(self.fixed()?)),
            b'D' => {
                let [scale] = self.fixed()?;
                Value::Decimal(scale, i32::from_be_bytes(self.fixed()?))
            }
            b'S' => Value::LongString(Bytes::copy_from_slice(self.counted()?)),
            b'x' => Value::ByteArray(Bytes::copy_from_slice(self.counted()?)),
            b'A' => Value::Array(self.nested(|it| it.entry().and_then(|()| it.value()))?),
            b'T' => Value::Timestamp(u64::from_be_bytes(self.fixed()?)),
            b'F' => Value::Table(self.table()?),
            b'V' => Value::Void,
            unknown => return Err(TableError::UnknownType(unknown)),
        })
    }

    fn skip_value(&mut self) -> Result<(), TableError> {
        let [letter] = self.fixed()?;
        match letter {
            b't' | b'b' | b'B' => self.take(1).map(drop),
            b's' | b'u' => self.take(2).map(drop),
            b'I' | b'i' | b'f' => self.take(4).map(drop),
            b'L' => {
                self.is_aliased = true;
                self.take(8).map(drop)
            }
            b'l' | b'd' | b'T' => self.take(8).map(drop),
            b'D' => self.take(5).map(drop),
            b'S' | b'x' => self.counted().map(drop),
            b'A' => self.nested(|it| it.entry().and_then(|()| it.skip_value())).map(drop),
            b'F' => self.skip_table(),
            b'V' => Ok(()),
            unknown => Err(TableError::UnknownType(unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i8>().prop_map(Value::I8),
            any::<u16>().prop_map(Value::U16),
            any::<i32>().prop_map(Value::I32),
            any::<i64>().prop_map(Value::I64),
            any::<(u8, i32)>().prop_map(|(scale, it)| Value::Decimal(scale, it)),
            any::<Vec<u8>>().prop_map(|it| Value::LongString(it.into())),
            any::<u64>().prop_map(Value::Timestamp),
            Just(Value::Void),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::vec(("[a-z]{0,9}", inner), 0..6).prop_map(|it| {
                    Value::Table(Table(it.into_iter().map(|(k, v)| (Name::from(k), v)).collect()))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(value in values()) {
            let table = Table(vec![(Name::new("key"), value)]);
            let mut octets = Vec::new();
            table.encode(&mut octets);
            prop_assert_eq!(check_table(&octets), Ok(Checked { rest: &[][..], is_aliased: false }));
            let (again, rest) = Table::decode(&octets).expect("what was encoded decodes");
            prop_assert!(rest.is_empty());
            prop_assert_eq!(again, table);
        }

        #[test]
        fn any_octets_decode_or_are_refused_and_the_check_agrees(octets: Vec<u8>) {
            let decoded = Table::decode(&octets).map(|(_, rest)| rest);
            prop_assert_eq!(decoded, check_table(&octets).map(|it| it.rest));
        }
    }

    fn nested_arrays(levels: usize) -> Vec<u8> {
        let mut value = Value::Void;
        for _ in 0..levels {
            value = Value::Array(vec![value]);
        }
        let mut octets = Vec::new();
        Table(vec![(Name::new("k"), value)]).encode(&mut octets);
        octets
    }

    #[test]
    fn other_spelling_of_a_wide_integer_is_noticed_at_any_depth() {
        let mut octets = Vec::new();
        let inner = Table(vec![(Name::new("n"), Value::I64(5))]);
        Table(vec![(Name::new("k"), Value::Table(inner))]).encode(&mut octets);
        let letter = octets.iter().rposition(|it| *it == b'l').expect("encoded as l");
        assert_eq!(check_table(&octets).map(|it| it.is_aliased), Ok(false));
        octets[letter] = b'L';
        assert_eq!(check_table(&octets).map(|it| it.is_aliased), Ok(true));
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        assert!(Table::decode(&nested_arrays(31)).is_ok());
        assert_eq!(Table::decode(&nested_arrays(32)).err(), Some(TableError::TooDeep));
    }

    #[test]
    fn a_frame_full_of_levels_is_refused_and_not_walked() {
        let mut octets = Vec::new();
        for left in (0..26_212_u32).rev() {
            octets.extend_from_slice(b"A");
            octets.extend_from_slice(&(left * 5).to_be_bytes());
        }
        let mut table = u32::try_from(octets.len() + 2).expect("fits").to_be_bytes().to_vec();
        table.extend_from_slice(&[1, b'k']);
        table.extend_from_slice(&octets);
        assert_eq!(Table::decode(&table).err(), Some(TableError::TooDeep));
    }

    #[test]
    fn entries_end_at_the_limit() {
        let mut table = Table(vec![(Name::new(""), Value::Void); limits::TABLE_ENTRIES_MAX]);
        let mut octets = Vec::new();
        table.encode(&mut octets);
        assert!(Table::decode(&octets).is_ok());
        table.0.push((Name::new(""), Value::Void));
        octets.clear();
        table.encode(&mut octets);
        assert_eq!(Table::decode(&octets).err(), Some(TableError::TooMany));
    }
}
