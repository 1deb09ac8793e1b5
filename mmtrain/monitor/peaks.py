"""The most a device could compute, so that a run can say what share of it the model used.

Dense tensor-core rates (fp32 accumulation) for bf16 and plain fp32 rates, in TFLOP/s, boost clock, from the vendor's
data sheets; where a sheet gives the rate "with sparsity", half of it. H100, H200, H20, A100, A40, A30, A10, L40S, L40,
L4, V100, T4, RTX A6000, RTX 6000 Ada: NVIDIA's data sheet of that name. B200, GB200: NVIDIA's data sheets of HGX B200
and GB200 NVL72, per GPU. GeForce: appendices of NVIDIA's white papers on the Ada and Ampere GA102 architectures.
"""

import re
from typing import NamedTuple


class Peak(NamedTuple):
    """Dense TFLOP/s; bf16 is None where the device has no bf16 tensor cores."""

    bf16: float | None
    fp32: float


# The first pattern that the whole name matches wins; a slice of a device (MIG) or a laptop's part matches none.
_PEAKS: tuple[tuple[str, Peak], ...] = (
    (r"GB200", Peak(2500.0, 80.0)),
    (r"B200", Peak(2250.0, 75.0)),
    (r"(H200|GH200)( \d+GB.*)?", Peak(989.4, 66.9)),
    (r"(H100|H200) NVL", Peak(835.5, 60.0)),
    (r"H100 PCIe", Peak(756.5, 51.2)),
    (r"(H100|H800)( \d+GB HBM\w*| SXM.*)?", Peak(989.4, 66.9)),
    (r"H20", Peak(148.0, 44.0)),
    (r"(A100|A800)[- ].*", Peak(312.0, 19.5)),
    (r"A40", Peak(149.7, 37.4)),
    (r"A30", Peak(165.0, 10.3)),
    (r"A10", Peak(125.0, 31.2)),
    (r"RTX A6000", Peak(154.8, 38.7)),
    (r"RTX 6000 Ada Generation", Peak(364.2, 91.1)),
    (r"L40S", Peak(362.05, 91.6)),
    (r"L40", Peak(181.05, 90.5)),
    (r"L4", Peak(121.0, 30.3)),
    (r"V100-SXM.*", Peak(None, 15.7)),
    (r"V100-PCIE.*", Peak(None, 14.0)),
    (r"T4", Peak(None, 8.1)),
    (r"GeForce RTX 4090", Peak(165.2, 82.6)),
    (r"GeForce RTX 3090", Peak(71.0, 35.6)),
)


def peak_tflops(device_name: str, precision: str) -> float | None:
    """Peak TFLOP/s of one device by the name its driver gives and `precision` (bf16 or fp32); None: not known.

    fp32 is the rate without tensor cores: a run that lets fp32 products use TF32 must not be measured by it.
    """
    if precision not in ("bf16", "fp32"):
        raise RuntimeError(f"precision is {precision!r}; wanted bf16 or fp32, resolved from auto")
    name = re.sub(r"^(NVIDIA|Tesla)\s+", "", device_name.strip())
    for pattern, peak in _PEAKS:
        if "MIG" not in name and re.fullmatch(pattern, name):
            return getattr(peak, precision)
    return None
