"""/metrics, /healthz, /readyz and /status on a thread of their own. Nothing here can be written to."""

import json
import ssl
import threading
from typing import Any, Final

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stream_iwae.adapters.http_config import HttpConfig
from stream_iwae.adapters.http_guard import TokenGuard
from stream_iwae.adapters.prometheus import PrometheusTelemetry
from stream_iwae.errors import ConfigurationError
from stream_iwae.ports import Clock

_START_S: Final = 10.0


class HttpServer:
    """Serves what the telemetry holds; running from `start` to `stop`."""

    def __init__(self, telemetry: PrometheusTelemetry, clock: Clock, config: HttpConfig, port: int) -> None:
        """Listen on `port` of the configured address; nothing happens before `start`.

        Raises:
            ConfigurationError: The certificate, its key or the token cannot be read.
        """
        self._telemetry, self._clock, self._stalled_after_s = telemetry, clock, config.stalled_after / 1000
        self._host, self._port = config.host, port
        routes = [
            Route("/metrics", self._metrics),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/status", self._status),
        ]
        app: Any = Starlette(routes=routes)
        token = config.secret()
        if token is not None:
            app = TokenGuard(app, token)
        certificate, key = _tls(config)
        self._server = _Server(
            uvicorn.Config(
                app,
                host=config.host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                ssl_certfile=certificate,
                ssl_keyfile=key,
            )
        )
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)

    def start(self) -> int:
        """Listen; returns the port.

        Raises:
            ConfigurationError: The address cannot be listened on.
        """
        self._thread.start()
        self._server.is_up.wait(_START_S)
        if not self._server.started:
            self._thread.join(_START_S)
            raise ConfigurationError(
                "http.port",
                self._port,
                f"{self._host} cannot be listened on; is another replica running? Name a free port",
            )
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        """Close every connection and end the thread."""
        self._server.should_exit = True
        self._thread.join(_START_S)

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._telemetry.registry), media_type=CONTENT_TYPE_LATEST)

    async def _healthz(self, _: Request) -> Response:
        now_s = self._clock.monotonic_s()
        ages = {name: round(now_s - at_s, 1) for name, at_s in self._telemetry.progressed_s.items()}
        stalled = [name for name, age in ages.items() if name != "commit" and age > self._stalled_after_s]
        return JSONResponse({"seconds_since": ages, "stalled": stalled}, status_code=503 if stalled else 200)

    async def _readyz(self, _: Request) -> Response:
        is_ready = self._telemetry.is_ready()
        return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)

    async def _status(self, _: Request) -> Response:
        return Response(json.dumps(self._telemetry.sections, default=str), media_type="application/json")


def _tls(config: HttpConfig) -> tuple[str | None, str | None]:
    """Certificate and key for HTTPS, once they are known to work together."""
    if config.tls_certfile is None or config.tls_keyfile is None:
        return None, None
    try:
        # With a pass phrase, lest the library ask for one on the terminal, and wait.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_certfile, config.tls_keyfile, password="-")  # noqa: S106
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        remedy = f"does not work with {config.tls_keyfile} ({error}); name a PEM certificate, and its key in PEM"
        raise ConfigurationError("http.tls_certfile", str(config.tls_certfile), remedy) from error
    return str(config.tls_certfile), str(config.tls_keyfile)


class _Server(uvicorn.Server):
    """Tells when it is up or has failed, and leaves signals to the loop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: object = None) -> None:
        try:
            await super().startup(sockets)  # type: ignore[arg-type]
        finally:
            self.is_up.set()

    def run(self, sockets: object = None) -> None:
        try:
            super().run(sockets)  # type: ignore[arg-type]
        except SystemExit:  # uvicorn's way to say that the port is taken; `start` tells
            pass
        finally:
            self.is_up.set()

    def install_signal_handlers(self) -> None:
        """None: the service's loop handles signals."""
