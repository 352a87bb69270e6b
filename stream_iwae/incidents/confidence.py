"""How much an alert can be relied on, between 0 and 1."""

import math


def confidence(  # the six things that it weighs
    windows: int, severity: int, margin: float, standard_error: float, imputed_share: float, is_extrapolated: bool
) -> float:
    """Persistence, agreement and maturity, multiplied. A rank for people, not a probability.

    Args:
        windows: Anomalous windows so far, at least 1; each halves the doubt.
        severity: 1 to 3; each step halves the doubt too.
        margin: Score less threshold, nats; NaN where no model was asked.
        standard_error: Of the score, nats.
        imputed_share: Of the features; what is missing counts half.
        is_extrapolated: The threshold lies where no score was observed.

    >>> confidence(1, 1, 5.0, 0.1, 0.0, False)
    0.75
    """
    persistence = 1 - 0.5 ** (windows + severity)
    has_noise = math.isfinite(margin) and math.isfinite(standard_error) and standard_error > 0
    agreement = (1 + math.erf(margin / standard_error / math.sqrt(2))) / 2 if has_noise else 1.0
    maturity = 0.8 if is_extrapolated else 1.0
    return round(persistence * agreement * maturity * (1 - imputed_share / 2), 3)
