//! Two threads that do nothing but hash: a storm of logins takes two cores and 38 MiB at most.

use super::password;
use broker::PasswordHash;
use parking_lot::Mutex;
use std::{sync::Arc, thread};
use tokio::sync::{mpsc, oneshot};

const THREADS: usize = 2;
/// Logins that may wait; who comes later waits outside.
const WAITING_MAX: usize = 1_024;

struct Job {
    record: PasswordHash,
    password: Vec<u8>,
    answer: oneshot::Sender<bool>,
}

pub(super) struct Pool(mpsc::Sender<Job>);

impl Pool {
    /// The threads end when the pool is dropped.
    pub(super) fn start() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        for index in 0..THREADS {
            let receiver = Arc::clone(&receiver);
            let thread = thread::Builder::new().name(format!("login-{index}"));
            thread.spawn(move || work(&receiver)).expect("the system has room for a thread");
        }
        Self(sender)
    }

    /// `None` when the pool has stopped.
    pub(super) async fn verify(&self, record: PasswordHash, password: Vec<u8>) -> Option<bool> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Job { record, password, answer }).await.ok()?;
        answered.await.ok()
    }
}

fn work(receiver: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        // The lock is held while waiting: whoever has it gets the next job.
        let job = receiver.lock().blocking_recv();
        let Some(mut job) = job else { return };
        // Who asked may have gone.
        if !job.answer.is_closed() {
            let right = password::verify(&job.record, &job.password);
            job.answer.send(right).ok();
        }
        job.password.fill(0);
    }
}
