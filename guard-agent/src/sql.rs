//! Statement text enters, a [`Statement`] with its effects leaves.
//!
//! Reads towards the dangerous side: what cannot be read for certain is reported as what it could do. Never panics,
//! never recurses deeper than the caps allow, and keeps literals in [`Sent`] alone.

mod cache;
pub mod comment;
pub mod copy;
mod effects;
mod encoding;
mod large;
pub mod lineage;
mod postgres;
mod recent;
mod reconcile;
mod roles;
mod search_path;
mod sent;

use std::sync::Arc;

use guard_policy::vocabulary::{Action, Effect, Object, ObjectKind, Parse};
use sha2::{Digest, Sha256};

use cache::Cache;
pub use encoding::Encoding;
pub use large::LargeTexts;
use postgres::{Reading, Scratch};
use recent::Recent;
pub use roles::Roles;
pub use search_path::{Change, SearchPath};
pub use sent::{Parameter, Room, Sent, Touched};

/// A text without its literals and comments, as records have it: for texts that nobody decides on. What cannot be told for
/// certain is left out.
pub fn redacted(text: &str) -> String {
    let (limits, mut scratch) = (Limits::default(), Scratch::default());
    match scratch.lex(text, &Modes::default(), &limits) {
        Ok(()) if !scratch.is_ambiguous() => scratch.record_text(&limits),
        _ => format!("-- {} bytes", text.len()),
    }
}

/// What a statement string does: all of its parts together.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The text for records: literals and comments gone, lists of literals shortened, bounded length.
    pub text: String,
    /// The same for statements that differ only in literals, white space and comments: 16 hex digits.
    pub fingerprint: String,
    /// How well it was understood; the worst of its parts.
    pub parse: Parse,
    /// Number of statements in the string; 0 for an empty one.
    pub parts: u32,
    /// Sorted, without repeats. Empty only where there are no parts: what touches no object is a `select` on the
    /// session.
    pub effects: Vec<Effect>,
    /// Names that SQL-level PREPARE, EXECUTE and DEALLOCATE use.
    pub prepared: Vec<Prepared>,
    /// What it changes of the session that later statements are read by.
    pub changes: Vec<Change>,
    /// For reading it again: where its results come from. Nothing for what could not be read.
    pub origin: lineage::Origin,
    /// What it was sent with, where the record is to hold that.
    pub sent: Option<Box<Sent>>,
}

/// SQL-level handling of prepared statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// `PREPARE name AS ..`: the inner statement's effects are in the outer's effects.
    Prepare(String),
    /// `EXECUTE name`.
    Execute(String),
    /// `DEALLOCATE name`.
    Deallocate(String),
    /// `DEALLOCATE ALL`, `DISCARD ALL`.
    DeallocateAll,
}

/// Caps on what is read and kept. The defaults keep any statement within a stack of 32 MiB, in debug builds too.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longer texts are not read at all.
    pub max_statement_bytes: usize,
    /// Texts of more tokens are not read at all.
    pub max_tokens: usize,
    /// Deepest nesting of parentheses and comments; deeper is not read at all.
    pub max_depth: usize,
    /// A single statement of more tokens, lists of literals shortened, is classified by its tokens.
    pub max_parse_tokens: usize,
    /// Most statements kept.
    pub cache_entries: usize,
    /// Most bytes kept, roughly.
    pub cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_statement_bytes: 4 * 1024 * 1024,
            max_tokens: 1_000_000,
            max_depth: 96,
            max_parse_tokens: 4096,
            cache_entries: 4096,
            cache_bytes: 4 * 1024 * 1024,
        }
    }
}

/// What the session's settings say about how text is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Modes {
    /// Backslashes are ordinary in `'..'`.
    pub standard_conforming_strings: bool,
    /// How the client writes letters beyond ASCII.
    pub client_encoding: Encoding,
    /// The server keeps text as UTF8: names beyond ASCII are what they look like.
    pub server_utf8: bool,
    /// The server is PostgreSQL itself and not newer than the grammar at hand: what that one refuses, the server does.
    pub grammar_known: bool,
}

impl Default for Modes {
    fn default() -> Self {
        Self {
            standard_conforming_strings: true,
            client_encoding: Encoding::Utf8,
            server_utf8: true,
            grammar_known: true,
        }
    }
}

/// Reads statements for one session thread and remembers what it read.
#[derive(Debug)]
pub struct Classifier {
    limits: Limits,
    recent: Recent,
    cache: Cache,
    scratch: Scratch,
    key: String,
}

impl Classifier {
    /// With an empty cache.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            recent: Recent::new(if limits.cache_entries == 0 { 0 } else { limits.cache_bytes / 2 }),
            cache: Cache::new(limits.cache_entries, limits.cache_bytes),
            scratch: Scratch::default(),
            key: String::new(),
        }
    }

    /// What `text` does under the session's `modes`. Never fails: what can't be read is [`Parse::None`].
    pub fn classify(&mut self, text: &[u8], modes: &Modes) -> Arc<Statement> {
        if let Some(known) = self.recent.get(text, modes) {
            return known;
        }
        let statement = self.read(text, modes);
        self.recent.put(text, modes, &statement);
        statement
    }

    fn read(&mut self, text: &[u8], modes: &Modes) -> Arc<Statement> {
        let Self { limits, cache, scratch, key, .. } = self;
        let length = text.len();
        if length > limits.max_statement_bytes {
            return unreadable("longer than the cap", length);
        }
        let Some(text) = modes.client_encoding.decode(text) else {
            return unreadable("not valid in the client's encoding", length);
        };
        // Where letters are not certain, what the grammar refuses here may be valid there.
        let known = modes.grammar_known && (text.is_ascii() || modes.client_encoding.names_are_certain());
        let modes = &Modes { grammar_known: known, ..*modes };
        let lexed = scratch.lex(&text, modes, limits);
        if scratch.is_ambiguous() {
            return Arc::new(both_ways(&text, modes, limits));
        }
        match lexed {
            Err(error) if error.is_invalid() && refused_by_server(&text, modes) => {
                return refused(length);
            }
            Err(error) => return unreadable(&error.to_string(), length),
            Ok(()) => {}
        }
        scratch.spell(key);
        // Only what no two lexers read differently may share a reading with another text.
        let shared = scratch.is_plain();
        if shared && let Some(known) = cache.get(key) {
            return known;
        }
        let Both { found, certain, spelled } = both_grammars(scratch, &text, key, modes, limits);
        let mut statement = statement(found, key, scratch.record_text(limits));
        // The options of a COPY say how its data is to be taken apart, and comments what columns hold: they are literals.
        let tells = |action| matches!(action, Action::CopyOut | Action::Comment);
        let literal = statement.effects.iter().any(|effect| tells(effect.action));
        statement.origin = match spelled && !literal {
            true => lineage::Origin::new(key, true),
            false => lineage::Origin::new(&text, modes.standard_conforming_strings),
        };
        let statement = Arc::new(statement);
        if shared && certain && !literal {
            cache.insert(key, &statement);
        }
        const KEEP: usize = 256 * 1024;
        key.clear();
        key.shrink_to(KEEP);
        statement
    }
}

/// Texts of more tokens are not read by the server's grammar as they come, only with their lists shortened.
const MAX_RAW_TOKENS: usize = 16_384;

/// Our reading beside that of the server's grammar.
struct Both {
    /// What was found, and in how many statements.
    found: (effects::Findings, u32),
    /// It holds for every text of this spelling.
    certain: bool,
    /// The server's grammar reads the spelling as it does the text.
    spelled: bool,
}

fn both_grammars(scratch: &Scratch, text: &str, key: &str, modes: &Modes, limits: &Limits) -> Both {
    let (ours, parts) = scratch.read(limits);
    if parts == 0 {
        return Both { found: (ours, parts), certain: true, spelled: true };
    }
    let standard = modes.standard_conforming_strings;
    let mut theirs = Reading::Silent;
    if scratch.is_plain() && scratch.tokens() <= MAX_RAW_TOKENS {
        // The spelling has no backslash outside of `E'..'`.
        theirs = postgres::read_by_grammar(key, true);
    }
    let spelled = matches!(theirs, Reading::Read { .. });
    if !spelled && scratch.raw_tokens() <= MAX_RAW_TOKENS {
        theirs = postgres::read_by_grammar(text, standard);
    }
    if matches!(theirs, Reading::Refused) && ours.parse != Parse::Full && modes.grammar_known {
        return Both { found: (reconcile::refused(ours), parts), certain: false, spelled };
    }
    let certain = spelled || !matches!(theirs, Reading::Refused);
    let (mut found, parts) = reconcile::reconcile(ours, parts, theirs);
    for text in std::mem::take(&mut found.code) {
        run_by_function(&text, &mut found, modes, limits);
    }
    Both { found: (found, parts), certain, spelled }
}

/// Adds what a text does that a function is given to run. What is no statement may be another argument.
fn run_by_function(text: &str, found: &mut effects::Findings, modes: &Modes, limits: &Limits) {
    for standard in [true, false] {
        let modes = Modes { standard_conforming_strings: standard, ..*modes };
        let mut scratch = Scratch::default();
        if scratch.lex(text, &modes, limits).is_err() {
            continue;
        }
        let mut inner = scratch.read(limits).0;
        if let Reading::Read { findings, .. } = postgres::read_by_grammar(text, standard) {
            inner.merge(findings);
        }
        for effect in inner.into_effects() {
            if effect.action != Action::Unreadable {
                found.add_effect(effect);
            }
        }
        if !scratch.is_ambiguous() {
            break;
        }
    }
}

/// Whether the server's own scanner refuses a text that ours could not read.
fn refused_by_server(text: &str, modes: &Modes) -> bool {
    const MAX_TEXT: usize = 256 * 1024;
    let refused = |standard| matches!(postgres::read_by_grammar(text, standard), Reading::Refused);
    modes.grammar_known
        && text.len() <= MAX_TEXT
        && postgres::is_shallow(text)
        && refused(modes.standard_conforming_strings)
        && (!text.contains('\\') || refused(!modes.standard_conforming_strings))
}

fn statement((findings, parts): (effects::Findings, u32), key: &str, text: String) -> Statement {
    let parse = findings.parse;
    let (prepared, changes) = (findings.prepared.clone(), findings.changes.clone());
    Statement {
        text,
        fingerprint: fingerprint(key),
        parse,
        parts,
        effects: findings.into_effects(),
        prepared,
        changes,
        origin: lineage::Origin::default(),
        sent: None,
    }
}

/// Where a literal ends depends on a setting that this text may itself change: both readings count.
fn both_ways(text: &str, modes: &Modes, limits: &Limits) -> Statement {
    let mut findings = effects::Findings::default();
    let mut parts = 0;
    let (mut key, mut record) = (String::new(), None);
    let first = modes.standard_conforming_strings;
    let mut readings = Vec::new();
    for standard in [first, !first] {
        let modes = Modes { standard_conforming_strings: standard, ..*modes };
        let mut scratch = Scratch::default();
        if let Err(error) = scratch.lex(text, &modes, limits) {
            let in_force = standard == first;
            let all_letters_known = modes.client_encoding.names_are_certain() || text.is_ascii();
            if !in_force && error.is_invalid() && all_letters_known {
                // Such as 'C:\dir\': under the other setting the server would refuse it too.
                continue;
            }
            findings.add_any(Action::Unreadable, ObjectKind::Unknown);
            findings.at_best(Parse::None);
            continue;
        }
        readings.push(standard);
        let mut spelling = String::new();
        scratch.spell(&mut spelling);
        let Both { found: (found, count), .. } = both_grammars(&scratch, text, &spelling, &modes, limits);
        findings.merge(found);
        parts = parts.max(count);
        if record.is_none() {
            key = spelling;
            record = Some(scratch.record_text(limits));
        }
    }
    let mut statement =
        statement((findings, parts.max(1)), &key, record.unwrap_or_else(|| "-- unreadable".to_owned()));
    // Of two readings neither tells for certain where results come from.
    if readings == [first] && statement.parse != Parse::None {
        statement.origin = lineage::Origin::new(text, first);
    }
    statement
}

fn fingerprint(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    hex::encode(digest.get(..8).unwrap_or(&[]))
}

/// The server will say what is wrong with it, and run nothing of it.
fn refused(length: usize) -> Arc<Statement> {
    let reason = "not valid SQL";
    Arc::new(Statement {
        text: format!("-- {reason}, {length} bytes"),
        fingerprint: fingerprint(reason),
        parse: Parse::Tokens,
        parts: 1,
        effects: vec![Effect::new(Action::Select, Object::any(ObjectKind::Session))],
        prepared: Vec::new(),
        changes: Vec::new(),
        origin: lineage::Origin::default(),
        sent: None,
    })
}

fn unreadable(reason: &str, length: usize) -> Arc<Statement> {
    Arc::new(Statement {
        text: format!("-- unreadable, {length} bytes: {reason}"),
        fingerprint: fingerprint(reason),
        parse: Parse::None,
        parts: 1,
        effects: vec![Effect::new(Action::Unreadable, Object::any(ObjectKind::Unknown))],
        prepared: Vec::new(),
        changes: Vec::new(),
        origin: lineage::Origin::default(),
        sent: None,
    })
}

#[cfg(test)]
mod tests;
