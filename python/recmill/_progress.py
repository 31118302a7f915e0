"""What a training tells: a bar, a callback, the log."""

from __future__ import annotations

from typing import Any, Callable


class Watch:
    """Hears of every epoch."""

    def __init__(self, show: bool, callback: Callable[..., Any] | None, what: str):
        import logging  # noqa: PLC0415 - not before it is needed: importing recmill is to be fast

        self.log = logging.getLogger("recmill")
        self.callback = callback
        self.device = "cpu"
        self.what = what
        self.bar = None
        if show:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                pass
            else:
                self.bar = tqdm

    def __call__(self, done: float, epochs: int, seconds: float, loss: float | None, device: str | None) -> None:
        """Hear that so many epochs are done: none yet, a part of one, or one more."""
        if device is not None:
            self.device = device
            self.bar = self.bar(total=epochs, desc=self.what) if self.bar is not None else None
            self.log.debug("fitting %s on %s, %d iterations", self.what, device, epochs)
            return
        if self.bar is not None:
            if loss is not None:
                self.bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            self.bar.update(round(done - self.bar.n, 2))
        if not float(done).is_integer():
            return
        if loss is not None:
            self.log.info("%s: iteration %d, loss %.6g", self.what, done, loss)
        if self.callback is not None:
            self.callback(int(done) - 1, seconds, loss)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None and hasattr(self.bar, "close") and not isinstance(self.bar, type):
            self.bar.close()
