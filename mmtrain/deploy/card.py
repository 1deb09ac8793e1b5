"""The README of an export: what the model is, what it was trained on, how well it does, how to use it."""

import json
from pathlib import Path

from mmtrain.config.schema import RunConfig
from mmtrain.io.text import printable
from mmtrain.scores.units import format_score

USE = """Caption a picture:

```python
from PIL import Image
from mmtrain.hf import VLBertForImageCaptioning

model = VLBertForImageCaptioning.from_pretrained("FOLDER")
caption = model.generate(Image.open("picture.jpg"), max_length=20, num_beams=4)
```

Answer a question about it (worth reading once the model is fine-tuned on questions):

```python
from PIL import Image
from mmtrain.hf import VLBertForVisualQuestionAnswering

model = VLBertForVisualQuestionAnswering.from_pretrained("FOLDER")
answer = model.answer(Image.open("picture.jpg"), "what color is the star?")
```

Find the pictures that words describe:

```python
from PIL import Image
from mmtrain.hf import VLBertForImageTextRetrieval

model = VLBertForImageTextRetrieval.from_pretrained("FOLDER")
pictures = [Image.open(name) for name in ("picture.jpg", "other.jpg")]
best = model.retrieve("a tiny red star above a big blue ring", pictures, top_k=1)  # [(number, probability)]
```

`AutoModel`, `AutoTokenizer` and `AutoProcessor` load the folder too once `mmtrain.hf` is imported."""

MADE_FOR = {  # by task.name: what model hubs call it, and what was done
    "pretrain": ("image-to-text", "pretrained"),
    "caption": ("image-to-text", "fine-tuned for captions"),
    "vqa": ("visual-question-answering", "fine-tuned to answer questions"),
    "retrieval": ("zero-shot-image-classification", "fine-tuned for retrieval"),
}


def model_card(
    plan: RunConfig, folder: Path, step: int, num_parameters: int, scores: dict[str, dict[str, float]]
) -> str:
    """Markdown with the front matter that model hubs read; `folder` is where its examples find the model."""
    shape = plan.model
    weights = f"mlm {plan.loss.mlm:g}, itc {plan.loss.itc:g}, itm {plan.loss.of_itm:g}, lm {plan.loss.of_lm:g}"
    if plan.loss.answer:
        weights += f", answer {plan.loss.answer:g}"
    tag, for_what = MADE_FOR[plan.task.name]
    front = f"---\nlibrary_name: transformers\npipeline_tag: {tag}\ntags: [mmtrain, vlbert]\n---\n"
    return "\n".join(
        [
            front,
            f"# {printable(plan.run_dir.name)}\n",
            f"A vision-language model of {num_parameters:,} parameters, {for_what} with mmtrain for {step:,} steps "
            f"of {plan.train.global_batch_size} samples (seed {plan.seed}, losses {weights}).\n",
            f"- images of {shape.image_size} px in patches of {shape.patch_size}; texts of at most "
            f"{shape.max_text_length} tokens",
            f"- layers: vision {shape.vision_layers} x {shape.vision_width}, text {shape.text_layers} x "
            f"{shape.text_width}, fusion {shape.fusion_layers} x {shape.hidden_size}",
            "- the config of the run, without the places of its data: `training.yaml`\n",
            "## Scores\n",
            _table(scores),
            "## Use\n",
            USE.replace('"FOLDER"', _literal(folder)),
            "",
        ]
    )


def _literal(folder: Path) -> str:
    """A Python string for the name of a folder; what is not UTF-8 in it is an escape, so that it names the same."""
    return json.dumps(str(folder), ensure_ascii=False).encode(errors="backslashreplace").decode()


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _table(scores: dict[str, dict[str, float]]) -> str:
    """Every score of every evaluation, each in its unit."""
    if not scores:
        return "The run logged none at this step.\n"
    rows = [
        f"| {_cell(name)} | {_cell(score)} | {format_score(score, value)} |"
        for name, found in scores.items()
        for score, value in found.items()
    ]
    return "\n".join(["| split | score | value |", "|---|---|---|", *rows, ""])
