use tallow_types::codec::{decode, encode};
use tallow_types::unit::LeafIndex;

use super::*;
use crate::chunk::ChunkId;

fn chunk(number: usize) -> ChunkRef {
    let leaf = LeafIndex::new(number as u64);
    ChunkRef { id: ChunkId::new([9; 32]), leaf, offset: 0, sealed_len: 60, plain_len: 50 }
}

/// Pushes that many chunks and stores every list that comes out; gives the content and the lists.
fn build(count: usize) -> (Option<Content>, Vec<ChunkList>) {
    let (mut builder, mut lists) = (ContentBuilder::default(), Vec::new());
    let mut store = |builder: &mut ContentBuilder, list: Option<ChunkList>| {
        if let Some(list) = list {
            builder.listed(chunk(1_000_000 + lists.len()));
            lists.push(list);
        }
    };
    for number in 0..count {
        let list = builder.push(chunk(number));
        assert!(builder.chunks.len() < CHUNK_LIST_MAX, "memory is bounded");
        store(&mut builder, list);
    }
    let rest = builder.rest();
    store(&mut builder, rest);
    assert!(builder.rest().is_none());
    (builder.finish(), lists)
}

/// Goal: a blob of any length has a content that names all its chunks in order. Method: counts around each edge.
#[test]
fn contents_of_any_length() {
    for count in [0, 1, ENTRY_CHUNKS_MAX] {
        let (content, lists) = build(count);
        let Some(Content::Chunks(chunks)) = &content else { panic!("{count} chunks fit an entry") };
        assert!(lists.is_empty() && chunks.iter().copied().eq((0..count).map(chunk)));
    }
    let counts = [
        ENTRY_CHUNKS_MAX + 1,
        CHUNK_LIST_MAX,
        CHUNK_LIST_MAX + 1,
        2 * CHUNK_LIST_MAX,
        2 * CHUNK_LIST_MAX + 9,
    ];
    for count in counts {
        let (content, lists) = build(count);
        let Some(Content::Lists { size, lists: named }) = content else {
            panic!("{count} chunks take lists")
        };
        assert_eq!((size.get(), named.len()), (50 * count as u64, lists.len()));
        assert_eq!(lists.len(), count.div_ceil(CHUNK_LIST_MAX));
        let listed = lists.iter().flat_map(|list| list.chunks.iter().copied());
        assert!(listed.eq((0..count).map(chunk)));
    }
}

/// Goal: chunks that were never listed can't be forgotten. Method: finish without storing the rest.
#[test]
fn unfinished_contents_are_none() {
    let mut builder = ContentBuilder::default();
    for number in 0..=ENTRY_CHUNKS_MAX {
        assert!(builder.push(chunk(number)).is_none());
    }
    assert!(builder.finish().is_none());
    let mut builder = ContentBuilder::default();
    builder.listed(chunk(0));
    assert!(builder.push(chunk(1)).is_none());
    assert!(builder.finish().is_none());
    let mut builder = ContentBuilder::default();
    (0..=ENTRY_LISTS_MAX).for_each(|number| builder.listed(chunk(number)));
    assert!(builder.finish().is_none());
}

/// Goal: the longest list fits its limit and a chunk; one above is refused. Method: encode both.
#[test]
fn lists_are_bounded() {
    let list = ChunkList { chunks: Bounded::new(vec![chunk(1); CHUNK_LIST_MAX]).expect("fits") };
    let bytes = encode(&list);
    assert!(bytes.len() < tallow_types::limits::CHUNK_MAX as usize);
    assert_eq!(decode(&bytes), Ok(list));
    let mut longer = bytes.clone();
    longer[3..7].copy_from_slice(&u32::try_from(CHUNK_LIST_MAX + 1).expect("small").to_le_bytes());
    assert!(decode::<ChunkList>(&longer).is_err());
    let over = borsh::to_vec(&vec![chunk(1); ENTRY_CHUNKS_MAX + 1]).expect("encodes");
    assert!(Content::try_from_slice(&[&[1], &over[..]].concat()).is_err());
    let inline = borsh::to_vec(&vec![0_u8; INLINE_BLOB_MAX + 1]).expect("encodes");
    assert!(Content::try_from_slice(&[&[0], &inline[..]].concat()).is_err());
}

/// Goal: times before 1970 and to the nanosecond are kept, nonsense is not. Method: edges.
#[test]
fn times() {
    for (seconds, nanos) in [(i64::MIN, 0), (-1, 999_999_999), (0, 0), (i64::MAX, 1)] {
        let time = FileTime::new(seconds, nanos).expect("in range");
        let bytes = borsh::to_vec(&time).expect("encodes");
        assert_eq!(FileTime::try_from_slice(&bytes).expect("decodes"), time);
        assert_eq!((time.seconds(), time.nanos()), (seconds, nanos));
    }
    assert_eq!(FileTime::new(0, 1_000_000_000), None);
    let bad = borsh::to_vec(&(0_i64, 1_000_000_000_u32)).expect("encodes");
    assert!(FileTime::try_from_slice(&bad).is_err());
    assert_eq!(Some(FileTime::from_clock(TimeMs::new(1_234))), FileTime::new(1, 234_000_000));
    assert_eq!(FileTime::from_clock(TimeMs::MAX).seconds(), 18_446_744_073_709_551);
}

/// Goal: permission bits are kept, kinds of file are not. Method: a set-uid program's mode, and one above the range.
#[test]
fn modes() {
    let mode = Mode::from_system(0o104_755);
    assert_eq!(mode.bits(), 0o4755);
    assert_eq!(Mode::try_from_slice(&borsh::to_vec(&mode).expect("encodes")).expect("decodes"), mode);
    assert!(Mode::try_from_slice(&0o10000_u16.to_le_bytes()).is_err());
    assert_eq!(Mode::from_system(u32::MAX).bits(), 0o7777);
}

/// Goal: link targets are kept byte for byte inside their limit. Method: not UTF-8, empty, NUL, one above.
#[test]
fn link_targets() {
    let target = LinkTarget::new(b"../caf\xe9".to_vec()).expect("is a target");
    assert_eq!(target.as_bytes(), b"../caf\xe9");
    assert!(LinkTarget::new(vec![b'a'; LINK_TARGET_MAX]).is_some());
    for bad in [vec![], b"a\0b".to_vec(), vec![b'a'; LINK_TARGET_MAX + 1]] {
        let bytes = borsh::to_vec(&bad).expect("encodes");
        assert!(LinkTarget::new(bad).is_none() && LinkTarget::try_from_slice(&bytes).is_err());
    }
}
