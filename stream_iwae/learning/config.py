"""What the operator may choose about learning: section `learning` of the configuration."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from stream_iwae.units import Milliseconds


class DriftConfig(BaseModel):
    """When the scores of all windows are said to have moved for good."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delta: float = Field(default=0.002, gt=0, lt=1, description="significance at which ADWIN cuts its window")
    block: PositiveInt = Field(default=100, description="windows whose median score is one observation of ADWIN")
    recent: PositiveInt = Field(default=1_000, description="latest windows that confirm a drift against the reference")
    confirm_p: float = Field(
        default=1e-3, gt=0, lt=1, description="p-value of the Kolmogorov-Smirnov test that confirms"
    )
    confirm_distance: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="least distance of the two distributions; any p-value is reached with enough rows",
    )


class PromotionConfig(BaseModel):
    """What a candidate must hold to replace the serving model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of the one-sided bootstrap")
    reference_tolerance: float = Field(
        default=0.1, ge=0, description="nats that the frozen reference may lose on average"
    )
    alert_rate_factor: float = Field(
        default=3.0, ge=1, description="the alert rate stays within budget / this and budget * this"
    )
    canary_loss: float = Field(default=0.01, ge=0, le=1, description="recall on planted anomalies that may be lost")
    effective_share: float = Field(
        default=0.5, ge=0, le=1, description="least share of the serving model's effective samples"
    )


class LearningConfig(BaseModel):
    """What is learnt from, how often, and what is promoted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warmup: Milliseconds = Field(default=6 * 3_600_000, description="history read back before the first model")
    warmup_windows: PositiveInt = Field(default=20_000, description="most windows of history used for the first model")
    warmup_labels: Literal["trusted", "unlabelled"] = Field(
        default="unlabelled",
        description="unlabelled: attacks may hide in the warm-up, so heavy contamination is looked for",
    )
    min_windows: PositiveInt = Field(default=2_000, ge=100, description="windows needed for a first model")
    hold_until_ready: bool = Field(default=True, description="wait for the first model at the end of the history")
    hold_timeout: Milliseconds = Field(default=120_000, description="longest wait for the first model")

    calibrate_share: float = Field(
        default=0.2, gt=0, lt=1, description="of all windows, ungated, for p-values; never learnt"
    )
    held_out_share: float = Field(
        default=0.1, gt=0, lt=1, description="of the rest, to compare models on; never learnt"
    )
    recent_capacity: PositiveInt = Field(default=50_000, description="windows kept of the recent past")
    recent_span: Milliseconds = Field(default=24 * 3_600_000, description="how far the recent past reaches back")
    history_capacity: PositiveInt = Field(default=50_000, description="windows kept of the long past")
    history_span: Milliseconds = Field(default=28 * 86_400_000, description="how far the long past reaches back")
    calibrate_capacity: PositiveInt = Field(default=200_000, description="windows kept for calibration")
    calibrate_span: Milliseconds = Field(default=7 * 86_400_000, description="how far calibration reaches back")
    reference_capacity: PositiveInt = Field(
        default=10_000, description="windows of the warm-up kept as frozen reference"
    )
    stratum: Milliseconds = Field(
        default=3_600_000, gt=0, description="each span of event time gets an equal share of a buffer"
    )

    tuning_rows: PositiveInt = Field(default=20_000, description="windows of a fine-tuning: half recent, half older")
    interval: Milliseconds = Field(
        default=3_600_000, description="event time between two fine-tunings; 0 switches them off"
    )
    calibration_interval: Milliseconds = Field(
        default=24 * 3_600_000, description="event time between two calibrations"
    )
    gate_p: float = Field(
        default=0.01, ge=0, lt=1, description="windows with a p-value at or below this are not learnt"
    )
    max_source_share: float = Field(default=0.01, gt=0, le=1, description="most of a sample that one entity may supply")

    drift: DriftConfig = DriftConfig()
    promotion: PromotionConfig = PromotionConfig()
