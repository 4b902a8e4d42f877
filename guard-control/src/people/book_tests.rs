use super::*;

fn book() -> (tempfile::TempDir, Book) {
    let dir = tempfile::tempdir().unwrap();
    let book = Book::open(dir.path()).unwrap();
    (dir, book)
}

fn roles(names: &str) -> Roles {
    names.parse().unwrap()
}

#[test]
fn the_first_admin_is_made_once_and_has_to_choose_a_password() {
    let (dir, book) = book();
    let first = book.bootstrap().unwrap().expect("nobody is there yet");
    assert!(book.bootstrap().unwrap().is_none());
    let admin = book.sign_in("ADMIN", &first).unwrap().unwrap();
    assert!(admin.must_change && admin.roles.has(super::super::Role::Admin));
    book.choose_password(admin.id, &first, "four quiet yellow boats").unwrap();
    assert_eq!(book.sign_in(BOOTSTRAP, &first).unwrap().unwrap_err(), Denied::Wrong);
    assert!(!book.sign_in(BOOTSTRAP, "four quiet yellow boats").unwrap().unwrap().must_change);
    let stored = std::fs::read(dir.path().join(super::super::desk::FILE)).unwrap();
    let wal = std::fs::read(dir.path().join("people.sqlite-wal")).unwrap_or_default();
    for secret in [first.as_str(), "four quiet yellow boats"] {
        let found =
            [&stored, &wal].iter().any(|bytes| bytes.windows(secret.len()).any(|at| at == secret.as_bytes()));
        assert!(!found, "a password lies on the disk");
    }
}

#[test]
fn whoever_guesses_has_to_wait_even_with_the_right_password() {
    let (_dir, book) = book();
    let password = book.bootstrap().unwrap().unwrap();
    for _ in 0..FREE_FAILURES {
        assert_eq!(book.sign_in(BOOTSTRAP, "wrong").unwrap().unwrap_err(), Denied::Wrong);
    }
    assert!(matches!(book.sign_in(BOOTSTRAP, &password).unwrap(), Err(Denied::Wait(1..=15))));
    assert_eq!(book.sign_in("nobody", "wrong").unwrap().unwrap_err(), Denied::Wrong);
    assert_eq!((wait_after(1), wait_after(5), wait_after(7), wait_after(4_000_000)), (0, 15, 60, 900));
}

#[test]
fn the_last_admin_stays() {
    let (_dir, book) = book();
    book.bootstrap().unwrap();
    let admin = book.named(BOOTSTRAP).unwrap();
    assert!(book.change(admin.id, &roles("viewer"), &[], false).is_err());
    assert!(book.change(admin.id, &roles("admin"), &[], true).is_err());
    assert!(book.named(BOOTSTRAP).unwrap().roles.has(super::super::Role::Admin), "nothing was changed");
    book.add("ann", "Ann", &roles("admin approver"), &["dba".to_owned()]).unwrap();
    book.change(admin.id, &roles("viewer"), &[], false).unwrap();
}

#[test]
fn a_name_is_not_taken_over_from_elsewhere() {
    let (_dir, book) = book();
    book.bootstrap().unwrap();
    let come =
        |subject: &str, name: &str| book.sign_in_from_elsewhere(subject, name, "", (&roles("viewer"), &[]));
    assert!(come("https://idp.example|1", "Admin").is_err());
    let ann = come("https://idp.example|2", "ann").unwrap().unwrap();
    assert!(come("https://idp.example|3", "ann").is_err());
    // A person may be called another way next time, and stays the same one.
    assert_eq!(come("https://idp.example|2", "ann.b").unwrap().unwrap().id, ann.id);
    assert!(book.reset(ann.id).is_err(), "she has no password here");
    book.change(ann.id, &roles("viewer"), &[], true).unwrap();
    assert_eq!(come("https://idp.example|2", "ann").unwrap().unwrap_err(), Denied::Disabled);
}

#[test]
fn names_and_groups_are_bounded() {
    let (_dir, book) = book();
    for name in ["", " ", "a b", "<script>", "x\u{202e}", &"a".repeat(65)] {
        assert!(book.add(name, "", &Roles::default(), &[]).is_err(), "{name:?}");
    }
    assert!(book.add("ann", "", &Roles::default(), &vec!["g".to_owned(); 65]).is_err());
    assert!(book.add("ann", "", &Roles::default(), &["\n".to_owned()]).is_err());
}
