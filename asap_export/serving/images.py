"""Where an image of a request may come from: its own bytes, and what the server allows beside them."""

import base64
import binascii
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3
from PIL.Image import Image

from asap_export.errors import UserError
from asap_export.runtime.images import read_image

__all__ = ["ImagePolicy"]

_REDIRECTS = 3
_PIECE = 1 << 16  # bytes


@dataclass(frozen=True)
class ImagePolicy:
    """What ``image_url`` may be: always a data URI; with ``remote`` http and https, from public addresses; files
    within the folder ``local``. ``most_bytes`` and ``seconds`` bound what is fetched."""

    remote: bool = False
    local: Path | None = None
    most_bytes: int = 20_000_000
    seconds: float = 10.0

    def read(self, url: str) -> Image:
        """The image, upright in RGB. Raises UserError for what is not allowed, too large, or no image."""
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            return read_image(self._decoded(url))
        if scheme in ("http", "https"):
            if not self.remote:
                raise UserError(
                    "expected an image as a data URI, found a URL; start the server with --allow-remote-images"
                )
            return read_image(self._fetched(url))
        if scheme == "file":
            return read_image(self._local_file(url))
        raise UserError(f"expected an image as data:image/png;base64,..., found {url[:40]!r}; encode it so")

    def _decoded(self, url: str) -> bytes:
        head, comma, data = url.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise UserError("expected a data URI in base64, found another; send data:image/png;base64,...")
        if len(data) * 3 // 4 > self.most_bytes:
            raise self._too_large()
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise UserError(
                "expected base64 in a data URI, found other characters; encode it again"
            ) from None

    def _local_file(self, url: str) -> Path:
        if self.local is None:
            raise UserError(
                "expected an image as a data URI, found a file; start the server with --allow-local-images FOLDER"
            )
        folder = self.local.resolve()
        path = Path(unquote(urlsplit(url).path)).resolve()
        if (
            not path.is_relative_to(folder) or not path.is_file()
        ):  # one answer for both: it tells nothing of others
            raise UserError(
                "expected a file in the folder that the server allows, found none; check the path"
            )
        if path.stat().st_size > self.most_bytes:
            raise self._too_large()
        return path

    def _fetched(self, url: str) -> bytes:
        deadline = monotonic() + self.seconds
        for _ in range(_REDIRECTS + 1):
            answer = self._answer(url, deadline)
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
        raise UserError(
            f"expected an image behind at most {_REDIRECTS} redirects, found more; give its own URL"
        )

    def _answer(self, url: str, deadline: float) -> bytes | str:
        """What is there, or where it says that it is."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"expected a URL of http or https, found {parts.scheme or 'none'}; check it")
        try:
            with _connection(parts, max(0.1, deadline - monotonic())) as pool:
                target = parts.path or "/"
                target += f"?{parts.query}" if parts.query else ""
                answer = pool.request(
                    "GET", target, headers={"Host": parts.netloc.rpartition("@")[2]}, redirect=False,
                    retries=False, preload_content=False,
                )  # fmt: skip
                if place := answer.get_redirect_location():
                    return str(place)
                if answer.status != 200:
                    raise UserError(f"expected an image at the URL, found status {answer.status}; check it")
                return self._content(answer, deadline)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UserError(
                f"expected an image at the URL, found {type(error).__name__}; check it, or send a data URI"
            ) from error

    def _content(self, answer: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        content = bytearray()
        for piece in answer.stream(_PIECE, decode_content=True):
            content += piece
            if len(content) > self.most_bytes:
                raise self._too_large()
            if monotonic() > deadline:
                raise UserError(
                    f"expected an image within {self.seconds:g} s, found a slower server; send its bytes"
                )
        return bytes(content)

    def _too_large(self) -> UserError:
        return UserError(f"expected an image of at most {self.most_bytes:,} bytes, found more; scale it down")


def _connection(parts: SplitResult, seconds: float) -> urllib3.HTTPConnectionPool:
    """To an address of the host that was checked: a name may stand for another one a moment later."""
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    address = _public_address(parts.hostname, port)
    timeout = urllib3.Timeout(total=seconds)
    if not secure:
        return urllib3.HTTPConnectionPool(address, port, timeout=timeout)
    return urllib3.HTTPSConnectionPool(
        address, port, timeout=timeout, server_hostname=parts.hostname, assert_hostname=parts.hostname
    )


def _public_address(host: str, port: int) -> str:
    """Raises UserError where the host has an address that is not public: it would be one of the server's own."""
    found = {str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    if not all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in found):
        raise UserError("expected an image at a public address, found a private one; send a data URI")
    return sorted(found)[0]
