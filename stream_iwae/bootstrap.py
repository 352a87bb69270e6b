"""Composition root: Config -> adapters + pipeline -> a running service, trainer or replay."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Final

import torch

from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.http import HttpServer
from stream_iwae.adapters.kafka_sink import KafkaOutputSink
from stream_iwae.adapters.kafka_source import KafkaEventSource
from stream_iwae.adapters.kafka_state import KafkaStateReader
from stream_iwae.adapters.kafka_topics import check_events_topic, ensure_topics
from stream_iwae.adapters.log import configure_logging, get_logger
from stream_iwae.adapters.model_store import KafkaModelStore
from stream_iwae.adapters.prometheus import PrometheusTelemetry
from stream_iwae.config import Config
from stream_iwae.errors import ConfigurationError
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.outputs import Topics
from stream_iwae.pipeline import ServingModel, Stages
from stream_iwae.service import Service, ServiceSettings
from stream_iwae.serving import load_serving_model

TRAINER_RESTART_S: Final = (1, 5, 30, 60)  # waits before a dead trainer is started again
