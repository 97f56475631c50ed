//! Bindings of headers exchanges: each stands under a header that a message must have for it to
//! match, so that a message meets only the bindings that share a header with it.

use crate::{
    collections::{Map, SortedMap},
    objects::Binding,
    targets::Target,
    terms,
};
use model::{Name, Table, Value};
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

/// Which of a binding's headers a message must have, by the argument `x-match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    All,
    Any,
    AllWithX,
    AnyWithX,
}

const MATCH: &str = "x-match";

impl Match {
    fn of(arguments: &Table) -> Option<Self> {
        match arguments.get(MATCH) {
            None => Some(Self::All),
            Some(value) => match value.as_text()? {
                "all" => Some(Self::All),
                "any" => Some(Self::Any),
                "all-with-x" => Some(Self::AllWithX),
                "any-with-x" => Some(Self::AnyWithX),
                _ => None,
            },
        }
    }

    fn needs_all(self) -> bool {
        matches!(self, Self::All | Self::AllWithX)
    }

    /// The headers that count.
    fn pairs(self, arguments: &Table) -> impl Iterator<Item = &(Name, Value)> {
        let with_x = matches!(self, Self::AllWithX | Self::AnyWithX);
        let counts = move |key: &str| key != MATCH && (with_x || !key.starts_with("x-"));
        arguments.0.iter().filter(move |(key, _)| counts(key))
    }
}

/// Why the arguments are none of a headers binding, if so.
pub(crate) fn wrong_arguments(arguments: &Table) -> Option<String> {
    if Match::of(arguments).is_some() {
        return None;
    }
    let value = arguments.get(MATCH)?;
    Some(match value {
        Value::LongString(_) => format!(
            "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
            terms::term(value)
        ),
        other => format!(
            "Invalid x-match field type {} (value {}); expected longstr",
            terms::type_name(other),
            terms::term(other)
        ),
    })
}

type Rules = SortedMap<Arc<Binding>, Target>;

/// The bindings of one exchange.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers {
    /// They need nothing.
    always: Rules,
    by_key: Map<Name, Slot>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// They need this header with whatever value.
    any_value: Rules,
    /// They need this header with the value of this form.
    by_value: Map<Vec<u8>, Rules>,
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.any_value.is_empty() && self.by_value.is_empty()
    }
}

/// Octets that are the same for values that are the same: the width of a number does not count.
fn form(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match (value, value.as_integer()) {
        (_, Some(it)) => Value::I64(it).encode(&mut out),
        (Value::F32(it), _) => Value::F64(f64::from(*it) + 0.0).encode(&mut out),
        (Value::F64(it), _) => Value::F64(*it + 0.0).encode(&mut out),
        _ => value.encode(&mut out),
    }
    out
}

/// The headers under which a binding stands: one that it needs, or each that suffices.
fn places(binding: &Binding) -> Vec<&(Name, Value)> {
    let rule = Match::of(&binding.arguments).unwrap_or(Match::All);
    let pairs: Vec<_> = rule.pairs(&binding.arguments).collect();
    if rule.needs_all() {
        // One with a value tells more messages apart.
        let valued = pairs.iter().find(|(_, value)| *value != Value::Void).copied();
        let chosen = valued.or_else(|| pairs.first().copied());
        return chosen.into_iter().collect();
    }
    pairs
}

impl Headers {
    pub(crate) fn add(&mut self, binding: &Arc<Binding>, target: &Target) {
        self.each_place(binding, |rules| rules.insert_mut(binding.clone(), target.clone()));
    }

    pub(crate) fn remove(&mut self, binding: &Arc<Binding>) {
        self.each_place(binding, |rules| {
            rules.remove_mut(binding);
        });
    }

    fn each_place(&mut self, binding: &Binding, mut change: impl FnMut(&mut Rules)) {
        let rule = Match::of(&binding.arguments).unwrap_or(Match::All);
        if rule.needs_all() && rule.pairs(&binding.arguments).next().is_none() {
            return change(&mut self.always);
        }
        for (key, value) in places(binding) {
            let mut slot = self.by_key.get(key).cloned().unwrap_or_default();
            if *value == Value::Void {
                change(&mut slot.any_value);
            } else {
                let form = form(value);
                let mut rules = slot.by_value.get(&form).cloned().unwrap_or_default();
                change(&mut rules);
                if rules.is_empty() {
                    slot.by_value.remove_mut(&form);
                } else {
                    slot.by_value.insert_mut(form, rules);
                }
            }
            if slot.is_empty() {
                self.by_key.remove_mut(key);
            } else {
                self.by_key.insert_mut(key.clone(), slot);
            }
        }
    }

    /// Calls `visit` with the target of every binding that matches. One that several headers
    /// suffice for may come several times.
    pub(crate) fn matching<'a>(&'a self, headers: &Table, mut visit: impl FnMut(&'a Target)) {
        self.always.values().for_each(&mut visit);
        if self.by_key.is_empty() {
            return;
        }
        let message = Message::new(headers);
        for (key, value) in message.first_of_each_key() {
            let Some(slot) = self.by_key.get(key) else { continue };
            let valued =
                if slot.by_value.is_empty() { None } else { slot.by_value.get(&form(value)) };
            for (binding, target) in slot.any_value.iter().chain(valued.into_iter().flatten()) {
                if message.matches(binding) {
                    visit(target);
                }
            }
        }
    }
}

/// From here on a map is cheaper than looking through all headers.
const LIST_MAX: usize = 16;

/// The headers of a message, to be looked up by key. The first one of a key counts.
struct Message<'a> {
    headers: &'a Table,
    by_key: Option<HashMap<&'a str, &'a Value, BuildHasherDefault<DefaultHasher>>>,
}

impl<'a> Message<'a> {
    fn new(headers: &'a Table) -> Self {
        let by_key = (LIST_MAX < headers.0.len()).then(|| {
            // Backwards, so that the first one is inserted last.
            headers.0.iter().rev().map(|(key, value)| (key.as_str(), value)).collect()
        });
        Self { headers, by_key }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        match &self.by_key {
            None => self.headers.get(key),
            Some(by_key) => by_key.get(key).copied(),
        }
    }

    fn first_of_each_key(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let mut seen = HashSet::<&str, BuildHasherDefault<DefaultHasher>>::default();
        let entries = self.headers.0.iter().map(|(key, value)| (key.as_str(), value));
        entries.filter(move |(key, _)| seen.insert(key))
    }

    fn matches(&self, binding: &Binding) -> bool {
        let rule = Match::of(&binding.arguments).unwrap_or(Match::All);
        let mut pairs = rule.pairs(&binding.arguments);
        let has = |(key, wanted): &(Name, Value)| match self.get(key) {
            None => false,
            Some(_) if *wanted == Value::Void => true,
            Some(value) => terms::equivalent(wanted, value),
        };
        if rule.needs_all() { pairs.all(has) } else { pairs.any(has) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Destination;
    use proptest::prelude::*;

    fn table(entries: &[(&str, Value)]) -> Table {
        Table(entries.iter().map(|(key, value)| (Name::new(key), value.clone())).collect())
    }

    fn binding(arguments: &Table) -> Arc<Binding> {
        let queue = Destination::Queue(Name::new("q"));
        Arc::new(Binding::new(Name::new("x"), queue, Name::new(""), arguments))
    }

    fn matched(arguments: &Table, headers: &Table) -> bool {
        let mut index = Headers::default();
        index.add(&binding(arguments), &Target::Exchange(Name::new("to")));
        let mut found = false;
        index.matching(headers, |_| found = true);
        found
    }

    #[test]
    fn bindings_match_as_observed() {
        let one = || Value::I32(1);
        let messages = [
            table(&[]),
            table(&[("a", one())]),
            table(&[("a", Value::I64(1))]),
            table(&[("a", Value::text("1"))]),
            table(&[("a", Value::F64(1.0))]),
            table(&[("b", Value::I32(2))]),
            table(&[("x-k", one())]),
            table(&[("a", one()), ("x-k", one())]),
            Table::default(),
        ];
        let rule = |it: &str| ("x-match", Value::text(it));
        for (arguments, expected) in [
            (table(&[rule("all"), ("a", one())]), &[1, 2, 7][..]),
            (table(&[("a", one())]), &[1, 2, 7]),
            (table(&[rule("any"), ("a", one()), ("b", Value::I32(2))]), &[1, 2, 5, 7]),
            (table(&[rule("all"), ("a", Value::Void)]), &[1, 2, 3, 4, 7]),
            (table(&[rule("all"), ("x-k", one()), ("a", one())]), &[1, 2, 7]),
            (table(&[rule("all-with-x"), ("x-k", one())]), &[6, 7]),
            (table(&[rule("any-with-x"), ("x-k", one())]), &[6, 7]),
            (table(&[rule("all")]), &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
            (table(&[rule("any")]), &[]),
        ] {
            let found: Vec<_> =
                (0..messages.len()).filter(|at| matched(&arguments, &messages[*at])).collect();
            assert_eq!(found, expected, "{arguments:?}");
        }
    }

    fn headers() -> impl Strategy<Value = Table> {
        let value = prop_oneof![
            (0..2_i32).prop_map(Value::I32),
            (0..2_i64).prop_map(Value::I64),
            Just(Value::F32(1.0)),
            Just(Value::F64(1.0)),
            Just(Value::text("1")),
            Just(Value::Void),
        ];
        prop::collection::vec(("(x-)?[abc]", value), 0..24)
            .prop_map(|it| Table(it.into_iter().map(|(k, v)| (Name::from(k), v)).collect()))
    }

    proptest! {
        #[test]
        fn the_index_finds_what_looking_at_each_binding_finds(
            bindings in prop::collection::vec((headers(), 0..5_usize), 0..12),
            message in headers(),
        ) {
            let mut index = Headers::default();
            let rules = ["all", "any", "all-with-x", "any-with-x"];
            let bindings: Vec<_> = bindings.into_iter().map(|(mut arguments, rule)| {
                if let Some(rule) = rules.get(rule) {
                    arguments.set("x-match", Value::text(rule));
                }
                binding(&arguments)
            }).collect();
            let mut expected = Vec::new();
            for (number, binding) in bindings.iter().enumerate() {
                index.add(binding, &Target::Exchange(Name::from(format!("{number}"))));
                if Message::new(&message).matches(binding) {
                    let last = bindings.iter().rposition(|it| it == binding);
                    expected.push(last.expect("it is there"));
                }
            }
            let mut found = Vec::new();
            index.matching(&message, |target| match target {
                Target::Exchange(name) => found.push(name.parse::<usize>().expect("a number")),
                Target::Queue(_) => {}
            });
            found.sort_unstable();
            found.dedup();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(found, expected);
            bindings.iter().for_each(|it| index.remove(it));
            prop_assert!(index.by_key.is_empty() && index.always.is_empty());
        }
    }
}
