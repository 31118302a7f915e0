//! Training in a thread of its own: Python hears of how it goes on, and Ctrl-C is answered at once.
//!
//! The caller's thread waits without the interpreter and wakes a few times a second to see whether a signal has come. After one it
//! leaves: training ends behind its back after the epoch that it is in, and its work is thrown away.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use recmill_kernels::Device;
use recmill_train::{EpochRecord, Plan, Progress, gradient::StepRecord};

use crate::{
    failure::{Failure, of_panic},
    threads::on_threads,
};

/// How often the caller's thread looks for a signal, and how seldom it hears of steps.
const LOOK: Duration = Duration::from_millis(50);

/// What the training thread says.
enum Told<T> {
    Begun(u32, Device),
    /// Epochs that are done, a part of one included, and the loss.
    Step(f64, f64),
    Epoch(EpochRecord),
    Done(Box<PyResult<T>>),
}

/// Hears of training and passes it on.
pub(crate) struct Teller<T> {
    sender: mpsc::Sender<Told<T>>,
    last: Instant,
}

impl<T> Teller<T> {
    /// Says how many epochs there will be, and where.
    pub(crate) fn begin(&self, epochs: u32, device: Device) {
        // Nobody listens any more after a signal; so with all that is sent.
        let _ = self.sender.send(Told::Begun(epochs, device));
    }
}

impl<T> Progress for Teller<T> {
    fn planned(&mut self, plan: &Plan) {
        self.begin(plan.epochs, plan.memory.device);
    }

    fn step(&mut self, record: &StepRecord) {
        if record.samples < record.of && self.last.elapsed() >= LOOK {
            self.last = Instant::now();
            let done = f64::from(record.epoch - 1) + record.samples as f64 / record.of as f64;
            let _ = self.sender.send(Told::Step(done, record.loss));
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let _ = self.sender.send(Told::Epoch(record.clone()));
    }
}

/// Runs `work` on so many threads, in a thread that a signal leaves behind, and returns what it returns.
///
/// `told` is called with `(epochs done, epochs, seconds, loss, device)`: with 0 epochs and the device first, with a part of an
/// epoch now and then, and with a whole number and the seconds after every epoch.
pub(crate) fn in_background<T: Send + 'static>(
    py: Python<'_>,
    threads: usize,
    told: Option<&Py<PyAny>>,
    work: impl FnOnce(&AtomicBool, &mut Teller<T>) -> Result<T, Failure> + Send + 'static,
) -> PyResult<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    let asked_to_stop = stop.clone();
    std::thread::Builder::new()
        .name("recmill-fit".into())
        .spawn(move || {
            let mut teller = Teller { sender: sender.clone(), last: Instant::now() };
            let work = || work(&asked_to_stop, &mut teller);
            let done = match catch_unwind(AssertUnwindSafe(|| on_threads(threads, work))) {
                Ok(Ok(Ok(done))) => Ok(done),
                Ok(Ok(Err(failure))) => Err(PyErr::from(failure)),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(of_panic(&*panic)),
            };
            let _ = sender.send(Told::Done(Box::new(done)));
        })
        .map_err(|error| PyRuntimeError::new_err(format!("a thread cannot be started: {error}")))?;
    let ended = wait(py, &receiver, told);
    if ended.is_err() {
        stop.store(true, Ordering::Relaxed);
    }
    ended
}

fn wait<T: Send>(
    py: Python<'_>,
    receiver: &Mutex<mpsc::Receiver<Told<T>>>,
    told: Option<&Py<PyAny>>,
) -> PyResult<T> {
    let mut epochs = 0;
    let tell = |arguments: (f64, u32, f64, Option<f64>, Option<String>)| match told {
        Some(told) => told.call1(py, arguments).map(drop),
        None => Ok(()),
    };
    loop {
        match py.detach(|| match receiver.lock() {
            Ok(receiver) => receiver.recv_timeout(LOOK),
            Err(_) => Err(mpsc::RecvTimeoutError::Disconnected),
        }) {
            Ok(Told::Begun(of, device)) => {
                epochs = of;
                tell((0.0, epochs, 0.0, None, Some(device.to_string())))?;
            }
            Ok(Told::Step(done, loss)) => tell((done, epochs, 0.0, Some(loss), None))?,
            Ok(Told::Epoch(record)) => {
                tell((record.epoch.into(), epochs, record.seconds, record.loss, None))?
            }
            Ok(Told::Done(done)) => return *done,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err("the training thread is gone"));
            }
        }
        py.check_signals()?;
    }
}
