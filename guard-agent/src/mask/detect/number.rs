//! Numbers in text: digits enter, each stretch of groups that is a card, an account, a person's number, a telephone
//! number, an address of a network or a day of birth becomes a hit.
//!
//! The longest stretch with the strongest evidence wins, from the left. Weak forms need a word before them or a column.

use guard_policy::vocabulary::DataKind;

use super::{
    Evidence, Hint, card, checksum,
    context::Context,
    dates,
    figure::{
        Figure, Group, LONGEST, Run,
        separator::{CLOSE, DASH, DOT, OPEN, PLUS, SLASH, SPACE},
    },
    hits::Hits,
    iban, ids, network, phone,
};

/// Groups of one number: an IBAN of 34 characters in fours has nine.
const MOST: usize = 9;

/// What a stretch is, with how sure that is: 0 is surest.
struct Found {
    kind: DataKind,
    evidence: Evidence,
    weakness: u8,
    start: usize,
    end: usize,
}

/// Finds numbers.
pub fn scan(cell: &[u8], hint: Hint, hits: &mut Hits) {
    let mut from = 0;
    while let Some(at) = cell[from..].iter().position(u8::is_ascii_digit) {
        let at = from + at;
        let run = Run::around(cell, at, from);
        let reader = Reader { cell, hint, run: &run, context: std::cell::OnceCell::new() };
        from = reader.read(hits).max(run.next).max(at + 1);
    }
}

/// Reads one run.
struct Reader<'a> {
    cell: &'a [u8],
    hint: Hint,
    run: &'a Run,
    context: std::cell::OnceCell<Context>,
}

impl Reader<'_> {
    /// Pushes what the run holds; returns where the last of it ends.
    fn read(&self, hits: &mut Hits) -> usize {
        let (mut start, mut end) = (0, 0);
        while start < self.run.starts {
            let Some(found) = self.best(start) else {
                start += 1;
                continue;
            };
            hits.push(found.kind, found.start..found.end, found.evidence);
            end = found.end;
            while start < self.run.groups.len() && self.run.groups[start].start < end {
                start += 1;
            }
        }
        end
    }

    /// The words before the run.
    fn context(&self) -> Context {
        *self.context.get_or_init(|| {
            let first = self.run.groups.iter().find(|group| group.digits > 0).map_or(0, |group| group.start);
            Context::before(self.cell, first)
        })
    }

    /// What the words before or the column say that the figure from group `start` is.
    fn expected(&self, start: usize) -> Option<(DataKind, Evidence)> {
        if start > 0 && self.run.groups[..start].iter().any(|group| group.digits > 0) {
            return self.hint.kind.map(|kind| (kind, Evidence::ColumnName));
        }
        let context = self.context().kind.map(|kind| (kind, Evidence::Context));
        context.or(self.hint.kind.map(|kind| (kind, Evidence::ColumnName)))
    }

    fn best(&self, start: usize) -> Option<Found> {
        let groups = &self.run.groups;
        let (mut text, mut digits) = ([0; LONGEST], [0; LONGEST]);
        let (mut len, mut count, mut between) = (0, 0, 0);
        let mut best: Option<Found> = None;
        if let Some(date) = self.birth(start) {
            return Some(date);
        }
        for end in start..groups.len().min(start + MOST) {
            let group = &groups[end];
            if len + group.len() > LONGEST {
                break;
            }
            if end > start {
                between |= group.before;
            }
            for &byte in &self.cell[group.start..group.end] {
                text[len] = byte.to_ascii_uppercase();
                len += 1;
                if byte.is_ascii_digit() {
                    digits[count] = byte - b'0';
                    count += 1;
                }
            }
            if count < 4 {
                continue;
            }
            let figure =
                Figure { cell: self.cell, groups: &groups[start..=end], text: &text[..len], between };
            let found = self.judge(&figure, &digits[..count], start, end);
            if let Some(found) = found
                && best.as_ref().is_none_or(|best| found.weakness <= best.weakness)
            {
                best = Some(found);
            }
        }
        best
    }

    /// What one stretch is.
    fn judge(&self, figure: &Figure<'_>, digits: &[u8], start: usize, end: usize) -> Option<Found> {
        if self.is_glued(start, end) {
            return None;
        }
        let only_digits = digits.len() == figure.text.len();
        let found = |kind, evidence, weakness| {
            Some(Found { kind, evidence, weakness, start: figure.start(), end: figure.end() })
        };
        if iban::is_iban(figure.text) && is_iban_grouped(figure) {
            return found(DataKind::Iban, Evidence::Checksum, 0);
        }
        if only_digits && card::LENGTHS.contains(&digits.len()) && card::is_grouped(figure) {
            let named = || self.expected(start).is_some_and(|(kind, _)| kind == DataKind::PaymentCard);
            let other = figure.is_plain() && (self.hint.numbers || self.other(start));
            // A day of birth inside and two checks are stronger than an old length of Visa.
            let amex = digits.len() == 15 && digits[0] == 3;
            let person = || !amex && ids::is_national(figure, Some(digits)).is_some();
            if !other && (card::is_card(digits, false) && !person() || named() && card::is_card(digits, true))
            {
                return found(DataKind::PaymentCard, Evidence::Luhn, 1);
            }
        }
        if let Some(octets) = only_digits.then(|| octets(figure)).flatten() {
            return self.address(figure, octets, start, end);
        }

        self.weaker(figure, digits, start, end)
    }

    /// National numbers and telephone numbers.
    fn weaker(&self, figure: &Figure<'_>, digits: &[u8], start: usize, end: usize) -> Option<Found> {
        let only_digits = digits.len() == figure.text.len();
        let found = |kind, evidence, weakness| {
            let (mut from, mut to) = (figure.start(), figure.end());
            if kind == DataKind::Phone {
                from = phone::sign(self.cell, figure);
                to = phone::extension(self.cell, to);
            }
            Some(Found { kind, evidence, weakness, start: from, end: to })
        };
        let expected = self.expected(start);
        // `SSN 123 ..`: the word before is not a part of it.
        let expected = expected.filter(|_| figure.groups[0].digits > 0);
        let speaks_of = |kind| expected.filter(|&(named, _)| named == kind).map(|(_, evidence)| evidence);
        let plus = figure.before() & PLUS != 0;
        let phone = only_digits.then(|| phone::is_phone(figure, digits)).flatten();
        if let Some(evidence) = speaks_of(DataKind::Phone)
            && only_digits
            && phone::is_plausible(figure, digits)
            && !is_dated(figure, digits)
        {
            let evidence = if phone.is_some() { Evidence::Format } else { evidence };
            return found(DataKind::Phone, evidence, 2);
        }
        let other = self.hint.numbers || self.other(start);
        if other && (figure.is_plain() || phone.is_none()) {
            return None;
        }
        if phone == Some(phone::Sure::International) && plus {
            return found(DataKind::Phone, Evidence::Format, 2);
        }
        // A number among other numbers is one of a list.
        let listed = self.is_listed(start, end);
        if !plus
            && !listed
            && let Some(shown) = ids::is_national(figure, only_digits.then_some(digits))
        {
            let evidence = if shown == ids::Shown::Checksum { Evidence::Checksum } else { Evidence::Format };
            return found(DataKind::NationalId, evidence, 2);
        }
        for kind in [DataKind::NationalId, DataKind::Document, DataKind::BankAccount, DataKind::Device] {
            if let Some(evidence) = speaks_of(kind)
                && ids::is_plausible(figure)
                && !is_dated(figure, digits)
            {
                return found(kind, evidence, 3);
            }
        }
        (phone.is_some() && !listed).then(|| found(DataKind::Phone, Evidence::Format, 3)).flatten()
    }

    fn address(&self, figure: &Figure<'_>, octets: [u32; 4], start: usize, end: usize) -> Option<Found> {
        let alone = start == 0 && end + 1 == self.run.groups.len() || !self.is_listed(start, end);
        let expected = self.expected(start).is_some_and(|(kind, _)| kind == DataKind::IpAddress);
        let version = self.hint.numbers || self.other(start) || self.cell[..figure.start()].ends_with(b"v");
        let good = alone && !version && network::is_ipv4(octets, expected);
        good.then(|| Found {
            kind: DataKind::IpAddress,
            evidence: Evidence::Format,
            weakness: 1,
            start: figure.start(),
            end: figure.end(),
        })
    }

    /// A day of birth at group `start`, where the words before or the column speak of birth.
    fn birth(&self, start: usize) -> Option<Found> {
        let group = &self.run.groups[start];
        let (kind, evidence) = if start == 0 { self.expected(0)? } else { return None };
        let end = (kind == DataKind::BirthDate).then(|| dates::date_at(self.cell, group.start)).flatten()?;
        Some(Found { kind, evidence, weakness: 0, start: group.start, end })
    }

    fn other(&self, start: usize) -> bool {
        start == 0 && self.context().other
    }

    /// Part of a longer word or of a longer tight chain: `ab-123-45-6789`.
    fn is_glued(&self, start: usize, end: usize) -> bool {
        let groups = &self.run.groups;
        let tight = |bits: u8| bits & (SPACE | SLASH | OPEN | CLOSE) == 0;
        let before = if start == 0 { self.run.glued_before } else { tight(groups[start].before) };
        let behind = match groups.get(end + 1) {
            None => self.run.glued_behind,
            Some(next) => tight(next.before),
        };
        before || behind
    }

    /// Next to further numbers with nothing but a space between.
    fn is_listed(&self, start: usize, end: usize) -> bool {
        let groups = &self.run.groups;
        let number = |group: &Group| group.digits >= 3 && group.digits == group.len();
        let before = start > 0 && number(&groups[start - 1]) && groups[start].before & (OPEN | PLUS) == 0;
        let behind = groups.get(end + 1).is_some_and(|next| number(next) && next.before & (OPEN | PLUS) == 0);
        before || behind
    }
}

/// Groups of four, the last one shorter, or one word.
fn is_iban_grouped(figure: &Figure<'_>) -> bool {
    let Some((last, groups)) = figure.groups.split_last() else { return false };
    figure.between & !(SPACE | DASH | DOT) == 0
        && (groups.is_empty()
            || last.len() <= 8 && groups.iter().all(|group| (2..=12).contains(&group.len())))
}

/// Four decimal groups with dots between them.
fn octets(figure: &Figure<'_>) -> Option<[u32; 4]> {
    if figure.groups.len() != 4 || figure.between != DOT || figure.before() & PLUS != 0 {
        return None;
    }
    let mut octets = [0; 4];
    for (octet, group) in octets.iter_mut().zip(figure.groups) {
        let text = &figure.cell[group.start..group.end];
        // 010 is no octet; versions and dates are written so.
        if text.len() > 3 || text.len() > 1 && text[0] == b'0' {
            return None;
        }
        let value = text.iter().fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
        if value > 255 {
            return None;
        }
        *octet = value;
    }
    Some(octets)
}

/// A date or a time stamp, which a column of numbers may have beside them.
fn is_dated(figure: &Figure<'_>, digits: &[u8]) -> bool {
    let date = !figure.is_plain()
        && dates::date_at(figure.cell, figure.start()).is_some_and(|end| end >= figure.end());
    date || digits.len() == 14 && digits.starts_with(&[2, 0]) && figure.is_plain()
}

/// What an integer is.
pub fn scan_integer(value: i64, hint: Hint) -> Option<DataKind> {
    let mut buffer = [0u8; 20];
    let mut at = buffer.len();
    let mut rest = u64::try_from(value).ok()?;
    while rest > 0 {
        at -= 1;
        buffer[at] = u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    let digits = &buffer[at..];
    let long = digits.len() >= 14 && !hint.numbers;
    match hint.kind {
        Some(DataKind::PaymentCard) if card::is_card(digits, true) => Some(DataKind::PaymentCard),
        Some(
            kind @ (DataKind::NationalId | DataKind::BankAccount | DataKind::Document | DataKind::Device),
        ) if digits.len() >= 6 => Some(kind),
        Some(DataKind::Phone) if (7..=15).contains(&digits.len()) => Some(DataKind::Phone),
        Some(DataKind::BirthDate)
            if digits.len() == 8 && (1880..=2100).contains(&checksum::number(&digits[..4])) =>
        {
            Some(DataKind::BirthDate)
        }
        _ => (long && card::is_card(digits, false)).then_some(DataKind::PaymentCard),
    }
}
