//! The persistent maps of the catalog. Their hash is SipHash with a fixed key: the same content has
//! the same order in every process, and colliding names still cost an attacker a search.

use std::hash::{BuildHasherDefault, DefaultHasher};

pub(crate) type Map<K, V> = rpds::HashTrieMapSync<K, V, BuildHasherDefault<DefaultHasher>>;
pub(crate) type SortedMap<K, V> = rpds::RedBlackTreeMapSync<K, V>;
pub(crate) type SortedSet<T> = rpds::RedBlackTreeSetSync<T>;
