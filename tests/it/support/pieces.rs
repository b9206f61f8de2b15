//! A body that comes piece by piece, at the test's pace, and can break off.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

use super::poll_until;

/// The sending half. Dropping it ends the body properly.
pub struct Pieces(mpsc::UnboundedSender<Option<Bytes>>);

/// The body.
pub struct PiecesBody(mpsc::UnboundedReceiver<Option<Bytes>>);

/// A sender and its body.
pub fn body() -> (Pieces, PiecesBody) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Pieces(sender), PiecesBody(receiver))
}

impl Pieces {
    pub fn send(&self, bytes: impl Into<Bytes>) {
        let _ = self.0.send(Some(bytes.into()));
    }

    /// Sends one server-sent event with this JSON.
    pub fn event(&self, json: &serde_json::Value) {
        self.send(format!("data: {json}\n\n"));
    }

    /// Ends the body properly.
    pub fn finish(self) {}

    /// Breaks off: the connection dies before the body's end.
    pub fn die(self) {
        let _ = self.0.send(None);
    }

    /// Waits until the other side has gone.
    pub fn wait_until_abandoned(&self) {
        poll_until("the stream to be abandoned", || self.0.is_closed().then_some(()));
    }
}

impl http_body::Body for PiecesBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| {
            piece.map(|bytes| bytes.map(Frame::data).ok_or_else(|| std::io::ErrorKind::ConnectionReset.into()))
        })
    }
}
