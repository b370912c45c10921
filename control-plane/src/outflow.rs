//! A stream whose other end must take what it is sent.
//!
//! A client that asks for something large and reads nothing would hold its connection and the answer for ever. A limit for the whole of an
//! answer was the worse alternative: a policy of a hundred megabytes takes a slow network minutes, and a client that takes nothing should not be
//! waited for as long.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long an answer may wait for the other end, all of its waits together.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the other end takes in a second is worth a second more.
const BYTES_PER_S: u64 = 16 << 10;

/// A stream that breaks off when the other end takes too little.
pub(crate) struct Outflow<S> {
    stream: S,
    answers: Answers,
    /// The answer has had to wait. What was sent before that is in the buffers of systems, and nobody may have taken it.
    has_waited: bool,
    /// Bytes that have been taken since.
    taken: u64,
    /// How long the answer has waited before now.
    waited: Duration,
    /// Since when it waits, if it does.
    waits_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// Says when a new answer begins, to whom patience is due anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Arc<AtomicBool>);

// === impl Answers ===

impl Answers {
    /// A new answer begins.
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn has_begun(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

// === impl Outflow ===

impl<S> Outflow<S> {
    pub(crate) fn new(stream: S, answers: Answers) -> Self {
        Self {
            stream,
            answers,
            has_waited: false,
            taken: 0,
            waited: Duration::ZERO,
            waits_since: None,
            alarm: None,
        }
    }

    /// What comes of an attempt to send something: the same, or an error if there have been enough of them.
    fn judge<T>(&mut self, attempt: Poll<Result<T>>, context: &mut Context<'_>) -> Poll<Result<T>> {
        if self.answers.has_begun() {
            (self.has_waited, self.taken) = (false, 0);
            (self.waited, self.waits_since) = (Duration::ZERO, None);
        }
        if attempt.is_ready() {
            if let Some(since) = self.waits_since.take() {
                self.waited = self.waited.saturating_add(since.elapsed());
            }
            return attempt;
        }
        self.has_waited = true;
        let earned = Duration::from_secs(self.taken / BYTES_PER_S);
        let left = PATIENCE.saturating_add(earned).saturating_sub(self.waited);
        let until = *self.waits_since.get_or_insert_with(Instant::now) + left;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if alarm.deadline() != until {
            alarm.as_mut().reset(until);
        }
        ready!(alarm.as_mut().poll(context));
        let reason = "the client does not read its answer";
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, reason)))
    }

    fn judge_bytes(
        &mut self,
        attempt: Poll<Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize>> {
        let judged = self.judge(attempt, context);
        if let Poll::Ready(Ok(bytes)) = &judged
            && self.has_waited
        {
            self.taken = self.taken.saturating_add(*bytes as u64);
        }
        judged
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outflow<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outflow<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge_bytes(attempt, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judge_bytes(attempt, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(attempt, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(attempt, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::sleep;

    const ANSWER_BYTES: usize = 1 << 20;

    /// Sends an answer to somebody who takes so much every second. Returns what came of it, and after how long.
    async fn send(bytes_per_s: usize) -> (Result<()>, Duration) {
        let (ours, mut theirs) = duplex(4 << 10);
        let answers = Answers::default();
        let mut outflow = Outflow::new(ours, answers.clone());
        let reader = tokio::spawn(async move {
            let mut some = vec![0; bytes_per_s];
            loop {
                sleep(Duration::from_secs(1)).await;
                if bytes_per_s > 0 && theirs.read_exact(&mut some).await.is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        answers.begin();
        let answer = vec![0; ANSWER_BYTES];
        let sent = tokio::time::timeout(Duration::from_secs(100_000), outflow.write_all(&answer));
        let outcome = (sent.await.expect("it ends"), begun.elapsed());
        reader.abort();
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_nothing_or_next_to_nothing_is_let_go() {
        for bytes_per_s in [0, 1, 1 << 10] {
            let (sent, after) = send(bytes_per_s).await;
            let error = sent.expect_err("nobody takes a megabyte");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            let (least, most) = (PATIENCE, PATIENCE + Duration::from_secs(4));
            assert!((least..most).contains(&after), "{bytes_per_s}: {after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_slowly_gets_all_of_it() {
        for bytes_per_s in [1 << 14, 1 << 16] {
            let (sent, after) = send(bytes_per_s).await;
            sent.unwrap();
            assert!(after > Duration::from_secs(10), "{after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_for_each_answer_and_not_for_the_time_between_them() {
        let (ours, mut theirs) = duplex(1 << 10);
        let answers = Answers::default();
        let mut outflow = Outflow::new(ours, answers.clone());
        for _ in 0..5 {
            answers.begin();
            let reader = async {
                sleep(Duration::from_secs(20)).await;
                theirs.read_exact(&mut [0; 2 << 10]).await
            };
            let (sent, read) = tokio::join!(outflow.write_all(&[0; 2 << 10]), reader);
            sent.unwrap();
            read.unwrap();
            sleep(Duration::from_secs(1_000)).await;
        }
    }
}
