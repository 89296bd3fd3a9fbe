use std::path::Path;
use std::time::{Duration, Instant};

use mill_frame::block::{BlockAddress, BlockKind, SharedBytes};

use super::block::Form;
use super::*;
use crate::aligned::AlignedBytes;
use crate::error::{Error, Result};
use crate::fault_disk::{FaultDisk, Splitmix};

const KINDS: [BlockKind; 4] = [BlockKind::Full, BlockKind::Rows, BlockKind::Drop, BlockKind::DropTable];

/// A segment of two operators and two tasks with blocks of many sizes.
fn segment() -> (Vec<u8>, SegmentRef) {
    let disk = FaultDisk::new();
    let mut names = Names::default();
    let mut used = NamesUsed::default();
    let mut items = Vec::new();
    for number in 0..40_u32 {
        let task = TaskId { chain: "count".to_owned(), index: number % 2, parallelism: 2 };
        let operator = names.operator(["count", "window"][number as usize % 2]).unwrap();
        let task = names.task(&task).unwrap();
        used.operators.insert(operator);
        used.tasks.insert(task);
        let header = BlockHeader {
            class: [Class::Keyed, Class::Bytes, Class::Handle][number as usize % 3],
            kind: KINDS[number as usize % 4],
            operator,
            task,
            address: BlockAddress { state: 70 * number as u16, namespace: -i64::from(number), group: number as u16, chunk: number },
            bytes: 0,
            epoch: u64::from(number % 6),
            payload_crc: 0,
        };
        items.push(Item::new(header, Box::new(vec![number as u8; number as usize * 5])));
    }
    let (dir, file) = (Path::new("d"), "segment-1".to_owned());
    let place = Place { disk: &disk, dir, file, epoch: 5, state: 9, is_full: true };
    let written = write_segment(&place, &names.encode(&used), Body::of(items, 5)).unwrap();
    (disk.bytes_of("d/segment-1").unwrap(), written)
}

fn parse(raw: &[u8]) -> Result<(Segment, Header, u32)> {
    let bytes = SharedBytes::new(std::sync::Arc::new(AlignedBytes::copy_of(raw)));
    Segment::parse("segment".as_ref(), bytes, None)
}

fn operator<'a>(segment: &'a Segment, block: &StoredBlock) -> &'a str {
    segment.operators().find(|(number, _)| *number == block.header.operator).unwrap().1
}

#[test]
fn blocks_are_read_as_they_were_written() {
    let (raw, written) = segment();
    assert_eq!(raw.len() as u64, written.bytes);
    let (segment, header, digest) = parse(&raw).unwrap();
    assert_eq!((header.epoch, header.state, header.blocks, digest), (5, 9, 40, written.digest));
    for (number, block) in segment.blocks.iter().enumerate() {
        let payload = segment.payload(block);
        assert_eq!(&*payload, &vec![number as u8; number * 5]);
        assert_eq!(payload.as_ptr() as usize % if block.form == Form::Long { ALIGNMENT } else { 8 }, 0);
        assert_eq!(block.form == Form::Short, number % 3 == 0 && number % 4 != 0);
        assert_eq!((block.header.kind, block.header.epoch), (KINDS[number % 4], number as u64 % 6));
        let number_u16 = number as u16;
        let address = BlockAddress {
            state: 70 * number_u16,
            namespace: -(number as i64),
            group: number_u16,
            chunk: number as u32,
        };
        assert_eq!(block.header.address, address);
        assert_eq!(operator(&segment, block), ["count", "window"][number % 2]);
        assert_eq!(segment.task(block).index as usize, number % 2);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let (raw, _) = segment();
    for bit in 0..raw.len() * 8 {
        let mut flipped = raw.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(parse(&flipped), Err(Error::Damaged { .. })), "bit {bit}");
    }
    for length in 0..raw.len() {
        assert!(matches!(parse(&raw[..length]), Err(Error::Damaged { .. })), "length {length}");
    }
}

#[test]
fn a_newer_segment_is_refused_by_name() {
    let (mut raw, _) = segment();
    put(&mut raw, 8, &4_u32.to_le_bytes());
    seal_at(&mut raw, 0);
    assert!(matches!(parse(&raw), Err(Error::NewerFormat { found: 4, known: 3, .. })));
}

#[test]
fn an_older_segment_is_refused_by_name_and_says_what_to_do() {
    for version in [1_u32, 2] {
        let (mut raw, _) = segment();
        put(&mut raw, 8, &version.to_le_bytes());
        seal_at(&mut raw, 0);
        let error = parse(&raw).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::OlderFormat { known: 3, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("format version {version}")) && text.contains("another state directory"), "{text}");
    }
}

/// Key groups and chunks share four bytes in a short header; what does not fit them has a long one.
#[test]
fn every_address_comes_back_in_both_forms() {
    for (group, chunk, form) in [
        (127, (1 << 25) - 1, Form::Short),
        (0, 0, Form::Short),
        (127, 1 << 25, Form::Long),
        (128, 1, Form::Long),
        (u16::MAX, u32::MAX, Form::Long),
    ] {
        for (state, namespace) in [(0, i64::MIN), (u16::MAX, i64::MAX)] {
            let address = BlockAddress { state, namespace, group, chunk };
            let (class, kind) = (Class::Keyed, BlockKind::Rows);
            let mut header =
                BlockHeader { class, kind, operator: 1, task: 2, address, bytes: 0, epoch: 5, payload_crc: 0 };
            assert_eq!(header.form(9), form, "{address:?}");
            let mut place = vec![0; form.header_bytes()];
            header.write(form, &mut place, 9);
            assert_eq!(BlockHeader::decode(&place, 9).unwrap().header, header);
        }
    }
}

#[test]
fn an_empty_segment_is_whole() {
    let disk = FaultDisk::new();
    let (dir, file) = (Path::new("d"), "segment-1".to_owned());
    let place = Place { disk: &disk, dir, file, epoch: 1, state: 1, is_full: false };
    let names = Names::default().encode(&NamesUsed::default());
    write_segment(&place, &names, Body::of(Vec::new(), 1)).unwrap();
    assert_eq!(parse(&disk.bytes_of("d/segment-1").unwrap()).unwrap().0.blocks.len(), 0);
}

#[test]
fn large_and_small_segments_are_laid_out_alike() {
    let item = |number: u8, size: usize| {
        let header = BlockHeader {
            class: Class::Keyed,
            kind: BlockKind::Full,
            operator: 0,
            task: 0,
            address: BlockAddress { state: 0, namespace: 0, group: 0, chunk: u32::from(number) },
            bytes: 0,
            epoch: 1,
            payload_crc: 0,
        };
        Item::new(header, Box::new(vec![number; size]))
    };
    // 9 MiB are laid out on several threads.
    let items: Vec<Item> = (0..9).map(|number| item(number, 1 << 20)).collect();
    let layout = Layout::of(&items, 1);
    let mut out = AlignedBytes::zeroed(layout.bytes);
    let laid = write::lay_out(&mut out, items, &layout, 1).unwrap();
    assert_eq!(laid.keyed_bytes, layout.bytes as u64);
    let layout = Layout::of(&[item(0, 1 << 20)], 1);
    let mut alone = AlignedBytes::zeroed(layout.bytes);
    for number in 0..9 {
        let one = write::lay_out(&mut alone, vec![item(number, 1 << 20)], &layout, 1).unwrap();
        assert_eq!(one.crcs[0], laid.crcs[usize::from(number)]);
        assert!(alone[..] == out[usize::from(number) * alone.len()..][..alone.len()]);
    }
}

fn seal_at(raw: &mut [u8], at: usize) {
    if let Some(line) = raw.get_mut(at..at + HEADER_BYTES) {
        let crc = crc32c::crc32c(&line[..60]);
        put(line, 60, &crc.to_le_bytes());
    }
}

fn seal_short_at(raw: &mut [u8], at: usize) {
    let Some(line) = raw.get(at..at + 32) else { return };
    let length = 32 + u32_at(line, 24) as usize + usize::from(line[3]);
    if let Some(block) = raw.get_mut(at..at + length) {
        let crc = block::short_checksum(block);
        put(block, 28, &crc.to_le_bytes());
    }
}

/// A change that is older than a short header can say has a long one, and is read all the same.
#[test]
fn an_old_change_in_a_merged_segment_keeps_its_epoch() {
    let disk = FaultDisk::new();
    let (mut names, mut used) = (Names::default(), NamesUsed::default());
    used.operators.insert(names.operator("count").unwrap());
    used.tasks.insert(names.task(&TaskId { chain: "count".to_owned(), index: 0, parallelism: 1 }).unwrap());
    let epochs = [1, 34_465, 34_464, 100_000];
    let item = |(chunk, epoch): (u32, u64)| {
        let address = BlockAddress { state: 0, namespace: 0, group: 3, chunk };
        let (class, kind) = (Class::Keyed, BlockKind::Rows);
        let header = BlockHeader { class, kind, operator: 0, task: 0, address, bytes: 0, epoch, payload_crc: 0 };
        Item::new(header, Box::new(vec![7; 24]))
    };
    let items = (0..).zip(epochs).map(item).collect();
    let (dir, file) = (Path::new("d"), "segment-1".to_owned());
    let place = Place { disk: &disk, dir, file, epoch: 100_000, state: 1, is_full: false };
    write_segment(&place, &names.encode(&used), Body::of(items, place.epoch)).unwrap();
    let blocks = parse(&disk.bytes_of("d/segment-1").unwrap()).unwrap().0.blocks;
    assert_eq!(blocks.iter().map(|block| block.header.epoch).collect::<Vec<_>>(), epochs);
    let forms = [Form::Long, Form::Short, Form::Long, Form::Short];
    assert_eq!(blocks.iter().map(|block| block.form).collect::<Vec<_>>(), forms);
}

/// Random changes with right checksums: whatever is read can be used, and nothing panics.
/// `MILL_FUZZ_SECONDS` lets it run longer, `MILL_FUZZ_SEED` repeats a run.
#[test]
fn no_byte_string_gets_past_unsafely() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("MILL_FUZZ_SECONDS").unwrap_or(0);
    let seed = number("MILL_FUZZ_SEED").unwrap_or(1);
    println!("MILL_FUZZ_SEED={seed}");
    let (raw, _) = segment();
    let blocks = parse(&raw).unwrap().0.blocks;
    let lines: Vec<usize> = blocks.iter().map(|block| block.start - block.form.header_bytes()).collect();
    let names_end = lines[0];
    let mut random = Splitmix(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut rounds, mut read) = (0_u64, 0_u64);
    while rounds < 3000 || Instant::now() < end {
        let mut changed = raw.clone();
        for _ in 0..=random.below(3) {
            let line = match random.below(4) {
                0 => 0,
                1 => changed.len().saturating_sub(HEADER_BYTES),
                2 => HEADER_BYTES + random.below((names_end - HEADER_BYTES) as u64) as usize,
                _ => lines[random.below(lines.len() as u64) as usize],
            };
            let at = line + random.below(60) as usize;
            match random.below(8) {
                0 => changed.truncate(at & !63),
                1 => changed.extend(vec![0; 64]),
                2 if at + 8 <= changed.len() => put(&mut changed, at, &random.next().to_le_bytes()),
                _ if at < changed.len() => changed[at] = random.next() as u8,
                _ => {}
            }
            if changed.len() < 2 * HEADER_BYTES {
                break;
            }
            let length = changed.len() as u64;
            if random.below(2) == 0 {
                put(&mut changed, 24, &length.to_le_bytes());
            }
            let names = aligned(u32_at(&changed, 12) as usize).saturating_add(HEADER_BYTES);
            if let Some(section) = changed.get(HEADER_BYTES..names) {
                let crc = crc32c::crc32c(section);
                put(&mut changed, 48, &crc.to_le_bytes());
            }
            for (block, line) in blocks.iter().zip(&lines) {
                match block.form {
                    Form::Long => seal_at(&mut changed, *line),
                    Form::Short => seal_short_at(&mut changed, *line),
                }
            }
            seal_at(&mut changed, 0);
            let footer = changed.len() - HEADER_BYTES;
            let mut crcs = Vec::new();
            for (block, line) in blocks.iter().zip(&lines).filter(|(_, line)| **line + HEADER_BYTES <= footer) {
                crcs.push(u32_at(&changed, line + if block.form == Form::Long { 60 } else { 28 }));
            }
            let digest = write::digest_of(&crcs);
            put(&mut changed, footer + 32, &digest.to_le_bytes());
            seal_at(&mut changed, footer);
        }
        if let Ok((segment, header, _)) = parse(&changed) {
            assert_eq!(segment.blocks.len() as u64, header.blocks);
            for block in &segment.blocks {
                let _ = (operator(&segment, block), segment.task(block).groups(), segment.payload(block).len());
            }
            read += 1;
        }
        rounds += 1;
    }
    println!("{rounds} rounds, {read} read");
    assert!(read > 0);
}
