"""Every error the project raises on purpose, and the exit code that it ends a command with.

StreamIwaeError                 1   cannot go on
├── ConfigurationError         78   the configuration is wrong: key, value and remedy
├── BrokerUnreachableError     75   no broker answered at the start
├── ArtefactError               1   a model artefact is damaged or does not fit; the former one stays
├── StateError                  1   stored state is missing or damaged
└── DeliveryError               1   output could not be delivered; nothing was committed
    ├── StaleGroupError             the group has rebalanced: poll, drop what is lost, send the rest again
    ├── FencedError                 another process uses this transactional or instance id
    └── AmbiguousCommitError        the commit may or may not have happened: recover, then compare
"""


class StreamIwaeError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class ConfigurationError(StreamIwaeError):
    """The configuration is wrong; the message names the key, the value and the remedy."""

    exit_code = 78

    def __init__(self, key: str, value: object, remedy: str) -> None:
        super().__init__(f"{key} = {value!r}: {remedy}")
        self.key = key
        self.value = value
        self.remedy = remedy


class BrokerUnreachableError(StreamIwaeError):
    """No Kafka broker answered at the start."""

    exit_code = 75


class ArtefactError(StreamIwaeError):
    """A model artefact is damaged, or was made for another feature schema."""


class StateError(StreamIwaeError):
    """Stored state is missing or damaged."""


class DeliveryError(StreamIwaeError):
    """Output could not be delivered, so nothing was committed."""


class StaleGroupError(DeliveryError):
    """The consumer group has rebalanced since the records were polled."""


class FencedError(DeliveryError):
    """Another process uses this transactional id or group instance id."""


class AmbiguousCommitError(DeliveryError):
    """The commit may or may not have taken effect; recover the sink, then read what is committed."""
