//! What outlets can be told: a settings file enters, checked settings leave. Unknown keys are refused.

use std::{
    collections::HashSet,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use url::Url;

use super::{OutletError, address::Address};
use crate::settings;

/// The settings file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// SIEMs and collectors of syslog.
    pub syslog: Vec<Syslog>,
    /// Folders of Parquet files.
    pub parquet: Vec<Parquet>,
    /// Streams of NATS JetStream.
    pub nats: Vec<Nats>,
    /// Collectors of OpenTelemetry.
    pub otlp: Vec<Otlp>,
}

/// What every outlet has.
#[derive(Clone, Debug)]
pub struct Common {
    /// Its name in metrics, logs and the store. Its place in the records goes with it: another name begins anew.
    pub name: String,
    /// Which records.
    pub send: Send,
    /// Where it begins, the first time.
    pub begin: Begin,
}

/// Which records leave.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Send {
    /// Everything.
    #[default]
    All,
    /// Decisions on connections and statements, and what is notable.
    Decisions,
    /// What was not simply allowed, access round the proxy, approvals, gaps, people's actions, the state of guard itself.
    Notable,
}

/// Where an outlet begins that was never there before.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Begin {
    /// With the oldest record that is stored.
    #[default]
    Oldest,
    /// With what comes from now on.
    Now,
}

/// A receiver of syslog.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syslog {
    /// See [`Common::name`].
    name: String,
    #[serde(default)]
    send: Send,
    #[serde(default)]
    begin: Begin,
    /// As in `siem.example:6514`.
    pub address: Address,
    /// Whether over TLS; without on this host alone.
    #[serde(default = "yes")]
    pub tls: bool,
    /// Authorities to trust instead of the system's, PEM.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The control plane's certificate there, with its chain, PEM.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// What stands in a message.
    #[serde(default)]
    pub format: Format,
    /// Facility number of RFC 5424: 13 is `log audit`.
    #[serde(default = "facility")]
    pub facility: u8,
    /// Longest message in bytes.
    #[serde(default = "max_bytes")]
    pub max_bytes: usize,
    /// The enterprise number in the name of guard's structured data.
    #[serde(default = "enterprise")]
    pub enterprise: u32,
}

/// What stands in a syslog message.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Common Event Format.
    #[default]
    Cef,
    /// The fields of `docs/outlets.md` as one JSON object.
    Json,
}

/// A folder of Parquet files by day.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parquet {
    /// See [`Common::name`].
    name: String,
    #[serde(default)]
    send: Send,
    #[serde(default)]
    begin: Begin,
    /// Where the files go.
    pub folder: PathBuf,
    /// A file is finished once so much waits for it, before it is compressed.
    #[serde(default = "part_mib")]
    pub part_mib: u64,
    /// Or after this time.
    #[serde(default = "part_seconds")]
    pub part_seconds: u64,
}

/// A stream of NATS JetStream.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// See [`Common::name`].
    name: String,
    #[serde(default)]
    send: Send,
    #[serde(default)]
    begin: Begin,
    /// As in `tls://nats.example:4222`; `nats://` on this host alone.
    pub servers: Vec<Url>,
    /// The stream.
    #[serde(default = "stream")]
    pub stream: String,
    /// What the subjects begin with.
    #[serde(default = "subject")]
    pub subject: String,
    /// Whether the stream is made where it is missing.
    #[serde(default = "yes")]
    pub create: bool,
    /// Copies of a stream that is made.
    #[serde(default = "replicas")]
    pub replicas: usize,
    /// Authorities to trust instead of the system's, PEM.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The control plane's certificate there, with its chain, PEM.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// A user's credentials, as `nsc` writes them.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
    /// A file with a token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

/// A collector of OpenTelemetry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// See [`Common::name`].
    name: String,
    #[serde(default)]
    send: Send,
    #[serde(default)]
    begin: Begin,
    /// As in `https://collector.example:4318`; `http://` on this host alone.
    pub url: Url,
    /// An authority to trust besides the system's, PEM.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A file with what stands in `Authorization`, as in `Bearer ..`.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
}

fn part_mib() -> u64 {
    64
}

fn part_seconds() -> u64 {
    300
}

fn stream() -> String {
    "GUARD".to_owned()
}

fn subject() -> String {
    "guard.audit".to_owned()
}

fn replicas() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn facility() -> u8 {
    13
}

fn max_bytes() -> usize {
    8 * 1024
}

/// For documentation (RFC 5612): nobody else's.
fn enterprise() -> u32 {
    32_473
}

/// The settings of one outlet.
#[derive(Clone, Debug)]
pub enum Settings {
    /// RFC 5424.
    Syslog(Syslog),
    /// Files by day.
    Parquet(Parquet),
    /// JetStream.
    Nats(Nats),
    /// OpenTelemetry.
    Otlp(Otlp),
}

impl Settings {
    /// What kind of outlet it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Syslog(_) => "syslog",
            Self::Parquet(_) => "parquet",
            Self::Nats(_) => "nats",
            Self::Otlp(_) => "otlp",
        }
    }

    /// What every outlet has.
    pub fn common(&self) -> Common {
        let (name, send, begin) = match self {
            Self::Syslog(one) => (&one.name, one.send, one.begin),
            Self::Parquet(one) => (&one.name, one.send, one.begin),
            Self::Nats(one) => (&one.name, one.send, one.begin),
            Self::Otlp(one) => (&one.name, one.send, one.begin),
        };
        Common { name: name.clone(), send, begin }
    }
}

impl Settings {
    fn check(&self) -> Result<(), &'static str> {
        let together = "`certificate` and `key` come together";
        match self {
            Self::Syslog(one) if one.certificate.is_some() != one.key.is_some() => Err(together),
            Self::Syslog(one) if !(2_048..=65_536).contains(&one.max_bytes) => {
                Err("`max_bytes` is 2048 to 65536")
            }
            Self::Syslog(one) if one.facility > 23 => Err("`facility` is 0 to 23"),
            Self::Parquet(one) if !one.folder.is_absolute() => Err("`folder` is a whole path"),
            Self::Parquet(one) if !(1..=4_096).contains(&one.part_mib) => Err("`part_mib` is 1 to 4096"),
            Self::Parquet(one) if !(1..=86_400).contains(&one.part_seconds) => {
                Err("`part_seconds` is 1 to 86400")
            }
            Self::Nats(one) if one.certificate.is_some() != one.key.is_some() => Err(together),
            Self::Nats(one) if one.servers.is_empty() => {
                Err("`servers` names at least one, as in tls://nats.example:4222")
            }
            Self::Nats(one) if !one.servers.iter().all(|url| reaches(url, ("tls", "nats"))) => Err(
                "`servers` begin with tls://, or with nats:// on this host: records would cross the network readable",
            ),
            Self::Nats(one) if !one.servers.iter().all(|url| url.password().is_none()) => {
                Err("`servers` hold no password: use `credentials_file` or `token_file`")
            }
            Self::Nats(one) if !is_subject(&one.subject) => {
                Err("`subject` has words of letters, digits, `-` and `_` with dots between")
            }
            Self::Nats(one) if one.stream.contains('.') || !is_subject(&one.stream) => {
                Err("`stream` has letters, digits, `-` and `_`")
            }
            Self::Nats(one) if !(1..=5).contains(&one.replicas) => Err("`replicas` is 1 to 5"),
            Self::Otlp(one) if !reaches(&one.url, ("https", "http")) => Err(
                "`url` begins with https://, or with http:// on this host: records would cross the network readable",
            ),
            Self::Syslog(_) | Self::Parquet(_) | Self::Nats(_) | Self::Otlp(_) => Ok(()),
        }
    }
}

/// Whether an address is one of `secure`, or one of `plain` on this host.
fn reaches(url: &Url, (secure, plain): (&str, &str)) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    !host.is_empty() && (url.scheme() == secure || (url.scheme() == plain && here))
}

fn is_subject(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
    };
    text.len() <= 128 && text.split('.').all(is_word)
}

impl File {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, OutletError> {
        let failed = |problem: String| OutletError::Settings { path: path.to_owned(), problem };
        let file: Self = settings::read(path).map_err(failed)?;
        file.check().map_err(failed)?;
        Ok(file)
    }

    /// All of them.
    pub fn outlets(&self) -> Vec<Settings> {
        let syslog = self.syslog.iter().cloned().map(Settings::Syslog);
        let parquet = self.parquet.iter().cloned().map(Settings::Parquet);
        let nats = self.nats.iter().cloned().map(Settings::Nats);
        let otlp = self.otlp.iter().cloned().map(Settings::Otlp);
        syslog.chain(parquet).chain(nats).chain(otlp).collect()
    }

    fn check(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for settings in self.outlets() {
            let name = settings.common().name;
            let kind = settings.kind();
            let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                return Err(format!("`{kind}`: a name has 1 to 64 letters, digits, `-`, `_` and `.`"));
            }
            settings.check().map_err(|problem| format!("`{kind}` {name}: {problem}"))?;
            if !names.insert(name.clone()) {
                return Err(format!("two outlets have the name `{name}`: each needs its own"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        toml::from_str::<File>(text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        check("").unwrap();
        let syslog = "[[syslog]]\nname = \"siem\"\naddress = \"siem.example:6514\"\n";
        let parquet = "[[parquet]]\nname = \"lake\"\nfolder = \"/srv/guard\"\n";
        let nats = "[[nats]]\nname = \"bus\"\nservers = [\"tls://a:4222\", \"nats://127.0.0.1\", \"nats://[::1]:1\"]\n";
        let otlp = "[[otlp]]\nname = \"otel\"\nurl = \"https://collector:4318\"\n";
        check(&format!("{syslog}{parquet}{nats}{otlp}")).unwrap();
        check(&otlp.replace("https://collector", "http://localhost")).unwrap();
        for (text, key) in [
            ("[[kafka]]".to_owned(), "kafka"),
            (format!("{syslog}colour = 1"), "colour"),
            (format!("{syslog}key = \"k.pem\""), "certificate"),
            (format!("{syslog}max_bytes = 100"), "max_bytes"),
            (format!("{syslog}facility = 24"), "facility"),
            (format!("{syslog}format = \"leef\""), "leef"),
            (format!("{syslog}{syslog}"), "siem"),
            (syslog.replace("siem\"", "a b\""), "name"),
            (syslog.replace(":6514", ""), "port"),
            (format!("{syslog}{}", otlp.replace("otel", "siem")), "siem"),
            (parquet.replace("/srv", "srv"), "folder"),
            (format!("{parquet}part_mib = 0"), "part_mib"),
            (format!("{parquet}part_seconds = 0"), "part_seconds"),
            (nats.replace("tls://a", "nats://a"), "readable"),
            (nats.replace("tls://a", "tls://u:secret@a"), "credentials_file"),
            (format!("{nats}subject = \"guard.>\""), "subject"),
            (format!("{nats}stream = \"a.b\""), "stream"),
            (otlp.replace("https", "http"), "readable"),
        ] {
            let problem = check(&text).unwrap_err();
            assert!(problem.contains(key), "{text}: {problem}");
        }
    }
}
