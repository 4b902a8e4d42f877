//! Words that speak of machines, secrets and things, and those that only qualify, folded: lower case, no accents.

use super::lexicon::Concept::{self, *};

/// Words by concept.
#[rustfmt::skip]
pub const THINGS: &[(Concept, &str)] = &[
    (Number, "number numbers no nr num nbr numero numeros nummer numer numara numarasi cislo szam broj code codes kod kode \
        codigo codice koodi номер числа код αριθμοσ κωδικοσ رقم الرقم رمز מספר קוד संख्या नंबर 番号 号 号码 號碼 码 번호 코드 bango bangou haoma beonho \
        nro so เลข nomor"),
    (Id, "id ids uid guid uuid pk fk oid identificador ид рк"),
    (Value, "value values val valor wert data content contents text txt string str raw plain plaintext cleartext clear normalized \
        normalised norm canonical formatted masked original full"),
    (Qualifier, "home work office business private priv privat prive personal primary secondary main alt alternate alternative \
        other old new current previous prev temp tmp backup recovery day evening night billing shipping delivery invoice mailing \
        permanent residential official international intl local default additional extra second third one two a b c x \
        geschaftlich geschaeftlich dienstlich fijo fisso fixo fixe festnetz sanitized ship shipto bill billto kom privatna casa trabajo trabalho lavoro ufficio domestico particular bureau travail maison \
        principal secundario contact the of de del della di da do des du la le et en i na za for from to by with my your their \
        der die das und von zu in line linie field col column nullable f tbl dim fact src dst stg \
        registered reg login signup unverified enc notify notification reply bcc \
        dela cu ke and or up major minor minori extension ext area country land pays pais paese kraj maa"),
    (Delivery, "billing shipping delivery ship shipto bill billto mailing home residential lieferung liefer rechnungs livraison \
        facturation envio facturacion entrega cobranca spedizione fatturazione"),
    (Flag, "is has can should was are allow allowed allows enable enabled disable disabled require required requires use uses \
        opt opted optin optout accept accepted accepts wants subscribed ist hat est tiene"),
    (About, "count counts cnt total totals sum avg average min max rate rates ratio score scores percent percentage pct verified verify \
        verification confirmed validated valid invalid status type types typ tipo kind category categories group groups \
        class level tier mode format formats template templates subject body header headers footer signature domain domains \
        provider providers server servers host hosts port ports queue queues list lists campaign campaigns preference \
        preferences pref prefs setting settings config configuration policy policies length len size width height version versions \
        model models brand brands manufacturer vendor vendors make os app apps application plan plans carrier network \
        issuer issuers scheme logo image images icon icons color colour label labels title titles description desc \
        changed updated created modified deleted sent received opened clicked bounced attempt attempts tries retries retry \
        failed failures frequency interval quota limit limits usage used consumed reason error errors flag flags enabled \
        required position index idx rank sortorder datatype regex pattern mask masked placeholder \
        strength complexity timeout ttl duration lifetime expires expiry expired renewed rotated revoked issued \
        anzahl verifiziert bestatigt geandert gesendet kategorie gruppe betreff vorlage art statut verifie cantidad \
        estado verificado stato verificato quantidade aantal bevestigd antal bekraftad lukumaara sayisi durum pocet \
        ilosc liczba количество статус тип 件数 数量 状態 状态 类型 種別 개수 상태 유형 algorithm algo cipher rounds iterations enrolled \
        last4 four suffix prefix preview thumbnail url urls uri link links path paths file files filename folder dir directory website \
        homepage web site blog lookup validation checks check column table schema blocked blacklist whitelist \
        allowlist denylist unsubscribed bounce open click clicks opens dashboard report reports stats statistics timezone tz \
        language lang locale currency range ranges band bands bracket bucket segment segments cohort mapping map agent useragent"),
    (Thing, "product products item items article articles goods sku part parts material category categories brand brands company \
        companies firm firma firmen firme empresa empresas azienda aziende societe entreprise bedrijf foretag virksomhed yritys sirket \
        spolecnost ceg organisation organization organisations organizations org orgs business corporation employer department \
        departments dept division team teams group groups project projects task tasks job jobs campaign campaigns event events \
        file files filename folder folders directory document documents doc docs image images photo photos video videos song songs \
        album albums track tracks movie movies film films book books isbn title genre game games city cities town towns country \
        countries region regions state states province provinces district county continent airport airports station stations \
        stadt stadte land lander pays pais ville villes ciudad ciudades cidade cidades citta \
        store stores shop shops warehouse warehouses branch branches location locations venue venues site sites building \
        buildings room rooms hotel hotels restaurant restaurants school schools university universities hospital hospitals \
        bank banks server servers host hosts hostname hostnames domain domains service services process processes thread module modules package \
        packages library function functions table tables column columns schema schemas database databases db index \
        constraint trigger queue topic bucket cluster node nodes container pod namespace image repository repo branch \
        role roles permission permissions privilege feature features setting settings config configuration parameter param variable \
        attribute attributes property properties tag tags label labels menu menus page pages theme themes template templates \
        form forms field fields report reports dashboard widget plugin plugins extension app apps application applications tool tools \
        program programs course courses class classes subject subjects lesson lessons exam exams unit units currency \
        currencies language languages color colors colour size vehicle vehicles car cars model models make truck plane contract contracts agreement \
        vessel animal animals pet pets dog cat species breed plant plants drug drugs medicine recipe recipes ingredient \
        dish food supplier suppliers vendor vendors manufacturer manufacturers carrier carriers provider providers \
        plan plans tariff channel channels source sources medium metric metrics test tests step steps stage stages \
        status statuses type types kind kinds level levels rule rules policy policies workflow workflows action actions \
        operation operations method methods algorithm layer layers stock stocks fund funds instrument asset assets \
        produkt produkte artikel ware waren kategorie kategorien abteilung projekt projekte datei dateien lieferant \
        hersteller ort orte lager filiale produit produits categorie magasin fournisseur producto productos articulo articulos \
        categoria categorias tienda proveedor almacen prodotto prodotti articolo negozio fornitore produto produtos artigo loja \
        fornecedor producten winkel leverancier produkter kategori butik leverantor tuote tuotteet kauppa toimittaja urun urunler \
        kategori magaza tedarikci vyrobek vyrobky zbozi kategorie dodavatel produkty kategoria sklep dostawca \
        товар товары продукт категория магазин город города страна компания организация отдел проект файл προιον \
        منتج شركة מוצר חברה 商品 製品 会社 部署 产品 公司 部门 城市 국가 상품 제품 회사 부서"),
    (Network, "network networks subnet subnets vlan vlans gateway gateways router routers switch switches firewall firewalls interface \
        interfaces nic nics dns ntp cidr netmask route routes peer peers hop hops loadbalancer endpoint endpoints proxy proxies vpc \
        netzwerk netzwerke reseau reseaux rete reti memory mem pointer register registers bus pci modbus \
        wallet wallets eth btc blockchain ethereum bitcoin server servers node nodes machine machines cluster clusters \
        packet packets flow flows whitelist allowlist denylist blacklist blocklist web website url http page"),
    (Ip, "ip ips ipaddr ipaddress ipadresse ipadress ipv ipaddresses clientip remoteip userip sourceip srcip loginip \
        айпи remoteaddr remotehost xforwardedfor"),
    (Mac, "mac macs macaddr macaddress hwaddr hwaddress ethaddr bssid"),
    (Remote, "remote peer client hw hardware ethernet wifi wlan bluetooth"),
    (Device, "device devices gerat gerate handset appareil dispositivo laite cihaz zarizeni urzadzenie устройство 端末 设备 기기 advertising \
        advertiser install installation hardware machine"),
    (DeviceNumber, "imei imeis imsi iccid meid udid idfa idfv gaid aaid adid androidid deviceid deviceidentifier devicefingerprint advertisingid gpsadid esn eid"),
    (Jwt, "jwt jwts jwttoken idtoken"),
    (Token, "token accesstoken refreshtoken authtoken apitoken sessiontoken bearertoken csrftoken resettoken pushtoken bearer cookie cookies \
        jeton tokenvalue oauthtoken otp totp mfa twofactor authcode authorizationcode sessionkey sessiontoken \
        apikey apikeys apisecret secretkey accesskey clientsecret webhooksecret credential credentials passcode onetimepassword \
        токен トークン 令牌 토큰 totpsecret mfasecret recoverycode backupcode recoverycodes backupcodes magiclink"),
    (Access, "api access refresh auth authentication authorization oauth client webhook signing encryption encrypt \
        hmac reset activation activate invite invitation confirmation remember magic master consumer integration rest stripe github \
        gitlab slack twilio sendgrid mailgun"),
    (Session, "session sessions sess sessionid sitzung phpsessid jsessionid"),
    (Key, "key keys schlussel cle llave chiave chave sleutel nyckel nokkel avain anahtar klic klucz ключ キー 密钥 密鑰 키"),
    (Secret, "secret secrets geheimnis segreto secreto segredo hemlighet secrettext секрет シークレット 비밀"),
    (Private, "private privkey privatekey pem privat prive privada privata ssh rsa pgp gpg tls ssl wireguard"),
    (Public, "public pub pubkey publickey publickeys offentlig publica"),
    (Cloud, "aws amazon gcp google azure cloud digitalocean aliyun alibaba iam"),
    (Password, "passwordsalt pwdhash pwhash password passwords passwd passwort passworter pwd pswd psw passwrd passphrase userpass userpassword userpwd kennwort \
        losung contrasena contrasenia senha wachtwoord losenord adgangskode passord salasana sifre parola heslo haslo jelszo \
        lozinka geslo slaptazodis parole salasona motdepasse mdp пароль паролi кодовоеслово parol κωδικοσπροσβασησ كلمةالمرور المرور סיסמה סיסמא \
        पासवर्ड 密码 密碼 口令 パスワード 暗証番号 비밀번호 암호 mima bimilbeonho matkhau รหัสผ่าน katasandi loginpassword dbpassword rootpassword"),
    (PasswordMaybe, "pass clave pw pwhash kata passe mot"),
    (Hash, "pwdhash pwhash hash hashes hashed digest encrypted encr crypt crypted bcrypt argon scrypt sha ntlm \
        хеш хэш ハッシュ 哈希 해시 kryptiert verschlusselt hache cifrada cifrado verifier scram"),
    (Salt, "passwordsalt salt salts salz"),
    (Pin, "pin pins pincode pinnumber pinhash kodpin пин 暗証番号 핀번호 tan"),
    (Answer, "question questions answer answers hint hints frage antwort secretanswer securityanswer securityquestion \
        pregunta respuesta reponse domanda risposta resposta svar vastaus cevap odpoved odpowiedz"),
    (Other, "order orders invoice invoices sku isbn issn ean gtin upc barcode asin part serial tracking version versions build release revision rev \
        price prices amount amounts quantity qty weight hash hashes checksum checksums commit sha uuid guid etag batch lot \
        ticket tickets case reference ref refs transaction transactions txn trx latitude longitude epoch timestamp timestamps counter \
        bestellung bestellnr bestellnummer auftrag auftragsnr rechnung rechnungsnr rechnungsnummer artikelnr artikelnummer teilenummer \
        preis preise betrag menge commande facture prix montant quantite pedido factura precio importe cantidad ordine fattura \
        prezzo importo quantita fatura preco quantia bestelling factuur prijs bedrag ordre ordernr faktura pris belopp tilaus lasku hinta \
        siparis fiyat tutar objednavka cena zamowienie заказ цена сумма количество артикул 注文 価格 金額 订单 价格 金额 주문 가격 금액 \
        fingerprint fingerprints signature digest color colour hex"),
];
