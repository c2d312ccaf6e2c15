//! Errands: from any manager to a node and back, each done once, by nobody else.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use skep_model::{NodeId, Rng, TaskId};
use skep_wire::peer::{
    ErrandNews, ErrandOrder, ListenErrands, errand_news, errands_client::ErrandsClient,
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::rig::{Founder, PATIENCE, client, connect};
use crate::{
    Security,
    errands::{
        self, End, Failure, FailureKind, Input, News, Runner, Session, TaskCommand, WindowSize,
        Work,
    },
};

/// Says back what it hears, until there is no more; counts.
#[derive(Default)]
struct Echo {
    runs: AtomicUsize,
    ends: AtomicUsize,
}

#[async_trait]
impl Runner for Echo {
    async fn run(
        &self,
        work: Work,
        mut input: mpsc::Receiver<Input>,
        news: mpsc::Sender<News>,
    ) -> End {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let Work::Command(command) = work else {
            return End::Report("well".to_owned());
        };
        if command.args == ["fail"] {
            return End::Failed(Failure {
                kind: FailureKind::Conflict,
                message: "not now".to_owned(),
            });
        }
        let _ = news.send(News::Started).await;
        while let Some(input) = input.recv().await {
            match input {
                Input::Data(data) => drop(news.send(News::Stdout(data)).await),
                Input::Resize(size) => {
                    let text = format!("{}x{}", size.rows, size.columns);
                    let _ = news.send(News::Stderr(text.into())).await;
                }
                Input::End => break,
            }
        }
        self.ends.fetch_add(1, Ordering::SeqCst);
        End::Exit(7)
    }
}

fn serve(security: &Arc<Security>, addr: &str, runner: &Arc<Echo>) -> JoinHandle<()> {
    let runner: Arc<dyn Runner> = Arc::clone(runner) as _;
    let stop = CancellationToken::new();
    tokio::spawn(errands::serve(client(security, addr), runner, stop))
}

fn command(program: &str) -> Work {
    Work::Command(TaskCommand {
        task_id: TaskId::random(&mut Rng::from_seed(1)),
        args: vec![program.to_owned()],
        env: Vec::new(),
        user: String::new(),
        dir: String::new(),
        has_tty: false,
        has_input: true,
        is_privileged: false,
        is_detached: false,
        size: None,
    })
}

async fn next(session: &mut Session) -> News {
    let news = timeout(PATIENCE, session.news.recv()).await.unwrap();
    news.unwrap()
}

/// A session with a node that may not listen yet.
async fn begun(cluster: &crate::Cluster, node: NodeId) -> Session {
    let begin = async {
        loop {
            let mut session = cluster.errand(node, command("echo")).await.unwrap();
            match next(&mut session).await {
                News::Started => return session,
                News::End(End::Failed(failure)) => {
                    assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
                }
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, begin).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_has_a_worker_of_another_manager_run_a_command() {
    let founder = Founder::start().await;
    let follower = founder.manager().await;
    let worker = founder.worker().await;
    let echo = Arc::new(Echo::default());
    let _serving = serve(&worker, &follower.addr.to_string(), &echo);
    let cluster = follower.cluster();
    let mut session = begun(&cluster, worker.node_id()).await;
    let size = WindowSize {
        rows: 24,
        columns: 80,
    };
    session
        .input
        .send(Input::Data("hello".into()))
        .await
        .unwrap();
    assert_eq!(next(&mut session).await, News::Stdout("hello".into()));
    session.input.send(Input::Resize(size)).await.unwrap();
    assert_eq!(next(&mut session).await, News::Stderr("24x80".into()));
    // More than all queues on the way hold; the echo waits for its reader.
    let input = session.input.clone();
    let flood = tokio::spawn(async move {
        for _ in 0..200 {
            input
                .send(Input::Data(vec![b'x'; 32 << 10].into()))
                .await
                .unwrap();
        }
        input.send(Input::End).await.unwrap();
    });
    let mut bytes = 0;
    let end = loop {
        match next(&mut session).await {
            News::Stdout(data) => bytes += data.len(),
            News::End(end) => break end,
            other => panic!("{other:?}"),
        }
    };
    flood.await.unwrap();
    assert_eq!((bytes, end), (200 * (32 << 10), End::Exit(7)));

    let work = Work::Examination { heal: false };
    let mut session = cluster.errand(worker.node_id(), work).await.unwrap();
    let report = End::Report("well".to_owned());
    assert_eq!(next(&mut session).await, News::End(report));
    let mut session = cluster
        .errand(worker.node_id(), command("fail"))
        .await
        .unwrap();
    let News::End(End::Failed(failure)) = next(&mut session).await else {
        panic!("it failed")
    };
    assert_eq!(
        (failure.kind, &*failure.message),
        (FailureKind::Conflict, "not now")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_client_went_sees_the_end_of_its_input() {
    let founder = Founder::start().await;
    let worker = founder.worker().await;
    let echo = Arc::new(Echo::default());
    let _serving = serve(&worker, &founder.addr(), &echo);
    let cluster = founder.node.cluster();
    let session = begun(&cluster, worker.node_id()).await;
    assert_eq!(echo.ends.load(Ordering::SeqCst), 0);
    drop(session);
    let ended = async {
        while echo.ends.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_errand_is_for_managers_to_give_and_for_one_node_to_fetch_once() {
    let founder = Founder::start().await;
    let (worker, stranger) = (founder.worker().await, founder.worker().await);
    let cluster = founder.node.cluster();

    // Nobody listens.
    let mut session = cluster
        .errand(worker.node_id(), command("echo"))
        .await
        .unwrap();
    let News::End(End::Failed(failure)) = next(&mut session).await else {
        panic!("nobody listens")
    };
    assert_eq!(failure.kind, FailureKind::Unavailable);
    assert!(failure.message.contains("is not available"), "{failure}");

    // A worker gives no errands.
    let mut own = ErrandsClient::new(connect(&worker, &founder.addr()).await);
    let start = errands::convert::start(stranger.node_id().to_string(), command("echo"));
    let asked = own.request(tokio_stream::once(start)).await;
    assert_eq!(asked.unwrap_err().code(), tonic::Code::PermissionDenied);

    let mut heard = own.listen(ListenErrands {}).await.unwrap().into_inner();
    let mut session = cluster
        .errand(worker.node_id(), command("echo"))
        .await
        .unwrap();
    let errand = timeout(PATIENCE, heard.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let begin = || ErrandNews {
        news: Some(errand_news::News::Begin(errand.id.clone())),
    };
    let mut other = ErrandsClient::new(connect(&stranger, &founder.addr()).await);
    let stolen = other.carry(tokio_stream::once(begin())).await;
    assert_eq!(stolen.unwrap_err().code(), tonic::Code::NotFound);
    let (tx, rx) = mpsc::channel(4);
    tx.send(begin()).await.unwrap();
    let orders = own
        .carry(tokio_stream::wrappers::ReceiverStream::new(rx))
        .await;
    let mut orders = orders.unwrap().into_inner();
    let first: Option<ErrandOrder> = orders.message().await.unwrap();
    assert!(first.is_some_and(|order| order.order.is_some()));
    let again = own.carry(tokio_stream::once(begin())).await;
    assert_eq!(again.unwrap_err().code(), tonic::Code::NotFound);
    // The node goes away in the middle.
    drop((tx, orders));
    let News::End(End::Failed(failure)) = next(&mut session).await else {
        panic!("the node went")
    };
    assert!(failure.message.contains("disconnected"), "{failure}");
}
