//! The daemon's configuration: flags over file over defaults, checked as a whole.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use serde::Deserialize;

use skep_model::{GenericResource, directory::Pools, reserved::engine::is_free_engine_label};

use crate::args::Args;

/// Read when it exists and no other is named.
const DEFAULT_FILE: &str = "/etc/skep/skep.toml";
/// Longest config file read; real ones have a few hundred bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Where sockets and namespaces live.
    pub run_dir: PathBuf,
    /// Where the Engine API listens; at least one.
    pub listen: Vec<Listen>,
    /// Group of the unix sockets; `None`: `docker` when it exists.
    pub group: Option<String>,
    /// Log filter.
    pub log_level: String,
    /// Log format.
    pub log_format: LogFormat,
    /// Where metrics are served; nowhere by default.
    pub metrics_addr: Option<SocketAddr>,
    /// Raft ticks as Docker's managers, which then may be in the group.
    pub raft_compat: bool,
    /// OCI runtime.
    pub oci_runtime: OciRuntime,
    /// Bridge of the node network.
    pub bridge: String,
    /// The node network of a cluster made here, and of this node outside a cluster; `None`: chosen,
    /// see `subnet`.
    pub bridge_subnet: Option<Ipv4Net>,
    /// Registries spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Engine labels.
    pub labels: BTreeMap<String, String>,
    /// User-defined resources tasks can reserve.
    pub node_generic_resources: Vec<GenericResource>,
}

/// An address of the Engine API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP without TLS, so loopback only: whoever reaches the API is root.
    Tcp(SocketAddr),
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OciRuntime {
    /// crun when it works here, else runc.
    Auto,
    /// By name or path.
    Named(String),
}

/// A mistake in flags or file. All are reported together.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// The file cannot be read.
    #[error("failed to read config file `{0}`: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// The file is not valid TOML, or has unknown keys.
    #[error("config file `{0}`: {1}")]
    Parse(PathBuf, String),
    /// A value is not acceptable.
    #[error("`{key}`: {problem}")]
    Value {
        /// Flag and key name.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// The file: every key is optional and named as its flag.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    data_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    hosts: Vec<String>,
    group: Option<String>,
    log_level: Option<String>,
    log_format: Option<String>,
    metrics_addr: Option<String>,
    raft_compat: bool,
    oci_runtime: Option<String>,
    bridge: Option<String>,
    bridge_subnet: Option<String>,
    insecure_registries: Vec<String>,
    labels: Vec<String>,
    node_generic_resources: Vec<String>,
}

impl Config {
    /// Joins flags, file and defaults.
    ///
    /// # Errors
    /// Every mistake found.
    pub fn load(args: &Args) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let file = read_file(args.config.as_deref()).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            File::default()
        });
        let config = merge(args, file, &mut mistakes);
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(mistakes)
        }
    }
}

fn read_file(path: Option<&Path>) -> Result<File, Mistake> {
    let is_explicit = path.is_some();
    let path = path.unwrap_or(Path::new(DEFAULT_FILE));
    let read = fs::metadata(path).and_then(|metadata| {
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "file is too long",
            ));
        }
        fs::read_to_string(path)
    });
    match read {
        Ok(text) => {
            toml::from_str(&text).map_err(|error| Mistake::Parse(path.into(), error.to_string()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_explicit => {
            Ok(File::default())
        }
        Err(error) => Err(Mistake::Read(path.into(), error)),
    }
}

fn merge(args: &Args, file: File, mistakes: &mut Vec<Mistake>) -> Config {
    let data_dir = args
        .data_dir
        .clone()
        .or(file.data_dir)
        .unwrap_or("/var/lib/skep".into());
    let run_dir = args
        .run_dir
        .clone()
        .or(file.run_dir)
        .unwrap_or("/run/skep".into());
    check_absolute("data-dir", &data_dir, mistakes);
    check_absolute("run-dir", &run_dir, mistakes);
    let hosts = if args.hosts.is_empty() {
        file.hosts
    } else {
        args.hosts.clone()
    };
    let mut listen: Vec<Listen> = hosts
        .iter()
        .filter_map(|host| keep(parse_host(host), mistakes))
        .collect();
    if listen.is_empty() {
        listen.push(Listen::Unix(run_dir.join("skep.sock")));
    }
    let format = args
        .log_format
        .clone()
        .or(file.log_format)
        .unwrap_or("text".to_owned());
    let subnet = args.bridge_subnet.clone().or(file.bridge_subnet);
    let runtime = args
        .oci_runtime
        .clone()
        .or(file.oci_runtime)
        .unwrap_or("auto".to_owned());
    let bridge = args.bridge.clone().or(file.bridge);
    let metrics = args.metrics_addr.as_ref().or(file.metrics_addr.as_ref());
    let registries = args.insecure_registries.iter().cloned();
    let labels: Vec<String> = file.labels.into_iter().chain(args.labels.clone()).collect();
    Config {
        data_dir,
        run_dir,
        listen,
        group: args.group.clone().or(file.group),
        log_level: args
            .log_level
            .clone()
            .or(file.log_level)
            .unwrap_or("info".to_owned()),
        log_format: keep(parse_log_format(&format), mistakes).unwrap_or(LogFormat::Text),
        metrics_addr: metrics.and_then(|addr| keep(parse_metrics_addr(addr), mistakes)),
        raft_compat: args.raft_compat || file.raft_compat,
        oci_runtime: match runtime.as_str() {
            "auto" => OciRuntime::Auto,
            _ => OciRuntime::Named(runtime),
        },
        bridge: bridge.unwrap_or("skep0".to_owned()),
        bridge_subnet: subnet.and_then(|subnet| keep(parse_subnet(&subnet), mistakes)),
        insecure_registries: file
            .insecure_registries
            .into_iter()
            .chain(registries)
            .collect(),
        labels: parse_labels(&labels, mistakes),
        node_generic_resources: parse_generic_resources(
            file.node_generic_resources,
            args,
            mistakes,
        ),
    }
}

fn keep<T>(result: Result<T, Mistake>, mistakes: &mut Vec<Mistake>) -> Option<T> {
    result.map_err(|mistake| mistakes.push(mistake)).ok()
}

fn check_absolute(key: &'static str, path: &Path, mistakes: &mut Vec<Mistake>) {
    if !path.is_absolute() {
        let problem = format!("`{}` is not an absolute path", path.display());
        mistakes.push(Mistake::Value { key, problem });
    }
}

fn parse_metrics_addr(addr: &str) -> Result<SocketAddr, Mistake> {
    addr.parse().map_err(|_| Mistake::Value {
        key: "metrics-addr",
        problem: format!("`{addr}` is not ADDRESS:PORT"),
    })
}

fn parse_host(host: &str) -> Result<Listen, Mistake> {
    let mistake = |problem: String| Mistake::Value {
        key: "host",
        problem,
    };
    if let Some(path) = host.strip_prefix("unix://") {
        let path = PathBuf::from(path);
        return if path.is_absolute() {
            Ok(Listen::Unix(path))
        } else {
            Err(mistake(format!("`{host}` does not name an absolute path")))
        };
    }
    let Some(addr) = host.strip_prefix("tcp://") else {
        return Err(mistake(format!(
            "`{host}` is neither unix:///PATH nor tcp://ADDRESS:PORT"
        )));
    };
    let addr: SocketAddr = addr
        .parse()
        .map_err(|_| mistake(format!("`{addr}` is not ADDRESS:PORT")))?;
    if addr.ip().is_loopback() {
        Ok(Listen::Tcp(addr))
    } else {
        let problem = format!("`{addr}` is not a loopback address, and TCP has no TLS here");
        Err(mistake(problem))
    }
}

fn parse_log_format(format: &str) -> Result<LogFormat, Mistake> {
    match format {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => {
            let problem = format!("`{format}` is neither text nor json");
            Err(Mistake::Value {
                key: "log-format",
                problem,
            })
        }
    }
}

fn parse_subnet(subnet: &str) -> Result<Ipv4Net, Mistake> {
    let mistake = |problem: String| Mistake::Value {
        key: "bridge-subnet",
        problem,
    };
    let parsed: Ipv4Net = subnet
        .parse()
        .map_err(|_| mistake(format!("`{subnet}` is not an IPv4 subnet")))?;
    if parsed.prefix_len() > Pools::PREFIX_LEN_MAX {
        let limit = Pools::PREFIX_LEN_MAX;
        let text = format!("`{subnet}` is too small for a cluster: /{limit} is the least");
        return Err(mistake(text));
    }
    Ok(parsed.trunc())
}

fn parse_labels(labels: &[String], mistakes: &mut Vec<Mistake>) -> BTreeMap<String, String> {
    let parsed = labels.iter().map(|label| parse_label(label));
    parsed.filter_map(|label| keep(label, mistakes)).collect()
}

fn parse_label(label: &str) -> Result<(String, String), Mistake> {
    match label.split_once('=') {
        Some((key, _)) if !is_free_engine_label(key) => Err(Mistake::Value {
            key: "label",
            problem: format!("`{key}` is reserved: labels that begin with `skep.` are Skep's"),
        }),
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => {
            let problem = format!("`{label}` is not KEY=VALUE");
            Err(Mistake::Value {
                key: "label",
                problem,
            })
        }
    }
}

fn parse_generic_resources(
    mut terms: Vec<String>,
    args: &Args,
    mistakes: &mut Vec<Mistake>,
) -> Vec<GenericResource> {
    terms.extend(args.node_generic_resources.clone());
    let parsed = skep_model::parse_generic(&terms).map_err(|error| Mistake::Value {
        key: "node-generic-resource",
        problem: error.to_string(),
    });
    keep(parsed, mistakes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<Config, Vec<Mistake>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Config::load(&Args {
            config: Some(file.path().to_owned()),
            ..Args::default()
        })
    }

    #[test]
    fn flags_override_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "data-dir = \"/a\"\nbridge = \"br1\"").unwrap();
        let args = Args {
            config: Some(file.path().to_owned()),
            data_dir: Some("/b".into()),
            ..Args::default()
        };
        let config = Config::load(&args).unwrap();
        assert_eq!(
            (config.data_dir, config.bridge),
            ("/b".into(), "br1".to_owned())
        );
        assert_eq!(config.listen, [Listen::Unix("/run/skep/skep.sock".into())]);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let text = "data-dir = \"a\"\nhosts = [\"tcp://0.0.0.0:1\", \"x\"]\nlog-format = \"xml\"\n\
                    bridge-subnet = \"nowhere\"\nlabels = [\"=x\", \"skep.data-path=1\"]\n\
                    node-generic-resources = [\"gpu\"]";
        let texts: Vec<String> = with_file(text)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(texts.len(), 8, "{texts:#?}");
    }

    #[test]
    fn an_unknown_key_is_a_mistake() {
        let mistakes = with_file("dta-dir = \"/a\"").unwrap_err();
        assert!(
            mistakes[0].to_string().contains("dta-dir"),
            "{}",
            mistakes[0]
        );
    }

    #[test]
    fn a_named_file_must_exist() {
        let args = Args {
            config: Some("/nonexistent/skep.toml".into()),
            ..Args::default()
        };
        assert!(matches!(
            Config::load(&args).unwrap_err()[..],
            [Mistake::Read(..)]
        ));
    }
}
