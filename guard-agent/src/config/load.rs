//! Reading the configuration: file, environment, checks.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{Config, LiteralForm, TlsMode, clients, masking, steering, tls};

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_PATH: &str = "/etc/guard/guard.toml";

/// Environment variables that override a key start with this; `__` goes one level down.
pub const ENV_PREFIX: &str = "GUARD_AGENT_";

/// Largest configuration file in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{path}`: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{source_name}: {problem}")]
    Invalid {
        /// The file, or the environment variable.
        source_name: String,
        /// Line, key, and what to write.
        problem: String,
    },
    /// Every key is fine alone, but not together.
    #[error("{source_name}: `{key}`: {problem}")]
    Conflict {
        /// The file.
        source_name: String,
        /// The key.
        key: String,
        /// What is wrong and what to write.
        problem: String,
    },
}

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, checked.
    pub config: Config,
    /// The file; `None` for the built-in defaults.
    pub file: Option<PathBuf>,
}

impl Config {
    /// Reads `file`, or the default file where it exists, or takes the built-in defaults; then the environment.
    pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
        let default = Path::new(DEFAULT_PATH);
        let file = file.or_else(|| default.exists().then_some(default));
        let text = match file {
            Some(path) => read(path)?,
            None => String::new(),
        };
        let name =
            file.map_or_else(|| "built-in defaults".to_owned(), |path| format!("`{}`", path.display()));
        let environment = std::env::vars().filter(|(key, _)| key.starts_with(ENV_PREFIX));
        let config = parse(&text, &name, environment)?;
        check(&config).map_err(|(key, problem)| ConfigError::Conflict { source_name: name, key, problem })?;
        Ok(Loaded { config, file: file.map(Path::to_owned) })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |error| ConfigError::Read { path: path.to_owned(), error };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(failed(io::Error::other("it is larger than 1 MiB")));
    }
    fs::read_to_string(path).map_err(failed)
}

fn parse(
    text: &str,
    name: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let invalid = |source_name: &str, problem: String| ConfigError::Invalid {
        source_name: source_name.to_owned(),
        problem,
    };
    // First alone: errors then name the line.
    let config: Config = toml::from_str(text).map_err(|error| invalid(name, explain(&error.to_string())))?;
    let mut table: Table = toml::from_str(text).map_err(|error| invalid(name, error.to_string()))?;
    let mut overridden = false;
    for (key, value) in environment {
        let path: Vec<String> = key[ENV_PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        set(&mut table, &path, read_value(&value))
            .map_err(|problem| invalid(&format!("environment variable {key}"), problem))?;
        let whole: Result<Config, _> = table.clone().try_into();
        whole
            .map_err(|error| invalid(&format!("environment variable {key}"), explain(&error.to_string())))?;
        overridden = true;
    }
    if !overridden {
        return Ok(config);
    }
    table.try_into().map_err(|error: toml::de::Error| invalid(name, explain(&error.to_string())))
}

/// A number, a boolean or a list as TOML writes it; any other text is a string.
fn read_value(text: &str) -> Value {
    let document: Result<Table, _> = toml::from_str(&format!("value = {text}"));
    document
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    match path {
        [] => Err("it names no key".to_owned()),
        [key] => {
            table.insert(key.clone(), value);
            Ok(())
        }
        [key, rest @ ..] => match table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => set(inner, rest, value),
            _ => Err(format!("`{key}` is not a table")),
        },
    }
}

/// Adds the nearest known key to an error about an unknown one.
fn explain(error: &str) -> String {
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let Some(at) = error.find("unknown field `") else {
        return error.trim_end().to_owned();
    };
    let names = quoted(&error[at..]);
    let Some((unknown, known)) = names.split_first() else {
        return error.trim_end().to_owned();
    };
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(name, unknown), name))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, name)) => format!("{}\ndid you mean `{name}`?", error.trim_end()),
        None => error.trim_end().to_owned(),
    }
}

type Problem = (String, String);

fn check(config: &Config) -> Result<(), Problem> {
    let wrong = |key: String, problem: &str| Err((key, problem.to_owned()));
    let mut names = BTreeSet::new();
    let mut listens = BTreeSet::new();
    for server in &config.servers {
        let key = |field: &str| format!("servers.{}.{field}", server.name);
        if server.name.is_empty() || !names.insert(&server.name) {
            return wrong(key("name"), "give each server a name of its own: policies and records use it");
        }
        if let Some(listen) = server.listen {
            if listen == server.address {
                return wrong(
                    key("listen"),
                    "this is the server's own address: choose another port for the proxy",
                );
            }
            let in_clear = config.tls(Some(server)).mode != TlsMode::Require;
            if !listen.ip().is_loopback() && in_clear && !server.allow_plaintext {
                return wrong(
                    key("listen"),
                    "clients of other hosts would talk to it in clear: set `tls.mode = \"require\"`, listen on \
                     loopback, or set `allow_plaintext = true` where the network is trusted",
                );
            }
            if listen.port() != 0 && !listens.insert(listen) {
                return wrong(key("listen"), "another server's proxy listens there already");
            }
        }
        let is_path = |path: &PathBuf| path.is_absolute();
        if server.close_socket_folder && !server.unix_socket.as_ref().is_some_and(is_path) {
            return wrong(
                key("close_socket_folder"),
                "there is no folder to close: name the server's socket by its path in `unix_socket`",
            );
        }
        let folder =
            |path: &Option<PathBuf>| path.as_ref().and_then(|path| path.parent().map(Path::to_owned));
        if server.close_socket_folder
            && server.listen_unix.is_some()
            && folder(&server.listen_unix) == folder(&server.unix_socket)
        {
            return wrong(
                key("listen_unix"),
                "nobody would reach it in the folder that `close_socket_folder` closes: choose another folder",
            );
        }
        if server.listen_unix.is_some() && server.listen_unix == server.unix_socket {
            return wrong(
                key("listen_unix"),
                "this is the server's own socket: choose another path for the proxy",
            );
        }
    }
    steering::check(config)?;
    check_tls(config)?;
    clients::check(&config.clients)?;
    masking::check(&config.masking).map_err(|(field, text)| (format!("masking.{field}"), text))?;
    if config.journal.segment_mib == 0 || config.journal.max_mib < config.journal.segment_mib * 2 {
        return wrong(
            "journal.max_mib".to_owned(),
            "it must hold at least two segments of `journal.segment_mib`",
        );
    }
    match (config.journal.literals, &config.journal.literals_key) {
        (LiteralForm::Encrypted, None) => {
            return wrong(
                "journal.literals_key".to_owned(),
                "name the public key that literals are sealed for: `guard-agent audit literals-key --output FILE` \
                 makes a pair",
            );
        }
        (form @ (LiteralForm::Redacted | LiteralForm::Full), Some(_)) => {
            let problem = format!(
                "nothing is sealed for it while `journal.literals` is \"{}\": write `literals = \"encrypted\"`, or take \
                 the key out",
                form.as_str()
            );
            return wrong("journal.literals_key".to_owned(), &problem);
        }
        _ => {}
    }
    if config.proxy.max_connections == 0 {
        return wrong("proxy.max_connections".to_owned(), "0 would refuse every client");
    }
    if !(1024..=512 * 1024 * 1024).contains(&config.proxy.max_statement_bytes) {
        return wrong("proxy.max_statement_bytes".to_owned(), "choose between 1024 and 536870912 bytes");
    }
    if !(-20..=19).contains(&config.proxy.nice) {
        return wrong(
            "proxy.nice".to_owned(),
            "choose between -20, the largest share of the processors, and 19",
        );
    }
    let listen = &config.proxy.discovered_listen;
    match (listen.is_empty(), listen.parse::<std::net::IpAddr>()) {
        (false, Err(_)) => {
            let problem = "write an IP address such as 127.0.0.1, or \"\" for none";
            return wrong("proxy.discovered_listen".to_owned(), problem);
        }
        (_, Ok(ip)) if !ip.is_loopback() => {
            let problem =
                "discovered servers get a proxy on loopback only: list a server to have its proxy elsewhere";
            return wrong("proxy.discovered_listen".to_owned(), problem);
        }
        _ => {}
    }
    if config.policy.watch_seconds > 3600 {
        return wrong(
            "policy.watch_seconds".to_owned(),
            "choose at most 3600 seconds, or 0 for SIGHUP alone",
        );
    }
    if !(1..=7 * 86_400).contains(&config.approvals.within_seconds) {
        return wrong(
            "approvals.within_seconds".to_owned(),
            "choose between 1 second and 604800, which is 7 days",
        );
    }
    if !(1..=10_000).contains(&config.approvals.max_waiting) {
        return wrong("approvals.max_waiting".to_owned(), "choose between 1 and 10000 statements");
    }
    config.approvals.groups.check()?;
    if config.discovery.interval_seconds == 0 {
        return wrong("discovery.interval_seconds".to_owned(), "choose at least 1 second");
    }
    Ok(())
}

fn check_tls(config: &Config) -> Result<(), Problem> {
    let problem = |key: String, problem: &str| (key, problem.to_owned());
    tls::check(&config.proxy.tls).map_err(|(field, text)| problem(format!("proxy.tls.{field}"), text))?;
    for server in &config.servers {
        let key = |field: &str| format!("servers.{}.{field}", server.name);
        tls::check(config.tls(Some(server)))
            .map_err(|(field, text)| problem(key(&format!("tls.{field}")), text))?;
        tls::check_upstream(server, config.upstream_tls(Some(server)))
            .map_err(|(field, text)| problem(key(field), text))?;
    }
    if config.proxy.upstream_tls.verifies() && config.discovery.enabled {
        return Err(problem(
            "proxy.upstream_tls".to_owned(),
            "discovered servers have no `upstream_ca`: set it per server, or switch `discovery.enabled` off",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    fn load(text: &str) -> Result<Config, String> {
        with_environment(text, &[])
    }

    fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables =
            variables.iter().map(|(key, value)| (format!("{ENV_PREFIX}{key}"), (*value).to_owned()));
        let config = parse(text, "`guard.toml`", variables).map_err(|error| error.to_string())?;
        check(&config).map_err(|(key, problem)| format!("{key}: {problem}"))?;
        Ok(config)
    }

    #[test]
    fn nothing_at_all_monitors() {
        let config = load("").unwrap();
        assert_eq!(config.mode, Mode::Monitor);
        assert!(config.discovery.enabled && config.sensor.ebpf && config.servers.is_empty());
    }

    #[test]
    fn a_typo_names_the_line_and_the_nearest_key() {
        let error = load("mode = \"enforce\"\n[jurnal]\nmax_mib = 1\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("did you mean `journal`"), "{error}");
        let error = load("[[servers]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\nlisen = \"127.0.0.1:2\"")
            .unwrap_err();
        assert!(error.contains("lisen") && error.contains("did you mean `listen`"), "{error}");
        let error = load("mode = \"enforced\"").unwrap_err();
        assert!(error.contains("enforced") && error.contains("monitor"), "{error}");
    }

    #[test]
    fn the_environment_overrides() {
        let config = with_environment(
            "[journal]\nmax_mib = 64\n",
            &[
                ("MODE", "enforce"),
                ("JOURNAL__MAX_MIB", "128"),
                ("CONTROL__ENDPOINT", "http://127.0.0.1:7400"),
            ],
        )
        .unwrap();
        assert_eq!((config.mode, config.journal.max_mib), (Mode::Enforce, 128));
        assert_eq!(config.control.endpoint.as_deref(), Some("http://127.0.0.1:7400"));
        let error = with_environment("", &[("MODUS", "enforce")]).unwrap_err();
        assert!(error.contains("GUARD_AGENT_MODUS") && error.contains("did you mean `mode`"), "{error}");
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        let server =
            |extra: &str| format!("[[servers]]\nname = \"a\"\naddress = \"127.0.0.1:5432\"\n{extra}");
        assert!(load(&server("listen = \"127.0.0.1:5432\"")).unwrap_err().contains("own address"));
        assert!(load(&server("listen = \"0.0.0.0:6432\"")).unwrap_err().contains("in clear"));
        assert!(load(&server("listen = \"0.0.0.0:6432\"\nallow_plaintext = true")).is_ok());
        assert!(load(&format!("{}{}", server(""), server(""))).unwrap_err().contains("name of its own"));
        assert!(load("[journal]\nmax_mib = 1").unwrap_err().contains("two segments"));
        assert!(load("[proxy]\nmax_connections = 0").unwrap_err().contains("every client"));
        assert!(load("[proxy]\ndiscovered_listen = \"localhost\"").unwrap_err().contains("IP address"));
    }

    #[test]
    fn masking_that_cannot_work_is_refused() {
        let column =
            |tags: &str| load(&format!("[[masking.columns]]\ntable = \"t\"\ncolumn = \"c\"\ntags = {tags}"));
        assert!(column("[\"email\", \"vip\"]").is_ok() && column("[\"none\"]").is_ok());
        assert!(column("[]").unwrap_err().contains("masking.columns"));
        assert!(column("[\"email\", \"phone\"]").unwrap_err().contains("one kind"));
        assert!(column("[\"none\", \"vip\"]").unwrap_err().contains("alone"));
        assert!(load("[masking]\ndefault = \"stars\"").unwrap_err().contains("fixed:TEXT"));
        assert!(load("[masking]\nmax_row_mib = 0").unwrap_err().contains("1024"));
    }

    #[test]
    fn a_folder_that_cannot_be_closed_is_told() {
        let server = |extra: &str| {
            load(&format!(
                "[[servers]]\nname = \"a\"\naddress = \"127.0.0.1:1\"\nclose_socket_folder = true\n{extra}"
            ))
        };
        assert!(server("unix_socket = \"/run/postgresql/.s.PGSQL.1\"").is_ok());
        assert!(server("").unwrap_err().contains("no folder to close"));
        assert!(server("unix_socket = \"@name\"").unwrap_err().contains("no folder to close"));
        let both =
            "unix_socket = \"/run/postgresql/.s.PGSQL.1\"\nlisten_unix = \"/run/postgresql/.s.PGSQL.2\"";
        assert!(server(both).unwrap_err().contains("another folder"));
    }

    #[test]
    fn databases_have_modes_of_their_own() {
        let server = "[[servers]]\nname = \"a\"\naddress = \"127.0.0.1:5432\"\nmode = \"enforce\"\n";
        let config = load(&format!("{server}[servers.databases.reports]\nmode = \"monitor\"")).unwrap();
        assert_eq!(config.servers[0].databases["reports"].mode, Some(Mode::Monitor));
        let error = load(&format!("{server}[servers.databases.reports]\nmod = \"monitor\"")).unwrap_err();
        assert!(error.contains("did you mean `mode`"), "{error}");
    }

    #[test]
    fn tls_settings_that_cannot_work_are_refused() {
        let server = "[[servers]]\nname = \"a\"\naddress = \"127.0.0.1:5432\"\nlisten = \"0.0.0.0:6432\"\n";
        let with = |extra: &str| load(&format!("{server}{extra}"));
        assert!(with("[servers.tls]\nmode = \"require\"").is_ok(), "no client talks in clear");
        assert!(with("[servers.tls]\nmode = \"allow\"").unwrap_err().contains("in clear"));
        assert!(
            with("tls = { mode = \"require\", key = \"/k\" }").unwrap_err().contains("a.tls.certificate")
        );
        assert!(with("tls = { mode = \"require\", min_version = \"1.1\" }").unwrap_err().contains("1.2"));
        let required = "tls = { mode = \"require\" }\n";
        let upstream = |extra: &str| with(&format!("{required}{extra}"));
        assert!(upstream("upstream_tls = \"verify-full\"").unwrap_err().contains("upstream_ca"));
        assert!(upstream("upstream_tls = \"verify-full\"\nupstream_ca = \"/ca\"").is_ok());
        assert!(upstream("upstream_tls = \"require\"\nunix_socket = \"/s\"").unwrap_err().contains("no TLS"));
        assert!(upstream("upstream_name = \"not a name\"").unwrap_err().contains("host name"));
        assert!(
            load("[proxy]\nproxy_protocol_from = [\"10.0.0.0/33\"]").unwrap_err().contains("10.0.0.0/33")
        );
        assert!(load("[proxy]\nnice = 20").unwrap_err().contains("between -20"));
        assert!(load("[proxy]\nnice = -20").is_ok());
    }

    #[test]
    fn the_shipped_file_is_the_default() {
        let shipped = load(include_str!("../../../deploy/guard.toml")).unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", Config::default()));
    }
}
