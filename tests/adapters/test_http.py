"""Who may read metrics and status, and over what; nothing of it can be written to."""

import http.client
import ssl

import pytest
from pydantic import ValidationError

from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.http import HttpServer
from stream_iwae.adapters.http_config import HttpConfig
from stream_iwae.adapters.prometheus import PrometheusTelemetry
from stream_iwae.errors import ConfigurationError

EVERYWHERE_6 = "::"
EVERYWHERE = "0.0.0.0"  # noqa: S104
TOKEN = "canary-of-the-token"  # noqa: S105
PATHS = ("/metrics", "/readyz", "/status")


@pytest.fixture
def serve():
    running = []

    def start(**settings):
        telemetry = PrometheusTelemetry()
        telemetry.status("service", {"state": "collecting"})
        server = HttpServer(telemetry, SystemClock(), HttpConfig.model_validate({"port": 0, **settings}), 0)
        running.append(server)
        return server.start()

    yield start
    for server in running:
        server.stop()


def ask(port, path, method="GET", context=None, **headers):
    kind = http.client.HTTPSConnection if context else http.client.HTTPConnection
    connection = kind("127.0.0.1", port, timeout=10, **({"context": context} if context else {}))
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def tls(tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(tmp_path / "certificate.pem", append=number > 0)
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    return {"tls_certfile": str(tmp_path / "certificate.pem"), "tls_keyfile": str(tmp_path / "key.pem")}, context


def test_without_a_token_everything_can_be_read_and_nothing_written(serve):
    port = serve()

    assert all(ask(port, path)[0] in {200, 503} for path in (*PATHS, "/healthz"))
    assert all(ask(port, path, method)[0] == 405 for path in PATHS for method in ("POST", "PUT", "DELETE"))
    assert ask(port, "/../../etc/passwd")[0] == 404


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xff"],
)
def test_with_a_token_all_but_the_liveness_probe_asks_for_it(serve, given):
    port = serve(token=TOKEN)
    headers = {} if given is None else {"Authorization": given}

    for path in (*PATHS, "/", "/nowhere", "/healthz/", "//healthz"):
        status, body = ask(port, path, **headers)
        assert status == 401
        assert TOKEN not in body
    assert ask(port, "/healthz", **headers)[0] == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_who_knows_the_token_may_read(serve, scheme):
    port = serve(token=TOKEN)

    assert "collecting" in ask(port, "/status", Authorization=f"{scheme} {TOKEN}")[1]
    assert "stream_iwae" in ask(port, "/metrics", Authorization=f"{scheme} {TOKEN}")[1]


def test_the_token_may_lie_in_a_file(serve, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    port = serve(token_file=str(tmp_path / "token"))

    assert ask(port, "/status")[0] == 401
    assert ask(port, "/status", Authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_token_file_that_is_missing_or_empty_is_named(serve, tmp_path, content):
    if content is not None:
        (tmp_path / "token").write_text(content)

    with pytest.raises(ConfigurationError, match=r"http\.token_file"):
        serve(token_file=str(tmp_path / "token"))


def test_with_a_certificate_it_speaks_https_alone(serve, tls):
    files, context = tls
    port = serve(token=TOKEN, **files)

    assert ask(port, "/healthz", context=context)[0] == 200
    assert ask(port, "/status", context=context)[0] == 401
    assert ask(port, "/status", context=context, Authorization=f"Bearer {TOKEN}")[0] == 200
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        ask(port, "/healthz")


def test_a_certificate_without_its_key_or_one_that_is_none_is_named(serve, tls, tmp_path):
    files, _ = tls
    (tmp_path / "none.pem").write_text("nothing")
    for changed in ({"tls_keyfile": str(tmp_path / "none.pem")}, {"tls_certfile": str(tmp_path / "absent")}):
        with pytest.raises(ConfigurationError, match=r"http\.tls_certfile"):
            serve(**{**files, **changed})


@pytest.mark.parametrize("size", [100_000, 10_000_000])
def test_a_header_of_any_size_is_refused_and_the_server_goes_on(serve, size):
    port = serve(token=TOKEN)
    try:
        status, _ = ask(port, "/status", Authorization="Bearer " + "x" * size)
        assert status in {400, 401, 431}
    except OSError:  # it hangs up before it has read all
        pass

    assert ask(port, "/healthz")[0] == 200


@pytest.mark.parametrize(
    ("settings", "is_open"),
    [
        ({}, False),
        ({"host": "127.0.0.7"}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": EVERYWHERE}, True),
        ({"host": EVERYWHERE_6}, True),
        ({"host": "node-7.example"}, True),
        ({"host": EVERYWHERE, "token": TOKEN}, False),
        ({"host": EVERYWHERE, "token_file": "/run/secrets/token"}, False),
    ],
)
def test_it_is_known_when_everybody_may_read(settings, is_open):
    assert HttpConfig.model_validate(settings).is_open is is_open


@pytest.mark.parametrize(
    "settings",
    [{"tls_certfile": "a"}, {"tls_keyfile": "a"}, {"token": "a", "token_file": "b"}, {"token": " "}],
)
def test_halves_and_doubles_are_refused(settings):
    with pytest.raises(ValidationError):
        HttpConfig.model_validate(settings)
