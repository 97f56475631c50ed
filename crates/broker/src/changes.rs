//! The whole catalog as a list of changes, in parts: what a snapshot in the log and a checkpoint
//! hold.

use catalog::{Catalog, Change};

/// Octets of a part.
const PART_BYTES: usize = 256 * 1024;
/// First part of a snapshot of the catalog.
pub(crate) const SNAPSHOT_FIRST: u8 = 2;
/// Its last part.
pub(crate) const SNAPSHOT_LAST: u8 = 1;

/// Applies changes, each of which stands behind its length.
pub(crate) fn apply_all(catalog: &mut Catalog, mut octets: &[u8]) -> Result<(), String> {
    while let Some((length, more)) = octets.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (change, more) = more.split_at_checked(length).ok_or("a list of changes is cut")?;
        let change = Change::decode(change).map_err(|it| it.to_string())?;
        catalog.apply(&change).map_err(|it| it.to_string())?;
        octets = more;
    }
    Ok(())
}

/// The whole catalog as changes, each behind its length, in one part or more. Each begins with an
/// octet of 0, for the caller to say what it is.
pub(crate) fn listed_changes(catalog: &Catalog) -> Vec<Vec<u8>> {
    let mut parts = vec![vec![0]];
    for change in catalog.changes().filter(Change::durable) {
        if PART_BYTES < parts.last().map_or(0, Vec::len) {
            parts.push(vec![0]);
        }
        let Some(part) = parts.last_mut() else { break };
        let start = part.len();
        part.extend_from_slice(&[0; 4]);
        change.encode(part);
        let length = u32::try_from(part.len() - start - 4).unwrap_or(u32::MAX);
        part[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
    parts
}
