//! A captured log for tests.

use std::sync::Arc;

use parking_lot::Mutex;

/// The log of this thread's tasks, with a line for each span that is opened.
pub(crate) struct CapturedLog {
    bytes: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
    /// With one dispatcher only, tracing asks the thread that reaches a span first whether it is
    /// logged, and threads of other tests answer no. With two it asks both dispatchers.
    _second: tracing::Dispatch,
}

impl CapturedLog {
    /// Captures all levels from "debug" on.
    pub(crate) fn start() -> Self {
        Self::start_at(tracing::Level::DEBUG)
    }

    /// Captures `level` and the more severe ones.
    pub(crate) fn start_at(level: tracing::Level) -> Self {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let writer = LogWriter(bytes.clone());
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(level)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::NEW)
            .with_writer(move || writer.clone())
            .finish();
        let second = tracing::Dispatch::new(tracing_subscriber::registry());
        Self {
            bytes,
            _guard: tracing::subscriber::set_default(subscriber),
            _second: second,
        }
    }

    /// The lines that contain `text`.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8(self.bytes.lock().clone()).unwrap();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }
}

#[derive(Clone)]
struct LogWriter(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
