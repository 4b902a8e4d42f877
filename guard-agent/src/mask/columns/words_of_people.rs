//! Words that speak of people and of what belongs to them, folded: lower case, no accents.

use super::lexicon::Concept::{self, *};

/// Words by concept.
#[rustfmt::skip]
pub const PEOPLE: &[(Concept, &str)] = &[
    (Name, "neve name names nm nom noms nombre nombres nome nomes naam namen namn navn nafn nimi isim ad adi ady jmeno meno imie \
        nazwa nev numele nume ime naziv vardas nimetus uzvards onoma bezeichnung nam имя имени имена название наименование \
        имен iмя імя име назва ονομα اسم الاسم שם नाम 名前 名称 名字 名 이름 성함 ชื่อ ten imya namae mingcheng ireum \
        denominazione denominacion nama pangalan jina"),
    (First, "first given fore erster premier primer primero primeiro fst"),
    (Last, "last family sur lst letzter dernier ultimo familien famille famiglia familia familie"),
    (OwnName, "kontoinhaber karteninhaber accountholder cardholder cardholdername nameoncard kontohaver \
        kontoinnehavare firstname lastname surname forename givenname familyname fullname middlename maidenname fname lname mname \
        sname gname vorname vornamen vname nachname nachnamen nname zuname familienname geburtsname rufname prenom prenoms \
        patronyme apellido apellidos apellidop apellidom apellidopaterno apellidomaterno cognome cognomi sobrenome \
        voornaam voornamen achternaam roepnaam tussenvoegsel fornamn efternamn tilltalsnamn fornavn etternavn \
        efternavn mellomnavn etunimi etunimet sukunimi kutsumanimi soyad soyadi soyisim krestni prijmeni prijmena priezvisko \
        imiona nazwisko nazwiska drugieimie vezeteknev keresztnev csaladnev utonev prenume nume prezime eesnimi perenimi \
        vards uzvards pavarde fornafn eftirnafn фамилия фамилии отчество фио фамилiя прізвище побатькові фамилно презиме \
        famlia familiya familia otchestvo fio επωνυμο επιθετο onomateponymo eponymo العائلة اللقب משפחה פרטי उपनाम \
        氏名 姓名 姓 名字仮名 苗字 氏 フリガナ ふりがな お名前 お客様名 真实姓名 客户姓名 성명 shimei myoji sei mei furigana kana xingming xing \
        zhenshixingming seongmyeong seong hoten khachhang นามสกุล namabelakang namadepan primeironome lnm fnm frstnm lstnm \
        firstnm lastnm honoree payee beneficiary"),
    (Full, "full legal preferred complete birthname maiden middle mid second segundo segunda secondo deuxieme vollstandiger voller \
        komplett completo complet volledige fullstandigt fuld tam cele pelne полное полный married prior former alias aka \
        paterno materno"),
    (Nick, "username usernames usrname uname login logins loginname nickname nick screenname handle benutzername \
        anmeldename nutzername pseudo pseudonyme identifiant usuario nomeutente gebruikersnaam anvandarnamn brukernavn \
        brugernavn kayttajatunnus kayttajanimi kullaniciadi uzivatelskejmeno логин никнейм ユーザー名 ニックネーム 用户名 昵称 \
        닉네임 사용자명 kullanici display displayname"),
    (Person, "anyja person persons people personne personnes persona personas pessoa pessoas individual individuals human humans \
        customer customers cust custs client clients user users usr usrs member members employee employees emp emps staff \
        worker workers patient patients contact contacts subscriber subscribers owner owners tenant tenants guest guests \
        student students pupil pupils teacher teachers professor driver drivers passenger passengers traveller traveler \
        travelers participant participants attendee attendees applicant applicants candidate candidates lead leads prospect \
        prospects donor donors voter voters resident residents citizen citizens author authors manager managers supervisor \
        boss agent agents doctor doctors physician nurse lawyer spouse wife husband partner parent parents father mother \
        child children kid kids son daughter sibling brother sister guardian relative kin emergency beneficiary heir \
        recipient recipients sender senders buyer buyers seller sellers shopper shoppers borrower borrowers debtor debtors \
        profile profiles player players reviewer signer signatory insured policyholder policyholders cardholder \
        accountholder holder holders visitor visitors crew coach trainer actor admin admins operator personnel hr crm \
        director directors consultant consultants recruit recruits respondent respondents winner winners victim suspect \
        kunde kunden kundin kd mitarbeiter mitarbeiterin angestellte angestellter beschaftigte personal personen mitglied \
        mitglieder benutzer nutzer patienten ansprechpartner kontakt kontakte inhaber eigentumer mieter vermieter gast \
        gaste schuler lehrer fahrer bewerber teilnehmer empfanger absender versicherte versicherter vater mutter ehepartner \
        kinder halter arzt schuldner glaubiger auftraggeber besteller kaufer \
        clientes cliente usuarios empleado empleados trabajador trabajadores paciente pacientes miembro miembros alumno \
        alumnos estudiante estudiantes profesor contacto contactos titular propietario dueno padre madre hijo conyuge \
        destinatario huesped \
        utilisateur utilisateurs employe employes salarie salaries adherent adherents membre membres eleve eleves etudiant \
        etudiants abonne abonnes proprietaire locataire titulaire pere mere enfant conjoint destinataire beneficiaire \
        collaborateur collaborateurs medecin \
        clienti utente utenti dipendente dipendenti impiegato paziente pazienti socio soci studente studenti contatto \
        contatti intestatario proprietario figlio coniuge \
        funcionario funcionarios colaborador utilizador utilizadores aluno alunos contato contatos titular mae pai filho \
        klant klanten gebruiker gebruikers medewerker medewerkers werknemer werknemers personeel patienten lid leden \
        contactpersoon eigenaar huurder ouder \
        kund kunder anvandare anstalld anstallda medlem medlemmar elev elever bruker brukere ansatt ansatte bruger brugere \
        medarbejder medarbejdere pasient pasienter asiakas asiakkaat kayttaja kayttajat tyontekija tyontekijat henkilo \
        henkilot potilas potilaat jasen jasenet opiskelija \
        musteri musteriler calisan calisanlar personeller hasta hastalar ogrenci ogrenciler uye uyeler kisi kisiler anne baba \
        zakaznik zakaznici uzivatel uzivatele zamestnanec zamestnanci pacient pacienti osoba osoby osob klient klienci \
        klienty pracownik pracownicy uzytkownik uzytkownicy pacjent pacjenci matka matki ojciec ojca student studenci \
        ugyfel ugyfelek felhasznalo dolgozo beteg angajat angajati utilizatori korisnik korisnici \
        клиент клиенты клиента пользователь пользователи пользователя сотрудник сотрудники сотрудника пациент пациенты \
        покупатель заказчик человек люди персонал абонент контакт мать отец ученик студент работник klienty polzovateli \
        sotrudniki sotrudnik клієнт користувач \
        πελατης πελατες عميل عملاء العميل مستخدم المستخدم موظف مريض לקוח לקוחות משתמש ग्राहक उपयोगकर्ता \
        顧客 お客様 会員 社員 従業員 患者 利用者 客户 用户 员工 职员 会员 学生 病人 患者 联系人 고객 사용자 회원 직원 환자 학생 kokyaku shain kaiin \
        yonghu kehu yuangong gogaek hoewon jigwon ลูกค้า พนักงาน nhanvien pelanggan karyawan"),
    (Mail, "mail mails email emails eml emailaddress mailaddress mailadresse emailaddr emailid correo correos courriel \
        courriels epost epostadress epostadresse eposta sahkoposti sahkopostiosoite posta mailto mejl maila gmail \
        почта почты емейл имейл емэйл мейл эл ηλεκτρονικο ταχυδρομειο بريد البريد إيميل ايميل דואל אימייל मेल ईमेल \
        メール メールアドレス 邮箱 电子邮箱 邮件 电邮 邮件地址 电子邮件 郵箱 이메일 메일 pochta youxiang dianziyoujian imeil อีเมล surel"),
    (Electronic, "e electronic elektronische electronico electronica electronique elettronica eletronico elektronisk \
        elektroniczny elektronicka электронная электронной elektronik"),
    (Phone, "mobiel mobiele phone phones telephone telephones tel tels telno telnr telnum telefon telefone telefones telefono telefonos \
        telefoni telefoonnummer telefoon telefoonnr telefonnr telefonnummer teléfono phn phno phonenumber phonenum phoneno \
        ph fon fono msisdn cellphone cellular handy handynummer handynr mobilnummer mobiltelefon mobiltel gsm portable \
        celular cellulare telemovel telemoveis movil gsmno gsmnummer puhelin puhelinnumero matkapuhelin puh kannykka tlf tlfnr \
        tlfn telf tfno cepno ceptelefonu ceptel fax faxnummer faxnr faxno telefax fernsprecher rufnummer whatsapp sms \
        telefonszam telefonu telefonni komorka komorkowy mobil mobiili telefonas talrunis telefonszama sima simi \
        телефон телефона телефоны тел моб мобильный сотовый телефонный факс τηλεφωνο κινητο هاتف الهاتف جوال موبايل טלפון נייד \
        फोन फ़ोन मोबाइल 電話 電話番号 携帯 携帯電話 携帯番号 電話号碼 电话 电话号码 手机 手机号 手机号码 手機 联系电话 联系方式 전화 \
        전화번호 휴대폰 휴대전화 핸드폰 연락처 denwa denwabango denwabangou keitai dianhua shouji shoujihao jeonhwa jeonhwabeonho \
        hyudaepon dienthoai sdt โทรศัพท์ เบอร์โทร telepon nohp"),
    (PhoneMaybe, "mobile mob cell contactno contactnumber contactnum landline hotline calling caller callee dialed dialled"),
    (Address, "address addresses addr addrs adr adresse adressen adresses anschrift anschriften direccion direcciones \
        domicilio domicile indirizzo indirizzi endereco enderecos morada adres adresu adresy adress osoite katuosoite \
        adresa adresi adresis lakcim cim heimilisfang wohnort wohnanschrift aadress адрес адреса адресу διευθυνση عنوان \
        العنوان כתובת पता 住所 居所 地址 住址 家庭住址 주소 jusho juusho dizhi zhuzhi juso diachi ที่อยู่ alamat residence residencia \
        residenza bostadsadress gatuadress hemadress besoksadress"),
    (Street, "huisnr housenumber housenr hausnummer hausnr huisnummer husnummer husnr street streets str strasse strassen straat straatnaam calle rue rua gata gade vei veg katu sokak cadde \
        ulice ulica utca strada straszennr gatunamn streetname streetaddress addressline улица улицы оδος ulitsa \
        街道 통로 hausanschrift logradouro colonia"),
    (House, "domu mieszkania lokalu house apartment apt flat wohnung appartement \
        piso квартира дом building doorno"),
    (Zip, "zip zips zipcode zipcd postcode postcodes postal postalcode plz postleitzahl cp codepostal codigopostal cap cep \
        postnummer postnr postinumero postakodu psc kodpocztowy iranyitoszam индекс почтовый ταχυδρομικος 郵便番号 邮编 \
        邮政编码 우편번호 yubin yubinbango postkode postleit pincode pincodes eircode"),
    (City, "city town ort stadt ciudad ville citta comune cidade localidade localidad localite plaats woonplaats stad \
        postort poststed kaupunki postitoimipaikka sehir ilce mesto miejscowosc miasto varos oras municipality locality \
        город населенный πολη مدينة עיר शहर 市区町村 城市 도시 suburb village hometown"),
    (Geo, "latitude longitude lat lon lng long geo geolocation gps coordinates coords koordinaten breitengrad langengrad \
        latitud longitud latitudine longitudine широта долгота 緯度 経度 纬度 经度 위도 경도"),
    (Birth, "birthplace szul birth birthday birthdate birthdt birthyear birthmonth bday dob doby geburt geburts geburtstag geburtsdatum geb \
        gebdat gebdatum gebtag gebjahr gebdt geburtsjahr geboren naissance nacimiento nasc nac nascita nascimento geboorte \
        geboortedatum fodelse fodelsedatum fodelsedag fodelsear fodsels fodselsdato fodselsdag fodt fodselsar syntyma \
        syntymaaika syntymapaiva dogum dogumtarihi narozeni narodenia urodzenia dataurodzenia szuletesi szuletes nastere \
        nasterii rodjenja rodenja sunniaeg dzimsanas gimimo faedingardagur cumpleanos aniversario рождения рождение \
        народження γεννησησ γεννηση ميلاد الميلاد לידה जन्म 生年月日 誕生日 生日 出生 出生日期 出生年月 생년월일 생일 \
        seinengappi tanjobi shengri chusheng chushengriqi saengnyeonworil saengil rozhdeniya ngaysinh วันเกิด lahir bdate"),
    (Date, "datetime date dates day days dt dat datum dato data fecha dag tag jour jours jahr year yr month ano annee anno paiva \
        paivamaara aika tarih tarihi den datumu dzien rok nap datuma kuupaev дата год день ημερομηνια تاريخ תאריך तिथि तारीख \
        日付 日期 年月日 날짜 일자 giorno dia jaar ar aar gun tanggal"),
    (Age, "age ages alder ika yas vek wiek edad idade eta leeftijd alter возраст ηλικια العمر גיל उम्र 年齢 年龄 나이 연령 nianling \
        nenrei umur"),
    (Place, "place places lieu lugar luogo local plats sted paikka yeri misto miejsce место 地 town birthplace"),
    (Social, "social sociale sozial sozialversicherung soziale securitesociale soc sosyal sosiaali seguridad socialny"),
    (Security, "security sec securite seguranca sicurezza sicherheit guvenlik"),
    (Insurance, "insurance assurance versicherung versicherungs seguro assicurazione verzekering forsakring forsikring \
        vakuutus sigorta pojisteni ubezpieczenia ubezpieczenie страховой страховка 保険 보험 保险 社保"),
    (National, "national nationale nacional nazionale government govt gov state federal civil citizen citizens country \
        staatsburger rijksregister ulusal"),
    (Personal, "个人 本人 personal personale personlig perso person personen henkilo personnel osobni osobiste kisisel personli"),
    (Identity, "identity identification identifier ident identitet identitats identite identidad identificacion \
        identita identidade identificatie legitimation ausweis ausweisnummer kimlik tozsamosci totoznosti cedula \
        carnet tajskort henkilollisyys удостоверение हाल पहचान הזהות هوية זהות"),
    (Tax, "tax taxes fiscal fiscale fiscaal steuer steuerliche impuesto impuestos tributario tributaria imposto skatte skatt \
        vero vergi danove podatkowy podatkowej налоговый ado adoszam taxpayer"),
    (NationalNumber, "ssnid sinid adoazonosito adoazonositojel ssn ssns sinnumber itin nino natid nationalid nationalidnumber citizenid govid governmentid nif nie dni cpf \
        cnpj curp pesel bsn sofinummer egn cnp tckn tcno tckimlik tckimlikno securitesociale numsecu aadhaar aadhar \
        adhaar svnr svnummer sozialversicherungsnummer sozialversicherungsnr rentenversicherungsnummer rvnr ahv ahvnummer ahvnr steuerid steueridnr \
        idnr steueridentifikationsnummer steuernummer steuernr personnummer persnr personnr samordningsnummer cprnr \
        cprnummer hetu henkilotunnus fodselsnummer dnummer codicefiscale codfisc codfiscale snils cuit cuil \
        nric nricno mykad hkid mynumber kojinbango jumin juminbeonho juminno shenfenzheng shenfenzhenghao sfz \
        nhsnumber nhsno personalidnumber personalnumber rijksregisternummer rodnecislo rodne isikukood asmenskodas \
        kennitala personaskods amka emso jmbg matichen tajszam idnumber idno idcard socialsecurity \
        socialsecuritynumber socsec socialinsurance taxid taxnumber taxpayerid nationalinsurance \
        burgerservicenummer inss snn ktp снилс инн иин рнокпп іпн жшн आधार 個人番号 マイナンバー 身份证 身份证号 身份证号码 \
        身分證 주민등록번호 주민번호 cccd cmnd บัตรประชาชน tfn medicarenumber medicareno curpid ppsn "),
    (NationalMaybe, "nrodocumento numerodocumento numdocumento nrodoc numdoc tin nik pnr fnr insee nhs taj afm oib sin avs rut run pan cpr nir rfc nip inn iin ci ein rg ico svn"),
    (Passport, "visano visanumber visanr rijbewijs rijbewijsnummer korkort korekort forerkort ajokortti ehliyet ehliyetno fuhrerschein fuhrerscheinnr fuhrerscheinnummer 免許 免許証 免許証番号 驾照 驾驶证 운전면허 passport passports passportno passportnumber passnummer passnr pasaporte passeport passaporto passaporte \
        paspoort reisepass reisepassnr reisepassnummer passi pasaport cestovni paszport paszportu personalausweis \
        personalausweisnummer utlevel pasapor паспорт паспорта διαβατηριο جواز דרכון पासपोर्ट 旅券 パスポート 护照 护照号 여권 \
        여권번호 huzhao passiport idcardnumber pasportas pasport travel dowod dowodu obcansky"),
    (Licence, "licence license licences lizenz permis permiso licencia patente \
        ridicsky prawo jazdy права lic"),
    (Driver, "drv driver drivers driving driverslicense driverlicense conduire conducir conducao guida fahr dl"),
    (Plate, "plate plates licenseplate licenceplate numberplate kennzeichen kfzkennzeichen immatriculation matricula targa \
        kenteken regnr registrationplate rekisterinumero plaka rejestracyjny госномер ナンバープレート 车牌 车牌号 번호판"),
    (Card, "card cards karte karten carte cartes tarjeta tarjetas carta carte cartao cartoes kaart kort korttinumero kortti kart karta \
        karty kartu kartya kartica карта карты карточка карточки καρτα بطاقة البطاقة כרטיס कार्ड カード 卡 卡号 카드 카드번호 cc"),
    (Credit, "credit credito kredit kredi kreditni kredyt kredytowa debit debito debet debeti payment payments zahlungs \
        bancaire pago betaal betalings luotto maksu кредит кредитная кредитной банковская банковской ائتمان אשראי क्रेडिट \
        クレジット 信用 银行 신용 visa mastercard amex platobni"),
    (CardNumber, "numerocb nocb creditcard creditcardnumber creditcardno creditcardnum ccnumber ccnum ccno ccn ccnr cardnumber cardno cardnum \
        cardnr cardpan kreditkarte kreditkartennummer kreditkartennr kreditkartenr kartennummer kartennr cvv cvv2 cvc cvc2 \
        cvn csc pannumber numerotarjeta numerocarte numerocarta kortnummer kortnr korttinumero luottokortti kartno kredikarti \
        信用卡 信用卡号 银行卡 银行卡号 クレジットカード番号 신용카드 신용카드번호 debitcard debitcardnumber"),
    (Expiry, "expiry exp expires expiration expire expdate ablauf ablaufdatum gultig expiracion scadenza validade vervaldatum \
        expmonth expyear caducidad vencimiento"),
    (Holder, "holder holdername cardholder cardholdername accountholder kontoinhaber karteninhaber titular titulaire \
        intestatario kontohaver kontoinnehavare nameoncard"),
    (Iban, "iban ibans ibannumber ibannr ibanno ibancode"),
    (Bank, "bank banks bankname banca banco banque banka bancaria bancario bankowe bankowego pankki bankovni банк банковский 銀行 은행"),
    (Account, "konta account accounts acct acc konto kontos kto \
        compte comptes cuenta cuentas conto conti conta contas rekening tili hesap ucet uctu \
        rachunek rachunku szamla cont iroda счет счета счёт λογαριασμοσ حساب חשבון खाता 口座 账户 계좌 \
        kouza"),
    (AccountNumber, "bban accountnumber accountno acctno acctnum kontonummer kontonr rekeningnummer tilinumero hesapno szamlaszam 口座番号 账号 帐号 계좌번호 ktonr bankaccountnumber bankaccountno 银行账号 银行帐号 은행계좌 bankaccount bankkonto bankverbindung numerocuenta numerocompte"),
    (Routing, "routing aba sortcode blz bankleitzahl bic swift swiftcode bicswift ifsc ifsccode clabe bsb rib cci routingno \
        routingnumber clearingnumber transit бик"),
    (Income, "salary salaries wage wages income incomes earnings paycheck compensation remuneration payrate hourlyrate \
        gehalt gehalter lohn lohne einkommen bruttogehalt nettogehalt bruttolohn verdienst bezuge salaire salaires revenu revenus remuneration \
        salario salarios sueldo sueldos ingresos nomina stipendio stipendi reddito retribuzione ordenado renda salaris loon \
        inkomen lonn manedslonn inkomst palkka tulot maas ucret plat mzda wynagrodzenie pensja placa fizetes salariu \
        networth зарплата оклад доход заработок 給与 年収 給料 工资 薪资 薪水 收入 월급 연봉 급여 lương gongzi kyuyo maosh"),
    (Balance, "balance saldo solde kontostand guthaben"),
    (Health, "health medical gesundheit sante salud salute saude gezondheid halsa helse sundhed terveys saglik zdravotni \
        zdrowotne kranken krankenversicherung krankenversicherungsnr krankenkasse maladie medicare mutuelle medizinische \
        clinical doctor medizinisch nhi"),
    (Illness, "diagnosis diagnoses diagnose diagnosen diagnostic diagnostico diagnosi icd icdcode medication medications medicament \
        medicaments medikament medikamente medicamento medicamentos prescription prescriptions rezept ordonnance receta \
        allergy allergies allergie allergien alergias alergia disease diseases krankheit krankheiten maladies enfermedad \
        enfermedades illness malattia doenca ziekte sjukdom sygdom sykdom sairaus hastalik nemoc choroba betegseg \
        symptom symptoms symptome bloodtype bloodgroup blutgruppe disability disabilities behinderung handicap \
        discapacidad pregnancy pregnant schwangerschaft vaccination vaccine impfung impfstatus hiv hivstatus mrn \
        medicalrecord medicalhistory anamnese befund krankenkassennummer patientennummer kvnr versichertennummer \
        therapy therapie treatment behandlung chronic tani teshis ilac \
        диагноз болезнь лекарство аллергия 病名 診断 診断名 疾患 血液型 诊断 病史 疾病 血型 过敏 진단 병명 혈액형 질병 zhenduan"),
    (Blood, "blood blut sang sangre sangue bloed blod veri kan krevni krwi кровь крови"),
    (Special, "marital religion religions religious konfession glaube religione religiao religie religionszugehorigkeit uskonto din \
        vyznani wyznanie vallas ethnicity ethnic ethnicgroup ethnie etnia etnisch etnicidad ethnizitat herkunft hautfarbe nationality \
        nationalities staatsangehorigkeit staatsburgerschaft nationalite nacionalidad nazionalita nacionalidade \
        nationaliteit nationalitet kansalaisuus uyruk narodnost obywatelstwo citizenship ciudadania cittadinanza gender \
        sex geschlecht sexe sexo sesso geslacht kon kjonn kjoenn sukupuoli cinsiyet pohlavi plec sexuality sexualorientation \
        politicalparty politicalviews politicalaffiliation parteizugehorigkeit unionmember unionmembership \
        gewerkschaft gewerkschaftszugehorigkeit caste biometric biometrics biometrie faceid irisscan maritalstatus \
        familienstand etatcivil estadocivil statocivile burgerlijkestaat civilstand sivilstatus siviilisaaty medenihal \
        национальность гражданство пол вероисповедание религия 性別 国籍 宗教 性别 民族 种族 婚姻 성별 국적 종교 민족 xingbie minzu seibetsu \
        kokuseki gukjeok seongbyeol criminal convictions conviction vorstrafen"),
    (SpecialMaybe, "race rasse raza razza raca ras politics political fingerprint fingerprints partei tribe union"),
    (Sexual, "sexual sexuelle sexuell politique politische political politica gender"),
    (Orientation, "orientation orientierung orientacion orientamento affiliation party view views opinion opinions belief beliefs"),
    (Marital, "marital civil familien matrimonial martial"),
];
