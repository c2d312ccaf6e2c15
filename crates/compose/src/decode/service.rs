//! One service.

use super::{
    Decoder,
    field::{At, Fields},
    unsupported,
};
use crate::{
    input::Unsupported,
    node::Value,
    project::{
        Condition, CredentialSpec, Dependency, Device, ExtraHost, FileReference, Healthcheck,
        Logging, Platform, Port, Restart, Service, ServiceNetwork, Test, Ulimit,
    },
};

/// Permission bits a file can have.
const MODE_MAX: u32 = 0o7777;

// === impl Decoder ===

impl Decoder<'_, '_> {
    pub(super) fn service(&mut self, at: &At<'_>) -> Service {
        let mut service = Service::default();
        let Some(mut fields) = self.fields(at) else {
            return service;
        };
        let image = fields.take("image");
        let has_image = image
            .as_ref()
            .is_some_and(|at| at.node.as_text() != Some(""));
        service.image = self.string(image).unwrap_or_default();
        self.process(&mut service, &mut fields);
        self.network_of(&mut service, &mut fields);
        self.files_of(&mut service, &mut fields);
        self.security(&mut service, &mut fields);
        service.deploy = self.deploy(&mut fields);
        service.profiles = self.strings(fields.take("profiles"));
        service.depends_on = self.depends_on(fields.take("depends_on"));
        self.finish(fields, unsupported::IGNORED, unsupported::SERVICE);
        if service.image.is_empty() && !has_image {
            self.no_image(at);
        }
        service
    }

    /// Says that there is nothing to run, unless what was said of `build` or `extends` already says so.
    fn no_image(&mut self, at: &At<'_>) {
        let has_build = at.node.get("build").is_some();
        if at.node.get("extends").is_some()
            || (has_build && self.unsupported == Unsupported::Refuse)
        {
            return;
        }
        let why = if has_build {
            ": a cluster builds none"
        } else {
            ""
        };
        let text = format!("service `{}` needs `image`{why}", at.name());
        self.problem(at, &text);
    }

    fn process(&mut self, service: &mut Service, fields: &mut Fields<'_>) {
        service.command = self.command(fields.take("command"));
        service.entrypoint = self.command(fields.take("entrypoint"));
        service.environment = self.optional_pairs(fields.take("environment"));
        service.labels = self.pairs(fields.take("labels"));
        service.restart = self.restart(fields.take("restart"));
        service.healthcheck = self.healthcheck(fields.take("healthcheck"));
        service.logging = self.logging(fields.take("logging"));
        service.user = self.string(fields.take("user"));
        service.groups = self.texts(fields.take("group_add"));
        service.working_dir = self.string(fields.take("working_dir"));
        service.stop_signal = self.string(fields.take("stop_signal"));
        service.stop_grace_period = self.duration(fields.take("stop_grace_period"));
        service.has_init = self.boolean(fields.take("init"));
        service.has_tty = self.boolean(fields.take("tty")).unwrap_or_default();
        service.is_stdin_open = self.boolean(fields.take("stdin_open")).unwrap_or_default();
        service.is_read_only = self.boolean(fields.take("read_only")).unwrap_or_default();
        service.sysctls = self.pairs(fields.take("sysctls"));
        service.ulimits = fields.take("ulimits").map_or_else(Default::default, |at| {
            let entries = self.entries(&at);
            entries
                .into_iter()
                .filter_map(|(name, at)| Some((name, self.ulimit(&at)?)))
                .collect()
        });
        service.oom_score_adj = self.integer(fields.take("oom_score_adj"), -1000, 1000);
        service.isolation = self.string(fields.take("isolation"));
        service.platform = self.platform(fields.take("platform"));
        service.shm_size = self.bytes(fields.take("shm_size"));
    }

    fn network_of(&mut self, service: &mut Service, fields: &mut Fields<'_>) {
        if let Some(at) = fields.take("networks") {
            for (name, at) in self.entries(&at) {
                let network = self.service_network(&at);
                service.networks.insert(name, network);
            }
        }
        let ports = self.items(fields.take("ports"));
        service.ports = ports.iter().filter_map(|at| self.port(at)).collect();
        service.expose = self.texts(fields.take("expose"));
        service.hostname = self.string(fields.take("hostname"));
        let hosts = self.strings(fields.take("extra_hosts"));
        service.extra_hosts = hosts
            .iter()
            .filter_map(|text| text.split_once('='))
            .map(|(host, address)| ExtraHost {
                host: host.to_owned(),
                address: address.to_owned(),
            })
            .collect();
        service.dns = self.strings(fields.take("dns"));
        service.dns_search = self.strings(fields.take("dns_search"));
        service.dns_options = self.strings(fields.take("dns_opt"));
    }

    fn files_of(&mut self, service: &mut Service, fields: &mut Fields<'_>) {
        let mounts = self.items(fields.take("volumes"));
        service.mounts = mounts.iter().filter_map(|at| self.mount(at)).collect();
        let tmpfs = self.items(fields.take("tmpfs"));
        service.tmpfs = tmpfs.iter().filter_map(|at| self.tmpfs(at)).collect();
        let secrets = self.items(fields.take("secrets"));
        service.secrets = secrets.iter().filter_map(|at| self.reference(at)).collect();
        let configs = self.items(fields.take("configs"));
        service.configs = configs.iter().filter_map(|at| self.reference(at)).collect();
    }

    fn security(&mut self, service: &mut Service, fields: &mut Fields<'_>) {
        service.cap_add = self.strings(fields.take("cap_add"));
        service.cap_drop = self.strings(fields.take("cap_drop"));
        service.credential_spec = self.credential_spec(fields.take("credential_spec"));
        service.is_privileged = self.boolean(fields.take("privileged")).unwrap_or_default();
        let devices = self.items(fields.take("devices"));
        service.devices = devices.iter().filter_map(|at| self.device(at)).collect();
        service.security_opt = self.strings(fields.take("security_opt"));
        service.pid = self.string(fields.take("pid"));
        service.ipc = self.string(fields.take("ipc"));
        service.uts = self.string(fields.take("uts"));
        service.userns_mode = self.string(fields.take("userns_mode"));
    }

    fn depends_on(&mut self, at: Option<At<'_>>) -> std::collections::BTreeMap<String, Dependency> {
        let mut dependencies = std::collections::BTreeMap::new();
        let Some(at) = at else { return dependencies };
        for (name, at) in self.entries(&at) {
            let Some(mut fields) = self.fields(&at) else {
                continue;
            };
            let condition: Option<Condition> = self.word(fields.take("condition"));
            let dependency = Dependency {
                condition: condition.unwrap_or_default(),
                is_restart: self.boolean(fields.take("restart")).unwrap_or_default(),
                is_required: self.boolean(fields.take("required")).unwrap_or(true),
            };
            self.finish(fields, &[], &[]);
            dependencies.insert(name, dependency);
        }
        dependencies
    }

    fn restart(&mut self, at: Option<At<'_>>) -> Option<Restart> {
        let at = at?;
        let text = self.string(Some(at.clone()))?;
        let (word, attempts) = match text.split_once(':') {
            Some((word, attempts)) => (word, Some(attempts)),
            None => (text.as_str(), None),
        };
        let restart = match (word, attempts) {
            ("" | "no", None) => Some(Restart::No),
            ("always", None) => Some(Restart::Always),
            ("unless-stopped", None) => Some(Restart::UnlessStopped),
            ("on-failure", None) => Some(Restart::OnFailure { attempts_max: None }),
            ("on-failure", Some(attempts)) => {
                attempts.parse().ok().map(|attempts| Restart::OnFailure {
                    attempts_max: Some(attempts),
                })
            }
            _ => None,
        };
        restart.or_else(|| {
            self.wrong(
                &at,
                "`no`, `always`, `unless-stopped` or `on-failure[:ATTEMPTS]`",
            )
        })
    }

    fn healthcheck(&mut self, at: Option<At<'_>>) -> Option<Healthcheck> {
        let at = at?;
        let mut fields = self.fields(&at)?;
        let test = fields.take("test");
        let is_disabled = self.boolean(fields.take("disable")).unwrap_or_default();
        let mut health = Healthcheck {
            test: test.as_ref().and_then(|at| self.test(at)),
            interval: self.duration(fields.take("interval")),
            timeout: self.duration(fields.take("timeout")),
            retries: self.unsigned(fields.take("retries")),
            start_period: self.duration(fields.take("start_period")),
            start_interval: self.duration(fields.take("start_interval")),
        };
        self.finish(fields, &[], &[]);
        if is_disabled {
            if health.test.as_ref().is_some_and(|test| *test != Test::None) {
                self.problem(
                    &at,
                    "`test` and `disable` of a health check exclude each other",
                );
            }
            health.test = Some(Test::None);
        }
        Some(health)
    }

    fn test(&mut self, at: &At<'_>) -> Option<Test> {
        if let Some(line) = at.node.as_text() {
            return Some(Test::Shell(line.to_owned()));
        }
        let words = self.strings(Some(at.clone()));
        match words.split_first() {
            None => None,
            Some((first, rest)) => match (first.as_str(), rest) {
                ("NONE", []) => Some(Test::None),
                ("CMD", rest) if !rest.is_empty() => Some(Test::Command(rest.to_vec())),
                ("CMD-SHELL", [line]) => Some(Test::Shell(line.clone())),
                _ => self.wrong(at, "a string, `[CMD, …]`, `[CMD-SHELL, line]` or `[NONE]`"),
            },
        }
    }

    fn logging(&mut self, at: Option<At<'_>>) -> Option<Logging> {
        let mut fields = self.fields(&at?)?;
        let logging = Logging {
            driver: self.string(fields.take("driver")),
            options: self.pairs(fields.take("options")),
        };
        self.finish(fields, &[], &[]);
        Some(logging)
    }

    fn service_network(&mut self, at: &At<'_>) -> ServiceNetwork {
        if at.node.value == Value::Null {
            return ServiceNetwork::default();
        }
        let Some(mut fields) = self.fields(at) else {
            return ServiceNetwork::default();
        };
        let network = ServiceNetwork {
            aliases: self.strings(fields.take("aliases")),
            driver_opts: self.pairs(fields.take("driver_opts")),
        };
        self.finish(fields, &[], unsupported::SERVICE_NETWORK);
        network
    }

    fn port(&mut self, at: &At<'_>) -> Option<Port> {
        let mut fields = self.fields(at)?;
        let target = fields.take("target");
        if target.is_none() {
            self.problem(at, "a port needs `target`");
        }
        let target = self.integer(target, 1, u16::MAX.into());
        let published = self.integer(fields.take("published"), 0, u16::MAX.into());
        let port = Port {
            name: self.string(fields.take("name")),
            target: target
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or_default(),
            published: published
                .and_then(|port| u16::try_from(port).ok())
                .filter(|&port| port > 0),
            protocol: self.word(fields.take("protocol")).unwrap_or_default(),
            mode: self.word(fields.take("mode")).unwrap_or_default(),
            host_ip: self
                .string(fields.take("host_ip"))
                .filter(|ip| !ip.is_empty()),
            app_protocol: self.string(fields.take("app_protocol")),
        };
        self.finish(fields, &[], &[]);
        Some(port)
    }

    fn reference(&mut self, at: &At<'_>) -> Option<FileReference> {
        let mut fields = self.fields(at)?;
        let source = fields.take("source");
        if source.is_none() {
            self.problem(at, "a reference to a secret or config needs `source`");
        }
        let mode = fields.take("mode").and_then(|at| self.file_mode(&at));
        let reference = FileReference {
            source: self.string(source).unwrap_or_default(),
            target: self
                .string(fields.take("target"))
                .filter(|target| !target.is_empty()),
            uid: self
                .string(fields.take("uid"))
                .filter(|uid| !uid.is_empty()),
            gid: self
                .string(fields.take("gid"))
                .filter(|gid| !gid.is_empty()),
            mode,
        };
        self.finish(fields, &[], &[]);
        Some(reference)
    }

    /// Permission bits, which the canonical form has as a text; octal, whether it begins with a zero or not.
    fn file_mode(&mut self, at: &At<'_>) -> Option<u32> {
        let mode = at
            .node
            .as_text()
            .and_then(|text| u32::from_str_radix(text, 8).ok());
        let mode = mode.filter(|&mode| mode <= MODE_MAX);
        mode.or_else(|| self.wrong(at, "permission bits (`0440`)"))
    }

    fn ulimit(&mut self, at: &At<'_>) -> Option<Ulimit> {
        if at.node.as_map().is_none() {
            let limit = self.integer(Some(at.clone()), -1, i64::MAX)?;
            return Some(Ulimit {
                soft: limit,
                hard: limit,
            });
        }
        let mut fields = self.fields(at)?;
        let (soft, hard) = (fields.take("soft"), fields.take("hard"));
        if soft.is_none() || hard.is_none() {
            self.problem(at, "a limit needs `soft` and `hard`, or is one number");
        }
        let ulimit = Ulimit {
            soft: self.integer(soft, -1, i64::MAX).unwrap_or_default(),
            hard: self.integer(hard, -1, i64::MAX).unwrap_or_default(),
        };
        self.finish(fields, &[], &[]);
        Some(ulimit)
    }

    fn credential_spec(&mut self, at: Option<At<'_>>) -> Option<CredentialSpec> {
        let mut fields = self.fields(&at?)?;
        let spec = CredentialSpec {
            config: self.string(fields.take("config")),
            file: self.string(fields.take("file")),
            registry: self.string(fields.take("registry")),
        };
        self.finish(fields, &[], &[]);
        Some(spec)
    }

    fn platform(&mut self, at: Option<At<'_>>) -> Option<Platform> {
        let at = at?;
        let text = self.string(Some(at.clone()))?;
        let mut parts = text.split('/');
        let os = parts.next().unwrap_or_default().to_owned();
        let architecture = parts.next().map(str::to_owned);
        if os.is_empty() || architecture.as_deref() == Some("") || parts.count() > 1 {
            return self.wrong(&at, "`OS[/ARCHITECTURE[/VARIANT]]`");
        }
        Some(Platform { os, architecture })
    }

    fn device(&mut self, at: &At<'_>) -> Option<Device> {
        let mut fields = self.fields(at)?;
        let source = fields.take("source");
        if source.is_none() {
            self.problem(at, "a device needs `source`");
        }
        let source = self.string(source).unwrap_or_default();
        let device = Device {
            target: self
                .string(fields.take("target"))
                .unwrap_or_else(|| source.clone()),
            permissions: self
                .string(fields.take("permissions"))
                .unwrap_or_else(|| "rwm".to_owned()),
            source,
        };
        self.finish(fields, &[], &[]);
        Some(device)
    }
}
