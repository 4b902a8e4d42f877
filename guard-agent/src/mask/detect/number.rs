//! Numbers in text: digits enter, each stretch of groups that is a card, an account, a person's number, a telephone
//! number, an address of a network or a day of birth becomes a hit.
//!
//! The longest stretch with the strongest evidence wins, from the left. Weak forms need a word before them or a column.

use guard_policy::vocabulary::DataKind;

use super::{
    Evidence, Hint, card, checksum,
    context::{Context, WordMemory},
    dates,
    figure::{
        Figure, Group, LONGEST, Run, form_of,
        separator::{CLOSE, DASH, DOT, OPEN, PLUS, SLASH, SPACE},
    },
    hits::Hits,
    iban, ids, network, phone,
    words::next_digit,
};

/// Groups of one number: an IBAN of 34 characters in fours has nine.
const MOST: usize = 9;

/// Groups of one character that a figure has at most where no word says what it is: an address of a network has four.
const LONELY: usize = 4;

/// Fewer letters and digits are no number of anything but of a network.
const SHORTEST: usize = 5;

/// No reading of a stretch without a strong form is surer.
const STRONGEST_OF_WEAK: u8 = 2;

/// A stretch of groups.
#[derive(Clone, Copy, Default)]
struct Stretch {
    /// Letters and digits, and digits alone.
    len: u8,
    count: u8,
    between: u8,
    form: u64,
}

/// The stretches that start with one group; the texts of shorter ones start those of longer ones.
struct Stretches {
    text: [u8; LONGEST],
    digits: [u8; LONGEST],
    ends: [Stretch; MOST],
    count: usize,
}

/// Fewer are none where no word and no column says what they are.
const SHORTEST_UNNAMED: usize = 7;

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
    let words = std::cell::Cell::new(std::mem::take(&mut hits.words));
    let mut from = 0;
    while let Some(at) = next_digit(cell, from) {
        let run = Run::around(cell, at, from);
        let reader = Reader {
            cell,
            hint,
            run: &run,
            groups: &run.groups,
            context: std::cell::OnceCell::new(),
            words: &words,
        };
        from = reader.read(hits).max(run.next).max(at + 1);
    }
    hits.words = words.take();
}

/// Reads one run.
struct Reader<'a> {
    cell: &'a [u8],
    hint: Hint,
    run: &'a Run,
    /// Those of the run.
    groups: &'a [Group],
    context: std::cell::OnceCell<Context>,
    words: &'a std::cell::Cell<WordMemory>,
}

impl Reader<'_> {
    /// Pushes what the run holds; returns where the last of it ends.
    fn read(&self, hits: &mut Hits) -> usize {
        let (mut start, mut end) = (0, 0);
        while start < self.run.starts {
            let found = if self.is_vain(start) { None } else { self.best(start) };
            let Some(found) = found else {
                start += 1;
                continue;
            };
            hits.push(found.kind, found.start..found.end, found.evidence);
            end = found.end;
            while start < self.groups.len() && self.groups[start].start < end {
                start += 1;
            }
        }
        end
    }

    /// The words before the run.
    fn context(&self) -> Context {
        *self.context.get_or_init(|| {
            let first = self.groups.iter().find(|group| group.digits > 0).map_or(0, |group| group.start);
            let mut words = self.words.take();
            let context = Context::before(self.cell, first, &mut words);
            self.words.set(words);
            context
        })
    }

    /// What the words before or the column say that the figure from group `start` is.
    fn expected(&self, start: usize) -> Option<(DataKind, Evidence)> {
        if self.is_behind_digits(start) {
            return self.hint.kind.map(|kind| (kind, Evidence::ColumnName));
        }
        let context = self.context().kind.map(|kind| (kind, Evidence::Context));
        context.or(self.hint.kind.map(|kind| (kind, Evidence::ColumnName)))
    }

    /// Whether nothing can start with the group `start`: it is one of a list, and there are too few digits for a card.
    fn is_vain(&self, start: usize) -> bool {
        let Some(rest) = self.groups.get(start..) else { return true };
        self.hint.kind.is_none()
            && self.is_listed_behind(start)
            && self.cell[rest[0].start].is_ascii_digit()
            && rest.iter().take(MOST).map(|group| group.digits).sum::<usize>() < *card::LENGTHS.start()
    }

    /// What starts with the group `start`: the surest reading, of equally sure ones the longest.
    fn best(&self, start: usize) -> Option<Found> {
        if let Some(date) = self.birth(start) {
            return Some(date);
        }
        let stretches = self.stretches(start);
        let strong = self.strong(start, &stretches);
        // One of a list has no weak form.
        if strong.is_some() || self.hint.kind.is_none() && self.is_listed_behind(start) {
            return strong;
        }
        self.weak(start, &stretches)
    }

    /// All stretches that start with the group `start` and have enough digits.
    fn stretches(&self, start: usize) -> Stretches {
        let mut stretches = Stretches {
            text: [0; LONGEST],
            digits: [0; LONGEST],
            ends: [Stretch::default(); MOST],
            count: 0,
        };
        let (mut len, mut count, mut between) = (0, 0, 0);
        let (mut form, mut lonely) = (0, 0);
        for (at, group) in self.groups[start..].iter().take(MOST).enumerate() {
            if len + group.len() > LONGEST {
                break;
            }
            if at > 0 {
                between |= group.before;
            }
            // INVARIANT: at most MOST groups, of four bits each.
            form |= form_of(group.len()) << (4 * at);
            lonely += usize::from(group.len() == 1);
            if lonely > LONELY && self.expected(start).is_none() {
                break;
            }
            let text = &self.cell[group.start..group.end];
            let all_digits = group.digits == text.len();
            for (copy, byte) in stretches.text[len..].iter_mut().zip(text) {
                *copy = byte.to_ascii_uppercase();
            }
            for byte in text.iter().filter(|byte| all_digits || byte.is_ascii_digit()) {
                stretches.digits[count] = byte - b'0';
                count += 1;
            }
            len += text.len();
            // INVARIANT: both at most LONGEST.
            stretches.ends[at] = Stretch { len: len as u8, count: count as u8, between, form };
            stretches.count = at + 1;
        }
        stretches
    }

    /// The figure of a stretch, with its digits; none where it has too few, or is a part of something longer.
    fn figure<'f>(&'f self, start: usize, at: usize, of: &'f Stretches) -> Option<(Figure<'f>, &'f [u8])> {
        let Stretch { len, count, between, form } = of.ends[at];
        let (len, count) = (usize::from(len), usize::from(count));
        if count < 4 || self.is_glued(start, start + at) {
            return None;
        }
        let groups = &self.groups[start..=start + at];
        Some((Figure { cell: self.cell, groups, text: &of.text[..len], between, form }, &of.digits[..count]))
    }

    /// Accounts, cards and addresses of networks.
    fn strong(&self, start: usize, stretches: &Stretches) -> Option<Found> {
        let longest = stretches.ends[stretches.count.checked_sub(1)?];
        let letters = stretches.text[0].is_ascii_uppercase();
        if !letters && usize::from(longest.count) < *card::LENGTHS.start() && longest.between & DOT == 0 {
            return None;
        }
        let mut best: Option<Found> = None;
        for at in (0..stretches.count).rev() {
            let Some((figure, digits)) = self.figure(start, at, stretches) else { continue };
            let found = |kind, evidence, weakness| {
                Some(Found { kind, evidence, weakness, start: figure.start(), end: figure.end() })
            };
            if letters && iban::is_iban(figure.text) && is_iban_grouped(&figure) {
                return found(DataKind::Iban, Evidence::Checksum, 0);
            }
            if best.is_some() || digits.len() < figure.text.len() {
                continue;
            }
            if self.is_card(&figure, digits, start) {
                best = found(DataKind::PaymentCard, Evidence::Luhn, 1);
            } else if let Some(octets) = octets(&figure) {
                best = self.address(&figure, octets, start, start + at);
            }
            if best.is_some() && !letters {
                break;
            }
        }
        best
    }

    fn is_card(&self, figure: &Figure<'_>, digits: &[u8], start: usize) -> bool {
        if !card::LENGTHS.contains(&digits.len()) || !card::is_grouped(figure) {
            return false;
        }
        // Words are read last: that is what takes time.
        let other = || figure.is_plain() && (self.hint.numbers || self.other(start));
        if !checksum::luhn(digits) {
            return false;
        }
        // A day of birth inside and two checks are stronger than an old length of Visa.
        let amex = digits.len() == 15 && digits[0] == 3;
        let person = || !amex && ids::is_national(figure, Some(digits)).is_some();
        let named = || self.expected(start).is_some_and(|(kind, _)| kind == DataKind::PaymentCard);
        (card::is_card(digits, false) && !person() || card::is_card(digits, true) && named()) && !other()
    }

    /// What has no strong form.
    fn weak(&self, start: usize, stretches: &Stretches) -> Option<Found> {
        let mut best: Option<Found> = None;
        for at in (0..stretches.count).rev() {
            let Some((figure, digits)) = self.figure(start, at, stretches) else { continue };
            // What has the form of an address is one or none.
            if digits.len() == figure.text.len() && octets(&figure).is_some() {
                continue;
            }
            let Some(found) = self.weaker(&figure, digits, start, start + at) else { continue };
            if found.weakness <= STRONGEST_OF_WEAK {
                return Some(found);
            }
            best = best.or(Some(found));
        }
        best
    }

    /// National numbers and telephone numbers.
    fn weaker(&self, figure: &Figure<'_>, digits: &[u8], start: usize, end: usize) -> Option<Found> {
        if figure.text.len() < SHORTEST {
            return None;
        }
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
        let plus = figure.before() & PLUS != 0;
        // A number among other numbers is one of a list.
        let listed = self.is_listed(start, end);
        if expected.is_none() && (listed && !plus || figure.text.len() < SHORTEST_UNNAMED) {
            return None;
        }
        // `SSN 123 ..`: the word before is not a part of it.
        let expected = expected.filter(|_| figure.groups[0].digits > 0);
        let speaks_of = |kind| expected.filter(|&(named, _)| named == kind).map(|(_, evidence)| evidence);
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
        let alone = start == 0 && end + 1 == self.groups.len() || !self.is_listed(start, end);
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
        let group = &self.groups[start];
        // `DOB 01/02/1980`: the letters are a group of their own.
        if self.is_behind_digits(start) || self.says_nothing(start) {
            return None;
        }
        // Words are read last: that is what takes time.
        let end = dates::date_at(self.cell, group.start)?;
        let (kind, evidence) = self.expected(start).filter(|&(kind, _)| kind == DataKind::BirthDate)?;
        Some(Found { kind, evidence, weakness: 0, start: group.start, end })
    }

    /// Whether neither words before the group nor the column can say that it is a date.
    fn says_nothing(&self, start: usize) -> bool {
        let group = &self.groups[start];
        group.before & PLUS != 0 || self.hint.kind.is_none() && group.start == 0 && group.digits > 0
    }

    /// Whether digits stand in the run before the group `start`. Only the first groups of a run may have none.
    fn is_behind_digits(&self, start: usize) -> bool {
        self.groups[..start].iter().take(2).any(|group| group.digits > 0)
    }

    fn other(&self, start: usize) -> bool {
        start == 0 && self.context().other
    }

    /// Part of a longer word or of a longer tight chain: `ab-123-45-6789`.
    fn is_glued(&self, start: usize, end: usize) -> bool {
        let groups = self.groups;
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
        let behind = self.groups.get(end + 1);
        self.is_listed_behind(start)
            || behind.is_some_and(|next| is_number(next) && next.before & (OPEN | PLUS) == 0)
    }

    fn is_listed_behind(&self, start: usize) -> bool {
        let groups = self.groups;
        start > 0 && is_number(&groups[start - 1]) && groups[start].before & (OPEN | PLUS) == 0
    }
}

/// A group that may be a number of its own.
fn is_number(group: &Group) -> bool {
    group.digits >= 3 && group.digits == group.len()
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

/// Digits up to which a whole number is nothing, where no column says what it is.
pub const SMALL_DIGITS: usize = 13;

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
    let long = digits.len() > SMALL_DIGITS && !hint.numbers;
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
