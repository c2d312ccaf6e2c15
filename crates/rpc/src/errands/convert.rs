//! Between errands and their messages.

use skep_wire::peer::{
    self, ErrandEnd, ErrandFailure, ErrandNews, ErrandOrder, ErrandStart, errand_end,
    errand_failure, errand_news, errand_order, errand_start,
};

use crate::errands::{End, Failure, FailureKind, Input, News, TaskCommand, WindowSize, Work};

/// The first order of an errand.
pub(crate) fn start(node_id: String, work: Work) -> ErrandOrder {
    let work = match work {
        Work::Command(command) => errand_start::Work::Command(peer::TaskCommand {
            task_id: command.task_id.to_string(),
            args: command.args,
            env: command.env,
            user: command.user,
            dir: command.dir,
            has_tty: command.has_tty,
            has_input: command.has_input,
            is_privileged: command.is_privileged,
            is_detached: command.is_detached,
            size: command.size.map(wire_size),
        }),
        Work::Examination { heal } => errand_start::Work::Examination(peer::Examination { heal }),
    };
    order(errand_order::Order::Start(ErrandStart {
        node_id,
        work: Some(work),
    }))
}

/// What the first order wants; `None` for one that this node does not know.
pub(crate) fn work(start: ErrandStart) -> Option<Work> {
    Some(match start.work? {
        errand_start::Work::Command(command) => Work::Command(TaskCommand {
            task_id: command.task_id.parse().ok()?,
            args: Some(command.args).filter(|args| !args.is_empty())?,
            env: command.env,
            user: command.user,
            dir: command.dir,
            has_tty: command.has_tty,
            has_input: command.has_input,
            is_privileged: command.is_privileged,
            is_detached: command.is_detached,
            size: command.size.map(size),
        }),
        errand_start::Work::Examination(examination) => Work::Examination {
            heal: examination.heal,
        },
    })
}

impl From<Input> for ErrandOrder {
    fn from(value: Input) -> Self {
        order(match value {
            Input::Data(data) => errand_order::Order::Input(data.into()),
            Input::End => errand_order::Order::InputEnd(true),
            Input::Resize(size) => errand_order::Order::Resize(wire_size(size)),
        })
    }
}

/// `None` for what is no input.
pub(crate) fn input(order: ErrandOrder) -> Option<Input> {
    Some(match order.order? {
        errand_order::Order::Start(_) => return None,
        errand_order::Order::Input(data) => Input::Data(data.into()),
        errand_order::Order::InputEnd(_) => Input::End,
        errand_order::Order::Resize(wire) => Input::Resize(size(wire)),
    })
}

impl From<News> for ErrandNews {
    fn from(value: News) -> Self {
        let news = match value {
            News::Started => errand_news::News::Started(true),
            News::Stdout(data) => errand_news::News::Stdout(data.into()),
            News::Stderr(data) => errand_news::News::Stderr(data.into()),
            News::End(end) => errand_news::News::End(end.into()),
        };
        Self { news: Some(news) }
    }
}

/// `None` for what means nothing to whoever wanted the errand.
pub(crate) fn news(value: ErrandNews) -> Option<News> {
    Some(match value.news? {
        errand_news::News::Begin(_) => return None,
        errand_news::News::Started(_) => News::Started,
        errand_news::News::Stdout(data) => News::Stdout(data.into()),
        errand_news::News::Stderr(data) => News::Stderr(data.into()),
        errand_news::News::End(end) => News::End(ended(end)?),
    })
}

impl From<End> for ErrandEnd {
    fn from(value: End) -> Self {
        let end = match value {
            End::Exit(code) => errand_end::End::ExitCode(code),
            End::Report(text) => errand_end::End::Report(text),
            End::Failed(failure) => {
                let kind = match failure.kind {
                    FailureKind::System => errand_failure::Kind::System,
                    FailureKind::NotFound => errand_failure::Kind::NotFound,
                    FailureKind::Conflict => errand_failure::Kind::Conflict,
                    FailureKind::Invalid => errand_failure::Kind::Invalid,
                    FailureKind::Unavailable => errand_failure::Kind::Unavailable,
                };
                errand_end::End::Failure(ErrandFailure {
                    kind: kind.into(),
                    message: failure.message,
                })
            }
        };
        Self { end: Some(end) }
    }
}

fn ended(end: ErrandEnd) -> Option<End> {
    Some(match end.end? {
        errand_end::End::ExitCode(code) => End::Exit(code),
        errand_end::End::Report(text) => End::Report(text),
        errand_end::End::Failure(failure) => {
            let kind = match failure.kind() {
                errand_failure::Kind::System => FailureKind::System,
                errand_failure::Kind::NotFound => FailureKind::NotFound,
                errand_failure::Kind::Conflict => FailureKind::Conflict,
                errand_failure::Kind::Invalid => FailureKind::Invalid,
                errand_failure::Kind::Unavailable => FailureKind::Unavailable,
            };
            let message = failure.message;
            End::Failed(Failure { kind, message })
        }
    })
}

fn order(order: errand_order::Order) -> ErrandOrder {
    ErrandOrder { order: Some(order) }
}

fn wire_size(size: WindowSize) -> peer::WindowSize {
    peer::WindowSize {
        rows: size.rows.into(),
        columns: size.columns.into(),
    }
}

fn size(size: peer::WindowSize) -> WindowSize {
    WindowSize {
        rows: u16::try_from(size.rows).unwrap_or(u16::MAX),
        columns: u16::try_from(size.columns).unwrap_or(u16::MAX),
    }
}

#[cfg(test)]
mod tests {
    use skep_model::{Rng, TaskId};

    use super::*;

    #[test]
    fn works_inputs_and_news_survive() {
        let small = WindowSize {
            rows: 24,
            columns: 80,
        };
        let command = TaskCommand {
            task_id: TaskId::random(&mut Rng::from_seed(1)),
            args: vec!["ls".to_owned(), "-l".to_owned()],
            env: vec!["A=1".to_owned()],
            user: "nobody".to_owned(),
            dir: "/tmp".to_owned(),
            has_tty: true,
            has_input: true,
            is_privileged: true,
            is_detached: true,
            size: Some(small),
        };
        for wanted in [Work::Command(command), Work::Examination { heal: true }] {
            let Some(errand_order::Order::Start(sent)) =
                start("n".to_owned(), wanted.clone()).order
            else {
                panic!("a start");
            };
            assert_eq!((&*sent.node_id, work(sent.clone())), ("n", Some(wanted)));
        }
        for given in [Input::Data("x".into()), Input::End, Input::Resize(small)] {
            assert_eq!(input(given.clone().into()), Some(given));
        }
        let failed = End::Failed(Failure {
            kind: FailureKind::Conflict,
            message: "no".to_owned(),
        });
        for told in [
            News::Started,
            News::Stdout("a".into()),
            News::Stderr("b".into()),
            News::End(End::Exit(-1)),
            News::End(End::Report("c".to_owned())),
            News::End(failed),
        ] {
            assert_eq!(news(told.clone().into()), Some(told));
        }
        assert_eq!(news(ErrandNews::default()), None);
        assert_eq!(input(ErrandOrder::default()), None);
        assert_eq!(work(ErrandStart::default()), None);
    }
}
