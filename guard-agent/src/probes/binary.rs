//! Reads the ELF file of a server program: its build id, its version text, and where its symbols are.
//!
//! A path enters; numbers leave, for the symbols that were asked for alone. Both symbol tables are read: stripped
//! programs that load extensions still export what extensions use. A broken file is an error, never a panic.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use object::{
    Architecture, Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, ReadRef,
    read::elf::{ElfFile64, FileHeader},
};

/// Programs larger than this are not read: no server's comes near it.
const FILE_LIMIT: u64 = 512 * 1024 * 1024;
/// Of read-only data, this much is searched for the version.
const RODATA_LIMIT: u64 = 64 * 1024 * 1024;
/// Of each symbol table, this much: the largest server's has a tenth of it.
const SYMBOLS_LIMIT: u64 = 64 * 1024 * 1024;
/// A version text is no longer.
const VERSION_LIMIT: usize = 128;

const TABLES: [&str; 4] = [".dynsym", ".dynstr", ".symtab", ".strtab"];

/// Why a program file tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// It cannot be opened or read.
    #[error("{path} cannot be read: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is not what servers are: a 64-bit ELF program of this machine.
    #[error("{path} is not a 64-bit ELF program of this machine: {reason}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is larger than any server.
    #[error("{path} has {size} bytes: too large for a server program")]
    Large {
        /// Which file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
}

/// Names a file whatever its path: paths of containers are the same, and a package upgrade makes another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Device number.
    pub device: u64,
    /// Inode number on the device.
    pub inode: u64,
}

impl FileId {
    /// The file at `path`, such as `/proc/PID/exe`.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Where a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    address: u64,
    /// In the file; nothing for what has no bytes there, such as zeroed data.
    offset: Option<u64>,
}

/// What a program file tells.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Which file it was.
    pub file: FileId,
    /// The GNU build id in hexadecimal digits; empty where the linker left none.
    pub build_id: String,
    /// Address of its first instruction before relocation.
    pub entry: u64,
    symbols: HashMap<String, Place>,
    version: Option<String>,
}

impl Binary {
    /// Reads the program at `path`, looking for the symbols of these names, and in its read-only data for what follows
    /// `version_prefix` up to the end of its line.
    pub fn read(path: &Path, names: &[&str], version_prefix: &str) -> Result<Self, BinaryError> {
        let failed = |error| BinaryError::Read { path: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.len() > FILE_LIMIT {
            return Err(BinaryError::Large { path: path.to_owned(), size: metadata.len() });
        }
        let id = FileId { device: metadata.dev(), inode: metadata.ino() };
        let cache = ReadCache::new(file);
        parse(&cache, id, names, version_prefix)
            .map_err(|reason| BinaryError::Format { path: path.to_owned(), reason })
    }

    /// Offset in the file of the function of that name: what a uprobe attaches to.
    pub fn function(&self, name: &str) -> Option<u64> {
        self.symbols.get(name)?.offset
    }

    /// Address of a function or variable before relocation. The difference of two is the same in every process.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).map(|place| place.address)
    }

    /// What follows the version prefix.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }
}

fn parse<'a, R: ReadRef<'a>>(
    data: R,
    file: FileId,
    names: &[&str],
    version_prefix: &str,
) -> Result<Binary, String> {
    let broken = |error: object::Error| error.to_string();
    let elf: ElfFile64<'a, object::Endianness, R> = ElfFile64::parse(data).map_err(broken)?;
    // Another machine's program cannot run here; an emulator's probes would hit other code.
    let native = if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };
    let programs = [object::elf::ET_EXEC, object::elf::ET_DYN];
    if elf.architecture() != native || !programs.contains(&elf.elf_header().e_type(elf.endian())) {
        return Err("it is for another machine, or no program".to_owned());
    }
    let tables = elf.sections().filter(|section| section.name().is_ok_and(|name| TABLES.contains(&name)));
    if tables.map(|table| table.size()).any(|size| size > SYMBOLS_LIMIT) {
        return Err("its symbol tables are too large".to_owned());
    }
    let build_id = elf.build_id().map_err(broken)?.map(hex::encode).unwrap_or_default();
    let mut symbols = HashMap::new();
    // The full table last: it is the linker's, where the file has both.
    for symbol in elf.dynamic_symbols().chain(elf.symbols()) {
        let Ok(name) = symbol.name() else { continue };
        if symbol.is_undefined() || !names.contains(&name) {
            continue;
        }
        let address = symbol.address();
        symbols.insert(name.to_owned(), Place { address, offset: file_offset(&elf, address) });
    }
    let version = version_after(&elf, version_prefix.as_bytes());
    Ok(Binary { file, build_id, entry: elf.entry(), symbols, version })
}

fn file_offset<'a, R: ReadRef<'a>>(elf: &ElfFile64<'a, object::Endianness, R>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let into = address.checked_sub(segment.address())?;
        let (offset, size) = segment.file_range();
        (into < size).then(|| offset.checked_add(into))?
    })
}

fn version_after<'a, R: ReadRef<'a>>(
    elf: &ElfFile64<'a, object::Endianness, R>,
    prefix: &[u8],
) -> Option<String> {
    if prefix.is_empty() {
        return None;
    }
    let section = elf.section_by_name(".rodata").filter(|section| section.size() <= RODATA_LIMIT)?;
    let data = section.data().ok()?;
    // The prefix may stand elsewhere, too: a version begins with a digit and ends with its line or text.
    memchr::memmem::find_iter(data, prefix).find_map(|at| {
        let rest = data.get(at + prefix.len()..)?;
        let rest = rest.get(..rest.len().min(VERSION_LIMIT))?;
        let end = rest.iter().position(|byte| byte.is_ascii_control())?;
        let version = std::str::from_utf8(rest.get(..end)?).ok()?;
        version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Binary, BinaryError, FileId, parse};

    const PREFIX: &str = "a text that only this test's program has: ";

    /// Kept in the program's read-only data, with a line's end behind it.
    fn marked() -> String {
        std::hint::black_box("a text that only this test's program has: 15.20 (Debian)\n").to_owned()
    }

    #[unsafe(no_mangle)]
    extern "C" fn guard_binary_test_symbol() -> u32 {
        std::hint::black_box(7)
    }

    fn own() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn finds_symbols_and_the_version_of_a_program() {
        assert!(marked().starts_with(PREFIX));
        assert_eq!(guard_binary_test_symbol(), 7);
        let path = std::env::current_exe().unwrap();
        let name = "guard_binary_test_symbol";
        let binary = Binary::read(&path, &[name], PREFIX).expect("the test's own program");
        assert_eq!(binary.file, FileId::of(&path).unwrap());
        assert_eq!(binary.version(), Some("15.20 (Debian)"));
        let offset = usize::try_from(binary.function(name).expect("it is code")).unwrap();
        // The same bytes in the file as in memory: what the probe would be set on.
        let code = guard_binary_test_symbol as *const u8;
        // SAFETY: the first bytes of a function of this program.
        let running = unsafe { std::slice::from_raw_parts(code, 4) };
        assert_eq!(own().get(offset..offset + 4), Some(running));
        assert!(binary.function("main_that_nobody_has").is_none());
    }

    #[test]
    fn other_files_are_an_error() {
        assert!(matches!(Binary::read(Path::new("/etc/passwd"), &[], ""), Err(BinaryError::Format { .. })));
        assert!(matches!(Binary::read(Path::new("/nothing"), &[], ""), Err(BinaryError::Read { .. })));
    }

    #[test]
    fn broken_files_do_not_panic() {
        // A small program: each of thousands of broken copies is read.
        let whole = std::fs::read("/bin/true").unwrap();
        let file = FileId { device: 0, inode: 0 };
        for length in (0..4096).chain((4096..whole.len()).step_by(997)) {
            let _ = parse(&whole[..length], file, &["main"], PREFIX);
        }
        let mut broken = whole.clone();
        for position in 0..512 {
            for flip in [0xff, 0x80] {
                broken[position] ^= flip;
                let _ = parse(&broken[..], file, &["main"], PREFIX);
                broken[position] = whole[position];
            }
        }
    }
}
