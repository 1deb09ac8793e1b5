"""What mmtrain needs and what it installs; exact versions stand in constraints.txt."""

from setuptools import Extension, find_packages, setup

REQUIRES = [
    "braceexpand>=0.1.7,<1",
    "deepspeed>=0.19.8,<0.20",
    "fsspec>=2024.6",  # object stores; each wants its own package beside (s3fs, gcsfs, ...)
    "megatron-core>=0.16.1,<0.17",
    "ninja>=1.11",  # DeepSpeed compiles small CPU helpers with it on first use
    "numpy>=2.0,<3",
    "pillow>=11,<14",
    "protobuf>=5.28,<8",
    "pyarrow>=18,<27",
    "pydantic>=2.10,<3",
    "pyyaml>=6.0,<7",
    "rich>=13.9,<16",
    "safetensors>=0.5,<1",
    "sentencepiece>=0.2,<0.3",
    "simplejpeg>=1.8,<2",
    "tensorboard>=2.18,<3",
    "tokenizers>=0.22,<1",
    "torch>=2.11,<2.14",
    "transformers>=5.0,<6",
    "urllib3>=2.2,<3",
]
TEST = [
    "hypothesis>=6.100,<7",
    "pytest>=8.3,<10",
    "pytest-randomly>=3.16,<6",
    "pytest-timeout>=2.3,<3",
    "pytest-xdist>=3.6,<4",
    "ruff>=0.9,<1",
    "webdataset>=1.0,<2",
]

# Makes `mmdata build` faster and changes no byte of its results; where no compiler is, Pillow does the same.
SHRINK = Extension(
    "data_tools._shrink",
    ["data_tools/shrink.c"],
    extra_compile_args=["-O3", "-ffp-contract=off"],
    libraries=["m"],
    optional=True,
)

setup(
    name="mmtrain",
    version="0.1.0",
    description="Distributed vision-language pretraining: joint MLM, ITC, ITM and LM losses, data- and tensor-parallel",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["mmtrain", "mmtrain.*", "data_tools", "data_tools.*"]),
    ext_modules=[SHRINK],
    install_requires=REQUIRES,
    extras_require={"test": TEST, "dev": TEST},
    entry_points={"console_scripts": ["mmtrain = mmtrain.cli:main", "mmdata = data_tools.cli:main"]},
)
