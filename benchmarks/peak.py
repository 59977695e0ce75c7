# yolo-prune, AGPL-3.0 license
"""The most memory that this process holds while a block runs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import time


class Peak:
    """The most resident memory of this process while the block runs, in bytes above what it was before."""

    def __enter__(self) -> Peak:
        import psutil

        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(
                0
            )  # what was freed before counts as held, and would hide what is taken
        self.process = psutil.Process()
        self.before = self.most = self.process.memory_info().rss
        self.running = True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while self.running:
            self.most = max(self.most, self.process.memory_info().rss)
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()

    @property
    def extra(self) -> int:
        return self.most - self.before
