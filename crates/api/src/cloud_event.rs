//! CloudEvents 1.0 that are jobs to be: their attributes, in headers or in JSON, and their data.

use crate::{
    destination::Rules,
    problem::Problem,
    submission::{self, Cure, FIELDS, Submission, SubmissionBuilder},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use model::{Name, Value};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// What stands in front of attributes that go into headers of a message.
const HEADER_PREFIX: &str = "cloudEvents_";
const VERSION: &str = "1.0";
/// Attributes that every event has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];
/// Members of one event.
const MEMBERS_MAX: usize = 200;
/// Octets of the name of an attribute.
const ATTRIBUTE_BYTES_MAX: usize = 100;
/// Events of one request.
pub const EVENTS_MAX: usize = 10_000;

/// What the body of a submission is, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// The payload of one job. A single event in JSON is one, too: nobody looks into it.
    Payload,
    /// A list of events in JSON.
    Batch,
    /// One event in JSON per line.
    Lines,
}

/// A job to be and its payload.
pub type Event = (Submission, Bytes);

impl BodyKind {
    pub fn of(content_type: Option<&str>) -> Self {
        match essence(content_type.unwrap_or("")).as_str() {
            "application/cloudevents-batch+json" => Self::Batch,
            "application/x-ndjson" => Self::Lines,
            _ => Self::Payload,
        }
    }
}

/// A media type without its parameters, in small letters.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// The events of a body with several, in order. One that is wrong does not harm the others.
///
/// # Errors
/// The body as a whole cannot be understood, or holds too many.
pub fn events(
    kind: BodyKind,
    body: &[u8],
    rules: &Rules,
) -> Result<Vec<Result<Event, Problem>>, Problem> {
    let bodies: Vec<&[u8]> = match kind {
        BodyKind::Payload => vec![body],
        BodyKind::Lines => {
            let is_empty = |it: &&[u8]| it.trim_ascii().is_empty();
            body.split(|it| *it == b'\n').filter(|it| !is_empty(it)).collect()
        }
        BodyKind::Batch => {
            let list: Vec<&RawValue> = serde_json::from_slice(body).map_err(|it| {
                Problem::malformed("body", format!("a list of CloudEvents ({it})"))
            })?;
            list.into_iter().map(|it| it.get().as_bytes()).collect()
        }
    };
    if EVENTS_MAX < bodies.len() {
        return Err(Problem::malformed("body", format!("at most {EVENTS_MAX} events at a time")));
    }
    Ok(bodies.into_iter().map(|it| parse(it, rules)).collect())
}

/// One event in JSON.
///
/// # Errors
/// A problem that names the attribute and what would do.
pub fn parse(json: &[u8], rules: &Rules) -> Result<Event, Problem> {
    let members: Members<'_> = serde_json::from_slice(json)
        .map_err(|it| Problem::malformed("event", format!("a CloudEvent in JSON ({it})")))?;
    let mut builder = SubmissionBuilder::new(rules);
    let (mut attributes, mut data, mut binary) = (Attributes::default(), None, None);
    for (name, value) in members.0 {
        match &*name {
            _ if value.get() == "null" => {}
            "data" => data = Some(value),
            "data_base64" => binary = Some(value),
            "datacontenttype" => {
                let text = scalar(&name, value)?;
                let media_type = submission::name(&text);
                builder.rest().content_type =
                    Some(media_type.map_err(|it| Problem::malformed(&name, it))?);
            }
            _ => attributes.say(&mut builder, &name, &name, &scalar(&name, value)?)?,
        }
    }
    attributes.check("")?;
    let payload = match (data, binary) {
        (Some(_), Some(_)) => {
            return Err(Problem::malformed("data_base64", "leave out either this or data"));
        }
        (Some(it), None) => data_octets(it, &mut builder.rest().content_type)?,
        (None, Some(it)) => base64_octets(it)?,
        (None, None) => Bytes::new(),
    };
    Ok((builder.finish()?, payload))
}

/// JSON as it was written, or the text that stands in it.
fn data_octets(data: &RawValue, content_type: &mut Option<Name>) -> Result<Bytes, Problem> {
    let content_type = content_type.get_or_insert_with(|| Name::new("application/json"));
    let essence = essence(content_type);
    if essence.ends_with("/json") || essence.ends_with("+json") {
        return Ok(Bytes::copy_from_slice(data.get().as_bytes()));
    }
    let text: Result<String, _> = serde_json::from_str(data.get());
    let cure = "a text, because datacontenttype is not JSON; or data_base64";
    text.map(Bytes::from).map_err(|_| Problem::malformed("data", cure))
}

fn base64_octets(data: &RawValue) -> Result<Bytes, Problem> {
    let text: Option<Cow<'_, str>> = serde_json::from_str(data.get()).ok();
    let octets = text.and_then(|it| BASE64_STANDARD.decode(&*it).ok());
    octets.map(Bytes::from).ok_or_else(|| Problem::malformed("data_base64", "a text in base64"))
}

/// A text, a number or a truth value as text.
fn scalar<'a>(name: &str, value: &'a RawValue) -> Result<Cow<'a, str>, Problem> {
    let json = value.get();
    let cure = "a text, a number, true or false";
    match json.as_bytes().first() {
        Some(b'"') => {
            let text: Result<String, _> = serde_json::from_str(json);
            text.map(Cow::Owned).map_err(|_| Problem::malformed(name, cure))
        }
        Some(b'{' | b'[') | None => Err(Problem::malformed(name, cure)),
        Some(_) => Ok(Cow::Borrowed(json)),
    }
}

/// The members of an object in their order; none of them twice.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.iter().any(|it| *it.0 == *name) {
                        return Err(A::Error::custom("a member stands there twice"));
                    }
                    if members.len() == MEMBERS_MAX {
                        return Err(A::Error::custom("too many members"));
                    }
                    members.push((name.into(), value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// Which of the attributes that every event has were there.
#[derive(Debug, Default)]
pub struct Attributes {
    seen: [bool; REQUIRED.len()],
}

impl Attributes {
    /// Says one attribute; `label` is what the client calls it.
    ///
    /// # Errors
    /// A problem that names it and what would do.
    pub fn say(
        &mut self,
        builder: &mut SubmissionBuilder<'_>,
        name: &str,
        label: &str,
        value: &str,
    ) -> Result<(), Problem> {
        if let Some(at) = REQUIRED.iter().position(|it| *it == name) {
            self.seen[at] = true;
        }
        let field = FIELDS.iter().find(|it| it.2 == name);
        match (name, field) {
            (_, Some((field, ..))) => builder.say(*field, label, value),
            ("specversion", _) if value != VERSION => {
                Err(Problem::malformed(label, format_args!("{VERSION}")))
            }
            ("correlationid", _) => {
                let id = submission::name(value).map_err(|it| Problem::malformed(label, it))?;
                builder.rest().correlation_id = Some(id);
                Ok(())
            }
            ("traceparent", _) => {
                let state = builder.rest().tracestate.take();
                builder.rest().trace(value, state.as_deref());
                Ok(())
            }
            ("tracestate", _) => {
                builder.rest().tracestate = Some(value.to_owned());
                Ok(())
            }
            _ => other(builder, name, value).map_err(|it| Problem::malformed(label, it)),
        }
    }

    /// Whether nothing is missing. `prefix` stands in front of what the client calls attributes.
    ///
    /// # Errors
    /// A problem that names what is missing.
    pub fn check(&self, prefix: &str) -> Result<(), Problem> {
        match self.seen.iter().position(|it| !it) {
            Some(at) => {
                let name = format!("{prefix}{}", REQUIRED[at]);
                Err(Problem::malformed(&name, "every CloudEvent has this attribute"))
            }
            None => Ok(()),
        }
    }
}

/// An attribute that means nothing to a job goes along as a header.
fn other(builder: &mut SubmissionBuilder<'_>, name: &str, value: &str) -> Result<(), Cure> {
    let letters = name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
    if name.is_empty() || ATTRIBUTE_BYTES_MAX < name.len() || !letters {
        return Err(Cure("attributes are called by small letters and digits".to_owned()));
    }
    let header = Name::from(format!("{HEADER_PREFIX}{name}"));
    builder.rest().others.push((header, Value::text(value)));
    Ok(())
}

/// Says an attribute that came in a header: in percent encoding, perhaps quoted.
///
/// # Errors
/// A problem that names the header and what would do.
pub fn say_header(
    attributes: &mut Attributes,
    builder: &mut SubmissionBuilder<'_>,
    header: &str,
    value: &str,
) -> Result<(), Problem> {
    let name = header.strip_prefix("ce-").unwrap_or(header);
    if name == "datacontenttype" {
        return Err(Problem::malformed(header, "the media type stands in Content-Type"));
    }
    let cure = "octets in percent encoding are UTF-8";
    let value = decode(value).ok_or_else(|| Problem::malformed(header, cure))?;
    attributes.say(builder, name, header, &value)
}

fn decode(value: &str) -> Option<String> {
    let unquoted = match value.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
        Some(inner) => unescape(inner),
        None => value.to_owned(),
    };
    percent_decoded(&unquoted)
}

fn unescape(text: &str) -> String {
    let mut letters = text.chars();
    let mut out = String::with_capacity(text.len());
    while let Some(letter) = letters.next() {
        out.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    out
}

/// The text behind a percent encoding; a percent sign that encodes nothing stands for itself.
pub fn percent_decoded(text: &str) -> Option<String> {
    let octets = text.as_bytes();
    let mut out = Vec::with_capacity(octets.len());
    let mut at = 0;
    let digit = |at: usize| octets.get(at).and_then(|it| char::from(*it).to_digit(16));
    while let Some(octet) = octets.get(at) {
        match (octet, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits"));
                at += 3;
            }
            _ => {
                out.push(*octet);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;
    use proptest::prelude::*;

    fn one(json: &str) -> Result<Event, Problem> {
        parse(json.as_bytes(), &Rules::default())
    }

    fn with(members: &str) -> String {
        format!(r#"{{"specversion":"1.0","id":"i","source":"/s","type":"t"{members}}}"#)
    }

    #[track_caller]
    fn check_refused(json: &str, detail: &str) {
        let problem = one(json).expect_err("refused");
        let found = problem.detail.expect("said");
        assert!(found.starts_with(detail), "{found}");
    }

    #[test]
    fn attributes_become_what_they_mean_to_a_job() {
        let json = with(
            r#","partitionkey":"k","expirytime":"+5s","jobpriority":7,"jobcost":0.5,
               "jobat":"+1s","jobdeadline":"+1m","jobunique":"u","jobafter":"a,b",
               "jobafteron":"done","jobattempts":"2","correlationid":"c","time":"2026-01-01T00:00:00Z",
               "jobcallback":"https://example.org/","subject":"x","custom1":true,"absent":null,
               "traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01""#,
        );
        let (found, payload) = one(&json).expect("good");
        assert!(payload.is_empty());
        assert_eq!((found.id.as_deref(), found.kind.as_deref()), (Some("i"), Some("t")));
        assert_eq!((found.priority, found.cost_s, found.attempts), (Some(7), Some(0.5), Some(2)));
        assert_eq!(found.key.as_deref(), Some("k"));
        assert_eq!(found.after.len(), 2);
        assert!(found.traceparent.is_some());
        let properties = found.properties(Timestamp(0));
        assert_eq!(properties.correlation_id.as_deref(), Some("c"));
        let headers = properties.headers.expect("some");
        for (name, value) in [
            ("cloudEvents_specversion", "1.0"),
            ("cloudEvents_source", "/s"),
            ("cloudEvents_subject", "x"),
            ("cloudEvents_time", "2026-01-01T00:00:00Z"),
            ("cloudEvents_custom1", "true"),
            ("x-key", "k"),
        ] {
            assert_eq!(headers.get(name).and_then(Value::as_text), Some(value), "{name}");
        }
        assert_eq!(headers.get("cloudEvents_absent"), None);
        assert_eq!(headers.get("cloudEvents_id"), None);
    }

    #[test]
    fn data_is_passed_on_octet_for_octet() {
        let data = |members: &str| {
            let (submission, payload) = one(&with(members)).expect("good");
            (submission.content_type.map(|it| it.to_string()), payload)
        };
        let json = Some("application/json".to_owned());
        let spaced = r#","data":{ "n" : 12345678901234567890.10 }"#;
        assert_eq!(
            data(spaced),
            (json.clone(), (&br#"{ "n" : 12345678901234567890.10 }"#[..]).into())
        );
        assert_eq!(data(r#","data":"x""#), (json, (&b"\"x\""[..]).into()));
        let text = r#","datacontenttype":"text/plain; charset=utf-8","data":"a\u00e4""#;
        assert_eq!(data(text).1, "aä".as_bytes());
        let problem = r#","datacontenttype":"application/problem+json","data":{}"#;
        assert_eq!(data(problem).1, &b"{}"[..]);
        let binary = r#","datacontenttype":"image/png","data_base64":"AAH/""#;
        assert_eq!(data(binary).1, &[0, 1, 255][..]);
        assert_eq!(data(r#","data_base64":"AAH/""#).0, None);
        assert_eq!(data(r#","data":null"#), (None, Bytes::new()));
    }

    #[test]
    fn wrong_events_are_refused_with_the_attribute() {
        check_refused("[]", "event: a CloudEvent in JSON");
        check_refused("{", "event: a CloudEvent in JSON");
        check_refused(r#"{"specversion":"1.0","source":"/","type":"t"}"#, "id: every CloudEvent");
        check_refused(r#"{"specversion":"0.3","id":"a"}"#, "specversion: 1.0");
        check_refused(&with(r#","id":"b""#), "event: a CloudEvent in JSON (a member stands");
        check_refused(&with(r#","jobpriority":1.5"#), "jobpriority: a whole number");
        check_refused(&with(r#","jobpriority":{}"#), "jobpriority: a text, a number");
        check_refused(&with(r#","Custom":"x""#), "Custom: attributes are called");
        check_refused(&with(r#","data":1,"data_base64":"""#), "data_base64: leave out");
        check_refused(&with(r#","data_base64":"%""#), "data_base64: a text in base64");
        check_refused(&with(r#","datacontenttype":"text/plain","data":{}"#), "data: a text");
        let many: String = (0..MEMBERS_MAX).map(|it| format!(r#","a{it}":1"#)).collect();
        check_refused(&with(&many), "event: a CloudEvent in JSON (too many members");
    }

    #[test]
    fn depth_of_data_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let (_, payload) = one(&with(&format!(r#","data":{deep}"#))).expect("opaque");
        assert_eq!(payload.len(), 200_000);
    }

    #[test]
    fn a_batch_keeps_its_order_and_its_bad_ones() {
        let rules = Rules::default();
        let (a, b) = (with(r#","jobkey":"1""#), with(r#","data":1"#));
        let lines = format!("{a}\n\n{{}}\r\n{b}\n");
        let found = events(BodyKind::Lines, lines.as_bytes(), &rules).expect("lines");
        assert_eq!(found.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        let list = format!("[{a},{{}}, {b}]");
        let found = events(BodyKind::Batch, list.as_bytes(), &rules).expect("a list");
        assert_eq!(found.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        assert!(events(BodyKind::Batch, b"{}", &rules).is_err());
        assert!(events(BodyKind::Batch, b"[]", &rules).expect("empty").is_empty());
        let many = vec!["{}"; EVENTS_MAX + 1].join("\n");
        assert!(events(BodyKind::Lines, many.as_bytes(), &rules).is_err());
    }

    #[test]
    fn the_media_type_tells_several_from_one() {
        let kind = |it| BodyKind::of(Some(it));
        assert_eq!(kind("application/cloudevents-batch+json; charset=utf-8"), BodyKind::Batch);
        assert_eq!(kind("Application/X-NDJSON"), BodyKind::Lines);
        assert_eq!(kind("application/cloudevents+json"), BodyKind::Payload);
        assert_eq!(BodyKind::of(None), BodyKind::Payload);
    }

    #[test]
    fn attributes_in_headers_are_decoded() {
        let decoded = |it| decode(it).expect("UTF-8");
        assert_eq!(decoded("Euro %E2%82%AC %F0%9F%98%80"), "Euro € 😀");
        assert_eq!(decoded("\"a\\\"b\""), "a\"b");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decode("%ff"), None);
        let rules = Rules::default();
        let (mut attributes, mut builder) = (Attributes::default(), SubmissionBuilder::new(&rules));
        say_header(&mut attributes, &mut builder, "ce-id", "a%20b").expect("good");
        let refused = say_header(&mut attributes, &mut builder, "ce-datacontenttype", "x");
        assert!(refused.is_err());
        assert_eq!(builder.finish().expect("good").id.as_deref(), Some("a b"));
        assert!(attributes.check("ce-").is_err());
    }

    proptest! {
        #[test]
        fn any_octets_are_an_event_or_refused(octets: Vec<u8>) {
            let _ = parse(&octets, &Rules::default());
            let _ = events(BodyKind::Batch, &octets, &Rules::default());
        }
    }
}
