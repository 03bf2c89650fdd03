"""What fixes the bits of a job, as seen by one worker: compared when a worker joins.

Two workers that differ in one of these would compute different bits, or another job. The names are
stable, because they appear in the message that refuses a worker.
"""

from __future__ import annotations

import os
import platform

import numpy
import torch

from hpresil.base.config import Config


def facts_of(config: Config, device: torch.device, tracked: dict[str, str]) -> dict[str, str]:
    """Return all facts in a fixed order: settings, platform, tracked state."""
    facts = {f"config.{name}": value for name, value in config.identity().items()}
    facts.update(
        {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": numpy.__version__,
            "machine": platform.machine(),
            "cpu.capability": torch.backends.cpu.get_cpu_capability(),
            "cpu.threads": str(torch.get_num_threads()),
            "device.type": device.type,
            "dtype.default": str(torch.get_default_dtype()),
            "matmul.precision": torch.get_float32_matmul_precision(),
            "deterministic": str(torch.are_deterministic_algorithms_enabled()),
            "env.PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "unset"),
        }
    )
    if device.type == "cuda":
        facts.update(_cuda_facts(device))
    facts.update({f"state.{name}": value for name, value in tracked.items()})
    return facts


def _cuda_facts(device: torch.device) -> dict[str, str]:
    return {
        "device.name": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "cudnn.tf32": str(torch.backends.cudnn.allow_tf32),
        "matmul.tf32": str(torch.backends.cuda.matmul.allow_tf32),
        "matmul.bf16_reduction": str(torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction),
        "matmul.fp16_reduction": str(torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction),
        "attention": _attention_kernels(),
        "cublas.workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", "unset"),
    }


def _attention_kernels() -> str:
    cuda = torch.backends.cuda
    enabled = {
        "flash": cuda.flash_sdp_enabled(),  # type: ignore[no-untyped-call]
        "efficient": cuda.mem_efficient_sdp_enabled(),  # type: ignore[no-untyped-call]
        "math": cuda.math_sdp_enabled(),  # type: ignore[no-untyped-call]
    }
    return ", ".join(f"{name} {'on' if on else 'off'}" for name, on in enabled.items())
