//! Services and their specs.

use std::sync::Arc;

use skep_model as model;
use skep_model::ServiceId;

use crate::arbitrary::Draw;

impl Draw {
    /// A service.
    pub fn service(&mut self) -> model::Service {
        model::Service {
            id: ServiceId::random(&mut self.0),
            meta: self.meta(),
            spec: Arc::new(self.service_spec()),
            spec_version: self.version(),
            previous_spec: self.option(|draw| Arc::new(draw.service_spec())),
            previous_spec_version: self.option(Self::version),
            endpoint: self.option(Self::endpoint),
            update_status: self.option(Self::update_status),
            job_status: self.option(|draw| model::JobStatus {
                job_iteration: draw.version(),
                last_execution: draw.option(Self::time),
            }),
            is_pending_delete: self.flag(),
        }
    }

    /// What a service is.
    pub fn service_spec(&mut self) -> model::ServiceSpec {
        use model::ServiceMode;
        let modes = [
            ServiceMode::Replicated {
                replicas: self.number(),
            },
            ServiceMode::Global,
            ServiceMode::ReplicatedJob {
                max_concurrent: self.number(),
                total_completions: self.number(),
            },
            ServiceMode::GlobalJob,
        ];
        model::ServiceSpec {
            annotations: Arc::new(self.annotations()),
            task: Arc::new(self.task_spec()),
            mode: self.one_of(&modes),
            update: self.option(Self::update_config),
            rollback: self.option(Self::update_config),
            networks: self.list(Self::network_attachment),
            endpoint: self.option(Self::endpoint_spec),
        }
    }

    /// Allocated ports and addresses.
    pub fn endpoint(&mut self) -> model::Endpoint {
        model::Endpoint {
            spec: self.option(Self::endpoint_spec),
            ports: self.list(Self::port),
            virtual_ips: self.list(|draw| model::VirtualIp {
                network_id: draw.text(),
                addr: draw.text(),
            }),
        }
    }

    fn endpoint_spec(&mut self) -> model::EndpointSpec {
        use model::ResolutionMode;
        model::EndpointSpec {
            mode: self.one_of(&[ResolutionMode::Vip, ResolutionMode::DnsRr]),
            ports: self.list(Self::port),
        }
    }

    pub(super) fn port(&mut self) -> model::PortConfig {
        use model::{Protocol, PublishMode};
        model::PortConfig {
            name: self.text(),
            protocol: self.one_of(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
            target_port: self.port_number(),
            published_port: self.port_number(),
            publish_mode: self.one_of(&[PublishMode::Ingress, PublishMode::Host]),
        }
    }

    pub(super) fn network_attachment(&mut self) -> model::NetworkAttachmentConfig {
        model::NetworkAttachmentConfig {
            target: self.text(),
            aliases: self.texts(),
            addresses: self.texts(),
            driver_options: self.map(),
        }
    }

    fn update_config(&mut self) -> model::UpdateConfig {
        use model::{FailureAction, UpdateOrder};
        model::UpdateConfig {
            parallelism: self.number(),
            delay: self.duration(),
            failure_action: self.one_of(&[
                FailureAction::Pause,
                FailureAction::Continue,
                FailureAction::Rollback,
            ]),
            monitor: self.option(Self::duration),
            max_failure_ratio: self.one_of(&[0.0, 0.25, 0.1, 1.0]),
            order: self.one_of(&[UpdateOrder::StopFirst, UpdateOrder::StartFirst]),
        }
    }

    fn update_status(&mut self) -> model::UpdateStatus {
        use model::UpdateState;
        model::UpdateStatus {
            state: self.one_of(&[
                UpdateState::Unknown,
                UpdateState::Updating,
                UpdateState::Paused,
                UpdateState::Completed,
                UpdateState::RollbackStarted,
                UpdateState::RollbackPaused,
                UpdateState::RollbackCompleted,
            ]),
            started_at: self.option(Self::time),
            completed_at: self.option(Self::time),
            message: self.text(),
        }
    }
}
