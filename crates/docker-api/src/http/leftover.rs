//! What a handler did not read of a request's body.
//!
//! A client that is still sending when the connection closes sees a broken pipe in place of the answer.
//! Handlers drop requests as they please, so a dropped body comes back here, and the server reads the rest,
//! within limits, before it refuses.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Bytes read and dropped. A larger body (the files of `docker build`) may break the client's pipe.
const BYTES_MAX: usize = 16 << 20;
/// Time a client gets to send them: it waits no longer for a refusal.
const TIME_MAX: Duration = Duration::from_secs(2);

/// A request's body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None` only while it is dropped.
    incoming: Option<Incoming>,
    leftover: Leftover,
}

/// Where a body goes that was not read to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leftover(Arc<Mutex<Option<Incoming>>>);

// === impl RequestBody ===

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, leftover: Leftover) -> Self {
        Self {
            incoming: Some(incoming),
            leftover,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let incoming = self.incoming.as_ref();
        incoming.map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.incoming.take().filter(|body| !body.is_end_stream());
        if unread.is_some() {
            let place = self.leftover.0.lock();
            *place.unwrap_or_else(PoisonError::into_inner) = unread;
        }
    }
}

// === impl Leftover ===

impl Leftover {
    /// Reads what is left of a dropped body, as far as the limits go.
    pub(crate) async fn read(self) {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut body) = body else { return };
        let reading = async {
            let mut length = 0;
            while let Some(Ok(frame)) = body.frame().await {
                length += frame.data_ref().map_or(0, Bytes::len);
                if length > BYTES_MAX {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(TIME_MAX, reading).await;
    }
}
