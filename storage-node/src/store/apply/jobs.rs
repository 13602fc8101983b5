//! What each kind of task does to the index, inside the group's transaction.

use tallow_types::Bytes;
use tallow_types::commit::Leaf;

use super::{Group, Kept, Relocated};
use crate::store::index::Tables;
use crate::store::key::{LaneKey, SliceKey};
use crate::store::row::{LaneUpdate, Place, SliceRow, SliceState};
use crate::store::writer::Failure;
use crate::store::{Done, Judge, Swept, Verdict, WriteError};

/// Tells a refused caller at once, the others once the group is durable.
pub(super) fn conclude<T: 'static>(
    outcome: Result<T, Failure>,
    done: Done<T>,
    group: &mut Group,
) -> Option<String> {
    match outcome {
        Ok(value) => {
            group.finishes.push(Box::new(|durable| done(durable.map(|()| value).map_err(Clone::clone))));
            None
        }
        Err(Failure::Refused(error)) => {
            done(Err(error));
            None
        }
        Err(Failure::Broken(reason)) => {
            group.finishes.push(Box::new(|durable| {
                done(Err(durable.err().cloned().unwrap_or(WriteError::Broken(String::new()))));
            }));
            Some(reason)
        }
    }
}

pub(super) fn keep(kept: Kept, tables: &mut Tables<'_>, group: &mut Group) -> Result<(), Failure> {
    for (key, mut new) in kept.new {
        if kept.replaces.contains(&key)
            && let Some(old) = tables.slice(key)?
        {
            // A damaged slice keeps its reason to stay; only its place is new.
            new.state = old.state;
        }
        group.freed.extend(tables.put_slice(key, &new)?);
        group.settle(new.place(), new.length, tables)?;
        group.dirty = true;
    }
    for key in kept.known {
        let Some(row) = tables.slice(key)?.filter(|row| !row.damaged) else {
            // What takes slices away lets nothing be laid beside it.
            return Err(Failure::Broken("a slice that was here is gone".into()));
        };
        let renewed = SliceState::Loose { since: kept.epoch };
        if row.state != renewed && row.is_unheld() {
            (group.dirty, group.must_sync) = (true, true);
            tables.restate(key, renewed)?;
        }
    }
    Ok(())
}

pub(super) fn lane(update: &LaneUpdate, tables: &mut Tables<'_>, group: &mut Group) -> Result<(), Failure> {
    let (mut missing, mut first) = (0, None);
    for (_, leaf) in &update.appended {
        let here = tables.slice(update.key.slice(leaf.stripe))?;
        if !here.is_some_and(|row| is_same(&row, leaf) && !row.damaged) {
            missing += 1;
            first = first.or(Some(leaf.stripe));
        }
    }
    if let Some(first) = first {
        return Err(Failure::Refused(WriteError::Missing { missing, first }));
    }
    group.dirty = true;
    Ok(tables.update_lane(update)?)
}

fn is_same(row: &SliceRow, leaf: &Leaf) -> bool {
    row.root == leaf.root && row.length == leaf.length
}

pub(super) fn sweep(
    limit: usize,
    judge: &mut Judge,
    tables: &mut Tables<'_>,
    group: &mut Group,
) -> Result<Swept, Failure> {
    let mut swept = Swept::default();
    for key in tables.unheld()? {
        let Some(row) = tables.slice(key)? else { continue };
        match judge(&key, row.state) {
            Verdict::Keep => {}
            Verdict::Restate(state) => {
                group.dirty = true;
                tables.restate(key, state)?;
            }
            Verdict::Free if swept.slices >= limit as u64 => swept.more = true,
            Verdict::Free => free(key, tables, group, &mut swept)?,
        }
    }
    Ok(swept)
}

pub(super) fn remove_lane(
    lane: LaneKey,
    limit: usize,
    tables: &mut Tables<'_>,
    group: &mut Group,
) -> Result<Swept, Failure> {
    let mut swept = Swept::default();
    let keys = tables.slices_of(lane, limit)?;
    swept.more = keys.len() == limit;
    for key in keys {
        free(key, tables, group, &mut swept)?;
    }
    if !swept.more {
        group.dirty = true;
        tables.remove_lane(lane)?;
    }
    Ok(swept)
}

fn free(key: SliceKey, tables: &mut Tables<'_>, group: &mut Group, swept: &mut Swept) -> Result<(), Failure> {
    if let Some(row) = tables.remove_slice(key)? {
        group.dirty = true;
        group.freed.push(row);
        swept.slices += 1;
        swept.bytes =
            swept.bytes.checked_add(Bytes::new(row.length.into())).expect("fits like the slices do");
    }
    Ok(())
}

/// Marks slices, unless they lie elsewhere by now.
pub(super) fn damaged(
    places: &[(SliceKey, Place)],
    tables: &mut Tables<'_>,
    group: &mut Group,
) -> Result<(), Failure> {
    for (key, place) in places {
        if let Some(row) = tables.slice(*key)?
            && row.place() == *place
        {
            group.dirty = true;
            tables.put_slice(*key, &SliceRow { damaged: true, ..row })?;
        }
    }
    Ok(())
}

/// Names the new places of records that still live at the old ones. The others were written for nothing.
pub(super) fn relocate(
    moves: &[Relocated],
    tables: &mut Tables<'_>,
    group: &mut Group,
) -> Result<(), Failure> {
    for Relocated { key, from, to, length } in moves {
        if let Some(row) = tables.slice(*key)?
            && row.place() == *from
        {
            let (segment, offset) = *to;
            group.freed.extend(tables.put_slice(*key, &SliceRow { segment, offset, ..row })?);
            group.settle(*to, *length, tables)?;
        }
        group.dirty = true;
    }
    Ok(())
}
