"""A record that tests may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgefetal_runtime.bench.record import BenchRecord

if TYPE_CHECKING:
    from collections.abc import Callable

RATIO = {"median": 1.9, "low": 1.8, "high": 2.0, "level": 0.99, "n": 12}
SUBJECT = {
    "name": "starter", "sha256": "ab" * 32, "graph": "shipped", "precision": "int8", "backend": "onnxruntime",
    "threads": 1, "lanes": 1,
}  # fmt: skip
STAGES = {"decode": 2.0, "preprocess": 1.0, "copy in": None, "infer": 12.0, "copy out": None, "post-process": 4.0,
          "select": 1.0}  # fmt: skip


def _values() -> dict[str, Any]:
    latency = {"n": 300, "mean": 20.1, "p50": 20.0, "p90": 21.0, "p95": 22.0, "p99": 25.0, "max": 30.0, "jitter": 0.5}
    return {
        "schema_version": 1,
        "created_utc": "2026-11-21T10:00:00+00:00",
        "subject": SUBJECT,
        "source": {"kind": "video", "frames": 40, "size_px": [800, 600], "sha256": "cd" * 32, "simulated": True},
        "machine": {
            "board": None, "profile": None, "processor": "Some <Processor>", "architecture": "x86_64", "cores": 2,
            "memory_mb": 8000.0, "gpus": [], "kernel": "6.1", "jetpack": None, "driver": None, "power_mode": None,
            "clocks": [], "versions": {"python": "3.11.7", "onnxruntime": "1.31.1"},
        },
        "conditions": {
            "disturbed": False, "reasons": [], "seconds": 60.0, "others_before_cores": 0.01,
            "others_during_cores": 0.02, "others_after_cores": 0.0, "busy_seconds_share": 0.0, "steal_share": 0.0,
            "load_before": 0.1, "preempted_per_s": 1.0, "nice": 0, "temperature_max_c": None,
            "temperature_rise_c": None, "throttled": False, "power_w": None,
        },
        "warm_up": {"frames": 20, "stable": True, "rule": "a rule"},
        "stages": [
            {"name": name, "mean_ms": ms, "p50_ms": ms, "p95_ms": ms, "note": "" if ms else "none"}
            for name, ms in STAGES.items()
        ],
        "stages_over_glass": 0.995,
        "latency_ms": latency,
        "latency_cdf_ms": [19.0 + k / 10 for k in range(101)],
        "sweep_end_ms": 12.0,
        "throughput_fps": 75.0,
        "bare_inference_fps": 80.0,
        "pipeline_over_bare": 0.94,
        "pipeline_over_bare_interval": [0.93, 0.95],
        "cpu_cores": 1.6,
        "energy_j_per_frame": None,
        "first_result_s": 1.5,
        "peak_rss_mb": 400.0,
        "gpu_memory_mb": None,
        "cold_start": {
            "runs": 3, "first_result_s": [1.5, 1.4, 1.6], "cpu_s": [2.0, 2.1, 2.0], "help_s": [0.2, 0.2, 0.2],
            "help_cpu_s": [0.2, 0.2, 0.2],
        },
        "stream": {
            "offered_fps": 30.0, "seconds": 10.0, "received": 300, "analysed": 297, "missed": 1, "torn": 0,
            "unread": 2, "throughput_fps": 29.7, "latency_ms": latency,
        },
        "versus": {
            "against": {**SUBJECT, "graph": "float", "precision": "fp32"}, "frame": RATIO, "network": RATIO,
            "clock": "cpu", "frame_wall": RATIO, "network_wall": {**RATIO, "low": None, "high": None, "n": 3},
            "verdict": "starter is faster than its float graph.",
        },
        "peers": None,
        "notes": [],
    }  # fmt: skip


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    nested = {k: _merged(values[k], v) if isinstance(v, dict) and isinstance(values[k], dict) else v
              for k, v in changes.items()}  # fmt: skip
    return values | nested


@pytest.fixture(scope="session")
def make_record() -> Callable[..., BenchRecord]:
    """Make a record: `make_record(throughput_fps=70.0, machine={"cores": 4})` changes parts of it."""
    return lambda **changes: BenchRecord.model_validate(_merged(_values(), changes))
