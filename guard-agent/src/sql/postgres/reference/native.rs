//! The door to libpg_query's C code: a text goes in, the serialised tree or the kind of error comes out.
//!
//! The library keeps its memory per thread and measures the stack that is left before it recurses; a tree too deep for
//! it is an error, not an overflow.

use std::ffi::{CStr, CString, c_char, c_int};

// The crate is linked for its C library alone.
use pg_query as _;

/// What came of a text.
pub enum Parsed {
    /// A serialised `ParseResult`.
    Tree(Vec<u8>),
    /// The scanner or the grammar refused it.
    SyntaxError,
    /// Any other error: too deep, out of memory, a NUL in the text.
    Silent,
}

/// `PG_QUERY_DISABLE_STANDARD_CONFORMING_STRINGS`.
const BACKSLASHES: c_int = 32;

/// `PG_QUERY_DISABLE_ESCAPE_STRING_WARNING`.
const QUIET: c_int = 64;

#[repr(C)]
struct Protobuf {
    len: usize,
    data: *mut c_char,
}

/// `PgQueryError`.
#[repr(C)]
struct Failure {
    message: *mut c_char,
    function: *mut c_char,
    file: *mut c_char,
    line: c_int,
    position: c_int,
    context: *mut c_char,
}

/// `PgQueryProtobufParseResult`.
#[repr(C)]
struct ParseResult {
    tree: Protobuf,
    stderr: *mut c_char,
    error: *mut Failure,
}

unsafe extern "C" {
    fn pg_query_parse_protobuf_opts(input: *const c_char, options: c_int) -> ParseResult;
    fn pg_query_free_protobuf_parse_result(result: ParseResult);
}

/// Parses `text` by PostgreSQL's grammar.
pub fn parse(text: &str, standard_strings: bool) -> Parsed {
    let Ok(input) = CString::new(text) else { return Parsed::Silent };
    let options = QUIET | if standard_strings { 0 } else { BACKSLASHES };
    // SAFETY: `input` is a valid C string for the whole call; the result is owned here until it is freed below.
    let result = unsafe { pg_query_parse_protobuf_opts(input.as_ptr(), options) };
    let parsed = if result.error.is_null() {
        tree(&result.tree)
    } else {
        // SAFETY: a non-null error points to a `PgQueryError` that lives until the result is freed.
        failure(unsafe { &*result.error })
    };
    // SAFETY: the result came from the library, is freed once, and nothing points into it any more.
    unsafe { pg_query_free_protobuf_parse_result(result) };
    parsed
}

fn tree(tree: &Protobuf) -> Parsed {
    if tree.data.is_null() {
        return Parsed::Tree(Vec::new());
    }
    // SAFETY: the library hands out `len` initialised bytes at `data`.
    let bytes = unsafe { std::slice::from_raw_parts(tree.data.cast::<u8>(), tree.len) };
    Parsed::Tree(bytes.to_vec())
}

fn failure(error: &Failure) -> Parsed {
    if error.function.is_null() {
        return Parsed::Silent;
    }
    // SAFETY: a non-null function name is a C string that lives as long as the error.
    match unsafe { CStr::from_ptr(error.function) }.to_bytes() {
        b"scanner_yyerror" => Parsed::SyntaxError,
        _ => Parsed::Silent,
    }
}
