//! Where does the work with the database run?

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use super::StoreError;

/// A runtime with a thread of its own. Connections belong to the runtime they were opened on, and Pingora gives each of its
/// services one that ends with it; this one lives as long as the process. Work that was begun on it is brought to its end,
/// also when whoever asked for it has gone.
#[derive(Debug)]
pub struct Background(Option<Runtime>);

impl Background {
    /// Starts the thread: to be called after the process has become a daemon.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("registry").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs `work`, and waits for what comes of it.
    ///
    /// # Errors
    /// [`StoreError::Away`] when the runtime ends first, or `work` panics.
    pub async fn run<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        let Some(task) = self.spawn(work) else { return Err(StoreError::Away.into()) };
        task.await.unwrap_or_else(|_panicked| Err(StoreError::Away.into()))
    }

    /// Runs `work`; none when the runtime has ended.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<JoinHandle<T>> {
        self.handle().map(|handle| handle.spawn(work))
    }

    /// Runs `work` while the caller waits, who must not be on a runtime; none when the runtime has ended.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.handle().map(|handle| handle.block_on(work))
    }

    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for Background {
    /// A runtime must not wait for its end on another one.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
