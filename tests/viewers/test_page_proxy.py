"""The page behind nginx: TLS, and a path of its own; and through a port forward, where the port is another."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from page_client import SUBPROTOCOL, PageClient, connect, split

import mutoscope as ms
from mutoscope.cameras import SimulatedCamera
from polling import until

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location /scope1/ {{
      proxy_pass http://127.0.0.1:{page}{strip};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_buffering off;
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def nginx(folder: Path, port: int, page: int, strip: str) -> Iterator[ssl.SSLContext]:
    """Run nginx in front of the page; gives what trusts it."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, page=page, strip=strip), encoding="utf-8")
    with subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:

            def answers() -> bool:
                assert process.poll() is None, "nginx has ended"
                with socket.socket() as sock:
                    return sock.connect_ex(("127.0.0.1", port)) == 0

            until(answers, "nginx answers")
            yield ssl.create_default_context(cafile=str(folder / "cert.pem"))
        finally:
            process.terminate()


@pytest.mark.skipif(
    shutil.which("nginx") is None or shutil.which("openssl") is None, reason="nginx or openssl is not installed"
)
@pytest.mark.parametrize("strip", ["/", ""], ids=["base path taken away", "base path passed on"])
def test_behind_a_tls_proxy_with_a_base_path(tmp_path: Path, strip: str):
    port, page_port = free_port(), free_port()
    public = f"https://localhost:{port}/scope1/"

    async def look(url: str, trust: ssl.SSLContext) -> None:
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(url) as welcome:
                assert welcome.status == 200
                cookie = welcome.headers["Set-Cookie"]
                assert "Secure" in cookie
                assert "Path=/scope1" in cookie
            async with session.get(public) as index:
                assert index.status in (200, 503)  # 503: without the front end
            origin = f"https://localhost:{port}"
            async with session.ws_connect(public + "ws", protocols=[SUBPROTOCOL], origin=origin, max_msg_size=0) as ws:
                client = PageClient(ws)
                await client.send("view", stream="camera", step=2)
                await client.send("credit", stream="camera", frames=2)
                assert (await client.frame()).pixels.shape == (32, 32)
                await ws.close()
                await client._reader
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(public + "ws", protocols=[SUBPROTOCOL], origin=f"http://localhost:{port}")
            assert refused.value.status == 403

    settings = ms.PageSettings(port=page_port, public_url=public)
    with ms.Scope(camera=SimulatedCamera(shape=(64, 64), rate_hz=50), page=settings) as scope:
        url = scope.page_url
        assert url is not None
        assert url.startswith(f"{public}?token=")
        scope.start_acquisition()
        with nginx(tmp_path, port, page_port, strip) as trust:
            asyncio.run(look(url, trust))
        scope.stop_acquisition()


def _forward(listener: socket.socket, port: int) -> None:
    """Pass on the bytes of one connection, as ``ssh -L`` does."""
    near, _ = listener.accept()
    with near, socket.create_connection(("127.0.0.1", port)) as far:

        def pump(source: socket.socket, target: socket.socket) -> None:
            try:
                while data := source.recv(65536):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                return

        back = threading.Thread(target=pump, args=(far, near))
        back.start()
        pump(near, far)
        back.join()


def test_through_a_port_forward():
    with ms.Scope(camera=SimulatedCamera(shape=(8, 8), rate_hz=50), page=True) as scope:
        assert scope.page_url is not None
        base, token = split(scope.page_url)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            thread = threading.Thread(target=_forward, args=(listener, int(base.rsplit(":", 1)[1].strip("/"))))
            thread.start()

            async def look() -> None:
                async with connect(f"http://localhost:{port}/?token={token}", origin=f"http://localhost:{port}") as page:
                    await page.ask("ping")

            asyncio.run(look())
            thread.join()
