"""A public link to the running server, by Gradio's share service; the login stays in front.

The tunnel ends at our own port, so page, files and API come through the same door. Gradio
downloads the tunnel program (frpc) at the first use; offline there is one warning and no link.
`GRADIO_SHARE_SERVER_ADDRESS` names a share server of one's own.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import requests
from gradio import networking, tunneling

from api.origins import Origins


def share(host: str, port: int, origins: Origins, data: Path) -> str | None:
    """Open the link, print it, and return it; None (and one warning) when there is none."""
    own_server = os.environ.get("GRADIO_SHARE_SERVER_ADDRESS")
    networking.CERTIFICATE_PATH = str(data / "share-certificate.pem")
    try:
        printed = networking.setup_tunnel(host, port, secrets.token_urlsafe(32), own_server, None)
    except Exception as error:  # the border of a job: whatever it was, the local page stays
        print(
            f"Warning: no public link ({_reason(error)}); the page on this machine works",
            file=sys.stderr,
            flush=True,
        )
        close()
        return None
    scheme = "http" if own_server else "https"
    url: str = urlsplit(printed)._replace(scheme=scheme).geturl().rstrip("/")
    origins.add(urlsplit(url).hostname or "")
    note = "" if _answers(url) else " (it does not answer yet)"
    print(f"Public link, for at most a week: {url}{note}", flush=True)
    return url


def close() -> None:
    """End the tunnels; none outlives the program."""
    for tunnel in tunneling.CURRENT_TUNNELS:
        process, tunnel.proc = tunnel.proc, None
        if process is None or process.poll() is not None:
            continue
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
    tunneling.CURRENT_TUNNELS.clear()


def _answers(url: str) -> bool:
    try:
        return bool(requests.get(f"{url}/health", timeout=10).ok)
    except requests.RequestException:
        return False


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__
