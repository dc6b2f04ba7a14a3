//! A second CBOR reader, which decodes items and encodes them in canonical form (RFC 8949 section
//! 4.2.1).
//!
//! Slow and without memory limits; used only to check `keys::codec::scan`.
//! Invariant: bytes are canonical exactly when encoding the decoded item returns the same bytes.

use std::collections::BTreeMap;

use keys::Limits;

/// Maximum depth that this reader accepts; larger than every limit that is scanned with.
const DEPTH_MAX: usize = 32;

enum Item {
    /// Integers (major types 0 and 1), and the simple values false, true and null (7).
    Plain(u8, u64),
    /// Byte strings (2) and text (3).
    String(u8, Vec<u8>),
    Array(Vec<Item>),
    /// Sorted by the encoded bytes of the keys, as RFC 8949 section 4.2.1 requires.
    Map(BTreeMap<Vec<u8>, Item>),
}

/// Returns whether `bytes` are exactly one canonical item within the limits.
pub(crate) fn is_canonical(bytes: &[u8], limits: &Limits) -> bool {
    let mut rest = bytes;
    let Some(item) = read(&mut rest, DEPTH_MAX) else {
        return false;
    };
    let mut again = Vec::new();
    write(&item, &mut again);
    let (depth, count) = size(&item);
    again == bytes
        && bytes.len() <= limits.bytes_max
        && depth <= limits.depth_max
        && count <= limits.items_max
}

fn take<'a>(rest: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(usize::try_from(count).ok()?)?;
    *rest = behind;
    Some(taken)
}

fn read(rest: &mut &[u8], depth_left: usize) -> Option<Item> {
    let depth_left = depth_left.checked_sub(1)?;
    let first = *take(rest, 1)?.first()?;
    let (major, info) = (first >> 5, first & 31);
    let argument = match info {
        0..24 => u64::from(info),
        24..28 => {
            let wide = take(rest, 1 << (info - 24))?;
            wide.iter()
                .fold(0, |sum, byte| sum * 256 + u64::from(*byte))
        }
        _ => return None,
    };
    match major {
        // Only values that fit into an `i64`.
        0 | 1 => (argument < 1 << 63).then_some(Item::Plain(major, argument)),
        2 => Some(Item::String(major, take(rest, argument)?.to_vec())),
        3 => {
            let text = std::str::from_utf8(take(rest, argument)?).ok()?;
            Some(Item::String(major, text.into()))
        }
        4 => (0..argument)
            .map(|_| read(rest, depth_left))
            .collect::<Option<_>>()
            .map(Item::Array),
        5 => {
            let mut map = BTreeMap::new();
            for _ in 0..argument {
                let key = read(rest, depth_left)?;
                let (Item::Plain(0, _) | Item::String(3, _)) = key else {
                    return None;
                };
                let mut written = Vec::new();
                write(&key, &mut written);
                map.insert(written, read(rest, depth_left)?);
            }
            Some(Item::Map(map))
        }
        7 if matches!(info, 20..=22) => Some(Item::Plain(major, argument)),
        _ => None,
    }
}

fn write(item: &Item, out: &mut Vec<u8>) {
    match item {
        Item::Plain(major, argument) => write_head(*major, *argument, out),
        Item::String(major, bytes) => {
            write_head(*major, bytes.len() as u64, out);
            out.extend(bytes);
        }
        Item::Array(items) => {
            write_head(4, items.len() as u64, out);
            items.iter().for_each(|item| write(item, out));
        }
        Item::Map(map) => {
            write_head(5, map.len() as u64, out);
            for (key, value) in map {
                out.extend(key);
                write(value, out);
            }
        }
    }
}

fn write_head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let all = argument.to_be_bytes();
    let (info, width) = match argument {
        0..24 => return out.push(major << 5 | all[7]),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | info);
    out.extend(all.iter().skip(8 - width));
}

/// Returns the depth of containers and the number of data items. A key of a map is an item.
fn size(item: &Item) -> (usize, usize) {
    let inside: Vec<_> = match item {
        Item::Plain(..) | Item::String(..) => return (0, 1),
        Item::Array(items) => items.iter().map(size).collect(),
        Item::Map(map) => map
            .values()
            .map(size)
            .map(|(depth, count)| (depth, count + 1))
            .collect(),
    };
    let deepest = inside.iter().map(|(depth, _)| *depth).max().unwrap_or(0);
    (
        deepest + 1,
        inside.iter().map(|(_, count)| count).sum::<usize>() + 1,
    )
}
