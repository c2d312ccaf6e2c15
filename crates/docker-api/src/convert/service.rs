//! Services.

use std::sync::Arc;

use skep_model::{
    DEFAULT_STOP_GRACE_PERIOD, DEFAULT_UPDATE_MONITOR, DnsConfig, Endpoint, EndpointSpec,
    FailureAction, PortConfig, Protocol, PublishMode, ResolutionMode, Service, ServiceMode,
    ServiceSpec, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus,
    reserved::service::schedule::{JobPolicy, NextRun},
};

use crate::{
    convert::{annotations, duration, nanos, optional_time, task_spec::template, unsupported},
    dto::{meta, service as dto},
    error::{ApiError, Result},
    http::{timestamp::rfc3339_nano, version::ApiVersion},
};

impl From<&Service> for dto::Service {
    /// Without `ServiceStatus`, which is no part of the stored object.
    fn from(service: &Service) -> Self {
        Self {
            id: service.id.to_string(),
            meta: service.meta.into(),
            spec: (&*service.spec).into(),
            previous_spec: service.previous_spec.as_deref().map(Into::into),
            endpoint: service
                .endpoint
                .as_ref()
                .map(Into::into)
                .unwrap_or_default(),
            update_status: service
                .update_status
                .as_ref()
                .map(|status| dto::UpdateStatus {
                    message: next_run(service).unwrap_or_else(|| status.message.clone()),
                    ..status.into()
                }),
            service_status: None,
            job_status: service.job_status.as_ref().map(|status| dto::JobStatus {
                job_iteration: meta::Version {
                    index: status.job_iteration.0,
                },
                last_execution: rfc3339_nano(status.last_execution.unwrap_or_default()),
            }),
        }
    }
}

/// When a scheduled job runs next: what the update status of a job, which knows no updates, says.
fn next_run(service: &Service) -> Option<String> {
    let policy = JobPolicy::of(&service.spec.annotations.labels);
    match policy.next_run(service) {
        NextRun::Unscheduled => None,
        NextRun::Suspended => Some("schedule is suspended".to_owned()),
        NextRun::Never => Some("no next run".to_owned()),
        NextRun::At(at, schedule) => Some(format!("next run at {}", schedule.local(at))),
    }
}

impl From<&ServiceSpec> for dto::ServiceSpec {
    fn from(spec: &ServiceSpec) -> Self {
        Self {
            name: spec.annotations.name.clone(),
            labels: spec.annotations.labels.clone(),
            task_template: template(&spec.task, true),
            mode: spec.mode.into(),
            update_config: spec.update.as_ref().map(Into::into),
            rollback_config: spec.rollback.as_ref().map(Into::into),
            endpoint_spec: spec.endpoint.as_ref().map(Into::into),
            networks: spec.networks.iter().map(Into::into).collect(),
        }
    }
}

/// Reads the spec a client of `version` sent. Refuses what no node could honour, all at once.
pub(crate) fn service_spec(mut spec: dto::ServiceSpec, version: ApiVersion) -> Result<ServiceSpec> {
    drop_newer_fields(&mut spec, version);
    unsupported::check(&spec)?;
    let networks = spec.networks.into_iter().map(Into::into).collect();
    let endpoint = spec.endpoint_spec.map(TryInto::try_into).transpose()?;
    Ok(ServiceSpec {
        annotations: annotations(spec.name, spec.labels),
        task: Arc::new(spec.task_template.try_into()?),
        mode: spec.mode.try_into()?,
        update: spec.update_config.map(TryInto::try_into).transpose()?,
        rollback: spec.rollback_config.map(TryInto::try_into).transpose()?,
        networks,
        endpoint,
    })
}

/// Ignores fields that `version` did not have yet, as Docker does.
fn drop_newer_fields(spec: &mut dto::ServiceSpec, version: ApiVersion) {
    let template = &mut spec.task_template;
    if let Some(resources) = &mut template.resources {
        if !version.at_least(52) {
            resources.swap_bytes = None;
            resources.memory_swappiness = None;
        }
        if let Some(limits) = resources.limits.as_mut().filter(|_| !version.at_least(41)) {
            limits.pids = 0;
        }
    }
    if let Some(placement) = template
        .placement
        .as_mut()
        .filter(|_| !version.at_least(40))
    {
        placement.max_replicas = 0;
    }
    if !version.at_least(41) {
        spec.mode.replicated_job = None;
        spec.mode.global_job = None;
    }
    if version.at_least(44) {
        spec.networks.clear();
    }
    let Some(container) = &mut template.container_spec else {
        return;
    };
    if !version.at_least(46) {
        container.oom_score_adj = 0;
        let tmpfs = container
            .mounts
            .iter_mut()
            .filter_map(|mount| mount.tmpfs_options.as_mut());
        tmpfs.for_each(|tmpfs| tmpfs.options.clear());
    }
    if !version.at_least(44) {
        if let Some(privileges) = &mut container.privileges {
            privileges.seccomp = None;
            privileges.app_armor = None;
            privileges.no_new_privileges = false;
        }
        if let Some(health) = &mut container.healthcheck {
            health.start_interval = 0;
        }
    }
    if !version.at_least(41) {
        container.capability_add.clear();
        container.capability_drop.clear();
        container.ulimits.clear();
    }
    if !version.at_least(40) {
        container.sysctls.clear();
    }
}

/// Fills in the settings in force where `service` leaves them to Swarm's defaults.
pub(crate) fn insert_defaults(service: &mut dto::Service) {
    let spec = &mut service.spec;
    for config in [&mut spec.update_config, &mut spec.rollback_config] {
        let config = config.get_or_insert_with(|| (&UpdateConfig::default()).into());
        if config.monitor == 0 {
            config.monitor = nanos(DEFAULT_UPDATE_MONITOR);
        }
    }
    if let Some(container) = &mut spec.task_template.container_spec {
        container
            .stop_grace_period
            .get_or_insert(nanos(DEFAULT_STOP_GRACE_PERIOD));
        let DnsConfig {
            nameservers,
            search,
            options,
        } = DnsConfig::default();
        container
            .dns_config
            .get_or_insert(crate::dto::container_spec::DnsConfig {
                nameservers,
                search,
                options,
            });
    }
}

impl From<ServiceMode> for dto::ServiceMode {
    fn from(mode: ServiceMode) -> Self {
        let mut dto = Self::default();
        match mode {
            ServiceMode::Replicated { replicas } => {
                dto.replicated = Some(dto::Replicated {
                    replicas: Some(replicas),
                });
            }
            ServiceMode::Global => dto.global = Some(dto::Empty {}),
            ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            } => {
                dto.replicated_job = Some(dto::ReplicatedJob {
                    max_concurrent: Some(max_concurrent),
                    total_completions: Some(total_completions),
                });
            }
            ServiceMode::GlobalJob => dto.global_job = Some(dto::Empty {}),
        }
        dto
    }
}

impl TryFrom<dto::ServiceMode> for ServiceMode {
    type Error = ApiError;

    fn try_from(mode: dto::ServiceMode) -> Result<Self> {
        match (
            mode.replicated,
            mode.global,
            mode.replicated_job,
            mode.global_job,
        ) {
            (None, None, None, None) => Ok(Self::default()),
            (Some(replicated), None, None, None) => Ok(Self::Replicated {
                replicas: replicated.replicas.unwrap_or(1),
            }),
            (None, Some(_), None, None) => Ok(Self::Global),
            (None, None, Some(job), None) => {
                let max_concurrent = job.max_concurrent.unwrap_or(1);
                let total_completions = job.total_completions.unwrap_or(max_concurrent);
                Ok(Self::ReplicatedJob {
                    max_concurrent,
                    total_completions,
                })
            }
            (None, None, None, Some(_)) => Ok(Self::GlobalJob),
            _ => Err(ApiError::invalid("must specify only one service mode")),
        }
    }
}

impl From<&UpdateConfig> for dto::UpdateConfig {
    fn from(config: &UpdateConfig) -> Self {
        Self {
            parallelism: config.parallelism,
            delay: nanos(config.delay),
            failure_action: match config.failure_action {
                FailureAction::Pause => "pause",
                FailureAction::Continue => "continue",
                FailureAction::Rollback => "rollback",
            }
            .to_owned(),
            monitor: config.monitor.map_or(0, nanos),
            max_failure_ratio: config.max_failure_ratio,
            order: match config.order {
                UpdateOrder::StopFirst => "stop-first",
                UpdateOrder::StartFirst => "start-first",
            }
            .to_owned(),
        }
    }
}

impl TryFrom<dto::UpdateConfig> for UpdateConfig {
    type Error = ApiError;

    fn try_from(config: dto::UpdateConfig) -> Result<Self> {
        Ok(Self {
            parallelism: config.parallelism,
            delay: duration(config.delay, "TaskSpec: update-delay")?,
            failure_action: match config.failure_action.as_str() {
                "pause" | "" => FailureAction::Pause,
                "continue" => FailureAction::Continue,
                "rollback" => FailureAction::Rollback,
                other => {
                    let message = format!("unrecognized update failure action {other}");
                    return Err(ApiError::invalid(message));
                }
            },
            monitor: match config.monitor {
                0 => None,
                nanos => Some(duration(nanos, "TaskSpec: update-monitor")?),
            },
            max_failure_ratio: config.max_failure_ratio,
            order: match config.order.as_str() {
                "stop-first" | "" => UpdateOrder::StopFirst,
                "start-first" => UpdateOrder::StartFirst,
                other => {
                    return Err(ApiError::invalid(format!(
                        "unrecognized update order {other}"
                    )));
                }
            },
        })
    }
}

fn resolution_name(mode: ResolutionMode) -> &'static str {
    match mode {
        ResolutionMode::Vip => "vip",
        ResolutionMode::DnsRr => "dnsrr",
    }
}

impl From<&EndpointSpec> for dto::EndpointSpec {
    fn from(spec: &EndpointSpec) -> Self {
        Self {
            mode: resolution_name(spec.mode).to_owned(),
            ports: spec.ports.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<dto::EndpointSpec> for EndpointSpec {
    type Error = ApiError;

    fn try_from(spec: dto::EndpointSpec) -> Result<Self> {
        Ok(Self {
            mode: match spec.mode.as_str() {
                "vip" | "" => ResolutionMode::Vip,
                "dnsrr" => ResolutionMode::DnsRr,
                other => {
                    return Err(ApiError::invalid(format!(
                        "invalid resolution mode: {other:?}"
                    )));
                }
            },
            ports: spec
                .ports
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_>>()?,
        })
    }
}

impl From<&PortConfig> for dto::PortConfig {
    fn from(port: &PortConfig) -> Self {
        Self {
            name: port.name.clone(),
            protocol: port.protocol.name().to_owned(),
            target_port: u32::from(port.target_port),
            published_port: u32::from(port.published_port),
            publish_mode: match port.publish_mode {
                PublishMode::Ingress => "ingress",
                PublishMode::Host => "host",
            }
            .to_owned(),
        }
    }
}

impl TryFrom<dto::PortConfig> for PortConfig {
    type Error = ApiError;

    fn try_from(port: dto::PortConfig) -> Result<Self> {
        let number = |number: u32| {
            u16::try_from(number).map_err(|_| ApiError::invalid(format!("invalid port: {number}")))
        };
        Ok(Self {
            name: port.name,
            protocol: match port.protocol.to_ascii_lowercase().as_str() {
                "tcp" | "" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                other => return Err(ApiError::invalid(format!("invalid Protocol: {other:?}"))),
            },
            target_port: number(port.target_port)?,
            published_port: number(port.published_port)?,
            publish_mode: match port.publish_mode.as_str() {
                "ingress" | "" => PublishMode::Ingress,
                "host" => PublishMode::Host,
                other => return Err(ApiError::invalid(format!("invalid PublishMode: {other:?}"))),
            },
        })
    }
}

impl From<&Endpoint> for dto::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            spec: endpoint.spec.as_ref().map(Into::into).unwrap_or_default(),
            ports: endpoint.ports.iter().map(Into::into).collect(),
            virtual_ips: endpoint
                .virtual_ips
                .iter()
                .map(|vip| dto::VirtualIp {
                    network_id: vip.network_id.clone(),
                    addr: vip.addr.clone(),
                })
                .collect(),
        }
    }
}

impl From<&UpdateStatus> for dto::UpdateStatus {
    fn from(status: &UpdateStatus) -> Self {
        Self {
            state: match status.state {
                UpdateState::Unknown => "",
                UpdateState::Updating => "updating",
                UpdateState::Paused => "paused",
                UpdateState::Completed => "completed",
                UpdateState::RollbackStarted => "rollback_started",
                UpdateState::RollbackPaused => "rollback_paused",
                UpdateState::RollbackCompleted => "rollback_completed",
            },
            started_at: optional_time(status.started_at),
            completed_at: optional_time(status.completed_at),
            message: status.message.clone(),
        }
    }
}
