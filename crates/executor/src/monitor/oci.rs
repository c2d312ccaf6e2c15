//! Running the OCI runtime program and turning its errors into Docker's words.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::config::{OciKind, OciRuntime};

/// The runtime's log file inside a container's or session's directory.
pub(super) const OCI_LOG: &str = "oci.log";

/// The last error is within this much of the log's end.
const LOG_TAIL_BYTES: u64 = 16 << 10;

/// Longest error text that is passed on.
const MESSAGE_BYTES_MAX: usize = 4096;

/// A command of the runtime with its global options; the caller adds the verb and stdio.
pub(super) fn command(oci: &OciRuntime, dir: &Path) -> Command {
    let mut command = Command::new(&oci.path);
    command
        .arg("--root")
        .arg(&oci.root)
        .arg("--log")
        .arg(dir.join(OCI_LOG));
    // crun also formats what init prints on exec failure; plain text is what belongs into the container's stderr.
    if oci.kind == OciKind::Runc {
        command.args(["--log-format", "json"]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The last error in the runtime's log, or a word on how it ended.
pub(super) fn last_error(dir: &Path, ending: &str) -> String {
    read_tail(&dir.join(OCI_LOG))
        .ok()
        .and_then(|text| text.lines().rev().find_map(error_in_line))
        .unwrap_or_else(|| format!("the OCI runtime ended with {ending} and said nothing"))
}

fn read_tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

fn error_in_line(line: &str) -> Option<String> {
    let message = match serde_json::from_str::<LogLine>(line) {
        Ok(entry) if entry.level == "error" || entry.level == "fatal" => entry.msg,
        Ok(_) => return None,
        // crun's text format: `TIME: message`.
        Err(_) => line
            .split_once("Z: ")
            .map_or(line, |(_, message)| message)
            .to_owned(),
    };
    let message: String = message.trim().chars().take(MESSAGE_BYTES_MAX).collect();
    (!message.is_empty()).then_some(message)
}

/// Which runtime operation failed: clients see different sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Start,
    Exec,
}

/// Docker's exit code and sentence for a failed operation on `program`.
pub(super) fn describe(
    operation: Operation,
    kind: OciKind,
    program: &str,
    raw: &str,
) -> (i32, String) {
    let cause = match kind {
        OciKind::Runc => raw
            .rsplit_once("unable to start container process: ")
            .map_or(raw, |(_, cause)| cause)
            .to_owned(),
        OciKind::Crun => crun_cause(program, raw),
    };
    let lower = cause.to_ascii_lowercase();
    let code = if lower.contains("executable file not found")
        || lower.contains("no such file or directory")
    {
        127
    } else if [
        "permission denied",
        "is a directory",
        "not a directory",
        "exec format error",
    ]
    .iter()
    .any(|text| lower.contains(text))
    {
        126
    } else {
        128
    };
    let name = kind.name();
    let sentence = match operation {
        Operation::Create => format!(
            "failed to create task for container: failed to create shim task: OCI runtime create failed: \
             {name} create failed: unable to start container process: {cause}: unknown"
        ),
        Operation::Start => format!("failed to start task for container: {cause}: unknown"),
        Operation::Exec => format!(
            "OCI runtime exec failed: exec failed: unable to start container process: {cause}: unknown"
        ),
    };
    (code, sentence)
}

/// crun's texts in runc's words, where clients know those.
fn crun_cause(program: &str, raw: &str) -> String {
    if raw.starts_with("executable file ") && raw.contains("not found in $PATH") {
        return match program.contains('/') {
            true => format!("exec: \"{program}\": stat {program}: no such file or directory"),
            false => format!("exec: \"{program}\": executable file not found in $PATH"),
        };
    }
    match raw.strip_prefix("open executable: ") {
        Some("Permission denied" | "Operation not permitted") => {
            format!("exec: \"{program}\": permission denied")
        }
        Some(other) => format!("exec: \"{program}\": {}", other.to_ascii_lowercase()),
        None => raw.to_owned(),
    }
}

/// Forgets errors of earlier commands.
pub(super) fn clear_log(dir: &Path) {
    let _ = fs::remove_file(dir.join(OCI_LOG));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: OciKind, program: &str, raw: &str, code: i32, cause: &str) {
        let (seen, sentence) = describe(Operation::Create, kind, program, raw);
        assert_eq!(seen, code, "{sentence}");
        assert!(
            sentence.ends_with(&format!("{cause}: unknown")),
            "{sentence}"
        );
        assert!(
            sentence.starts_with("failed to create task for container: "),
            "{sentence}"
        );
    }

    #[test]
    fn both_runtimes_say_the_same_of_a_missing_program() {
        let cause = "exec: \"foo\": executable file not found in $PATH";
        check(
            OciKind::Crun,
            "foo",
            "executable file `foo` not found in $PATH: No such file or directory",
            127,
            cause,
        );
        let raw = format!("runc create failed: unable to start container process: {cause}");
        check(OciKind::Runc, "foo", &raw, 127, cause);
    }

    #[test]
    fn programs_that_may_not_run_give_126() {
        check(
            OciKind::Crun,
            "/x",
            "open executable: Permission denied",
            126,
            "permission denied",
        );
        check(
            OciKind::Crun,
            "/etc",
            "open executable: Operation not permitted",
            126,
            "permission denied",
        );
    }

    #[test]
    fn errors_are_found_in_both_log_formats() {
        let text = "2026-11-21T11:59:11.845582Z: executable file `foo` not found";
        assert_eq!(
            error_in_line(text).unwrap(),
            "executable file `foo` not found"
        );
        let json = r#"{"level":"error","msg":"boom","time":"t"}"#;
        assert_eq!(error_in_line(json).unwrap(), "boom");
        assert_eq!(
            error_in_line(r#"{"level":"info","msg":"boom","time":"t"}"#),
            None
        );
    }
}
