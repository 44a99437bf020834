"""Whether a server can be reached, asked once: the libraries that download weights try again for minutes."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

SECONDS = 5.0


def unreachable(url: str, seconds: float = SECONDS) -> str | None:
    """Return why a server does not answer, by the system's proxies; None where it does, whatever it says."""
    found: list[str | None] = [f"{url} does not answer within {seconds:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            found.append(None)
        except urllib.error.HTTPError:
            found.append(None)
        except (OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            # whose certificates are good is for the library to say
            found.append(None if isinstance(cause, ssl.SSLError) else f"{url}: {cause}")

    thread = Thread(target=ask, daemon=True)  # a name server that does not answer would hold us up longer
    thread.start()
    thread.join(seconds)
    return found[-1]


@contextmanager
def cached_only() -> Iterator[None]:
    """Let Hugging Face's hub look into its cache alone."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
