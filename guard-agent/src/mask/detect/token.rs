//! Long words: keys of clouds and services by their prefixes, JSON web tokens, hashes of passwords, private keys, and
//! passwords in URLs.
//!
//! Words are found by blocks of eight bytes without a gap; prose has hardly any. In a word every place where a part
//! begins is compared with the known prefixes, by its first byte.

use guard_policy::vocabulary::DataKind;

use super::{
    Evidence,
    hits::Hits,
    password_hash, secret,
    sieve::Seen,
    words::{BLOCK, has_gap},
};

/// Shorter cells hold no token.
pub const SHORTEST: usize = 16;

/// Prefix, what may follow it, how much of it at least and at most.
struct Form {
    prefix: &'static [u8],
    kind: DataKind,
    body: Body,
    least: usize,
    most: usize,
}

#[derive(Clone, Copy)]
enum Body {
    /// A-Z, 0-9.
    Upper,
    /// Letters and digits.
    Word,
    /// Letters, digits, `-`, `_`.
    Url,
    /// And `.`, `+`, `/`, `=`.
    Wide,
    /// 0-9, a-f.
    Hex,
}

impl Body {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Word => byte.is_ascii_alphanumeric(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Self::Wide => {
                byte.is_ascii_alphanumeric()
                    || matches!(byte, b'-' | b'_' | b'.' | b'+' | b'/' | b'=' | b'~' | b'%')
            }
            Self::Hex => byte.is_ascii_hexdigit(),
        }
    }
}

const fn cloud(prefix: &'static str, body: Body, least: usize, most: usize) -> Form {
    Form { prefix: prefix.as_bytes(), kind: DataKind::CloudKey, body, least, most }
}

const fn access(prefix: &'static str, body: Body, least: usize, most: usize) -> Form {
    Form { prefix: prefix.as_bytes(), kind: DataKind::AccessToken, body, least, most }
}

/// What providers document of their keys, and what their scanning partners publish.
#[rustfmt::skip]
const FORMS: &[Form] = &[
    // Amazon: unique identifiers of access keys, temporary keys, roles' sessions.
    cloud("AKIA", Body::Upper, 16, 16), cloud("ASIA", Body::Upper, 16, 16), cloud("ABIA", Body::Upper, 16, 16),
    cloud("ACCA", Body::Upper, 16, 16), cloud("A3T", Body::Upper, 17, 17), cloud("ABSK", Body::Wide, 60, 400),
    // Google.
    cloud("AIza", Body::Url, 35, 35), cloud("ya29.", Body::Wide, 20, 2048), cloud("GOCSPX-", Body::Url, 20, 40),
    cloud("1//0", Body::Url, 30, 400),
    // Azure, DigitalOcean, Alibaba, Tencent, Yandex, IBM, Oracle, Cloudflare, Heroku, Fly, Vultr, Scaleway.
    cloud("dop_v1_", Body::Hex, 64, 64), cloud("doo_v1_", Body::Hex, 64, 64), cloud("dor_v1_", Body::Hex, 64, 64),
    cloud("LTAI", Body::Word, 12, 26), cloud("AKID", Body::Word, 28, 40), cloud("AQVN", Body::Url, 35, 40), cloud("YCAJE", Body::Url, 20, 20),
    cloud("t1.9euel", Body::Url, 60, 400), cloud("HRKU-AA", Body::Url, 40, 80), cloud("fo1_", Body::Url, 43, 43), cloud("v1.0-", Body::Url, 100, 400),
    cloud("FlyV1 fm", Body::Wide, 40, 2048),
    // GitHub, GitLab, Bitbucket, npm, PyPI, crates.io, RubyGems, NuGet, Docker.
    access("ghp_", Body::Word, 36, 255), access("gho_", Body::Word, 36, 255), access("ghu_", Body::Word, 36, 255),
    access("ghs_", Body::Word, 36, 255), access("ghr_", Body::Word, 36, 255), access("github_pat_", Body::Url, 22, 255),
    access("glpat-", Body::Wide, 20, 400), access("gldt-", Body::Url, 20, 300), access("glrt-", Body::Wide, 20, 300),
    access("glptt-", Body::Hex, 40, 40), access("glcbt-", Body::Url, 20, 300), access("glsoat-", Body::Url, 20, 300),
    access("glft-", Body::Url, 20, 300), access("gloas-", Body::Hex, 64, 64), access("glagent-", Body::Url, 50, 300),
    access("ATBB", Body::Word, 32, 64), access("ATATT3x", Body::Wide, 60, 400), access("npm_", Body::Word, 36, 36),
    access("pypi-AgE", Body::Url, 50, 1000), access("cio", Body::Word, 32, 32), access("rubygems_", Body::Hex, 48, 48),
    access("oy2", Body::Word, 43, 43), access("dckr_pat_", Body::Url, 20, 60), access("dckr_oat_", Body::Url, 20, 60),
    // Slack, Discord, Telegram, Twilio, SendGrid, Mailgun, Mailchimp, Brevo, Postman.
    access("xoxb-", Body::Url, 20, 300), access("xoxp-", Body::Url, 20, 300), access("xoxa-", Body::Url, 20, 300),
    access("xoxr-", Body::Url, 20, 300), access("xoxs-", Body::Url, 20, 300), access("xoxe-", Body::Url, 20, 300),
    access("xoxe.xox", Body::Wide, 20, 400), access("xoxc-", Body::Url, 20, 300), access("xoxd-", Body::Wide, 20, 400), access("xapp-", Body::Url, 20, 300),
    access("SG.", Body::Wide, 50, 100), access("SK", Body::Hex, 32, 32), access("AC", Body::Hex, 32, 32), access("key-", Body::Hex, 32, 32),
    access("xkeysib-", Body::Url, 60, 120), access("PMAK-", Body::Url, 50, 70),
    // Stripe, Square, PayPal, Shopify, Adyen, Plaid, Razorpay.
    access("sk_live_", Body::Word, 16, 255), access("sk_test_", Body::Word, 16, 255), access("rk_live_", Body::Word, 16, 255),
    access("rk_test_", Body::Word, 16, 255), access("whsec_", Body::Wide, 24, 255), access("sq0atp-", Body::Url, 22, 22),
    access("sq0csp-", Body::Url, 43, 43), access("EAAA", Body::Url, 60, 64), access("shpat_", Body::Hex, 32, 32),
    access("shpca_", Body::Hex, 32, 32), access("shppa_", Body::Hex, 32, 32), access("shpss_", Body::Hex, 32, 32),
    access("AQE", Body::Wide, 80, 300), access("rzp_live_", Body::Word, 14, 14), access("rzp_test_", Body::Word, 14, 14),
    access("access_token$production$", Body::Word, 40, 80),
    // OpenAI, Anthropic, Hugging Face, Replicate, Groq, Perplexity, LangSmith, xAI.
    access("sk-ant-", Body::Url, 32, 255), access("sk-proj-", Body::Url, 32, 255), access("sk-svcacct-", Body::Url, 32, 255), access("sk-", Body::Word, 32, 64),
    access("hf_", Body::Word, 30, 60), access("r8_", Body::Word, 37, 37), access("gsk_", Body::Word, 48, 60), access("pplx-", Body::Word, 40, 60),
    access("lsv2_", Body::Url, 40, 80), access("xai-", Body::Word, 60, 100),
    // HashiCorp, Databricks, New Relic, Grafana, Sentry, Datadog, Linear, Notion, Airtable, Figma, Asana, PlanetScale,
    // Doppler, Pulumi, Vercel, Netlify, Supabase, Facebook, Okta, Atlassian, Dropbox, HubSpot.
    access("hvs.", Body::Wide, 24, 300), access("hvb.", Body::Wide, 24, 400), access("s.", Body::Word, 24, 24), access("dapi", Body::Hex, 32, 40),
    access("NRAK-", Body::Upper, 27, 27), access("NRJS-", Body::Hex, 19, 19), access("glsa_", Body::Url, 40, 48), access("glc_", Body::Wide, 32, 400),
    access("sntrys_", Body::Wide, 60, 400), access("sntryu_", Body::Hex, 64, 64), access("lin_api_", Body::Word, 32, 48), access("lin_oauth_", Body::Hex, 64, 64),
    access("ntn_", Body::Word, 40, 60), access("secret_", Body::Word, 43, 43), access("figd_", Body::Url, 40, 50), access("pscale_tkn_", Body::Url, 32, 64),
    access("pscale_pw_", Body::Url, 32, 64), access("pscale_oauth_", Body::Url, 32, 64), access("dp.pt.", Body::Word, 40, 44), access("dp.st.", Body::Wide, 40, 60),
    access("pul-", Body::Hex, 40, 40), access("nfp_", Body::Word, 36, 40), access("sbp_", Body::Hex, 40, 40), access("EAACEdEose0cBA", Body::Word, 20, 255),
    access("EAAG", Body::Word, 100, 255), access("sl.", Body::Url, 130, 200), access("pat-na1-", Body::Url, 36, 36), access("pat-eu1-", Body::Url, 36, 36),
    access("ey_", Body::Url, 40, 100), access("tskey-", Body::Url, 20, 80), access("rdme_", Body::Word, 70, 70), access("ops_eyJ", Body::Wide, 250, 1000),
    access("phc_", Body::Word, 40, 50), access("phx_", Body::Word, 40, 50), access("shippo_live_", Body::Hex, 40, 40), access("duffel_live_", Body::Url, 43, 43),
    access("EZAK", Body::Word, 54, 54), access("CFPAT-", Body::Url, 43, 43), access("apify_api_", Body::Word, 30, 40), access("bkua_", Body::Hex, 40, 40),
];

/// Finds tokens.
pub fn scan(cell: &[u8], seen: Seen, hits: &mut Hits) {
    if seen.dashes >= 4 {
        secret::scan_blocks(cell, hits);
    }
    let mut from = 0;
    // In a word of SHORTEST bytes one of the blocks has no gap.
    for (index, block) in cell.as_chunks::<BLOCK>().0.iter().enumerate() {
        let at = index * BLOCK;
        if has_gap(*block) || at < from || !block.iter().all(|&byte| is_part(byte)) {
            continue;
        }
        let start = at - cell[from..at].iter().rev().take_while(|&&byte| is_part(byte)).count();
        let end = at + cell[at..].iter().take_while(|&&byte| is_part(byte)).count();
        if end - start >= SHORTEST {
            word(cell, start, end, seen, hits);
        }
        from = end;
    }
}

/// Bytes that tokens, hashes and URLs are made of.
fn is_part(byte: u8) -> bool {
    const PARTS: [bool; 256] = {
        let mut parts = [false; 256];
        let mut at = b'!' as usize;
        while at < 0x7F {
            parts[at] = !matches!(
                at as u8,
                b'"' | b'\'' | b'<' | b'>' | b'(' | b')' | b'\\' | b';' | b'`' | b'[' | b']'
            );
            at += 1;
        }
        parts
    };
    PARTS[usize::from(byte)]
}

/// Looks at every place in a word where a part begins.
fn word(cell: &[u8], start: usize, end: usize, seen: Seen, hits: &mut Hits) {
    let text = &cell[start..end];
    if seen.has_sign() {
        secret::scan_url(cell, start, end, hits);
    }
    if let Some(len) = secret::bearer(text, &cell[..start]) {
        let jwt = text.starts_with(b"eyJ");
        if !jwt {
            hits.push(DataKind::AccessToken, start..start + len, Evidence::Context);
        }
    }
    let mut at = 0;
    let mut runs = Runs::default();
    while at + SHORTEST <= text.len() {
        let begins = at == 0 || !text[at - 1].is_ascii_alphanumeric() && !matches!(text[at - 1], b'_' | b'-');
        if !begins || !starts(text[at], text[at + 1]) {
            at += 1;
            continue;
        }
        match one(text, at, &mut runs) {
            Some((kind, evidence, len)) => {
                hits.push(kind, start + at..start + at + len, evidence);
                at += len.max(1);
            }
            None => at += 1,
        }
    }
}

/// No form.
const NONE: u8 = u8::MAX;

/// By the first byte of its prefix the first form, and for each form the next one with the same first byte.
static BY_FIRST: ([u8; 256], [u8; FORMS.len()]) = {
    let (mut first, mut next) = ([NONE; 256], [NONE; FORMS.len()]);
    let mut at = FORMS.len();
    while at > 0 {
        at -= 1;
        let byte = FORMS[at].prefix[0] as usize;
        next[at] = first[byte];
        first[byte] = at as u8;
    }
    (first, next)
};
const _: () = assert!(FORMS.len() < NONE as usize);

/// First two bytes of everything that is known, one bit each.
static STARTS: [u64; 1024] = {
    let mut bits = [0u64; 1024];
    let mut at = 0;
    while at < FORMS.len() {
        bits = with(bits, FORMS[at].prefix[0], FORMS[at].prefix[1]);
        at += 1;
    }
    // JSON web tokens, hashes of passwords, age.
    let other = b"eymdSCpbPBscbcarsh0xAG";
    let mut at = 0;
    while at < other.len() {
        bits = with(bits, other[at], other[at + 1]);
        at += 2;
    }
    let mut second = b'0';
    while second <= b'z' {
        bits = with(bits, b'$', second);
        bits = with(bits, b'{', second);
        bits = with(bits, b'*', second);
        second += 1;
    }
    bits
};

const fn with(mut bits: [u64; 1024], first: u8, second: u8) -> [u64; 1024] {
    let at = first as usize * 256 + second as usize;
    bits[at / 64] |= 1 << (at % 64);
    bits
}

fn starts(first: u8, second: u8) -> bool {
    let at = usize::from(first) * 256 + usize::from(second);
    STARTS[at / 64] >> (at % 64) & 1 == 1
}

/// The stretch of bytes of each class that was looked at last: keys that start in one stretch end together, so that it is
/// read once.
#[derive(Default)]
struct Runs([(usize, usize); 5]);

impl Runs {
    /// How many bytes from `at` on are of a class.
    fn len(&mut self, word: &[u8], at: usize, body: Body) -> usize {
        let (start, end) = self.0[body as usize];
        if (start..end).contains(&at) {
            return end - at;
        }
        let bytes = word[at..].iter().enumerate();
        let len = bytes.take_while(|&(from, &byte)| at + from != start && body.has(byte)).count();
        // It goes on into the one that is known.
        let end = if at + len == start && start < end { end } else { at + len };
        self.0[body as usize] = (at, end);
        end - at
    }
}

/// What starts at `at` in a word.
fn one(word: &[u8], at: usize, runs: &mut Runs) -> Option<(DataKind, Evidence, usize)> {
    let text = &word[at..];
    if text.starts_with(b"eyJ") {
        return secret::jwt(text).map(|len| (DataKind::Jwt, Evidence::Decoded, len));
    }
    if let Some(len) = password_hash::at(text) {
        return Some((DataKind::PasswordHash, Evidence::Format, len));
    }
    if text.starts_with(b"AGE-SECRET-KEY-1") {
        let len = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
        return (len >= 70).then_some((DataKind::PrivateKey, Evidence::Format, len));
    }
    let mut at_form = BY_FIRST.0[usize::from(*text.first()?)];
    while let Some(form) = FORMS.get(usize::from(at_form)) {
        at_form = BY_FIRST.1[usize::from(at_form)];
        let Some(body) = text.strip_prefix(form.prefix) else { continue };
        let len = runs.len(word, at + form.prefix.len(), form.body);
        if (form.least..=form.most).contains(&len) && is_random(&body[..len]) {
            return Some((form.kind, Evidence::Format, form.prefix.len() + len));
        }
    }
    None
}

/// Not `xxxxxxxx`, not a sentence in snake case: more than a few different characters, and digits or both cases.
fn is_random(body: &[u8]) -> bool {
    let mut seen = [false; 256];
    for &byte in body {
        seen[usize::from(byte)] = true;
    }
    let count = |range: std::ops::RangeInclusive<u8>| range.filter(|&byte| seen[usize::from(byte)]).count();
    let (digits, upper, lower) = (count(b'0'..=b'9'), count(b'A'..=b'Z'), count(b'a'..=b'z'));
    digits + upper + lower >= 6 && (digits > 0 || upper > 0 && lower > 0 || upper >= 8)
}

/// One token of each form, of as few bytes as it may have, made of letters that `letter` chooses from those it may have.
#[cfg(test)]
pub fn examples(mut letter: impl FnMut(&[u8]) -> u8) -> Vec<Vec<u8>> {
    let all: Vec<u8> = (0..0x7F).collect();
    let made = FORMS.iter().map(|form| {
        let may: Vec<u8> = all.iter().copied().filter(|&byte| form.body.has(byte)).collect();
        let body = (0..form.least).map(|_| letter(&may));
        form.prefix.iter().copied().chain(body).collect()
    });
    made.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_as_long_as_if_each_were_read_alone() {
        let word = b"ab.cd-12_ef:gh..ij=kl%mn--op/qr";
        for order in [[0, 9, 3, 12, 7], [20, 2, 18, 5, 21], [4, 4, 30, 29, 1]] {
            let mut runs = Runs::default();
            for at in order {
                // No prefix is shorter than two bytes.
                let at = at.max(2);
                for body in [Body::Upper, Body::Word, Body::Url, Body::Wide, Body::Hex] {
                    let alone = word[at..].iter().take_while(|&&byte| body.has(byte)).count();
                    assert_eq!(runs.len(word, at, body), alone, "{at}");
                }
            }
        }
    }
}
