//! The properties of a message in their canonical encoding: a word of flags, then the fields that
//! are there. A publish is only looked at (`Facts`); who must change something builds `Properties`.

use crate::{
    limits,
    names::Name,
    value::{self, Table, TableError},
};
use bytes::BufMut;

/// All properties, decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    pub content_type: Option<Name>,
    pub content_encoding: Option<Name>,
    pub headers: Option<Table>,
    /// 2 is persistent, everything else transient.
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<Name>,
    pub reply_to: Option<Name>,
    /// Milliseconds in decimal digits.
    pub expiration: Option<Name>,
    pub message_id: Option<Name>,
    /// Seconds since the Unix epoch.
    pub timestamp: Option<u64>,
    pub kind: Option<Name>,
    pub user_id: Option<Name>,
    pub app_id: Option<Name>,
    pub cluster_id: Option<Name>,
}

/// What the broker must know of every message, found in one pass without allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    pub persistent: bool,
    pub priority: Option<u8>,
    /// The encoded table with its length in front.
    pub headers: Option<&'a [u8]>,
    pub reply_to: Option<&'a str>,
    pub expiration: Option<&'a str>,
    pub user_id: Option<&'a str>,
    /// Some header is spelled in another way than the canonical one: to be encoded anew.
    pub is_aliased: bool,
}

/// Why octets are no properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesError {
    #[error("properties end in the middle of a field")]
    Truncated,
    #[error("properties are followed by {0} octets")]
    TooLong(usize),
    #[error("unknown property flags {0:#06x}")]
    UnknownFlags(u16),
    #[error("properties are larger than {} octets", limits::PROPERTIES_BYTES_MAX)]
    TooLarge,
    #[error("property is not UTF-8")]
    NotUtf8,
    #[error("headers: {0}")]
    Headers(#[from] TableError),
}

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const KIND: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
const UNKNOWN: u16 = 0b11;
const PERSISTENT: u8 = 2;

struct Reader<'a> {
    flags: u16,
    rest: &'a [u8],
    is_aliased: bool,
}

impl<'a> Reader<'a> {
    fn new(octets: &'a [u8]) -> Result<Self, PropertiesError> {
        if limits::PROPERTIES_BYTES_MAX < octets.len() {
            return Err(PropertiesError::TooLarge);
        }
        let (flags, rest) = octets.split_first_chunk().ok_or(PropertiesError::Truncated)?;
        let flags = u16::from_be_bytes(*flags);
        if flags & UNKNOWN != 0 {
            return Err(PropertiesError::UnknownFlags(flags));
        }
        Ok(Self { flags, rest, is_aliased: false })
    }

    fn end(self) -> Result<(), PropertiesError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(PropertiesError::TooLong(more)),
        }
    }

    fn fixed<const N: usize>(&mut self, flag: u16) -> Result<Option<[u8; N]>, PropertiesError> {
        if self.flags & flag == 0 {
            return Ok(None);
        }
        let (taken, rest) = self.rest.split_first_chunk().ok_or(PropertiesError::Truncated)?;
        self.rest = rest;
        Ok(Some(*taken))
    }

    fn octet(&mut self, flag: u16) -> Result<Option<u8>, PropertiesError> {
        Ok(self.fixed::<1>(flag)?.map(|[it]| it))
    }

    fn text(&mut self, flag: u16) -> Result<Option<&'a str>, PropertiesError> {
        if self.flags & flag == 0 {
            return Ok(None);
        }
        let (length, rest) = self.rest.split_first().ok_or(PropertiesError::Truncated)?;
        let (text, rest) =
            rest.split_at_checked((*length).into()).ok_or(PropertiesError::Truncated)?;
        self.rest = rest;
        std::str::from_utf8(text).map(Some).map_err(|_| PropertiesError::NotUtf8)
    }

    fn name(&mut self, flag: u16) -> Result<Option<Name>, PropertiesError> {
        Ok(self.text(flag)?.map(Name::new))
    }

    fn headers(&mut self) -> Result<Option<&'a [u8]>, PropertiesError> {
        if self.flags & HEADERS == 0 {
            return Ok(None);
        }
        let before = self.rest;
        let checked = value::check_table(before)?;
        self.rest = checked.rest;
        self.is_aliased = checked.is_aliased;
        Ok(Some(&before[..before.len() - self.rest.len()]))
    }
}

impl<'a> Facts<'a> {
    /// Looks at encoded properties and checks them whole.
    ///
    /// # Errors
    /// [`PropertiesError`], when a field is cut short, wrong or over its limit.
    pub fn parse(octets: &'a [u8]) -> Result<Self, PropertiesError> {
        let mut reader = Reader::new(octets)?;
        reader.text(CONTENT_TYPE)?;
        reader.text(CONTENT_ENCODING)?;
        let headers = reader.headers()?;
        let persistent = reader.octet(DELIVERY_MODE)? == Some(PERSISTENT);
        let priority = reader.octet(PRIORITY)?;
        reader.text(CORRELATION_ID)?;
        let reply_to = reader.text(REPLY_TO)?;
        let expiration = reader.text(EXPIRATION)?;
        reader.text(MESSAGE_ID)?;
        reader.fixed::<8>(TIMESTAMP)?;
        reader.text(KIND)?;
        let user_id = reader.text(USER_ID)?;
        reader.text(APP_ID)?;
        reader.text(CLUSTER_ID)?;
        let is_aliased = reader.is_aliased;
        reader.end()?;
        Ok(Self { persistent, priority, headers, reply_to, expiration, user_id, is_aliased })
    }

    /// The headers, decoded; empty when there are none.
    pub fn header_table(&self) -> Table {
        let decoded = self.headers.and_then(|it| Table::decode(it).ok());
        decoded.map(|(table, _)| table).unwrap_or_default()
    }
}

impl Properties {
    /// Decodes everything.
    ///
    /// # Errors
    /// As [`Facts::parse`].
    pub fn decode(octets: &[u8]) -> Result<Self, PropertiesError> {
        let mut reader = Reader::new(octets)?;
        let properties = Self {
            content_type: reader.name(CONTENT_TYPE)?,
            content_encoding: reader.name(CONTENT_ENCODING)?,
            headers: match reader.headers()? {
                Some(it) => Some(Table::decode(it)?.0),
                None => None,
            },
            delivery_mode: reader.octet(DELIVERY_MODE)?,
            priority: reader.octet(PRIORITY)?,
            correlation_id: reader.name(CORRELATION_ID)?,
            reply_to: reader.name(REPLY_TO)?,
            expiration: reader.name(EXPIRATION)?,
            message_id: reader.name(MESSAGE_ID)?,
            timestamp: reader.fixed(TIMESTAMP)?.map(u64::from_be_bytes),
            kind: reader.name(KIND)?,
            user_id: reader.name(USER_ID)?,
            app_id: reader.name(APP_ID)?,
            cluster_id: reader.name(CLUSTER_ID)?,
        };
        reader.end()?;
        Ok(properties)
    }

    /// Appends flags and fields.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u16(0);
        let mut flags = 0;
        let mut text = |out: &mut Vec<u8>, flag: u16, it: &Option<Name>| {
            if let Some(it) = it {
                flags |= flag;
                out.put_u8(u8::try_from(it.len()).expect("a name has at most 255 octets"));
                out.put_slice(it.as_bytes());
            }
        };
        text(out, CONTENT_TYPE, &self.content_type);
        text(out, CONTENT_ENCODING, &self.content_encoding);
        if let Some(it) = &self.headers {
            it.encode(out);
        }
        out.extend(self.delivery_mode);
        out.extend(self.priority);
        text(out, CORRELATION_ID, &self.correlation_id);
        text(out, REPLY_TO, &self.reply_to);
        text(out, EXPIRATION, &self.expiration);
        text(out, MESSAGE_ID, &self.message_id);
        if let Some(it) = self.timestamp {
            out.put_u64(it);
        }
        text(out, KIND, &self.kind);
        text(out, USER_ID, &self.user_id);
        text(out, APP_ID, &self.app_id);
        text(out, CLUSTER_ID, &self.cluster_id);
        let mut present = |flag, is_there| flags |= if is_there { flag } else { 0 };
        present(HEADERS, self.headers.is_some());
        present(DELIVERY_MODE, self.delivery_mode.is_some());
        present(PRIORITY, self.priority.is_some());
        present(TIMESTAMP, self.timestamp.is_some());
        out[start..start + 2].copy_from_slice(&flags.to_be_bytes());
    }

    /// Flags and fields on their own.
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.encode(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn full() -> Properties {
        let name = |it| Some(Name::new(it));
        Properties {
            content_type: name("text/plain"),
            content_encoding: name("gzip"),
            headers: Some(Table(vec![(Name::new("a"), Value::I32(1))])),
            delivery_mode: Some(2),
            priority: Some(9),
            correlation_id: name("c"),
            reply_to: name("r"),
            expiration: name("60000"),
            message_id: name("m"),
            timestamp: Some(1_700_000_000),
            kind: name("t"),
            user_id: name("guest"),
            app_id: name("app"),
            cluster_id: name("cl"),
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        for properties in [full(), Properties::default()] {
            assert_eq!(Properties::decode(&properties.encoded()), Ok(properties));
        }
    }

    #[test]
    fn facts_see_what_the_broker_needs() {
        let octets = full().encoded();
        let facts = Facts::parse(&octets).expect("good properties");
        assert!(facts.persistent);
        assert_eq!(facts.priority, Some(9));
        assert_eq!(facts.expiration, Some("60000"));
        assert_eq!(facts.user_id, Some("guest"));
        assert_eq!(facts.header_table().get("a"), Some(&Value::I32(1)));
    }

    #[test]
    fn every_cut_is_refused() {
        let octets = full().encoded();
        for length in 0..octets.len() {
            assert!(Facts::parse(&octets[..length]).is_err(), "{length} octets");
        }
    }

    #[test]
    fn trailing_octets_and_unknown_flags_are_refused() {
        assert_eq!(Facts::parse(&[0, 0, 1]), Err(PropertiesError::TooLong(1)));
        assert_eq!(Facts::parse(&[0, 1]), Err(PropertiesError::UnknownFlags(1)));
    }
}
