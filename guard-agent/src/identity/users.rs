//! Names of users, from /etc/passwd alone: a name service over the network must not stop the sensor.

use std::{
    collections::HashMap,
    fs,
    io::Read,
    time::{Duration, Instant, SystemTime},
};

const FILE: &str = "/etc/passwd";
const LIMIT: u64 = 4 * 1024 * 1024;
/// How long a look at the file's time stamp is good for.
const FRESH: Duration = Duration::from_secs(5);

/// The users of this host.
#[derive(Debug, Default)]
pub struct Users {
    names: HashMap<u32, String>,
    modified: Option<SystemTime>,
    checked: Option<Instant>,
}

impl Users {
    /// The name of `uid`, or nothing.
    pub fn name(&mut self, uid: u32) -> String {
        self.refresh();
        self.names.get(&uid).cloned().unwrap_or_default()
    }

    fn refresh(&mut self) {
        if self.checked.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        self.checked = Some(Instant::now());
        let modified = fs::metadata(FILE).and_then(|metadata| metadata.modified()).ok();
        if modified == self.modified {
            return;
        }
        self.modified = modified;
        let mut text = String::new();
        if fs::File::open(FILE).and_then(|file| file.take(LIMIT).read_to_string(&mut text)).is_ok() {
            self.names = parse(&text);
        }
    }
}

/// The first name of every uid.
fn parse(text: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else { continue };
        if let Ok(uid) = uid.parse() {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{Users, parse};

    #[test]
    fn the_first_name_wins_and_bad_lines_are_skipped() {
        let names =
            parse("root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nx:y:z:0\na:x:7:7::/:/\n");
        assert_eq!(names[&0], "root");
        assert_eq!(names[&7], "a");
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn knows_root() {
        assert_eq!(Users::default().name(0), "root");
    }
}
