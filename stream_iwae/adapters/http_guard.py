"""Who may read what the HTTP server shows: whoever knows the token; /healthz is for all, as it tells nothing."""

import hmac
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_FOR_ALL: Final = frozenset({"/healthz"})


class TokenGuard:
    """Asks for `Authorization: Bearer TOKEN` before anything is looked at."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401."""
        if scope["type"] == "http" and scope["path"] not in _FOR_ALL and not self._is_known(scope):
            refusal = PlainTextResponse("a token is needed\n", 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # In constant time: how long it takes must not tell how much of a guess is right.
        return hmac.compare_digest(given.strip().encode(), self._token) and scheme.lower() == "bearer"
