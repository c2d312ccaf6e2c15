//! The root certificates, for everyone, and the key that unlocks managers, for managers.

use skep_wire::proto::{
    self, GetRootCaCertificateRequest, GetRootCaCertificateResponse, GetUnlockKeyRequest,
    GetUnlockKeyResponse, ca_server,
};
use tonic::{Request, Response, Status, async_trait};

use crate::{convert::not_executed, service::handle};

/// What the unlock key is for, among the keys of the cluster.
const MANAGERS: &str = "swarm-manager";

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Ca;

#[async_trait]
impl ca_server::Ca for Ca {
    async fn get_root_ca_certificate(
        &self,
        request: Request<GetRootCaCertificateRequest>,
    ) -> Result<Response<GetRootCaCertificateResponse>, Status> {
        let view = handle(&request)?.view();
        let cluster = view.store.cluster();
        let cluster = cluster.ok_or_else(|| not_executed("the cluster is not known yet"))?;
        let certificate = cluster.root_ca.ca_cert.clone();
        Ok(Response::new(GetRootCaCertificateResponse { certificate }))
    }

    async fn get_unlock_key(
        &self,
        request: Request<GetUnlockKeyRequest>,
    ) -> Result<Response<GetUnlockKeyResponse>, Status> {
        let view = handle(&request)?.view();
        let cluster = view.store.cluster();
        let cluster = cluster.ok_or_else(|| not_executed("the cluster is not known yet"))?;
        let keys = &cluster.unlock_keys;
        let key = keys.iter().find(|key| key.subsystem == MANAGERS);
        Ok(Response::new(GetUnlockKeyResponse {
            unlock_key: key.map_or_else(Vec::new, |key| key.key.0.clone()),
            version: Some(proto::Version {
                index: cluster.meta.version.0,
            }),
        }))
    }
}
