//! Recognises AI agents and CI runners by what a process and its ancestors run. Pure: reads nothing.
//!
//! Names that are also ordinary words count only where the path or the package says that an agent is meant.

use super::image::Image;
use crate::config::IdentityConfig;

/// Programs by the name of their file: agent, file name.
const EXECUTABLES: [(&str, &str); 30] = [
    ("claude", "claude"),
    ("claude", "claude-code"),
    ("codex", "codex"),
    ("gemini", "gemini"),
    ("gemini", "gemini-cli"),
    ("cursor", "cursor"),
    ("cursor", "cursor-agent"),
    ("aider", "aider"),
    ("copilot", "copilot"),
    ("copilot", "copilot-agent"),
    ("copilot", "github-copilot-cli"),
    ("copilot", "copilot-language-server"),
    ("opencode", "opencode"),
    ("goose", "goosed"),
    ("goose", "goose-cli"),
    ("amp", "amp-cli"),
    ("qwen", "qwen"),
    ("qwen", "qwen-code"),
    ("crush", "charm-crush"),
    ("windsurf", "windsurf"),
    ("windsurf", "windsurf-next"),
    ("devin", "devin"),
    ("devin", "devin-agent"),
    ("openhands", "openhands"),
    ("cline", "cline"),
    ("continue", "continue-cli"),
    ("plandex", "plandex"),
    ("kiro", "kiro-cli"),
    ("amazon-q", "qchat"),
    ("droid", "factory-droid"),
];

/// Parts of a program's or script's path that only an agent has: agent, text.
const PATHS: [(&str, &str); 26] = [
    ("claude", "/@anthropic-ai/claude-code/"),
    ("claude", "/.claude/local/"),
    ("claude", "/share/claude/versions/"),
    ("codex", "/@openai/codex/"),
    ("gemini", "/@google/gemini-cli/"),
    ("qwen", "/@qwen-code/qwen-code/"),
    ("amp", "/@sourcegraph/amp/"),
    ("copilot", "/@github/copilot/"),
    ("copilot", "/github.copilot-"),
    ("opencode", "/opencode-ai/"),
    ("opencode", "/.opencode/bin/"),
    ("continue", "/@continuedev/cli/"),
    ("continue", "/continue.continue-"),
    ("cline", "/saoudrizwan.claude-dev-"),
    ("crush", "/@charmland/crush/"),
    ("cursor", "/cursor-server/"),
    ("cursor", "/.cursor-server/"),
    ("cursor", "/cursor-agent/"),
    ("windsurf", "/.windsurf-server/"),
    ("goose", "/block.goose/"),
    ("aider", "/site-packages/aider/"),
    ("openhands", "/site-packages/openhands/"),
    ("openhands", "/openhands/server/"),
    ("plandex", "/plandex/bin/"),
    ("codebuff", "/codebuff/dist/"),
    ("auggie", "/@augmentcode/auggie/"),
];

/// Modules that Python starts with `-m`: agent, module.
const MODULES: [(&str, &str); 3] = [("aider", "aider"), ("openhands", "openhands"), ("goose", "goose_ai")];

/// CI runners by the name of their file: runner, file name.
const CI_EXECUTABLES: [(&str, &str); 23] = [
    ("github-actions", "Runner.Worker"),
    ("github-actions", "Runner.Listener"),
    ("gitlab", "gitlab-runner"),
    ("gitlab", "gitlab-runner-helper"),
    ("azure-pipelines", "Agent.Worker"),
    ("azure-pipelines", "Agent.Listener"),
    ("buildkite", "buildkite-agent"),
    ("circleci", "circleci-agent"),
    ("circleci", "circleci-runner"),
    ("circleci", "circleci-launch-agent"),
    ("drone", "drone-runner-docker"),
    ("drone", "drone-runner-exec"),
    ("woodpecker", "woodpecker-agent"),
    ("gitea", "act_runner"),
    ("forgejo", "forgejo-runner"),
    ("bitbucket", "atlassian-bitbucket-pipelines-runner"),
    ("travis", "travis-worker"),
    ("semaphore", "semaphore-agent"),
    ("cirrus", "cirrus-ci-agent"),
    ("teamcity", "teamcity-agent"),
    ("gocd", "go-agent"),
    ("jenkins", "jenkins-agent"),
    ("concourse", "gdn-init"),
];

/// Parts of a program's or script's path that only a CI runner has: runner, text.
const CI_PATHS: [(&str, &str); 9] = [
    ("github-actions", "/actions-runner/"),
    ("jenkins", "/jenkins/agent.jar"),
    ("jenkins", "/jenkins/remoting.jar"),
    ("jenkins", "/jenkins/slave.jar"),
    ("jenkins", "/jenkins.war"),
    ("teamcity", "/buildAgent/lib/"),
    ("tekton", "/tekton/bin/entrypoint"),
    ("argo", "/var/run/argo/argoexec"),
    ("bamboo", "/atlassian-bamboo-agent"),
];

/// What is recognised in a process and those above it.
#[derive(Debug)]
pub struct Recognised {
    /// AI agents.
    pub ai_agents: List,
    /// CI runners.
    pub ci_runners: List,
}

impl Recognised {
    /// The built-in lists, as the configuration changes them.
    pub fn new(config: &IdentityConfig) -> Self {
        Self {
            ai_agents: List::new(&EXECUTABLES, &PATHS, &MODULES, &config.ai_agents),
            ci_runners: List::new(&CI_EXECUTABLES, &CI_PATHS, &[], &config.ci_runners),
        }
    }
}

/// Programs that are recognised: those built in and those configured.
#[derive(Debug)]
pub struct List {
    executables: &'static [(&'static str, &'static str)],
    paths: &'static [(&'static str, &'static str)],
    modules: &'static [(&'static str, &'static str)],
    configured: Vec<(String, String)>,
    without: Vec<String>,
}

impl List {
    /// Adds `name` or `name=executable` to what is built in, and takes out what `-name` says, all of it with `-*`. An
    /// executable with a slash is a whole path.
    fn new(
        executables: &'static [(&'static str, &'static str)],
        paths: &'static [(&'static str, &'static str)],
        modules: &'static [(&'static str, &'static str)],
        entries: &[String],
    ) -> Self {
        let (without, configured): (Vec<&String>, Vec<&String>) =
            entries.iter().partition(|entry| entry.starts_with('-'));
        let configured = configured
            .into_iter()
            .map(|entry| entry.split_once('=').unwrap_or((entry.as_str(), entry.as_str())))
            .map(|(name, executable)| (name.trim().to_owned(), executable.trim().to_owned()))
            .filter(|(name, executable)| !name.is_empty() && !executable.is_empty())
            .collect();
        let without = without.into_iter().map(|entry| entry[1..].trim().to_owned()).collect();
        Self { executables, paths, modules, configured, without }
    }

    /// The one that one of `images` is: the process itself first, then its ancestors.
    pub fn recognise<'a>(&self, images: impl Iterator<Item = &'a Image>) -> Option<&str> {
        images.into_iter().find_map(|image| self.recognise_one(image))
    }

    fn recognise_one(&self, image: &Image) -> Option<&str> {
        let files = [Some(image.executable.as_str()), script(image)].into_iter().flatten();
        for file in files {
            let name = stem(file);
            let configured = self.configured.iter().find(|(_, executable)| {
                if executable.contains('/') { executable == file } else { executable == name }
            });
            if let Some((agent, _)) = configured {
                return Some(agent);
            }
            let known = self.built_in(self.executables).find(|(_, executable)| *executable == name);
            let path = self.built_in(self.paths).find(|(_, part)| file.contains(part));
            if let Some((agent, _)) = known.or(path) {
                return Some(agent);
            }
        }
        let module = module(image)?;
        self.built_in(self.modules).find(|(_, name)| *name == module).map(|(agent, _)| agent)
    }

    fn built_in(
        &self,
        list: &'static [(&'static str, &'static str)],
    ) -> impl Iterator<Item = (&'static str, &'static str)> {
        let kept = |agent: &str| !self.without.iter().any(|name| name == "*" || name == agent);
        list.iter().copied().filter(move |(agent, _)| kept(agent))
    }
}

/// Name of a file, without the suffix of a script.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    [".js", ".mjs", ".cjs", ".py", ".sh", ".exe"]
        .into_iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

/// The script that an interpreter runs: its first argument that is no option. An interpreter given code (`-c`,
/// `-e`) runs no script.
fn script(image: &Image) -> Option<&str> {
    if stem(&image.executable) == "java" {
        return image.argv.iter().skip_while(|argument| *argument != "-jar").nth(1).map(String::as_str);
    }
    if !is_interpreter(stem(&image.executable)) {
        return None;
    }
    let mut arguments = image.argv.iter().skip(1).map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument {
            "-c" | "-e" | "-p" | "-m" | "--eval" | "--print" => return None,
            // Options of node and python whose value is an argument of its own.
            "-r" | "--require" | "--import" | "--loader" | "-W" | "-X" => {
                arguments.next();
            }
            option if option.starts_with('-') => {}
            script => return Some(script),
        }
    }
    None
}

/// The module after Python's `-m`.
fn module(image: &Image) -> Option<&str> {
    if !stem(&image.executable).starts_with("python") {
        return None;
    }
    let mut arguments = image.argv.iter().skip(1).take_while(|argument| argument.starts_with('-'));
    arguments.position(|argument| argument == "-m")?;
    let module = image.argv.iter().skip_while(|argument| *argument != "-m").nth(1)?;
    module.split('.').next()
}

fn is_interpreter(name: &str) -> bool {
    let bare = name.trim_end_matches(|digit: char| digit.is_ascii_digit() || digit == '.');
    matches!(
        bare,
        "node"
            | "nodejs"
            | "bun"
            | "deno"
            | "python"
            | "pypy"
            | "ruby"
            | "bash"
            | "sh"
            | "dash"
            | "zsh"
            | "env"
    )
}

#[cfg(test)]
mod tests {
    use super::{Image, List, Recognised};
    use crate::config::IdentityConfig;

    fn agents(entries: &[&str]) -> List {
        let ai_agents = entries.iter().map(|entry| (*entry).to_owned()).collect();
        Recognised::new(&IdentityConfig { ai_agents, ..IdentityConfig::default() }).ai_agents
    }

    #[test]
    fn ci_runners_are_recognised() {
        let runners = Recognised::new(&IdentityConfig {
            ci_runners: vec!["nightly=/opt/nightly/run".to_owned()],
            ..IdentityConfig::default()
        })
        .ci_runners;
        let recognised = |executable: &str, argv: &[&str]| {
            runners
                .recognise([image("/usr/bin/psql", &[]), image(executable, argv)].iter())
                .map(str::to_owned)
        };
        for (executable, argv, runner) in [
            ("/home/runner/bin/Runner.Worker", &["x"][..], "github-actions"),
            ("/usr/bin/gitlab-runner", &["gitlab-runner", "run"], "gitlab"),
            ("/usr/lib/jvm/17/bin/java", &["java", "-Xmx1g", "-jar", "/home/jenkins/agent.jar"], "jenkins"),
            ("/tekton/bin/entrypoint", &["entrypoint"], "tekton"),
            ("/opt/nightly/run", &[], "nightly"),
        ] {
            assert_eq!(recognised(executable, argv).as_deref(), Some(runner), "{executable}");
        }
        assert_eq!(recognised("/usr/bin/java", &["java", "-jar", "/opt/app/agent.jar"]), None);
        assert_eq!(recognised("/usr/bin/entrypoint", &[]), None);
    }

    #[test]
    fn built_in_ones_can_be_taken_out() {
        let claude = [image("/usr/local/bin/claude", &[])];
        assert_eq!(agents(&["-codex"]).recognise(claude.iter()), Some("claude"));
        assert_eq!(agents(&["-claude"]).recognise(claude.iter()), None);
        assert_eq!(agents(&["-*", "mine"]).recognise(claude.iter()), None);
        assert_eq!(agents(&["-*", "mine"]).recognise([image("/bin/mine", &[])].iter()), Some("mine"));
    }

    fn image(executable: &str, argv: &[&str]) -> Image {
        Image {
            executable: executable.to_owned(),
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            ..Image::default()
        }
    }

    fn recognised(images: &[Image]) -> Option<String> {
        agents(&[]).recognise(images.iter()).map(str::to_owned)
    }

    #[test]
    fn by_the_name_of_the_program() {
        for (path, agent) in [
            ("/usr/local/bin/claude", "claude"),
            ("/home/a/.local/bin/cursor-agent", "cursor"),
            ("/opt/codex", "codex"),
            ("/usr/bin/aider", "aider"),
        ] {
            assert_eq!(recognised(&[image(path, &[path])]).as_deref(), Some(agent), "{path}");
        }
    }

    #[test]
    fn by_the_script_of_an_interpreter() {
        let node = |script: &str| image("/usr/bin/node", &["node", "--no-warnings", script, "-p", "hi"]);
        for (script, agent) in [
            ("/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js", "claude"),
            ("/usr/lib/node_modules/@openai/codex/bin/codex.js", "codex"),
            ("/home/a/.nvm/lib/node_modules/@google/gemini-cli/dist/index.js", "gemini"),
            ("/usr/local/bin/claude", "claude"),
            ("/usr/local/bin/opencode", "opencode"),
        ] {
            assert_eq!(recognised(&[node(script)]).as_deref(), Some(agent), "{script}");
        }
        let python = image("/usr/bin/python3.11", &["/usr/bin/python3", "/home/a/.local/bin/aider", "--yes"]);
        assert_eq!(recognised(&[python]).as_deref(), Some("aider"));
    }

    #[test]
    fn by_a_python_module() {
        let module = image("/usr/bin/python3.12", &["python3", "-u", "-m", "aider.main", "--yes"]);
        assert_eq!(recognised(&[module]).as_deref(), Some("aider"));
        let argument = image("/usr/bin/python3.12", &["python3", "tool.py", "-m", "aider"]);
        assert_eq!(recognised(&[argument]), None);
    }

    #[test]
    fn by_an_ancestor() {
        let psql = image("/usr/bin/psql", &["psql"]);
        let shell = image("/usr/bin/bash", &["bash", "-c", "psql"]);
        let agent = image("/usr/local/bin/claude", &["claude"]);
        assert_eq!(recognised(&[psql.clone(), shell.clone(), agent]).as_deref(), Some("claude"));
        assert_eq!(recognised(&[psql, shell]), None);
    }

    #[test]
    fn an_argument_alone_makes_no_agent() {
        assert_eq!(recognised(&[image("/usr/bin/vim", &["vim", "/usr/local/bin/claude"])]), None);
        assert_eq!(recognised(&[image("/usr/bin/bash", &["bash", "-c", "claude"])]), None);
        assert_eq!(recognised(&[image("/usr/bin/grep", &["grep", "codex", "x"])]), None);
    }

    #[test]
    fn ordinary_words_are_not_agents() {
        for path in
            ["/usr/bin/amp", "/usr/bin/goose", "/usr/bin/continue", "/usr/bin/crush", "/opt/app/server"]
        {
            assert_eq!(recognised(&[image(path, &[path])]), None, "{path}");
        }
    }

    #[test]
    fn configured_agents_are_added() {
        let agents = agents(&["nightbot", "house = /opt/house/run", " = x"]);
        assert_eq!(agents.recognise([image("/usr/bin/nightbot", &[])].iter()), Some("nightbot"));
        assert_eq!(agents.recognise([image("/opt/house/run", &[])].iter()), Some("house"));
        assert_eq!(agents.recognise([image("/tmp/run", &[])].iter()), None);
        assert_eq!(agents.recognise([image("/usr/bin/x", &[])].iter()), None);
    }
}
