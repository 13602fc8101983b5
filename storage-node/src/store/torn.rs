//! A disk for tests that keeps no more than it promised: at a crash each sector written since the last sync is kept or
//! lost by lot, and so is each name. One kind of sync can be made a lie, to show that the tests would notice.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::backend::{Backend, SegmentFile, SegmentId};

const SECTOR: usize = 512;

/// What can be synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    Segment,
    Names,
    Index,
}

/// A small deterministic generator (SplitMix64), so that a failing run is named by its seed.
#[derive(Clone, Debug)]
pub(crate) struct Lot(pub(crate) u64);

impl Lot {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Clone, Debug, Default)]
struct Image {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Ranges written since the last sync, oldest first.
    pending: Vec<(usize, Vec<u8>)>,
}

impl Image {
    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if self.current.len() < end {
            self.current.resize(end, 0);
        }
        self.current[offset..end].copy_from_slice(data);
        self.pending.push((offset, data.to_vec()));
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.current);
        self.pending.clear();
    }

    fn crash(&self, lot: &mut Lot) -> Self {
        let mut image = self.durable.clone();
        image.resize(if lot.below(2) == 0 { self.durable.len() } else { self.current.len() }, 0);
        // One crash in three loses all that it may: chance alone would seldom do so.
        let keep = [0, 500, 900][usize::try_from(lot.below(3)).expect("small")];
        for (offset, data) in &self.pending {
            for (n, sector) in data.chunks(SECTOR).enumerate() {
                let at = offset + n * SECTOR;
                if lot.below(1000) < keep && at + sector.len() <= image.len() {
                    image[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        Self { current: image.clone(), durable: image, pending: Vec::new() }
    }
}

#[derive(Debug, Default)]
struct World {
    segments: BTreeMap<SegmentId, Image>,
    names: BTreeSet<SegmentId>,
    durable_names: BTreeSet<SegmentId>,
    index: Image,
    /// Whether the name of the index file is durable.
    index_is_named: bool,
    free: u64,
    operations: u64,
    power_off_at: Option<u64>,
    lie: Option<Sync>,
    opened: bool,
}

impl World {
    /// Counts an operation that changes the disk; fails it and all later ones once the power is off.
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.power_off_at {
            Some(at) if self.operations > at => Err(io::Error::other("power is off")),
            _ => Ok(()),
        }
    }
}

/// The disk.
#[derive(Clone, Debug)]
pub(crate) struct Torn(Arc<Mutex<World>>);

impl Torn {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(World { free: 1 << 40, ..World::default() })))
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().expect("no test panics while it holds the disk")
    }

    /// Makes every sync of this kind do nothing.
    pub(crate) fn lie(&self, kind: Option<Sync>) {
        self.world().lie = kind;
    }

    /// Ends the power after so many more operations.
    pub(crate) fn power_off_in(&self, operations: u64) {
        let mut world = self.world();
        world.power_off_at = Some(world.operations + operations);
    }

    pub(crate) fn operations(&self) -> u64 {
        self.world().operations
    }

    pub(crate) fn set_free(&self, free: u64) {
        self.world().free = free;
    }

    /// The disk as it is found after the power came back.
    pub(crate) fn after_crash(&self, lot: &mut Lot) -> Self {
        let world = self.world();
        let mut names = world.durable_names.clone();
        for id in world.names.symmetric_difference(&world.durable_names) {
            if lot.below(2) == 0 && !names.remove(id) {
                names.insert(*id);
            }
        }
        let segments = names
            .iter()
            .filter_map(|id| Some((*id, world.segments.get(id)?.crash(lot))))
            .collect::<BTreeMap<_, _>>();
        let index_is_named = world.index_is_named;
        let keeps_index = index_is_named || lot.below(2) == 0;
        let index = if keeps_index { world.index.crash(lot) } else { Image::default() };
        let (free, lie) = (world.free, world.lie);
        let names: BTreeSet<_> = segments.keys().copied().collect();
        let found = World {
            segments,
            durable_names: names.clone(),
            names,
            index,
            index_is_named,
            free,
            lie,
            ..World::default()
        };
        Self(Arc::new(Mutex::new(found)))
    }

    /// Changes a byte of a segment behind the store's back.
    pub(crate) fn rot(&self, id: SegmentId, offset: u64) {
        let mut world = self.world();
        let image = world.segments.get_mut(&id).expect("a segment");
        let at = usize::try_from(offset).expect("small");
        image.current[at] ^= 1;
        image.durable[at] ^= 1;
    }

    /// Bytes that are not zero, in all segments.
    pub(crate) fn written(&self) -> usize {
        let world = self.world();
        let files = world.names.iter().filter_map(|id| world.segments.get(id));
        files.map(|image| image.current.iter().filter(|byte| **byte != 0).count()).sum()
    }

    pub(crate) fn forget_index(&self) {
        self.world().index = Image::default();
    }
}

impl Backend for Torn {
    fn open_index(&self) -> io::Result<Box<dyn StorageBackend>> {
        let mut world = self.world();
        if std::mem::replace(&mut world.opened, true) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "open already"));
        }
        Ok(Box::new(TornIndex(self.clone())))
    }

    fn has_index(&self) -> io::Result<bool> {
        Ok(!self.world().index.current.is_empty())
    }

    fn retire_index(&self) -> io::Result<()> {
        self.forget_index();
        Ok(())
    }

    fn segments(&self) -> io::Result<Vec<SegmentId>> {
        Ok(self.world().names.iter().copied().collect())
    }

    fn create(&self, id: SegmentId, length: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let mut world = self.world();
        world.step()?;
        if world.free < length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        world.free -= length;
        let length = usize::try_from(length).expect("small");
        let image = Image { current: vec![0; length], ..Image::default() };
        world.segments.insert(id, image);
        world.names.insert(id);
        Ok(Arc::new(TornFile(self.clone(), id)))
    }

    fn open(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        match self.world().names.contains(&id) {
            true => Ok(Arc::new(TornFile(self.clone(), id))),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, id: SegmentId) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        world.names.remove(&id);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        if world.lie != Some(Sync::Names) {
            world.durable_names = world.names.clone();
            world.index_is_named = true;
        }
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self.world().free)
    }
}

#[derive(Debug)]
struct TornFile(Torn, SegmentId);

impl SegmentFile for TornFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.world().segments[&self.1].current.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read(&self.0.world().segments[&self.1], offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut world = self.0.world();
        world.step()?;
        let image = world.segments.get_mut(&self.1).expect("opened");
        image.write(usize::try_from(offset).expect("small"), data);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.0.world();
        world.step()?;
        if world.lie != Some(Sync::Segment) {
            world.segments.get_mut(&self.1).expect("opened").sync();
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_at(offset, &vec![0; usize::try_from(length).expect("small")])
    }
}

fn read(image: &Image, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let at = usize::try_from(offset).expect("small");
    let from = image.current.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
    out.copy_from_slice(from);
    Ok(())
}

#[derive(Debug)]
struct TornIndex(Torn);

impl StorageBackend for TornIndex {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.world().index.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read(&self.0.world().index, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.0.world();
        world.step()?;
        let len = usize::try_from(len).expect("small");
        world.index.pending.retain(|(offset, data)| offset + data.len() <= len);
        world.index.current.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.0.world();
        world.step()?;
        if world.lie != Some(Sync::Index) {
            world.index.sync();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut world = self.0.world();
        world.step()?;
        world.index.write(usize::try_from(offset).expect("small"), data);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.world().opened = false;
        Ok(())
    }
}
