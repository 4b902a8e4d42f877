//! Cuts a psql script into the messages that psql would send. psql's own commands are left out.
//!
//! Statements with psql variables are left out too: their text is not known here.

/// Where the scan stands.
#[derive(Debug, Default)]
struct Scan<'a> {
    rest: &'a str,
    text: String,
    depth: usize,
    variables: bool,
    statements: Vec<String>,
}

/// The statements of a script, without their final semicolon.
pub fn statements(script: &str) -> Vec<String> {
    let mut scan = Scan { rest: script, ..Scan::default() };
    while !scan.rest.is_empty() {
        scan.step();
    }
    scan.end();
    scan.statements
}

impl<'a> Scan<'a> {
    fn step(&mut self) {
        let rest = self.rest;
        let first = rest.chars().next().unwrap_or(' ');
        match first {
            _ if rest.starts_with("--") => self.take(rest.find('\n').unwrap_or(rest.len())),
            _ if rest.starts_with("/*") => self.take(comment(rest)),
            '\'' => {
                let escapes = self.text.ends_with(['E', 'e'])
                    && !self.text[..self.text.len() - 1].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                self.take(1 + closing(&rest[1..], '\'', escapes));
            }
            '"' => self.take(1 + closing(&rest[1..], '"', false)),
            '$' if !self.text.ends_with(|c: char| c.is_alphanumeric() || c == '_') => self.take(dollar(rest)),
            ':' if rest.starts_with("::") || rest.starts_with(":=") => self.take(2),
            ':' => {
                let next = rest[1..].chars().next().unwrap_or(' ');
                self.variables |= next.is_ascii_alphabetic() || next == '\'' || next == '"' || next == '{';
                self.take(1);
            }
            '(' | '[' => {
                self.depth += 1;
                self.take(1);
            }
            ')' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                self.take(1);
            }
            ';' if self.depth == 0 && !self.in_body() => {
                self.rest = &rest[1..];
                self.end();
            }
            '\\' if rest.starts_with("\\;") => {
                self.text.push(';');
                self.rest = &rest[2..];
            }
            '\\' => self.command(),
            _ => self.take(first.len_utf8()),
        }
    }

    fn take(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.text.push_str(taken);
        self.rest = rest;
    }

    /// Within `BEGIN ATOMIC .. END`, semicolons end nothing.
    fn in_body(&self) -> bool {
        let text = self.text.to_ascii_uppercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        let Some(begin) = words.windows(2).position(|pair| pair == ["BEGIN", "ATOMIC"]) else { return false };
        let count =
            |wanted: &str| words[begin..].iter().filter(|word| word.trim_matches(';') == wanted).count();
        count("BEGIN") + count("CASE") > count("END")
    }

    /// A command of psql: `\g` and its like send what stands before them.
    fn command(&mut self) {
        let line = self.rest.find('\n').unwrap_or(self.rest.len());
        let sends = self.rest.starts_with("\\g") || self.rest.starts_with("\\crosstabview");
        self.rest = &self.rest[line..];
        if sends {
            self.end();
        } else {
            self.text.clear();
            self.depth = 0;
        }
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text).trim().to_owned();
        let variables = std::mem::take(&mut self.variables);
        self.depth = 0;
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("copy") && lower.contains("from stdin") {
            // Its data follow.
            let data = self.rest.find("\n\\.").map_or(self.rest.len(), |at| at + 3);
            self.rest = &self.rest[data..];
        }
        if !text.is_empty() && !variables {
            self.statements.push(text);
        }
    }
}

fn closing(inside: &str, quote: char, backslashes: bool) -> usize {
    let mut characters = inside.char_indices();
    while let Some((at, c)) = characters.next() {
        if backslashes && c == '\\' {
            characters.next();
        } else if c == quote {
            return at + 1;
        }
    }
    inside.len()
}

fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

fn dollar(text: &str) -> usize {
    let Some(tag) = text[1..].find('$').map(|at| &text[..at + 2]) else { return 1 };
    let name = &tag[1..tag.len() - 1];
    let good = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !good {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_cut_as_psql_cuts_them() {
        let script = "SELECT 1; -- a; b\nSELECT ';' \\; SELECT 2;\n\\set x 1\nSELECT :x;\nSELECT 'a'::text \\gset\n\
                      COPY t FROM stdin;\n1;2\n\\.\nSELECT $a$;$a$, E'\\';';\n\
                      CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;\n\
                      CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);\nSELECT a[1:2]";
        let expected = [
            "SELECT 1",
            "-- a; b\nSELECT ';' ; SELECT 2",
            "SELECT 'a'::text",
            "COPY t FROM stdin",
            "SELECT $a$;$a$, E'\\';'",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
            "SELECT a[1:2]",
        ];
        assert_eq!(statements(script), expected);
    }
}
