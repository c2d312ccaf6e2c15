//! A system call filter that the user gives, in the format of Docker's profiles: more than OCI's, rules may depend on
//! capabilities, architecture and kernel. Names nobody knows are left to the OCI runtime.

use serde::Deserialize;
use serde_json::{Value, json};

use super::architectures;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<Architecture>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Value>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

/// When a rule applies; what is not said does not matter.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: String,
}

/// The OCI `seccomp` object of `profile` for processes that hold `granted` on a kernel.
pub(in super::super) fn filter(
    profile: &Value,
    granted: &[String],
    kernel: (u32, u32),
) -> Result<Value, String> {
    let profile = Profile::deserialize(profile).map_err(|error| error.to_string())?;
    let mut rules = Vec::new();
    for rule in &profile.syscalls {
        let names = rule.names()?;
        if rule.applies(granted, kernel)? {
            rules.push(
                json!({ "names": names, "action": rule.action, "errnoRet": rule.errno_ret,
                "args": rule.args.as_ref().filter(|args| !args.is_empty()) }),
            );
        }
    }
    Ok(json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": profile.architectures()?,
        "flags": (!profile.flags.is_empty()).then_some(&profile.flags),
        "syscalls": rules,
    }))
}

// === impl Profile ===

impl Profile {
    fn architectures(&self) -> Result<Vec<String>, String> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, use \
                 either 'architectures' or 'archMap'"
                    .to_owned(),
            );
        }
        let native = architectures().first().copied().unwrap_or_default();
        let mapped = self.arch_map.iter().find(|a| a.architecture == native);
        let Some(mapped) = mapped else {
            return Ok(self.architectures.clone());
        };
        let below = mapped.sub_architectures.iter().flatten();
        Ok([&mapped.architecture]
            .into_iter()
            .chain(below)
            .cloned()
            .collect())
    }
}

// === impl Rule ===

impl Rule {
    fn names(&self) -> Result<Vec<String>, String> {
        match (self.name.is_empty(), self.names.is_empty()) {
            (true, _) => Ok(self.names.clone()),
            (false, true) => Ok(vec![self.name.clone()]),
            (false, false) => Err(
                "both 'name' and 'names' are specified in the seccomp profile, use either 'name' \
                 or 'names'"
                    .to_owned(),
            ),
        }
    }

    fn applies(&self, granted: &[String], kernel: (u32, u32)) -> Result<bool, String> {
        let arch = go_architecture();
        let holds = |name: &String| granted.contains(name);
        let is_here = |name: &String| name == arch;
        let (wanted, unwanted) = (&self.includes, &self.excludes);
        let is_excluded = unwanted.caps.iter().any(holds)
            || unwanted.arches.iter().any(is_here)
            || unwanted
                .least_kernel()?
                .is_some_and(|least| kernel >= least);
        let is_included = wanted.caps.iter().all(holds)
            && (wanted.arches.is_empty() || wanted.arches.iter().any(is_here))
            && wanted.least_kernel()?.is_none_or(|least| kernel >= least);
        Ok(is_included && !is_excluded)
    }
}

// === impl Condition ===

impl Condition {
    fn least_kernel(&self) -> Result<Option<(u32, u32)>, String> {
        if self.min_kernel.is_empty() {
            return Ok(None);
        }
        let numbers = self.min_kernel.split_once('.');
        let version =
            numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let invalid = || format!("invalid kernel version: {:?}", self.min_kernel);
        version.map(Some).ok_or_else(invalid)
    }
}

/// Go's name of this architecture, which profiles use.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_apply_by_capability_architecture_and_kernel() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "archMap": [{ "architecture": architectures()[0], "subArchitectures": null }],
            "syscalls": [
                { "name": "read", "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {} },
                { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
                { "names": ["chown"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_CHOWN"] } },
                { "names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
                { "names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "9.0" } },
                { "names": ["s390"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["s390x"] } },
            ],
        });
        let filter = filter(&profile, &["CAP_CHOWN".to_owned()], (6, 1)).unwrap();
        let names: Vec<&Value> = filter["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| &r["names"])
            .collect();
        assert_eq!(names, [&json!(["read"]), &json!(["ptrace"])]);
        assert_eq!(filter["defaultErrnoRet"], 38);
        assert_eq!(filter["architectures"], json!([architectures()[0]]));
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for bad in [
            json!([]),
            json!({}),
            json!({ "defaultAction": "x", "syscalls": [{ "action": "y", "name": "a", "names": ["b"] }] }),
            json!({ "defaultAction": "x", "syscalls": [{ "action": "y", "includes": { "minKernel": "new" } }] }),
            json!({ "defaultAction": "x", "architectures": ["a"], "archMap": [{ "architecture": "b" }] }),
        ] {
            assert!(filter(&bad, &[], (6, 1)).is_err(), "{bad}");
        }
    }
}
