//! The spill file: bodies of transient messages for which memory is short. It is opened when the
//! first of them comes, and most brokers never need it.

use std::sync::{Arc, OnceLock};
use storage::Log;

/// Opens the spill file, or says why it cannot be had.
pub type OpenSpill = Box<dyn Fn() -> Result<Log, String> + Send + Sync>;

pub(crate) struct Spill {
    open: OpenSpill,
    /// `None` inside: it could not be opened, and messages stay in memory.
    log: OnceLock<Option<Arc<Log>>>,
}

impl Spill {
    pub(crate) fn new(open: OpenSpill) -> Self {
        Self { open, log: OnceLock::new() }
    }

    /// The file, if it was ever needed.
    pub(crate) fn existing(&self) -> Option<&Arc<Log>> {
        self.log.get().and_then(Option::as_ref)
    }

    /// The file; `report` hears why there is none.
    pub(crate) fn log(&self, report: impl FnOnce(&str)) -> Option<&Arc<Log>> {
        let opened = self.log.get_or_init(|| match (self.open)() {
            Ok(log) => Some(Arc::new(log)),
            Err(why) => {
                report(&format!("no spill file, transient messages stay in memory: {why}"));
                None
            }
        });
        opened.as_ref()
    }
}
