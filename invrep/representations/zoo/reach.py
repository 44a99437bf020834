"""Check once whether a server can be reached: libraries that download weights retry for minutes."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

SECONDS = 5.0


def unreachable(url: str, seconds: float = SECONDS) -> str | None:
    """Return why a server does not answer, by the system's proxies; None for any answer.

    Args:
        url: address of the server.
        seconds: longest wait in seconds.
    """
    found: list[str | None] = [f"{url} does not answer within {seconds:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            found.append(None)
        except urllib.error.HTTPError:
            found.append(None)
        except (OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            # the downloading library judges certificates
            found.append(None if isinstance(cause, ssl.SSLError) else f"{url}: {cause}")

    thread = Thread(target=ask, daemon=True)  # a thread, since a silent name server would block for longer
    thread.start()
    thread.join(seconds)
    return found[-1]


@contextmanager
def cached_only() -> Iterator[None]:
    """Restrict Hugging Face's hub to its cache."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
