"""Peak rates by the names that drivers give."""

import pytest

from mmtrain.monitor.peaks import peak_tflops


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 66.9),
        ("NVIDIA H100 PCIe", 756.5, 51.2),
        ("NVIDIA H100 NVL", 835.5, 60.0),
        ("NVIDIA H200", 989.4, 66.9),
        ("NVIDIA H200 NVL", 835.5, 60.0),
        ("NVIDIA A100-SXM4-80GB", 312.0, 19.5),
        ("NVIDIA A100 80GB PCIe", 312.0, 19.5),
        ("NVIDIA B200", 2250.0, 75.0),
        ("NVIDIA L40S", 362.05, 91.6),
        ("NVIDIA L4", 121.0, 30.3),
        ("Tesla V100-SXM2-16GB", None, 15.7),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
    ],
)
def test_a_known_device_has_its_data_sheet_s_rates(name: str, bf16: float | None, fp32: float) -> None:
    assert (peak_tflops(name, "bf16"), peak_tflops(name, "fp32")) == (bf16, fp32)


@pytest.mark.parametrize(
    "name", ["cpu", "", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA L400"]
)
def test_what_is_not_in_the_table_has_no_peak(name: str) -> None:
    assert peak_tflops(name, "bf16") is None and peak_tflops(name, "fp32") is None


def test_a_precision_that_was_not_resolved_is_our_own_mistake() -> None:
    with pytest.raises(RuntimeError, match="auto"):
        peak_tflops("cpu", "auto")
