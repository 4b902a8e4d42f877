//! The form in which texts are hashed: a value enters with its kind, what all its spellings have in common leaves.

use guard_policy::vocabulary::DataKind;

use super::lanes::BLOCK;

/// Writes the form of `value` that is hashed: the same for spellings that mean the same.
pub(super) fn canonical(kind: DataKind, value: &[u8], out: &mut Vec<u8>) {
    let value = value.trim_ascii();
    match kind {
        DataKind::Email | DataKind::IpAddress => out.extend(value.iter().map(u8::to_ascii_lowercase)),
        DataKind::Phone
        | DataKind::PaymentCard
        | DataKind::Iban
        | DataKind::BankAccount
        | DataKind::NationalId
        | DataKind::Document
        | DataKind::Device => {
            let kept = value.iter().filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
            out.extend(kept.map(u8::to_ascii_uppercase));
        }
        _ => out.extend_from_slice(value),
    }
}

/// Letters and digits, in upper case, and what is not ASCII; zero for all else.
static LETTERS: [u8; 256] = {
    let (mut letters, mut at) = ([0; 256], 0);
    while at < 256 {
        let byte = at as u8;
        if byte.is_ascii_alphanumeric() || !byte.is_ascii() {
            letters[at] = byte.to_ascii_uppercase();
        }
        at += 1;
    }
    letters
};

/// The same for a value that is not longer than the block: what it is hashed as, with zeros behind it, and its length.
/// `None` where it is longer.
pub(super) fn canonical_block(kind: DataKind, value: &[u8], block: &mut [u8; BLOCK]) -> Option<usize> {
    let value = value.trim_ascii();
    let place = block.get_mut(..value.len())?;
    match kind {
        DataKind::Email | DataKind::IpAddress => {
            place.copy_from_slice(value);
            place.make_ascii_lowercase();
            Some(value.len())
        }
        DataKind::Phone
        | DataKind::PaymentCard
        | DataKind::Iban
        | DataKind::BankAccount
        | DataKind::NationalId
        | DataKind::Document
        | DataKind::Device => {
            let mut length = 0;
            for byte in value {
                let letter = LETTERS[usize::from(*byte)];
                // INVARIANT: at most as far as the byte that is read; what is left out is overwritten, the last by nothing.
                block[length % BLOCK] = letter;
                length += usize::from(letter != 0);
            }
            Some(length)
        }
        _ => {
            place.copy_from_slice(value);
            Some(value.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_same_hash_alike() {
        let form = |kind, value: &str| {
            let mut out = Vec::new();
            canonical(kind, value.as_bytes(), &mut out);
            out
        };
        assert_eq!(form(DataKind::Email, "Ana@Example.com "), form(DataKind::Email, "ana@example.com"));
        assert_eq!(form(DataKind::Iban, "de89 3704 0044"), form(DataKind::Iban, "DE89-37040044"));
        assert_ne!(form(DataKind::Password, "a"), form(DataKind::Password, "A"));
        for kind in DataKind::ALL {
            for value in
                ["", " ", "Ana@Example.COM ", "+49 (30) é-12", "--", &"aB-".repeat(21), &"A".repeat(64)]
            {
                let mut block = [0; BLOCK];
                let length = canonical_block(*kind, value.as_bytes(), &mut block).unwrap();
                assert_eq!(block[..length], form(*kind, value), "{kind} {value}");
                assert!(block[length..].iter().all(|byte| *byte == 0), "{kind} {value}");
            }
            assert_eq!(canonical_block(*kind, &[b'x'; 65], &mut [0; BLOCK]), None);
        }
    }
}
