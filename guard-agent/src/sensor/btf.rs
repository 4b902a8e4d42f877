//! Reads offsets of structure members and the numbers of functions from the kernel's BTF. Bounded: a broken file gives
//! nothing, no panic.

use std::{collections::HashMap, sync::OnceLock};

use guard_common::kernel::layout::Layout;

/// Where the kernel has it.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const LIMIT: u64 = 64 * 1024 * 1024;
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNCTION: u32 = 12;
/// How deep anonymous structures nest.
const NESTING: usize = 8;

/// Why the layout of kernel structures is not known.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel was built without it.
    #[error("{VMLINUX} cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is not what it should be.
    #[error("{VMLINUX} is not BTF of a known form")]
    Format,
}

/// Functions whose calls can be refused.
const CHECKS: [&str; 2] = ["security_unix_stream_connect", "bpf_lsm_unix_stream_connect"];

/// What is taken from the running kernel, which stays the same while the agent runs.
#[derive(Clone, Copy, Debug)]
struct Known {
    layout: Layout,
    checks: [Option<u32>; CHECKS.len()],
}

static KNOWN: OnceLock<Known> = OnceLock::new();

/// The layout of this kernel's structures.
pub fn kernel_layout() -> Result<Layout, BtfError> {
    known().map(|known| known.layout)
}

/// The number of the kernel's function that asks whether a unix socket may be connected to.
pub fn unix_check() -> Option<u32> {
    known().ok()?.checks[0]
}

/// The number of the function that stands for eBPF among the kernel's security modules, for the same question.
pub fn unix_check_of_lsm() -> Option<u32> {
    known().ok()?.checks[1]
}

/// Millions of bytes are read once.
fn known() -> Result<Known, BtfError> {
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(VMLINUX)?, LIMIT), &mut bytes)?;
    let btf = Btf::parse(&bytes).ok_or(BtfError::Format)?;
    let layout = Layout::resolve(|structure, member| btf.offset_of(structure, member));
    Ok(*KNOWN.get_or_init(|| Known { layout, checks: CHECKS.map(|name| btf.function(name)) }))
}

struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Position of every type by its id; id 0 is void.
    positions: Vec<usize>,
    structures: HashMap<&'a [u8], u32>,
}

impl<'a> Btf<'a> {
    /// Header and type table as in the kernel's `include/uapi/linux/btf.h`.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let section = |at: usize| {
            let start = header.checked_add(word(bytes, at)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let mut btf = Self {
            types: section(8)?,
            strings: section(16)?,
            positions: vec![usize::MAX],
            structures: HashMap::new(),
        };
        btf.index()?;
        Some(btf)
    }

    fn index(&mut self) -> Option<()> {
        let mut at = 0;
        while at < self.types.len() {
            let info = word(self.types, at + 4)?;
            let count = (info & 0xffff) as usize;
            let kind = (info >> 24) & 0x1f;
            let extra = match kind {
                2 | 7..=12 | 16 | 18 => 0, // ptr, fwd, typedef, qualifiers, func, float, type tag
                1 | 14 | 17 => 4,          // int, var, decl tag
                3 => 12,                   // array
                KIND_STRUCT | KIND_UNION | 15 | 19 => count * 12, // also data section, enum64
                6 | 13 => count * 8,       // enum, function prototype
                _ => return None,
            };
            if kind == KIND_STRUCT {
                let id = u32::try_from(self.positions.len()).ok()?;
                let name = self.string(word(self.types, at)?)?;
                self.structures.entry(name).or_insert(id);
            }
            self.positions.push(at);
            at += 12 + extra;
        }
        Some(())
    }

    fn offset_of(&self, structure: &str, member: &str) -> Option<u32> {
        let id = *self.structures.get(structure.as_bytes())?;
        self.find(id, member.as_bytes(), NESTING)
    }

    /// The id of a function.
    fn function(&self, name: &str) -> Option<u32> {
        let is_it = |at: usize| {
            let kind = (word(self.types, at + 4)? >> 24) & 0x1f;
            (kind == KIND_FUNCTION && self.string(word(self.types, at)?)? == name.as_bytes()).then_some(())
        };
        let position = self.positions.iter().skip(1).position(|at| is_it(*at).is_some())?;
        u32::try_from(position + 1).ok()
    }

    /// Byte offset of a member, also inside of anonymous structures. Bit fields have none.
    fn find(&self, id: u32, member: &[u8], nesting: usize) -> Option<u32> {
        let at = *self.positions.get(id as usize)?;
        let info = word(self.types, at + 4)?;
        if nesting == 0 || !matches!((info >> 24) & 0x1f, KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let bit_fields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let entry = at + 12 + index * 12;
            let name = self.string(word(self.types, entry)?)?;
            let kind = word(self.types, entry + 4)?;
            let mut bits = word(self.types, entry + 8)?;
            if bit_fields {
                if bits >> 24 != 0 {
                    continue;
                }
                bits &= 0x00ff_ffff;
            }
            if name == member {
                return Some(bits / 8);
            }
            if name.is_empty()
                && let Some(inner) = self.find(kind, member, nesting - 1)
            {
                return Some(bits / 8 + inner);
            }
        }
        None
    }

    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(offset as usize..)?;
        rest.get(..rest.iter().position(|byte| *byte == 0)?)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::Btf;

    /// `struct task { int pid; struct { int a; long tgid; }; }` and `int tgid(..)` with hand-made tables.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0task\0pid\0a\0tgid\0";
        let mut types = Vec::new();
        let mut push = |words: &[u32]| types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        push(&[1, 1 << 24, 4, 32]); // 1: int
        push(&[0, (4 << 24) | 2, 16, 14, 1, 0, 16, 1, 64]); // 2: anonymous
        push(&[5, (4 << 24) | 2, 24, 10, 1, 0, 0, 2, 64]); // 3: task
        push(&[16, 12 << 24, 1]); // 4: tgid
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend(&types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn finds_members_in_anonymous_structures() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).expect("well-formed");
        assert_eq!(btf.offset_of("task", "pid"), Some(0));
        assert_eq!(btf.offset_of("task", "tgid"), Some(16));
        assert_eq!(btf.offset_of("task", "nothing"), None);
        assert_eq!(btf.offset_of("nothing", "pid"), None);
    }

    #[test]
    fn functions_are_found_by_their_names() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).expect("well-formed");
        assert_eq!(btf.function("tgid"), Some(4));
        assert_eq!(btf.function("task"), None, "a structure");
    }

    #[test]
    fn broken_files_do_not_panic() {
        let bytes = sample();
        for length in 0..bytes.len() {
            if let Some(btf) = Btf::parse(&bytes[..length]) {
                let _ = (btf.offset_of("task", "tgid"), btf.function("tgid"));
            }
        }
        for position in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[position] ^= 0xff;
            if let Some(btf) = Btf::parse(&broken) {
                let _ = btf.offset_of("task", "tgid");
            }
        }
    }
}
