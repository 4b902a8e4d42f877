//! Numbers with check digits, made from what their issuers publish and not from guard's own arithmetic.

use crate::random::Random;

pub fn text(digits: &[u32]) -> String {
    digits.iter().filter_map(|&digit| char::from_digit(digit % 10, 10)).collect()
}

fn dot(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum()
}

/// A day of birth as year, month, day.
pub fn day(random: &mut Random) -> (u64, u64, u64) {
    (random.range(1940, 1999), random.range(1, 12), random.range(1, 28))
}

/// Appends Luhn's check digit.
pub fn luhn(mut digits: Vec<u32>) -> Vec<u32> {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| if at % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { digit })
        .sum();
    digits.push((10 - sum % 10) % 10);
    digits
}

pub fn parse(text: &str) -> Vec<u32> {
    text.chars().filter_map(|character| character.to_digit(10)).collect()
}

/// A card of one of the large networks, with or without separators.
pub fn card(random: &mut Random) -> String {
    let (prefix, body, groups): (&str, usize, &[usize]) = *random.pick(&[
        ("4", 14, &[4, 4, 4, 4][..]),
        ("51", 13, &[4, 4, 4, 4]),
        ("54", 13, &[4, 4, 4, 4]),
        ("2221", 11, &[4, 4, 4, 4]),
        ("34", 12, &[4, 6, 5]),
        ("37", 12, &[4, 6, 5]),
        ("6011", 11, &[4, 4, 4, 4]),
        ("3530", 11, &[4, 4, 4, 4]),
        ("3056", 9, &[4, 6, 4]),
        ("6221", 11, &[4, 4, 4, 4]),
    ]);
    let mut digits = parse(prefix);
    digits.extend(random.digits(body));
    let all = text(&luhn(digits));
    let separator = *random.pick(&["", " ", "-"]);
    let mut rest = all.as_str();
    let mut parts = Vec::new();
    for &len in groups {
        let (part, behind) = rest.split_at(len);
        parts.push(part);
        rest = behind;
    }
    parts.join(separator)
}

/// An IBAN with this country and a body after this pattern.
pub fn iban(random: &mut Random, country: &str, pattern: &str) -> String {
    let body = random.fill(pattern);
    let mut rest = 0;
    for character in format!("{body}{country}00").chars() {
        let value = character.to_digit(36).unwrap_or(0);
        rest = (rest * if value > 9 { 100 } else { 10 } + value) % 97;
    }
    let plain = format!("{country}{:02}{body}", 98 - rest);
    if random.range(0, 1) == 0 {
        return plain;
    }
    let characters: Vec<char> = plain.chars().collect();
    characters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

pub fn american(random: &mut Random) -> String {
    format!("{:03}-{:02}-{:04}", random.range(1, 665), random.range(1, 99), random.range(1, 9999))
}

pub fn british(random: &mut Random) -> String {
    let prefix = *random.pick(&["AB", "CE", "JK", "PX", "WM", "SR", "LH"]);
    let pattern = *random.pick(&["######", " ## ## ## "]);
    format!("{prefix}{}{}", random.fill(pattern), random.pick(&["A", "B", "C", "D"]))
}

/// Steuer-ID: ten digits of which one occurs twice, ISO 7064 MOD 11,10.
pub fn german(random: &mut Random) -> String {
    let mut digits: Vec<u32> = (0..10).collect();
    for at in (1..10).rev() {
        let other = usize::try_from(random.range(0, at as u64)).unwrap_or(0);
        digits.swap(at, other);
    }
    if digits[0] == 0 {
        digits.swap(0, 9);
    }
    let twice = digits[3];
    digits[9] = twice;
    let mut product = 10;
    for &digit in &digits {
        let sum = if (digit + product) % 10 == 0 { 10 } else { (digit + product) % 10 };
        product = sum * 2 % 11;
    }
    digits.push((11 - product) % 10);
    text(&digits)
}

pub fn french(random: &mut Random) -> String {
    let (year, month, _) = day(random);
    let body = format!(
        "{}{:02}{month:02}{:02}{}",
        random.range(1, 2),
        year % 100,
        random.range(1, 95),
        random.fill("%##%##")
    );
    let key = 97 - body.parse::<u64>().unwrap_or(0) % 97;
    if random.range(0, 1) == 0 {
        return format!("{body}{key:02}");
    }
    let part = |from: usize, to: usize| &body[from..to];
    let (head, tail) = (part(0, 1), [part(1, 3), part(3, 5), part(5, 7), part(7, 10), part(10, 13)]);
    format!("{head} {} {key:02}", tail.join(" "))
}

pub fn spanish(random: &mut Random) -> String {
    let number = random.range(10_000_000, 99_999_999);
    let at = usize::try_from(number % 23).unwrap_or(0);
    format!("{number}{}", &"TRWAGMYFPDXBNJZSQVHLCKE"[at..=at])
}

pub fn italian(random: &mut Random) -> String {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let (year, _, date) = day(random);
    let body = format!(
        "{}{:02}{}{date:02}{}",
        random.pick(&["RSSMRA", "BNCLCU", "VRDGPP", "FRRFNC"]),
        year % 100,
        random.pick(&["A", "B", "C", "D", "E", "H", "L", "M", "P", "R", "S", "T"]),
        random.fill("H###")
    );
    let value = |character: char| match character.to_digit(36).unwrap_or(0) {
        digit @ 0..=9 => digit,
        letter => letter - 10,
    };
    let sum: u32 = body
        .chars()
        .enumerate()
        .map(|(at, character)| {
            let value = value(character);
            if at % 2 == 0 { ODD[value as usize] } else { value }
        })
        .sum();
    format!("{body}{}", char::from_digit(sum % 26 + 10, 36).unwrap_or('a').to_ascii_uppercase())
}

pub fn brazilian(random: &mut Random) -> String {
    let mut digits = random.digits(9);
    digits[0] = 3;
    for _ in 0..2 {
        let len = u32::try_from(digits.len()).unwrap_or(0);
        let weights: Vec<u32> = (2..=len + 1).rev().collect();
        digits.push(dot(&digits, &weights) * 10 % 11 % 10);
    }
    let all = text(&digits);
    format!("{}.{}.{}-{}", &all[..3], &all[3..6], &all[6..9], &all[9..])
}

pub fn polish(random: &mut Random) -> String {
    let (year, month, date) = day(random);
    let mut digits = parse(&format!("{:02}{month:02}{date:02}{}", year % 100, random.fill("####")));
    digits.push((10 - dot(&digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10) % 10);
    text(&digits)
}

pub fn swedish(random: &mut Random) -> String {
    let (year, month, date) = day(random);
    let digits = luhn(parse(&format!("{:02}{month:02}{date:02}{}", year % 100, random.fill("###"))));
    let all = text(&digits);
    format!("{}-{}", &all[..6], &all[6..])
}

pub fn finnish(random: &mut Random) -> String {
    let (year, month, date) = day(random);
    let number = random.range(2, 899);
    let value = (date * 10_000 + month * 100 + year % 100) * 1000 + number;
    let at = usize::try_from(value % 31).unwrap_or(0);
    format!("{date:02}{month:02}{:02}-{number:03}{}", year % 100, &"0123456789ABCDEFHJKLMNPRSTUVWXY"[at..=at])
}

pub fn turkish(random: &mut Random) -> String {
    let mut digits = random.digits(9);
    digits[0] = 1 + digits[0] % 9;
    let odd: u32 = digits.iter().step_by(2).sum();
    let even: u32 = digits.iter().skip(1).step_by(2).sum();
    digits.push((odd * 7 + 90 - even) % 10);
    digits.push(digits.iter().sum::<u32>() % 10);
    text(&digits)
}

pub fn japanese(random: &mut Random) -> String {
    let mut digits = random.digits(11);
    digits[0] = 1 + digits[0] % 9;
    let rest = dot(&digits, &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    digits.push(if rest <= 1 { 0 } else { 11 - rest });
    let all = text(&digits);
    format!("{} {} {}", &all[..4], &all[4..8], &all[8..])
}

pub fn chinese(random: &mut Random) -> String {
    let (year, month, date) = day(random);
    let area = *random.pick(&["110101", "310104", "440305", "510107"]);
    let body = format!("{area}{year}{month:02}{date:02}{}", random.fill("###"));
    let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let at = dot(&parse(&body), &weights) as usize % 11;
    format!("{body}{}", &"10X98765432"[at..=at])
}

pub fn korean(random: &mut Random) -> String {
    let (year, month, date) = day(random);
    let front = format!("{:02}{month:02}{date:02}", year % 100);
    let mut digits = parse(&format!("{front}{}{}", random.range(1, 2), random.fill("#####")));
    digits.push((11 - dot(&digits, &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11) % 10);
    format!("{front}-{}", &text(&digits)[6..])
}

/// СНИЛС.
pub fn russian(random: &mut Random) -> String {
    let mut digits = random.digits(9);
    digits[0] = 1 + digits[0] % 9;
    let sum = dot(&digits, &[9, 8, 7, 6, 5, 4, 3, 2, 1]) % 101 % 100;
    let all = text(&digits);
    format!("{}-{}-{} {sum:02}", &all[..3], &all[3..6], &all[6..])
}

/// BSN; alone it is any number of nine digits, so that people write what it is before it.
pub fn dutch(random: &mut Random) -> String {
    loop {
        let mut digits = random.digits(8);
        digits[0] = 1 + digits[0] % 9;
        let check = dot(&digits, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
        if check < 10 {
            digits.push(check);
            return text(&digits);
        }
    }
}
