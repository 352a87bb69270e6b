"""Why a broker does not let us in: a connection made by hand, step by step, which the clients do not tell apart.

kafka-python shows a wrong password, a wrong authority and a dead broker as the same time-out. Here each step of a
connection (address, TLS, protocol, SASL) is taken once, on each address, and the first that fails is named.
"""

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Any, Final

from kafka.net.sasl import get_sasl_mechanism

from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.errors import BrokerUnreachableError, ConfigurationError, StreamIwaeError

_STEP_S: Final = 5.0  # for one answer
_MOST_BYTES: Final = 1024 * 1024  # of an answer to any of our questions
_DEFAULT_PORT: Final = 9092
_METADATA, _HANDSHAKE, _VERSIONS, _AUTHENTICATE = 3, 17, 18, 36  # keys of Kafka's requests
_UNSUPPORTED_MECHANISM: Final = 33
_ILLEGAL_STATE: Final = 34
_FAILED: Final = 58


def probe(config: KafkaConfig, context: ssl.SSLContext | None) -> None:
    """Connect to the brokers one after another until one takes us.

    Raises:
        ConfigurationError: One answers and refuses us; says which key is wrong.
        BrokerUnreachableError: None answers.
    """
    refusals: list[StreamIwaeError] = []
    for address in config.bootstrap_servers.split(","):
        try:
            _probe_one(config, address.strip(), context)
        except (ConfigurationError, BrokerUnreachableError) as error:
            refusals.append(error)
        else:
            return
    # A broker that answers and refuses tells more than one that is down.
    raise next((error for error in refusals if isinstance(error, ConfigurationError)), refusals[0])


def _probe_one(config: KafkaConfig, address: str, context: ssl.SSLContext | None) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        host, port = address, str(_DEFAULT_PORT)
    host = host.strip("[]")
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(_opened(address, host, int(port), config.connect_timeout / 1000))
        if context is not None:
            wire = stack.enter_context(_encrypted(config, address, host, wire, context))
        connection = _Connection(config, address, wire)
        connection.greet()
        if config.security_protocol.startswith("SASL"):
            connection.authenticate()
        connection.ask_for_brokers()


@contextlib.contextmanager
def _opened(address: str, host: str, port: int, timeout_s: float) -> Iterator[socket.socket]:
    try:
        wire = socket.create_connection((host, port), timeout=min(_STEP_S, timeout_s))
    except OSError as error:
        raise BrokerUnreachableError(
            f"no Kafka broker answers at {address}; is it running, and is the address right? ({error})"
        ) from error
    with wire:
        yield wire


@contextlib.contextmanager
def _encrypted(
    config: KafkaConfig, address: str, host: str, wire: socket.socket, context: ssl.SSLContext
) -> Iterator[socket.socket]:
    try:
        encrypted = context.wrap_socket(wire, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in {62, 64}:  # the name, or the address, is another
            raise ConfigurationError(
                "kafka.bootstrap_servers",
                address,
                f"the broker's certificate is for another name ({error.verify_message}); name the broker as in its "
                "certificate",
            ) from error
        shown = str(config.ssl_cafile) if config.ssl_cafile else None
        raise ConfigurationError(
            "kafka.ssl_cafile",
            shown,
            f"the certificate of the broker at {address} is not signed by this authority ({error.verify_message}); "
            "name the file of the one that signed it",
        ) from error
    except (ssl.SSLError, ConnectionError) as error:
        if isinstance(error, ssl.SSLError) and "ALERT" in str(error).upper():
            raise _client_certificate(config, address, error) from error
        raise ConfigurationError(
            "kafka.security_protocol",
            config.security_protocol,
            f"the listener at {address} does not speak TLS ({_words(error)}); name the port of the TLS listener, or "
            "take PLAINTEXT or SASL_PLAINTEXT",
        ) from error
    except OSError as error:
        raise BrokerUnreachableError(f"the broker at {address} does not answer ({error})") from error
    with encrypted:
        yield encrypted


class _Connection:
    """Questions in Kafka's own framing, one at a time; each in the oldest version that says what we want to know."""

    def __init__(self, config: KafkaConfig, address: str, wire: socket.socket) -> None:
        self._config, self._address, self._wire = config, address, wire
        self._wire.settimeout(_STEP_S)

    def greet(self) -> None:
        """Any Kafka listener tells its versions, before it asks who we are."""
        try:
            self._ask(_VERSIONS, 0, b"")
        except ssl.SSLError as error:  # with TLS 1.3 a certificate is refused only after the handshake
            raise _client_certificate(self._config, self._address, error) from error
        except (ConnectionError, ValueError) as error:
            if self._config.security_protocol == "SSL":
                raise _client_certificate(self._config, self._address, error) from error
            raise ConfigurationError(
                "kafka.security_protocol",
                self._config.security_protocol,
                f"what listens at {self._address} breaks off ({_words(error)}): a listener with TLS, or no Kafka; take "
                "SSL or SASL_SSL, or correct the port",
            ) from error
        except OSError as error:
            raise BrokerUnreachableError(f"the broker at {self._address} does not answer ({error})") from error

    def authenticate(self) -> None:
        """SASL, with the client's own mechanisms."""
        config = self._config
        mechanism = str(config.sasl_mechanism)
        try:
            answer = self._ask(_HANDSHAKE, 1, _text(mechanism))
            code, n_enabled = struct.unpack_from(">hi", answer)
            if code == _UNSUPPORTED_MECHANISM:
                raise ConfigurationError(
                    "kafka.sasl_mechanism",
                    mechanism,
                    f"the broker at {self._address} offers {', '.join(_texts(answer[6:], n_enabled))}",
                )
            if code == _ILLEGAL_STATE:
                raise self._no_sasl(code)
            self._exchange(get_sasl_mechanism(mechanism), mechanism)
        except (ConnectionError, struct.error) as error:
            raise self._no_sasl(_words(error)) from error
        except OSError as error:
            raise BrokerUnreachableError(f"the broker at {self._address} does not answer ({error})") from error

    def _exchange(self, kind: Any, mechanism: str) -> None:
        config = self._config
        sasl = kind(
            host=self._address,
            security_protocol=config.security_protocol,
            sasl_mechanism=mechanism,
            sasl_plain_username=config.sasl_username,
            sasl_plain_password=config.password(),
        )
        while not sasl.is_done():
            token: bytes = sasl.auth_bytes()
            answer = self._ask(_AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
            code, size = struct.unpack_from(">hh", answer)
            said = answer[4 : 4 + max(0, size)]
            if code:
                raise self._refused(said.decode(errors="replace") if code == _FAILED else f"error {code}")
            try:
                sasl.receive(answer[4 + len(said) + 4 :])
            except (ValueError, KeyError) as error:
                raise self._refused("its answer does not prove that it knows the password") from error

    def ask_for_brokers(self) -> None:
        """The first question that needs us to be somebody."""
        try:
            self._ask(_METADATA, 1, struct.pack(">i", 0))
        except (OSError, ValueError) as error:
            protocol = self._config.security_protocol
            if isinstance(error, ConnectionError) and not protocol.startswith("SASL"):
                raise ConfigurationError(
                    "kafka.security_protocol",
                    protocol,
                    f"the broker at {self._address} closes the connection: its listener wants SASL; take "
                    f"SASL_{protocol} with sasl_mechanism, sasl_username and a password",
                ) from error
            raise BrokerUnreachableError(f"the broker at {self._address} does not answer ({error})") from error

    def _refused(self, said: str) -> ConfigurationError:
        return ConfigurationError(
            "kafka.sasl_username",
            self._config.sasl_username,
            f"the broker at {self._address} refuses this user or its password ({said}); correct kafka.sasl_username, "
            "and kafka.sasl_password or the file in kafka.sasl_password_file",
        )

    def _no_sasl(self, why: object) -> ConfigurationError:
        protocol = self._config.security_protocol
        return ConfigurationError(
            "kafka.security_protocol",
            protocol,
            f"the listener at {self._address} takes no SASL ({why}); take {protocol.removeprefix('SASL_')}, or the "
            "port of the listener with SASL",
        )

    def _ask(self, key: int, version: int, body: bytes) -> bytes:
        """Send one request, and return its answer after the number that both carry."""
        head = struct.pack(">hhi", key, version, 1) + _text("stream-iwae-probe")
        self._wire.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        (size,) = struct.unpack(">i", self._read(4))
        if not 4 <= size <= _MOST_BYTES:
            raise ValueError(f"an answer of {size} bytes")
        return self._read(size)[4:]

    def _read(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self._wire.recv(size - len(parts))
            if not part:
                raise ConnectionError("closed")
            parts += part
        return parts


def _client_certificate(config: KafkaConfig, address: str, error: Exception) -> ConfigurationError:
    if config.ssl_certfile is None:
        remedy = f"the broker at {address} wants a certificate of ours ({_words(error)}); set it, and kafka.ssl_keyfile"
        return ConfigurationError("kafka.ssl_certfile", None, remedy)
    remedy = f"the broker at {address} refuses this certificate ({_words(error)}); its authority has to sign it"
    return ConfigurationError("kafka.ssl_certfile", str(config.ssl_certfile), remedy)


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error).replace("_", " ").lower()


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _texts(data: bytes, n: int) -> list[str]:
    found = []
    for _ in range(max(0, n)):
        (size,) = struct.unpack_from(">h", data)
        found.append(data[2 : 2 + size].decode(errors="replace"))
        data = data[2 + size :]
    return found
