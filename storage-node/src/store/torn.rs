//! A disk for tests that keeps no more than it promised: at a crash each sector written since the last sync is kept or
//! lost by lot, and so is each name. One kind of sync can be made a lie, to show that the tests would notice.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::backend::{Backend, SegmentFile, SegmentId};

const SECTOR: usize = 512;
/// Added to the names of retired segments.
const SPARE: SegmentId = 1 << 40;

/// A change of names that may not be durable yet.
#[derive(Clone, Copy, Debug)]
enum Naming {
    Create(SegmentId, u64),
    Remove(SegmentId),
    Rename(SegmentId, SegmentId),
}

fn rename(names: &mut BTreeMap<SegmentId, u64>, naming: Naming) {
    match naming {
        Naming::Create(name, file) => drop(names.insert(name, file)),
        Naming::Remove(name) => drop(names.remove(&name)),
        Naming::Rename(from, to) => {
            if let Some(file) = names.remove(&from) {
                names.insert(to, file);
            }
        }
    }
}

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
    /// Files by number, and their names.
    segments: BTreeMap<u64, Image>,
    names: BTreeMap<SegmentId, u64>,
    durable_names: BTreeMap<SegmentId, u64>,
    /// What was done to names since they were synced.
    namings: Vec<Naming>,
    index: Image,
    /// Whether the name of the index file is durable.
    index_is_named: bool,
    free: u64,
    operations: u64,
    power_off_at: Option<u64>,
    lie: Option<Sync>,
    opened: bool,
    hook: Hook,
}

/// What happens once, before a read of a segment.
#[derive(Default)]
struct Hook(Option<Box<dyn FnOnce() + Send>>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.is_some())
    }
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

impl World {
    fn name(&mut self, naming: Naming) {
        rename(&mut self.names, naming);
        self.namings.push(naming);
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

    /// Lets something happen between the look-up of the next slice that is read, and the reading.
    pub(crate) fn before_read(&self, hook: impl FnOnce() + Send + 'static) {
        self.world().hook = Hook(Some(Box::new(hook)));
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
        for naming in &world.namings {
            if lot.below(2) == 0 {
                rename(&mut names, *naming);
            }
        }
        let segments: BTreeMap<_, _> =
            names.values().map(|file| (*file, world.segments[file].crash(lot))).collect();
        let index_is_named = world.index_is_named;
        let keeps_index = index_is_named || lot.below(2) == 0;
        let index = if keeps_index { world.index.crash(lot) } else { Image::default() };
        let (free, lie) = (world.free, world.lie);
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

    fn rename(&self, from: SegmentId, to: SegmentId) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        world.name(Naming::Rename(from, to));
        Ok(())
    }

    /// Changes a byte of a segment behind the store's back.
    pub(crate) fn rot(&self, id: SegmentId, offset: u64) {
        let mut world = self.world();
        let file = world.names[&id];
        let image = world.segments.get_mut(&file).expect("a segment");
        let at = usize::try_from(offset).expect("small");
        image.current[at] ^= 1;
        image.durable[at] ^= 1;
    }

    /// Bytes that are not zero, in all segments.
    pub(crate) fn written(&self) -> usize {
        let world = self.world();
        let files = world.names.values().filter_map(|file| world.segments.get(file));
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
        Ok(self.world().names.range(..SPARE).map(|(id, _)| *id).collect())
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
        let file = world.segments.last_key_value().map_or(0, |(last, _)| last + 1);
        world.segments.insert(file, image);
        world.name(Naming::Create(id, file));
        Ok(Arc::new(TornFile(self.clone(), file)))
    }

    fn open(&self, id: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        match self.world().names.get(&id) {
            Some(file) => Ok(Arc::new(TornFile(self.clone(), *file))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, id: SegmentId) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        world.name(Naming::Remove(id));
        Ok(())
    }

    fn retire(&self, id: SegmentId) -> io::Result<()> {
        self.rename(id, SPARE + id)
    }

    fn retired(&self) -> io::Result<Vec<SegmentId>> {
        Ok(self.world().names.range(SPARE..).map(|(id, _)| id - SPARE).collect())
    }

    fn open_retired(&self, old: SegmentId) -> io::Result<Arc<dyn SegmentFile>> {
        self.open(SPARE + old)
    }

    fn revive(&self, old: SegmentId, id: SegmentId) -> io::Result<()> {
        self.rename(SPARE + old, id)
    }

    fn discard(&self, old: SegmentId) -> io::Result<()> {
        self.remove(SPARE + old)
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = self.world();
        world.step()?;
        if world.lie != Some(Sync::Names) {
            world.durable_names = world.names.clone();
            world.namings.clear();
            world.index_is_named = true;
        }
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self.world().free)
    }
}

#[derive(Debug)]
struct TornFile(Torn, u64);

impl SegmentFile for TornFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.world().segments[&self.1].current.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let hook = self.0.world().hook.0.take();
        if let Some(hook) = hook {
            hook();
        }
        read(&self.0.world().segments[&self.1], offset, out)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.length()
    }

    fn fill(&self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn write_all_at(&self, mut offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        // The power may go off between any two of them.
        for part in parts {
            let mut world = self.0.world();
            world.step()?;
            let image = world.segments.get_mut(&self.1).expect("opened");
            image.write(usize::try_from(offset).expect("small"), part);
            offset += part.len() as u64;
        }
        Ok(())
    }

    fn forget_cached(&self, _offset: u64, _length: u64) {}

    fn sync(&self) -> io::Result<()> {
        let mut world = self.0.world();
        world.step()?;
        if world.lie != Some(Sync::Segment) {
            world.segments.get_mut(&self.1).expect("opened").sync();
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.write_all_at(offset, &[&vec![0; usize::try_from(length).expect("small")]])
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
