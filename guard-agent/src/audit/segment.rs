//! The journal's file format: segment names, headers and frames.
//!
//! A segment is a header and then frames; a frame is a length, a CRC-32 and a sealed record. Bytes enter, records
//! leave, and what cannot be a record is told apart: unfinished or damaged. Nothing here trusts a length.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::{Buf, BytesMut};
use guard_common::audit::{
    chain::{HASH_LEN, Hash, Head},
    v1::SealedRecord,
};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

/// Length of a segment's header in bytes.
pub const HEADER_LEN: usize = 56;
/// Longest sealed record in bytes. Longer records are not written, longer frames not read.
pub const MAX_FRAME: usize = guard_common::audit::MAX_SEALED_LEN;
/// Bytes before a frame's record: its length and its CRC-32, both little endian.
pub const FRAME_HEAD: usize = 8;

const MAGIC: [u8; 8] = *b"GUARDJNL";
const FORMAT: u32 = 1;
const READ_CHUNK: usize = 256 * 1024;

/// A segment file in the journal's folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Sequence number of its first record.
    pub first: u64,
    /// The file.
    pub path: PathBuf,
}

impl Segment {
    /// The segment of `dir` that begins with record `first`.
    pub fn at(dir: &Path, first: u64) -> Self {
        Self { first, path: dir.join(format!("journal-{first:020}.seg")) }
    }

    /// All segments of `dir`, the oldest first. Other files are passed over.
    pub fn list(dir: &Path) -> io::Result<Vec<Self>> {
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if let Some(first) = entry.file_name().to_str().and_then(first_of) {
                segments.push(Self { first, path: entry.path() });
            }
        }
        segments.sort();
        Ok(segments)
    }
}

fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("journal-")?.strip_suffix(".seg")?;
    if digits.len() != 20 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|first| *first > 0)
}

/// The header of a segment that follows `head`: magic, format, first sequence, previous hash, CRC-32.
pub fn header(head: &Head) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..20].copy_from_slice(&(head.sequence + 1).to_le_bytes());
    bytes[20..52].copy_from_slice(&head.hash);
    let crc = crc32fast::hash(&bytes[..52]);
    bytes[52..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What is wrong with a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file ends before its header does, or was never filled: the writer died while it made the segment.
    #[error("its header is unfinished")]
    Unfinished,
    /// It is no header of this format, or not the one that belongs to the file's name.
    #[error("its header is damaged")]
    Damaged,
    /// A later version of guard wrote it.
    #[error("it has format {0}, this version reads format {FORMAT}")]
    Format(u32),
}

/// Reads the header of `segment`: what its first record has to follow.
pub fn read_header(segment: &Segment, file: &File) -> io::Result<Result<Head, HeaderError>> {
    let mut bytes = [0; HEADER_LEN];
    let length = read_up_to(file, &mut bytes, 0)?;
    if length < HEADER_LEN || bytes == [0; HEADER_LEN] {
        return Ok(Err(HeaderError::Unfinished));
    }
    Ok(parse_header(&bytes, segment.first))
}

fn parse_header(bytes: &[u8; HEADER_LEN], first: u64) -> Result<Head, HeaderError> {
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes[..8] != MAGIC || number(52) != crc32fast::hash(&bytes[..52]) {
        return Err(HeaderError::Damaged);
    }
    if number(8) != FORMAT {
        return Err(HeaderError::Format(number(8)));
    }
    let named = u64::from(number(12)) | (u64::from(number(16)) << 32);
    if named != first || first == 0 {
        return Err(HeaderError::Damaged);
    }
    let mut hash: Hash = [0; HASH_LEN];
    hash.copy_from_slice(&bytes[20..52]);
    Ok(Head { sequence: first - 1, hash })
}

/// Appends the frame of the record that `payload` makes behind `head`, and moves `head` on to it. The caller has checked
/// the length against [`MAX_FRAME`].
pub fn write_frame(payload: &[u8], head: &mut Head, buffer: &mut Vec<u8>) {
    let start = buffer.len();
    let previous = head.hash;
    head.follow(payload);
    buffer.extend_from_slice(&[0; FRAME_HEAD]);
    // A `SealedRecord`, as its derived encoding would write it.
    encode_key(1, WireType::Varint, buffer);
    encode_varint(head.sequence, buffer);
    for (field, bytes) in [(2, &previous[..]), (3, &head.hash), (4, payload)] {
        if !bytes.is_empty() {
            encode_key(field, WireType::LengthDelimited, buffer);
            encode_varint(bytes.len() as u64, buffer);
            buffer.extend_from_slice(bytes);
        }
    }
    let body = &buffer[start + FRAME_HEAD..];
    let (length, crc) = (u32::try_from(body.len()).unwrap_or(u32::MAX), crc32fast::hash(body));
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 4..start + FRAME_HEAD].copy_from_slice(&crc.to_le_bytes());
}

/// What stands at a place in a segment.
#[derive(Debug)]
pub enum Frame {
    /// A whole record.
    Whole(SealedRecord),
    /// Nothing: the file ends here.
    End,
    /// The beginning of a frame, or room that was never filled.
    Unfinished,
    /// Something that was never written like this.
    Damaged,
}

/// Reads the frames of one segment in order.
#[derive(Debug)]
pub struct Frames {
    file: File,
    offset: u64,
    buffer: BytesMut,
}

impl Frames {
    /// The frames of `file` from `offset`, which must be where a frame begins.
    pub fn new(file: File, offset: u64) -> Self {
        Self { file, offset, buffer: BytesMut::new() }
    }

    /// Where the next frame begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next frame. Anything but a whole record leaves the place unchanged, so that one can look again later.
    pub fn next(&mut self) -> io::Result<Frame> {
        if !self.fill(FRAME_HEAD)? {
            return Ok(if self.buffer.is_empty() { Frame::End } else { self.forget(Frame::Unfinished) });
        }
        let mut head = &self.buffer[..FRAME_HEAD];
        let (length, crc) = (head.get_u32_le() as usize, head.get_u32_le());
        if length == 0 && crc == 0 {
            return Ok(self.forget(Frame::Unfinished));
        }
        if length == 0 || length > MAX_FRAME {
            return Ok(self.forget(Frame::Damaged));
        }
        if !self.fill(FRAME_HEAD + length)? {
            return Ok(self.forget(Frame::Unfinished));
        }
        let body = &self.buffer[FRAME_HEAD..FRAME_HEAD + length];
        if crc32fast::hash(body) != crc {
            return Ok(self.forget(Frame::Damaged));
        }
        let mut frame = self.buffer.split_to(FRAME_HEAD + length).freeze();
        frame.advance(FRAME_HEAD);
        match SealedRecord::decode(frame) {
            Ok(record) => {
                self.offset += (FRAME_HEAD + length) as u64;
                Ok(Frame::Whole(record))
            }
            Err(_) => Ok(self.forget(Frame::Damaged)),
        }
    }

    /// What is buffered may be a half of a write that goes on: read it anew the next time.
    fn forget(&mut self, frame: Frame) -> Frame {
        self.buffer.clear();
        frame
    }

    /// Has `wanted` bytes in the buffer, unless the file ends before.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.buffer.len() < wanted {
            let have = self.buffer.len();
            self.buffer.resize(have + (wanted - have).max(READ_CHUNK), 0);
            let read = self.file.read_at(&mut self.buffer[have..], self.offset + have as u64);
            self.buffer.truncate(have + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// The last sequence number behind `head` for which `tail` holds a whole frame. It tells a damaged record in front
/// of good ones from a write that was merely cut off.
pub fn last_later_frame(tail: &[u8], head: &Head) -> Option<u64> {
    let mut found = None;
    let mut at = 0;
    while let Some(rest) = tail.get(at..).filter(|rest| rest.len() > FRAME_HEAD) {
        match later_frame(rest, head) {
            Some((sequence, length)) => {
                found = found.max(Some(sequence));
                at += length;
            }
            None => at += 1,
        }
    }
    found
}

/// The sequence number and length of the frame at the start of `bytes`, if there is a whole one behind `head`.
fn later_frame(bytes: &[u8], head: &Head) -> Option<(u64, usize)> {
    const SEQUENCE_TAG: u8 = 0x08;
    let mut start = bytes.get(..FRAME_HEAD)?;
    let (length, crc) = (start.get_u32_le() as usize, start.get_u32_le());
    if length == 0 || length > MAX_FRAME {
        return None;
    }
    let body = bytes.get(FRAME_HEAD..FRAME_HEAD + length)?;
    if body[0] != SEQUENCE_TAG || crc32fast::hash(body) != crc {
        return None;
    }
    let record = SealedRecord::decode(body).ok()?;
    (record.sequence > head.sequence).then_some((record.sequence, FRAME_HEAD + length))
}

/// Fills `buffer` from `offset` as far as the file goes.
pub fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segment_names_are_segments() {
        assert_eq!(first_of("journal-00000000000000000007.seg"), Some(7));
        for other in [
            "journal-7.seg",
            "journal-00000000000000000000.seg",
            "journal-0000000000000000000x.seg",
            "journal-+0000000000000000007.seg",
            "journal-99999999999999999999.seg",
            "journal-00000000000000000007.seg.tmp",
            "lock",
        ] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_with_any_flipped_bit_is_refused() {
        let head = Head { sequence: 41, hash: [7; HASH_LEN] };
        let good = header(&head);
        assert_eq!(parse_header(&good, 42), Ok(head));
        assert_eq!(parse_header(&good, 43), Err(HeaderError::Damaged));
        for at in 0..HEADER_LEN * 8 {
            let mut bad = good;
            bad[at / 8] ^= 1 << (at % 8);
            assert!(parse_header(&bad, 42).is_err(), "bit {at}");
        }
    }
}
