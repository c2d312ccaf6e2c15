//! Containers.

use skep_model as model;
use skep_model::Redacted;

use crate::arbitrary::Draw;

impl Draw {
    /// The container of a task.
    pub fn container(&mut self) -> model::ContainerSpec {
        use model::Isolation;
        model::ContainerSpec {
            image: self.text(),
            labels: self.map(),
            command: self.texts(),
            args: self.texts(),
            hostname: self.text(),
            env: self.texts(),
            dir: self.text(),
            user: self.text(),
            groups: self.texts(),
            privileges: self.option(Self::privileges),
            init: self.option(Self::flag),
            has_tty: self.flag(),
            has_open_stdin: self.flag(),
            is_read_only: self.flag(),
            stop_signal: self.text(),
            mounts: self.list(Self::mount),
            stop_grace_period: self.option(Self::duration),
            registry_auth: Redacted(self.text()),
            secrets: self.list(|draw| model::SecretReference {
                secret_id: draw.text(),
                secret_name: draw.text(),
                file: draw.option(Self::file_target),
            }),
            configs: self.list(Self::config_reference),
            hosts: self.texts(),
            dns: self.option(|draw| model::DnsConfig {
                nameservers: draw.texts(),
                search: draw.texts(),
                options: draw.texts(),
            }),
            health: self.option(|draw| model::HealthConfig {
                test: draw.texts(),
                interval: draw.duration(),
                timeout: draw.duration(),
                retries: draw.small().cast_signed(),
                start_period: draw.duration(),
                start_interval: draw.duration(),
            }),
            isolation: self.one_of(&[Isolation::Default, Isolation::Process, Isolation::HyperV]),
            sysctls: self.map(),
            capability_add: self.texts(),
            capability_drop: self.texts(),
            ulimits: self.list(|draw| model::Ulimit {
                name: draw.text(),
                soft: draw.signed(),
                hard: draw.signed(),
            }),
            oom_score_adj: self.signed(),
        }
    }

    fn file_target(&mut self) -> model::FileTarget {
        model::FileTarget {
            name: self.text(),
            uid: self.text(),
            gid: self.text(),
            mode: self.small(),
        }
    }

    fn config_reference(&mut self) -> model::ConfigReference {
        model::ConfigReference {
            config_id: self.text(),
            config_name: self.text(),
            target: self.option(|draw| {
                if draw.flag() {
                    model::ConfigTarget::File(draw.file_target())
                } else {
                    model::ConfigTarget::Runtime
                }
            }),
        }
    }

    fn privileges(&mut self) -> model::Privileges {
        use model::{AppArmorMode, CredentialSpec, SeccompMode};
        model::Privileges {
            credential_spec: self.option(|draw| match draw.0.below(3) {
                0 => CredentialSpec::File(draw.text()),
                1 => CredentialSpec::Registry(draw.text()),
                _ => CredentialSpec::Config(draw.text()),
            }),
            selinux: self.option(|draw| model::SeLinuxContext {
                is_disabled: draw.flag(),
                user: draw.text(),
                role: draw.text(),
                kind: draw.text(),
                level: draw.text(),
            }),
            seccomp: self.option(|draw| model::SeccompOptions {
                mode: draw.one_of(&[
                    SeccompMode::Default,
                    SeccompMode::Unconfined,
                    SeccompMode::Custom,
                ]),
                profile: draw.bytes(),
            }),
            apparmor: self
                .option(|draw| draw.one_of(&[AppArmorMode::Default, AppArmorMode::Disabled])),
            no_new_privileges: self.flag(),
        }
    }

    fn mount(&mut self) -> model::Mount {
        use model::{Consistency, MountKind, Propagation};
        model::Mount {
            kind: self.one_of(&[
                MountKind::Bind,
                MountKind::Volume,
                MountKind::Tmpfs,
                MountKind::NamedPipe,
                MountKind::Cluster,
            ]),
            source: self.text(),
            target: self.text(),
            is_read_only: self.flag(),
            consistency: self.one_of(&[
                Consistency::Default,
                Consistency::Consistent,
                Consistency::Cached,
                Consistency::Delegated,
            ]),
            bind: self.option(|draw| model::BindOptions {
                propagation: draw.one_of(&[
                    Propagation::RPrivate,
                    Propagation::Private,
                    Propagation::RShared,
                    Propagation::Shared,
                    Propagation::RSlave,
                    Propagation::Slave,
                ]),
                is_non_recursive: draw.flag(),
                create_mountpoint: draw.flag(),
                is_read_only_non_recursive: draw.flag(),
                is_read_only_force_recursive: draw.flag(),
            }),
            volume: self.option(|draw| model::VolumeOptions {
                is_no_copy: draw.flag(),
                labels: draw.map(),
                driver: draw.option(Self::driver),
                subpath: draw.text(),
            }),
            tmpfs: self.option(|draw| model::TmpfsOptions {
                size_bytes: draw.signed(),
                mode: draw.small(),
                options: draw.text(),
            }),
        }
    }
}
