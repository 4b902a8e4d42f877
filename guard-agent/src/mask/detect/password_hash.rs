//! Hashes of passwords in the forms in which programs store them: the text of a word enters, the length of the hash
//! leaves. A bare hexadecimal digest is none: it may be of anything.

/// How long the hash is that a word starts with.
pub fn at(text: &[u8]) -> Option<usize> {
    match text {
        [b'$', ..] => modular(text),
        [b'{', ..] => ldap(text),
        [b'*', body @ ..] => {
            // MySQL, mysql_native_password.
            let len =
                body.iter().take_while(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(byte)).count();
            (len == 40 && ends(text, 41)).then_some(41)
        }
        [b'm', b'd', b'5', body @ ..] if body.first().is_some_and(u8::is_ascii_hexdigit) => {
            // PostgreSQL.
            let len = body.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            (len == 32 && ends(text, 35)).then_some(35)
        }
        [b'S', b'C', b'R', b'A', b'M', b'-', b'S', b'H', b'A', b'-', ..] => scram(text),
        [b'0', b'x', b'0', b'1' | b'2', b'0', b'0', body @ ..] => {
            // SQL Server: a version, a salt, a digest.
            let len = body.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            matches!(len, 48 | 88 | 136).then_some(6 + len)
        }
        _ => framework(text),
    }
}

/// A word ends here.
fn ends(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

/// The length of what a modular hash consists of.
fn span(text: &[u8]) -> usize {
    let part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"$./+=-_,*:".contains(byte);
    let mut len = text.iter().take(512).take_while(part).count();
    while len > 0 && matches!(text[len - 1], b',' | b':') {
        len -= 1;
    }
    len
}

/// `$2b$`, `$6$`, `$argon2id$` and their relatives: crypt(5), PHC strings.
fn modular(text: &[u8]) -> Option<usize> {
    let close = text.iter().skip(1).take(24).position(|&byte| byte == b'$')? + 1;
    let scheme = &text[1..close];
    if scheme.is_empty() {
        return None;
    }
    let least = match scheme {
        b"2a" | b"2b" | b"2x" | b"2y" | b"2" => {
            // Exactly: a cost, 22 characters of salt, 31 of digest.
            let body = &text[close + 1..];
            let hash = body.len() >= 56 && body[2] == b'$' && body[..2].iter().all(u8::is_ascii_digit);
            return hash.then_some(close + 57);
        }
        b"1" | b"apr1" | b"H" | b"P" | b"8" | b"9" | b"14" => 22,
        b"5" | b"md5" | b"sha1" | b"3" => 30,
        b"6" | b"S" | b"y" | b"gy" | b"7" | b"s0" | b"s1" | b"sm3" | b"A" => 40,
        b"argon2i" | b"argon2d" | b"argon2id" | b"scrypt" | b"yescrypt" | b"balloon" | b"ml" => 30,
        _ if scheme.starts_with(b"pbkdf2")
            || scheme.starts_with(b"bcrypt")
            || scheme.starts_with(b"pbkdf") =>
        {
            30
        }
        _ => return None,
    };
    let len = span(text);
    (len >= close + 1 + least).then_some(len)
}

/// `{SSHA}`, `{CRYPT}`, `{bcrypt}`: RFC 2307, Dovecot, Spring.
fn ldap(text: &[u8]) -> Option<usize> {
    const SCHEMES: &[&[u8]] = &[
        b"ssha",
        b"sha",
        b"smd5",
        b"md5",
        b"crypt",
        b"ssha256",
        b"ssha384",
        b"ssha512",
        b"sha256",
        b"sha384",
        b"sha512",
        b"sha-256",
        b"sha-512",
        b"pbkdf2",
        b"pbkdf2-sha1",
        b"pbkdf2-sha256",
        b"pbkdf2-sha512",
        b"pbkdf2_sha256",
        b"bcrypt",
        b"blf-crypt",
        b"argon2",
        b"argon2i",
        b"argon2id",
        b"scrypt",
        b"sha512-crypt",
        b"sha256-crypt",
        b"md5-crypt",
        b"cram-md5",
        b"scram-sha-1",
        b"scram-sha-256",
        b"x-issha",
        b"noop",
        b"ldap",
        b"plain",
        b"cleartext",
    ];
    let close = text.iter().take(24).position(|&byte| byte == b'}')?;
    let lower: smallvec::SmallVec<[u8; 24]> = text[1..close].iter().map(u8::to_ascii_lowercase).collect();
    if !SCHEMES.contains(&&lower[..]) {
        return None;
    }
    let clear = matches!(&lower[..], b"noop" | b"plain" | b"cleartext");
    let body = &text[close + 1..];
    let len = body
        .iter()
        .take(512)
        .take_while(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b';'))
        .count();
    (len >= if clear { 4 } else { 20 }).then_some(close + 1 + len)
}

/// `SCRAM-SHA-256$4096:salt$stored:server`
fn scram(text: &[u8]) -> Option<usize> {
    let dollar = text.iter().take(16).position(|&byte| byte == b'$')?;
    let len = span(text);
    let body = &text[dollar..len.max(dollar)];
    (body.len() >= 60 && body.iter().filter(|&&byte| byte == b'$').count() == 2).then_some(len)
}

/// `pbkdf2_sha256$..`, `scrypt:32768:8:1$..`, `sha1$salt$..`: Django, Werkzeug and others.
fn framework(text: &[u8]) -> Option<usize> {
    const SCHEMES: &[&[u8]] = &[
        b"pbkdf2_sha256$",
        b"pbkdf2_sha1$",
        b"pbkdf2_sha512$",
        b"pbkdf2:sha1",
        b"pbkdf2:sha256",
        b"pbkdf2:sha512",
        b"scrypt:",
        b"scrypt$",
        b"bcrypt$",
        b"bcrypt_sha256$",
        b"argon2$argon2",
        b"sha1$",
        b"sha256$",
        b"sha512$",
        b"md5$",
        b"pbkdf2$",
        b"sha512:",
        b"sha256:",
        b"sha1:64000:",
        b"PBKDF2$",
        b"PBKDF2WithHmac",
    ];
    if !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
        return None;
    }
    let len = span(text);
    let word = &text[..len];
    let marks = word.iter().filter(|byte| matches!(byte, b'$' | b':')).count();
    // A digest of known content is `sha256:` and hexadecimal digits alone.
    let digest = marks == 1 && word.iter().rev().take(32).all(u8::is_ascii_hexdigit);
    (len >= 40 && marks >= 2 && !digest).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_programs_are_known() {
        for hash in [
            "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW",
            "$2y$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
            "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
            "$1$O3JMY.Tw$AdLnLjQ/5jXF9.MTp3gHv/",
            "$5$MnfsQ4iN$ZMTppKN16y/tIsUYs/obHlhdP.Os80yXhTurpBMUbA5",
            "$6$rounds=5000$usesomesillystri$D4IrlXatmP7rx3P3InaxBeoomnAihCKRVQAr/36eUUmnO1lpG6IPfVCPFzPFkzQhz1ldmzhnnDmgkqGFpJqWA1",
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
            "$apr1$TqI9WECO$LHZB2DqRlk9nObiB6vJG9.",
            "$P$B5ZaqOnWrhGXFWW6X8h3Wl0DLn2OQ1.",
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "md5a6343a68d964ca596d9752250d54bb8a",
            "*6BB4837EB74329105EE4568DDA7DC67ED2CA2AD9",
            "{SSHA}0c0blFTXXNuAMHECS4uxrj3ZieMoWImr",
            "pbkdf2_sha256$260000$aBcDeFgHiJkLmNoP$QmFzZTY0RW5jb2RlZEhhc2hWYWx1ZUhlcmU=",
            "scrypt:32768:8:1$saltsalt$d9c1c0c0f5a8c2b0e4b4c1f3a1d2e3f4",
            "sha1$a1976$a36cc8cbf81742a8fb52e221aaeab48ed7f58ab4",
        ] {
            assert_eq!(at(hash.as_bytes()), Some(hash.len()), "{hash}");
        }
    }

    #[test]
    fn digests_and_variables_are_none() {
        for other in [
            "d41d8cd98f00b204e9800998ecf8427e",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "$1,000.00-$2,000.00",
            "$HOME/bin/something/long",
            "{id}/{name}/and-more-of-it",
            "md5sum-of-the-file-is-long",
            "*NOTE*-this-is-a-long-word",
        ] {
            assert_eq!(at(other.as_bytes()), None, "{other}");
        }
    }
}
