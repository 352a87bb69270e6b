"""Why a record, or one element of it, could not be used: a closed list, so that it can be a metric label."""

from enum import StrEnum


class RejectReason(StrEnum):
    """One word a reason."""

    INVALID_JSON = "invalid_json"  # not UTF-8, cut, or no JSON at all
    NOT_AN_OBJECT = "not_an_object"  # JSON, but a number, a text or a truth value
    TOO_LARGE = "too_large"  # longer than `max_record`
    TOO_DEEP = "too_deep"  # nested beyond what any emitter writes
    NO_TIME = "no_time"  # none of the time fields is present
    BAD_TIME = "bad_time"  # a time that does not parse, or lies outside 1970 to 2100
    FUTURE = "future"  # further ahead of its record than `max_clock_skew`
    NO_ENTITY = "no_entity"  # a field of the entity is missing
    MISSING_FIELD = "missing_field"  # a field that is not optional is missing
    BAD_FIELD = "bad_field"  # a number that is none, not finite, or a structure where a value belongs
    BAD_BATCH = "bad_batch"  # on the re-keyed topic: no batch of the re-keyer's, or a damaged one
