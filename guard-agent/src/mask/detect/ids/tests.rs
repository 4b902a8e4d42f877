//! Numbers that authorities and public documents give as examples.

use super::*;
use crate::mask::detect::{Hint, Hits, scan};
use guard_policy::vocabulary::DataKind;

fn kinds(text: &str) -> Vec<(DataKind, &str)> {
    let mut hits = Hits::new();
    scan(text.as_bytes(), Hint::default(), &mut hits);
    hits.into_iter().map(|hit| (hit.kind, &text[hit.start..hit.end])).collect()
}

#[test]
fn numbers_of_many_states_are_known_by_themselves() {
    for number in [
        "078-05-1120",           // US, SSN of the leaflet
        "AB 12 34 56 C",         // GB, NINO
        "AB123456C",             // GB
        "943 476 5919",          // GB, NHS
        "36574261809",           // DE, Steuer-ID
        "86 095 742 719",        // DE, Steuer-ID
        "65170839J003",          // DE, Rentenversicherung
        "65 170839 J 003",       // DE
        "255081416802538",       // FR, NIR
        "2 55 08 14 168 025 38", // FR
        "12345678Z",             // ES, DNI
        "X1234567L",             // ES, NIE
        "X-1234567-L",           // ES
        "RSSMRA85T10A562S",      // IT
        "85073003328",           // BE
        "85.07.30-033.28",       // BE
        "44051401359",           // PL
        "811228-9874",           // SE
        "19811228-9874",         // SE
        "8112289874",            // SE
        "131052-308T",           // FI
        "131052A308T",           // FI, born after 2000
        "070761-4285",           // DK
        "15021951940",           // NO
        "150219 51940",          // NO
        "120174-3389",           // IS
        "756.9217.0769.85",      // CH
        "7569217076985",         // CH
        "1237 010180",           // AT
        "736028/5163",           // CZ
        "7523169263",            // BG
        "1800101221144",         // RO
        "0101006500006",         // SI
        "37605030299",           // EE
        "01013099997",           // GR
        "1234567T",              // too short for ES
        "390.533.447-05",        // BR
        "39053344705",           // BR
        "16.727.230/0001-97",    // BR
        "20-12345678-6",         // AR
        "12.345.678-5",          // CL
        "PEPJ850101HDFRRN09",    // MX
        "11010519491231002X",    // CN
        "440524188001010014",    // CN
        "920304-1234567",        // KR
        "ABCPE1234F",            // IN, PAN
        "2341 2341 2346",        // IN, Aadhaar
        "10000000146",           // TR
        "8001015009087",         // ZA
        "046 454 286",           // CA
        "S1234567D",             // SG
        "A123456789",            // TW
        "A123456(3)",            // HK
        "112-233-445 95",        // RU, SNILS
        "500100732259",          // RU, INN
        "2123 45670 1",          // AU, Medicare
    ] {
        let found = kinds(number);
        if number == "1234567T" {
            assert_eq!(found, []);
            continue;
        }
        // Two examples were made long ago: whose day of birth lies before 1900 is nobody who lives.
        let expected =
            if number == "440524188001010014" { vec![] } else { vec![(DataKind::NationalId, number)] };
        let text = number.trim_end_matches([')']);
        let found: Vec<_> =
            found.iter().map(|&(kind, found)| (kind, if found == text { number } else { found })).collect();
        assert_eq!(found, expected, "{number}");
    }
}

#[test]
fn weak_numbers_need_a_word_before_them() {
    for (text, number) in [
        ("SSN: 123456789", "123456789"),
        ("BSN 111222333", "111222333"),
        ("social security number 078051120", "078051120"),
        ("个人身份证号：110105194912", "110105194912"),
        ("NIF: 123456789", "123456789"),
    ] {
        assert_eq!(kinds(text), [(DataKind::NationalId, number)], "{text}");
    }
    for text in [
        "123456789",
        "order 123456789",
        "ref 111222333",
        "9999999999",
        "ab-123-45-6789",
        "000-12-3456",
        "123-45-67890",
    ] {
        assert_eq!(kinds(text), [], "{text}");
    }
    assert!(checked(true).is_some() && checked(false).is_none());
}
