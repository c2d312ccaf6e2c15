//! Dockerfile instructions as `docker import --change` takes them, applied to an image's config.

use std::time::Duration;

use skep_model::reserved::go_duration;

use super::{Empty, Healthcheck, ImageConfig};

/// Longest instruction: far above real ones, far below trouble.
const CHANGE_BYTES_MAX: usize = 64 << 10;

/// An instruction was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It does not change a config.
    #[error("{0} is not a valid change command")]
    Unknown(String),
    /// It lacks its arguments.
    #[error("{0} requires at least one argument")]
    NoArgument(&'static str),
    /// An argument cannot be understood.
    #[error("invalid argument of {instruction}: {argument}")]
    Argument {
        /// Which instruction.
        instruction: &'static str,
        /// What it was given.
        argument: String,
    },
    /// The instruction is too long.
    #[error("change command exceeds the limit of {CHANGE_BYTES_MAX} bytes")]
    TooLong,
}

/// Applies one instruction.
pub(crate) fn apply(config: &mut ImageConfig, change: &str) -> Result<(), Error> {
    if change.len() > CHANGE_BYTES_MAX {
        return Err(Error::TooLong);
    }
    let change = change.trim();
    let (word, rest) = change
        .split_once(char::is_whitespace)
        .unwrap_or((change, ""));
    let rest = rest.trim();
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = command(config, rest),
        "ENTRYPOINT" => config.entrypoint = command(config, rest),
        "ENV" => {
            for (name, value) in pairs("ENV", rest)? {
                config
                    .env
                    .retain(|entry| entry.split('=').next() != Some(name.as_str()));
                config.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs("LABEL", rest)?),
        "EXPOSE" => {
            for port in required("EXPOSE", rest)?.split_whitespace() {
                expose(config, port)?;
            }
        }
        "VOLUME" => {
            let paths = json_list(rest)
                .unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            if paths.is_empty() {
                return Err(Error::NoArgument("VOLUME"));
            }
            config
                .volumes
                .extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => config.user = required("USER", rest)?.to_owned(),
        "WORKDIR" => {
            let path = required("WORKDIR", rest)?;
            config.working_dir = join(&config.working_dir, path);
        }
        "STOPSIGNAL" => config.stop_signal = required("STOPSIGNAL", rest)?.to_owned(),
        "HEALTHCHECK" => config.healthcheck = Some(health_check(rest)?),
        "ONBUILD" => config.on_build.push(required("ONBUILD", rest)?.to_owned()),
        _ => return Err(Error::Unknown(word.to_owned())),
    }
    Ok(())
}

fn required<'a>(instruction: &'static str, rest: &'a str) -> Result<&'a str, Error> {
    if rest.is_empty() {
        Err(Error::NoArgument(instruction))
    } else {
        Ok(rest)
    }
}

/// `["a","b"]` as it is, anything else through the shell.
fn command(config: &ImageConfig, rest: &str) -> Vec<String> {
    if let Some(list) = json_list(rest) {
        return list;
    }
    if rest.is_empty() {
        return Vec::new();
    }
    let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
    let mut shell = if config.shell.is_empty() {
        default()
    } else {
        config.shell.clone()
    };
    shell.push(rest.to_owned());
    shell
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())?
}

/// `NONE`, or `--option=value … CMD command`.
fn health_check(rest: &str) -> Result<Healthcheck, Error> {
    let refuse = |argument: &str| Error::Argument {
        instruction: "HEALTHCHECK",
        argument: argument.to_owned(),
    };
    let mut check = Healthcheck::default();
    let mut rest = required("HEALTHCHECK", rest)?;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, tail) = option
            .split_once(char::is_whitespace)
            .ok_or_else(|| refuse(rest))?;
        rest = tail.trim_start();
        let (name, value) = option.split_once('=').ok_or_else(|| refuse(option))?;
        let nanos = || {
            let duration = go_duration(value).filter(|it| *it >= Duration::from_millis(1));
            let nanos = duration.and_then(|it| i64::try_from(it.as_nanos()).ok());
            nanos.ok_or_else(|| refuse(option))
        };
        match name {
            "interval" => check.interval = nanos()?,
            "timeout" => check.timeout = nanos()?,
            "start-period" => check.start_period = nanos()?,
            "start-interval" => check.start_interval = nanos()?,
            "retries" => {
                let retries = value.parse::<i32>().ok().filter(|count| *count > 0);
                check.retries = i64::from(retries.ok_or_else(|| refuse(option))?);
            }
            _ => return Err(refuse(option)),
        }
    }
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let words = match (kind.to_ascii_uppercase().as_str(), json_list(rest.trim())) {
        ("NONE", _) if rest.is_empty() && check == Healthcheck::default() => {
            vec!["NONE".to_owned()]
        }
        ("CMD", _) if rest.trim().is_empty() => return Err(Error::NoArgument("HEALTHCHECK CMD")),
        ("CMD", Some(list)) => [vec!["CMD".to_owned()], list].concat(),
        ("CMD", None) => vec!["CMD-SHELL".to_owned(), rest.trim().to_owned()],
        _ => return Err(refuse(kind)),
    };
    check.test = words;
    Ok(check)
}

fn expose(config: &mut ImageConfig, port: &str) -> Result<(), Error> {
    let refuse = || Error::Argument {
        instruction: "EXPOSE",
        argument: port.to_owned(),
    };
    let (range, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(refuse());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let first: u16 = first.parse().map_err(|_| refuse())?;
    let last: u16 = last.parse().map_err(|_| refuse())?;
    if first > last {
        return Err(refuse());
    }
    config
        .exposed_ports
        .extend((first..=last).map(|port| (format!("{port}/{protocol}"), Empty {})));
    Ok(())
}

/// A relative working directory is below the one before.
fn join(before: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    format!("{}/{path}", before.trim_end_matches('/'))
}

/// `a=1 "b c"=2`, or the old `name the rest`.
fn pairs(instruction: &'static str, rest: &str) -> Result<Vec<(String, String)>, Error> {
    let refuse = || Error::Argument {
        instruction,
        argument: rest.to_owned(),
    };
    let words = words(required(instruction, rest)?).ok_or_else(refuse)?;
    if !words.first().is_some_and(|word| word.contains('=')) {
        let (name, value) = rest.split_once(char::is_whitespace).ok_or_else(refuse)?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| {
        let (name, value) = word.split_once('=').ok_or_else(refuse)?;
        if name.is_empty() {
            return Err(refuse());
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    words.into_iter().map(pair).collect()
}

/// Splits at blanks outside quotes; `None` if a quote is not closed.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_make_a_config() {
        let mut config = ImageConfig::default();
        for change in [
            r#"CMD ["/bin/true", "x"]"#,
            "entrypoint exec /init $A",
            r#"ENV A=1 B="two words" C=a\ b"#,
            "ENV A again and again",
            "LABEL k=v",
            "EXPOSE 80 53/udp 8000-8001",
            "VOLUME /a /b",
            r#"VOLUME ["/c d"]"#,
            "USER app:app",
            "WORKDIR /srv",
            "WORKDIR sub",
            "STOPSIGNAL SIGINT",
        ] {
            apply(&mut config, change).unwrap_or_else(|e| panic!("{change}: {e}"));
        }
        assert_eq!(config.cmd, ["/bin/true", "x"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "exec /init $A"]);
        assert_eq!(config.env, ["B=two words", "C=a b", "A=again and again"]);
        assert_eq!(config.labels["k"], "v");
        let ports: Vec<&str> = config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        let volumes: Vec<&str> = config.volumes.keys().map(String::as_str).collect();
        assert_eq!(volumes, ["/a", "/b", "/c d"]);
        assert_eq!(
            (config.user.as_str(), config.working_dir.as_str()),
            ("app:app", "/srv/sub")
        );
        assert_eq!(config.stop_signal, "SIGINT");
    }

    #[track_caller]
    fn check_health(change: &str, test: &[&str], settings: [i64; 5]) {
        let mut config = ImageConfig::default();
        apply(&mut config, change).unwrap_or_else(|e| panic!("{change}: {e}"));
        let found = config.healthcheck.unwrap();
        assert_eq!(found.test, test);
        let set = [
            found.interval,
            found.timeout,
            found.start_period,
            found.start_interval,
            found.retries,
        ];
        assert_eq!(set, settings);
    }

    #[test]
    fn health_checks_are_set() {
        check_health("HEALTHCHECK NONE", &["NONE"], [0; 5]);
        let shell = ["CMD-SHELL", "curl -f x || exit 1"];
        check_health("healthcheck cmd  curl -f x || exit 1", &shell, [0; 5]);
        check_health(
            r#"HEALTHCHECK --interval=5s --timeout=1m --retries=2 CMD ["a", "b c"]"#,
            &["CMD", "a", "b c"],
            [5_000_000_000, 60_000_000_000, 0, 0, 2],
        );
        check_health(
            "HEALTHCHECK --start-period=1s --start-interval=1ms CMD true",
            &["CMD-SHELL", "true"],
            [0, 0, 1_000_000_000, 1_000_000, 0],
        );
        check_error("HEALTHCHECK", "HEALTHCHECK requires at least one argument");
        check_error(
            "HEALTHCHECK CMD",
            "HEALTHCHECK CMD requires at least one argument",
        );
        check_error(
            "HEALTHCHECK --interval=1us CMD x",
            "invalid argument of HEALTHCHECK: interval=1us",
        );
        check_error(
            "HEALTHCHECK --retries=-1 CMD x",
            "invalid argument of HEALTHCHECK: retries=-1",
        );
        check_error("HEALTHCHECK GET /", "invalid argument of HEALTHCHECK: GET");
    }

    #[track_caller]
    fn check_error(change: &str, expect: &str) {
        let error = apply(&mut ImageConfig::default(), change).expect_err(change);
        assert_eq!(error.to_string(), expect);
    }

    #[test]
    fn other_instructions_are_refused() {
        check_error("RUN rm -rf /", "RUN is not a valid change command");
        check_error("", " is not a valid change command");
        check_error("USER", "USER requires at least one argument");
        check_error("EXPOSE 70000", "invalid argument of EXPOSE: 70000");
        check_error("EXPOSE 9-8", "invalid argument of EXPOSE: 9-8");
        check_error("ENV =x", "invalid argument of ENV: =x");
        check_error("ENV \"a", "invalid argument of ENV: \"a");
        check_error("LABEL a", "invalid argument of LABEL: a");
    }
}
