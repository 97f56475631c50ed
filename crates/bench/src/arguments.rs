//! The command line of `ferrymq bench`, and what it asks for.

use crate::{
    clock::{Nanos, nanos_of_seconds},
    consumer::AckMode,
    error::BenchError,
    report::Format,
    stamp::PUBLISHERS_MAX,
    uri::{self, Uri},
};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::RangedU64ValueParser, value_parser};

/// The broker, if `--uri` does not say it.
const URI_VARIABLE: &str = "FERRYMQ_URI";
/// Nobody waits longer for a benchmark.
const SECONDS_MAX: f64 = 3_600.0;
const SECONDS: f64 = 5.0;
/// Unconfirmed messages at a fixed rate: so many that the rate holds while the broker stalls.
const LATENCY_WINDOW: u64 = 10_000;

const EXAMPLES: &str = "\
Examples:
  ferrymq bench --quick
  ferrymq bench throughput --uri amqp://guest:guest@localhost:5672/ --size 16
  ferrymq bench throughput --persistent --durable-queue --confirm 100 --ack each --prefetch 200
  ferrymq bench latency --rate 5000 --seconds 10 --persistent --durable-queue --ack each
  ferrymq bench drain --count 1000000 --persistent --durable-queue --confirm 1000 -o json";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Throughput,
    Latency,
    Publish,
    Drain,
    Fanout,
}

/// Where the broker is and how results are told.
#[derive(Clone)]
pub(crate) struct Target {
    /// `None` when nobody named one.
    pub(crate) uri: Option<Uri>,
    pub(crate) server_pid: Option<u32>,
    pub(crate) format: Format,
    pub(crate) is_quiet: bool,
}

/// Messages and how they are sent and taken.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) mode: Mode,
    pub(crate) publishers: usize,
    pub(crate) consumers: usize,
    pub(crate) queues: usize,
    pub(crate) body_size: usize,
    pub(crate) is_persistent: bool,
    pub(crate) is_durable: bool,
    pub(crate) queue_type: Option<String>,
    pub(crate) queue_name: Option<String>,
    /// 0 without confirms.
    pub(crate) window: u64,
    pub(crate) ack: AckMode,
    pub(crate) prefetch: u16,
    pub(crate) rate: Option<f64>,
    pub(crate) count: Option<u64>,
    pub(crate) duration: Nanos,
    pub(crate) warmup: Nanos,
    pub(crate) patience: Nanos,
}

/// `bench churn`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Churn {
    pub(crate) clients: usize,
    pub(crate) count: Option<u64>,
    pub(crate) duration: Nanos,
}

/// `bench idle`.
#[derive(Clone, Debug)]
pub(crate) struct Idle {
    pub(crate) connections: usize,
    pub(crate) queues: usize,
    pub(crate) is_durable: bool,
    pub(crate) queue_type: Option<String>,
    pub(crate) wait: Nanos,
}

/// `bench --quick`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quick {
    /// Everything together, from the start of a broker to the deletion of its folder.
    pub(crate) within: Nanos,
}

pub(crate) enum What {
    Quick(Quick),
    Traffic(Traffic),
    Churn(Churn),
    Idle(Idle),
}

/// The verb with its modes.
#[must_use]
pub fn command() -> Command {
    let mode = |name: &'static str, about: &'static str| Command::new(name).about(about);
    Command::new("bench")
        .about("Measure a broker: any that speaks AMQP 0-9-1")
        .after_help(EXAMPLES)
        .arg_required_else_help(true)
        .arg(flag("quick").help(
            "One table in 20 s: what this machine does with confirms and syncs. Without --uri \
             a broker is started for it, with a folder in the current one",
        ))
        .arg(
            number("within", "S")
                .requires("quick")
                .value_parser(quick_duration)
                .default_value("20")
                .help("Another time for --quick: the longer, the steadier the figures"),
        )
        .args(target_arguments().map(|it| it.global(true)))
        .subcommand(
            mode("throughput", "Publish and consume at once, as fast as it goes")
                .args(publish_arguments("1024"))
                .args(consume_arguments()),
        )
        .subcommand(
            mode("latency", "The same at a fixed rate: how long confirms and deliveries take")
                .arg(number("rate", "N").required(true).value_parser(rate).help(
                    "Messages a second, of all publishers; a message counts from when it was due",
                ))
                .args(publish_arguments("1024"))
                .args(consume_arguments()),
        )
        .subcommand(
            mode("publish", "Publish only; nobody consumes").args(publish_arguments("1024")),
        )
        .subcommand(
            mode("drain", "Publish with no consumer, then consume it all; both are measured")
                .args(publish_arguments("1024"))
                .args(consume_arguments()),
        )
        .subcommand(
            mode("fanout", "One exchange that copies to many queues")
                .arg(count("queues", "10", 1..=10_000).help("Queues, each with a copy"))
                .args(publish_arguments("1024"))
                .args(consume_arguments()),
        )
        .subcommand(
            mode("churn", "Open and close connections, each with a channel")
                .arg(count("clients", "4", 1..=1_000).help("Clients at work at once"))
                .args([count_argument(), seconds_argument()]),
        )
        .subcommand(
            mode("idle", "The broker's memory with connections and queues that do nothing")
                .arg(count("connections", "0", 0..=1_000_000).help("With one channel each"))
                .arg(count("queues", "0", 0..=1_000_000).help("Without messages"))
                .args(queue_arguments())
                .arg(seconds_argument().default_value("2").help("Wait before the memory is read")),
        )
}

fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

fn number(name: &'static str, placeholder: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(placeholder)
}

fn count(name: &'static str, default: &'static str, range: std::ops::RangeInclusive<u64>) -> Arg {
    let parser: RangedU64ValueParser<u64> = RangedU64ValueParser::new().range(range);
    number(name, "N").value_parser(parser).default_value(default)
}

fn target_arguments() -> [Arg; 4] {
    [
        number("uri", "URI").help(
            "amqp://user:password@host:port/vhost [env: FERRYMQ_URI] [default: \
             amqp://guest:guest@localhost:5672/]",
        ),
        number("server-pid", "PID").value_parser(value_parser!(u32)).help(
            "The broker's process, for its CPU time and memory; found by itself on this machine",
        ),
        number("output", "FORMAT")
            .short('o')
            .value_parser(["table", "json", "markdown"])
            .default_value("table")
            .help("How the result is written"),
        flag("quiet").short('q').help("No progress on the standard error"),
    ]
}

fn count_argument() -> Arg {
    let parser: RangedU64ValueParser<u64> = RangedU64ValueParser::new().range(1..=1 << 40);
    number("count", "N").value_parser(parser).help("End after so many [default: after --seconds]")
}

fn seconds_argument() -> Arg {
    number("seconds", "S")
        .value_parser(duration)
        .help("End after so long [default: 5 without --count]")
}

fn queue_arguments() -> [Arg; 2] {
    [
        flag("durable-queue").help("Declare queues as durable"),
        number("queue-type", "TYPE")
            .value_parser(["classic", "quorum"])
            .help("Declare queues with this x-queue-type"),
    ]
}

fn publish_arguments(size: &'static str) -> Vec<Arg> {
    let mut arguments = vec![
        count("publishers", "1", 1..=PUBLISHERS_MAX.min(1_000)),
        count("size", size, 0..=128 << 20).value_name("OCTETS").help("Octets of a body"),
        flag("persistent").help("Delivery mode 2"),
        number("confirm", "N")
            .value_parser(RangedU64ValueParser::<u64>::new().range(0..=10_000_000))
            .help(
                "At most so many unconfirmed messages for each publisher; 0 without confirms \
                 [default: 0, for latency 10000]",
            ),
        count_argument(),
        seconds_argument(),
        number("warmup", "S")
            .value_parser(duration)
            .default_value("0")
            .help("What is published in this time is not in the latencies"),
        number("queue", "NAME")
            .help("Name of the queue, which must not exist yet [default: one that is unique]"),
        number("patience", "S")
            .value_parser(duration)
            .default_value("10")
            .help("When nothing has come for so long, the rest is lost"),
    ];
    arguments.extend(queue_arguments());
    arguments
}

fn consume_arguments() -> [Arg; 3] {
    [
        Arg::new("consumers")
            .long("consumers")
            .value_name("N")
            .value_parser(RangedU64ValueParser::<u64>::new().range(1..=1_000))
            .help("[default: 1, for fanout one for each queue]"),
        number("ack", "MODE")
            .value_parser(ack_mode)
            .default_value("auto")
            .help("auto, each, or multiple:N for one ack in N deliveries"),
        number("prefetch", "N")
            .value_parser(value_parser!(u16))
            .default_value("0")
            .help("Unacked messages for each consumer; 0 is no limit"),
    ]
}

fn duration(text: &str) -> Result<f64, String> {
    match text.strip_suffix('s').unwrap_or(text).parse() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(seconds),
        _ => Err(format!("expected seconds from 0 to {SECONDS_MAX}")),
    }
}

fn quick_duration(text: &str) -> Result<f64, String> {
    match duration(text) {
        Ok(seconds) if 3.0 <= seconds => Ok(seconds),
        _ => Err(format!("expected seconds from 3 to {SECONDS_MAX}")),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("expected messages a second, more than 0".to_owned()),
    }
}

fn ack_mode(text: &str) -> Result<AckMode, String> {
    match text.split_once(':') {
        None if text == "auto" => Ok(AckMode::Auto),
        None if text == "each" => Ok(AckMode::Each),
        Some(("multiple", every)) => match every.parse() {
            Ok(every @ 1..=65_535) => Ok(AckMode::Multiple(every)),
            _ => Err("multiple:N is one ack in N deliveries, N from 1 to 65535".to_owned()),
        },
        _ => Err("expected auto, each or multiple:N".to_owned()),
    }
}

impl Target {
    pub(crate) fn of(matches: &ArgMatches) -> Result<Self, BenchError> {
        let given = matches.get_one::<String>("uri").cloned();
        let from_variable = || std::env::var(URI_VARIABLE).ok().filter(|it| !it.is_empty());
        let uri = given.or_else(from_variable).map(|it| Uri::parse(&it)).transpose()?;
        let format = match matches.get_one::<String>("output").map(String::as_str) {
            Some("json") => Format::Json,
            Some("markdown") => Format::Markdown,
            _ => Format::Table,
        };
        let server_pid = matches.get_one("server-pid").copied();
        Ok(Self { uri, server_pid, format, is_quiet: matches.get_flag("quiet") })
    }

    pub(crate) fn uri_or_default(&self) -> Uri {
        let default = || Uri::parse(uri::DEFAULT).expect("the default is a URI");
        self.uri.clone().unwrap_or_else(default)
    }
}

impl What {
    pub(crate) fn of(matches: &ArgMatches) -> Result<Self, BenchError> {
        let usage = |text: &str| BenchError::Usage(text.to_owned());
        let is_quick = matches.get_flag("quick");
        let Some((name, of_mode)) = matches.subcommand() else {
            return if is_quick {
                let seconds = optional(matches, "within").unwrap_or(0.0);
                Ok(Self::Quick(Quick { within: nanos_of_seconds(seconds) }))
            } else {
                Err(usage("say what to measure: --quick or a mode; see `ferrymq bench --help`"))
            };
        };
        if is_quick {
            return Err(usage("--quick has no modes"));
        }
        match name {
            "churn" => Ok(Self::Churn(Churn {
                clients: size_of(of_mode, "clients"),
                count: of_mode.get_one("count").copied(),
                duration: duration_of(of_mode),
            })),
            "idle" => Idle::of(of_mode).map(Self::Idle),
            "latency" => Traffic::of(Mode::Latency, of_mode).map(Self::Traffic),
            "publish" => Traffic::of(Mode::Publish, of_mode).map(Self::Traffic),
            "drain" => Traffic::of(Mode::Drain, of_mode).map(Self::Traffic),
            "fanout" => Traffic::of(Mode::Fanout, of_mode).map(Self::Traffic),
            _ => Traffic::of(Mode::Throughput, of_mode).map(Self::Traffic),
        }
    }
}

/// A number of things, which the parser has bounded.
fn size_of(matches: &ArgMatches, name: &str) -> usize {
    optional::<u64>(matches, name).map_or(0, |it| it as usize)
}

/// `None` for what was not given, and what the mode does not have.
fn optional<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<T> {
    matches.try_get_one(name).ok().flatten().cloned()
}

/// How long it goes on: with a count alone, until that is reached.
fn duration_of(matches: &ArgMatches) -> Nanos {
    let has_count = optional::<u64>(matches, "count").is_some();
    let default = if has_count { SECONDS_MAX } else { SECONDS };
    nanos_of_seconds(optional(matches, "seconds").unwrap_or(default))
}

impl Idle {
    fn of(matches: &ArgMatches) -> Result<Self, BenchError> {
        let idle = Self {
            connections: size_of(matches, "connections"),
            queues: size_of(matches, "queues"),
            is_durable: matches.get_flag("durable-queue"),
            queue_type: optional(matches, "queue-type"),
            wait: duration_of(matches),
        };
        if idle.connections == 0 && idle.queues == 0 {
            let text = "say what shall be idle: --connections N, --queues N or both";
            return Err(BenchError::Usage(text.to_owned()));
        }
        Ok(idle)
    }
}

impl Traffic {
    fn of(mode: Mode, matches: &ArgMatches) -> Result<Self, BenchError> {
        let seconds = |name| nanos_of_seconds(optional(matches, name).unwrap_or(0.0));
        let queues = if mode == Mode::Fanout { size_of(matches, "queues") } else { 1 };
        let consumers = match mode {
            Mode::Publish => 0,
            _ => optional::<u64>(matches, "consumers").map_or(queues, |it| it as usize),
        };
        let default_window = if mode == Mode::Latency { LATENCY_WINDOW } else { 0 };
        let traffic = Self {
            mode,
            publishers: size_of(matches, "publishers"),
            consumers,
            queues,
            body_size: size_of(matches, "size"),
            is_persistent: matches.get_flag("persistent"),
            is_durable: matches.get_flag("durable-queue"),
            queue_type: optional(matches, "queue-type"),
            queue_name: optional(matches, "queue"),
            window: optional(matches, "confirm").unwrap_or(default_window),
            ack: optional(matches, "ack").unwrap_or(AckMode::Auto),
            prefetch: optional(matches, "prefetch").unwrap_or(0),
            rate: optional(matches, "rate"),
            count: optional(matches, "count"),
            duration: duration_of(matches),
            warmup: seconds("warmup"),
            patience: seconds("patience"),
        };
        traffic.check()?;
        Ok(traffic)
    }

    /// Combinations that would never end, or mean something else than they say.
    fn check(&self) -> Result<(), BenchError> {
        let wrong = |text: String| Err(BenchError::Usage(text));
        match self.ack {
            AckMode::Multiple(every) if (1..every).contains(&self.prefetch.into()) => {
                return wrong(format!(
                    "--ack multiple:{every} with --prefetch {} would wait for ever: the broker \
                     sends no {every} messages without an ack",
                    self.prefetch
                ));
            }
            AckMode::Auto if self.prefetch != 0 => {
                return wrong("--prefetch needs acks: --ack each or --ack multiple:N".to_owned());
            }
            _ => {}
        }
        if self.mode == Mode::Latency && self.body_size < 16 {
            return wrong(
                "latency needs a --size of at least 16: the body carries the time".into(),
            );
        }
        if self.count.is_none() && self.duration <= self.warmup {
            return wrong("--warmup must be shorter than --seconds".to_owned());
        }
        if self.queue_name.as_ref().is_some_and(|it| it.is_empty() || 200 < it.len()) {
            return wrong("--queue takes a name of 1 to 200 octets".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(line: &str) -> Result<What, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        let matches = command().try_get_matches_from(words).map_err(|it| it.to_string())?;
        Target::of(&matches).map_err(|it| it.to_string())?;
        What::of(&matches).map_err(|it| it.to_string())
    }

    fn traffic(line: &str) -> Traffic {
        match parsed(line).unwrap() {
            What::Traffic(it) => it,
            _ => unreachable!("{line}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn examples_of_the_help_are_understood() {
        for line in EXAMPLES.lines().skip(1) {
            let line = line.trim().strip_prefix("ferrymq bench ").unwrap();
            parsed(line).map(drop).unwrap();
        }
    }

    #[test]
    fn modes_have_their_own_defaults() {
        let plain = traffic("throughput");
        assert_eq!((plain.window, plain.consumers, plain.body_size), (0, 1, 1024));
        assert_eq!(plain.duration, nanos_of_seconds(SECONDS));
        assert_eq!(traffic("latency --rate 5").window, LATENCY_WINDOW);
        assert_eq!(traffic("publish").consumers, 0);
        assert_eq!(traffic("fanout --queues 7").consumers, 7);
        assert_eq!(traffic("fanout --consumers 2").consumers, 2);
        assert_eq!(traffic("drain --count 9").duration, nanos_of_seconds(SECONDS_MAX));
        assert_eq!(traffic("drain --ack multiple:3 --prefetch 3").ack, AckMode::Multiple(3));
    }

    #[test]
    fn report_says_what_was_asked_for() {
        let plain = traffic("throughput --size 2048");
        assert_eq!(
            plain.described(),
            "1 publisher, 1 consumer, 2,048 B, transient, no confirms, ack auto"
        );
        let latency = traffic(
            "latency --rate 500 --persistent --durable-queue --ack multiple:9 --queue-type quorum",
        );
        let expected = "durable, confirmed, at most 10,000 unconfirmed, ack multiple:9, 500/s";
        assert!(latency.described().ends_with(expected), "{}", latency.described());
        let settings = latency.settings();
        for (key, value) in [("ack", "multiple:9"), ("queue_type", "quorum")] {
            assert_eq!(settings[key], value);
        }
        assert_eq!((&settings["confirm"], &settings["count"]), (&json!(10_000), &json!(null)));
        let publish = traffic("publish --publishers 2").described();
        assert!(publish.starts_with("2 publishers, 0 consumers") && !publish.contains("ack"));
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_the_reason() {
        for (line, reason) in [
            ("-o json", "say what to measure"),
            ("--quick --within 2", "seconds from 3"),
            ("--quick throughput", "--quick has no modes"),
            ("latency", "--rate"),
            ("latency --rate 0", "more than 0"),
            ("latency --rate 5 --size 15", "at least 16"),
            ("latency --rate 5 --seconds 2 --warmup 2", "shorter"),
            ("throughput --ack multiple:0", "N from 1"),
            ("throughput --ack all", "expected auto, each or multiple:N"),
            ("throughput --ack multiple:100 --prefetch 99", "for ever"),
            ("throughput --prefetch 5", "needs acks"),
            ("throughput --seconds -1", "unexpected argument"),
            ("throughput --seconds nan", "seconds from 0"),
            ("throughput --publishers 0", "0 is not in 1..=1000"),
            ("throughput --uri localhost", "amqp://user"),
            ("publish --consumers 1", "unexpected argument"),
            ("idle", "--connections N"),
            ("churn --clients 0", "0 is not in"),
            ("flood", "unrecognized subcommand"),
        ] {
            let error = parsed(line).err().unwrap_or_else(|| unreachable!("{line}"));
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
