//! What a process runs: its program file and its arguments.

use guard_common::kernel::process::{COMM_LEN, ExecEvent};

/// A program image, shared by a process and its children until they exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Path of the program file; empty where it is not known.
    pub executable: String,
    /// Arguments; bytes that are not UTF-8 are replaced.
    pub argv: Vec<String>,
    /// There were more arguments.
    pub argv_truncated: bool,
    /// The kernel's short name.
    pub comm: String,
    /// Inode number of the program file; 0 where it is not known.
    pub inode: u64,
}

impl Image {
    /// As the kernel captured it. Lengths are checked: they come from shared memory.
    pub fn from_event(event: &ExecEvent) -> Self {
        let path = event.path.get(..event.path_kept as usize).unwrap_or_default();
        let argv = event.argv.get(..event.argv_kept as usize).unwrap_or_default();
        Self {
            executable: joined(path, event.path_truncated != 0),
            argv: arguments(argv),
            argv_truncated: event.argv_bytes > event.argv_kept,
            comm: comm(&event.task.comm),
            inode: event.inode,
        }
    }
}

/// The path whose names are given from the last to the first, each ended by a zero byte.
fn joined(names: &[u8], truncated: bool) -> String {
    let mut path = if truncated { "/...".to_owned() } else { String::new() };
    for name in arguments(names).iter().rev().filter(|name| *name != "/") {
        path.push('/');
        path.push_str(name);
    }
    path
}

/// Splits the kernel's form of an argument vector, in which a zero byte ends every argument.
pub fn arguments(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// A `comm` without its padding.
pub fn comm(bytes: &[u8; COMM_LEN]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{arguments, comm, joined};

    #[test]
    fn keeps_empty_arguments() {
        assert_eq!(arguments(b"psql\0-c\0\0"), ["psql", "-c", ""]);
        assert_eq!(arguments(b""), Vec::<String>::new());
    }

    #[test]
    fn takes_a_cut_off_argument_as_it_is() {
        assert_eq!(arguments(b"psql\0host=exam"), ["psql", "host=exam"]);
    }

    #[test]
    fn replaces_bytes_that_are_not_text() {
        assert_eq!(arguments(b"a\xff\0"), ["a\u{fffd}"]);
    }

    #[test]
    fn joins_a_path_from_its_end() {
        assert_eq!(joined(b"psql\0bin\0usr\0", false), "/usr/bin/psql");
        assert_eq!(joined(b"psql\0bin\0", true), "/.../bin/psql");
        assert_eq!(joined(b"memfd:x\0", false), "/memfd:x");
        assert_eq!(joined(b"", false), "");
    }

    #[test]
    fn ends_comm_at_its_padding() {
        assert_eq!(comm(b"psql\0\0\0\0\0\0\0\0\0\0\0\0"), "psql");
        assert_eq!(comm(b"0123456789abcdef"), "0123456789abcdef");
    }
}
