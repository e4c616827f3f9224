"""The read side: what the log means. Disposable, rebuilt from the log at any time."""
