"""Peak memory of the contrastive loss over the global batch, and of its gradient: it grows with the features, linearly.

    python -m tests.benchmarks.contrast_memory               a table on the terminal; one process at a time
    python -m tests.benchmarks.contrast_memory --markdown    the table of the README

Beside it the plain loss, whose N x N matrix autograd keeps. Features are 256 wide, float32.
"""

import argparse
import sys

from tests.benchmarks.peak import give_back_at_once, peak_bytes, settled_bytes
from tests.helpers import run_ranks

NUM_FEATURES, WIDTH = (1024, 4096, 16384), 256
LARGEST_PLAIN = 4096  # the plain loss of more would not fit small machines


def extra_bytes_on_a_rank(num_features: int, plain: bool) -> int:
    """How much more than before was resident at the peak."""
    import torch
    import torch.nn.functional as F

    from mmtrain.objectives.itc import whole_batch_contrast
    from mmtrain.parallel.groups import start
    from mmtrain.parallel.launch import read_launch

    group = start(read_launch(), tp=1, pp=1, on_gpu=False).data

    def ask(count: int) -> None:
        image, text = (F.normalize(torch.randn(count, WIDTH), dim=-1) for _ in range(2))
        temperature, own = torch.tensor([0.07]), torch.arange(count)
        if plain:
            for part in (image, text, temperature):
                part.requires_grad_()
            logits = image @ text.t() / temperature
            (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)).backward()
        else:
            whole_batch_contrast(image, text, temperature, torch.ones(count, dtype=torch.bool), group)

    ask(64)  # what libraries allocate on first use is not the loss's
    before = settled_bytes()
    return peak_bytes(lambda: ask(num_features)) - before


def main() -> int:
    """Measure each in a process of its own; exit code 1 if 16 times the features take more than 20 times the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown")
    asked = parser.parse_args()
    give_back_at_once()
    print("| features | by blocks | plain |\n| --- | --- | --- |" if asked.markdown else "features  by blocks  plain")
    found = []
    for count in NUM_FEATURES:
        found.append(run_ranks(1, extra_bytes_on_a_rank, count, False)[0])
        cells = [str(count), f"{found[-1] / 2**20:.0f} MiB", "not measured"]
        if count <= LARGEST_PLAIN:
            cells[2] = f"{run_ranks(1, extra_bytes_on_a_rank, count, True)[0] / 2**20:.0f} MiB"
        print(f"| {' | '.join(cells)} |" if asked.markdown else "  ".join(cell.ljust(9) for cell in cells), flush=True)
    return 0 if found[-1] <= 20 * found[0] else 1


if __name__ == "__main__":
    sys.exit(main())
