//! Commands on stacks that a follower passes on: the whole document in one call, since Swarm has none.

use skep_manager::{
    Handle,
    command::{Answer, Command},
};
use skep_model::stack::ApplyOptions;
use skep_wire::peer::{
    ApplyStackRequest, RemoveStackRequest, RollBackStackRequest, StackAnswer, stacks_server,
};
use tonic::{Request, Response, Status, async_trait};

use crate::{
    convert::{malformed, status_of_command},
    service::handle,
};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Stacks;

#[async_trait]
impl stacks_server::Stacks for Stacks {
    async fn apply(
        &self,
        request: Request<ApplyStackRequest>,
    ) -> Result<Response<StackAnswer>, Status> {
        let handle = handle(&request)?;
        let request = request.into_inner();
        let options = ApplyOptions {
            expect: request.expect,
            prune: request.prune,
            force: request.force,
        };
        let spec = request.spec.unwrap_or_default();
        let spec = Box::new(spec.try_into().map_err(malformed)?);
        carry_out(&handle, Command::ApplyStack { spec, options }).await
    }

    async fn roll_back(
        &self,
        request: Request<RollBackStackRequest>,
    ) -> Result<Response<StackAnswer>, Status> {
        let handle = handle(&request)?;
        let RollBackStackRequest { name, number } = request.into_inner();
        carry_out(&handle, Command::RollBackStack { name, number }).await
    }

    async fn remove(
        &self,
        request: Request<RemoveStackRequest>,
    ) -> Result<Response<StackAnswer>, Status> {
        let handle = handle(&request)?;
        let name = request.into_inner().name;
        carry_out(&handle, Command::RemoveStack { name }).await
    }
}

async fn carry_out(handle: &Handle, command: Command) -> Result<Response<StackAnswer>, Status> {
    let answer = handle.command(command).await.map_err(status_of_command)?;
    let Answer::Stack(outcome) = answer else {
        return Err(Status::internal("unexpected answer of the manager"));
    };
    Ok(Response::new((&*outcome).into()))
}
