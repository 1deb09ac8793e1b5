"""The twin: the same model in plain PyTorch as Hugging Face classes; once imported, the Auto classes know it."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
    AutoTokenizer,
)

from mmtrain.hf.answering import VLBertForVisualQuestionAnswering
from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.generating import VLBertForImageCaptioning
from mmtrain.hf.modeling import VLBertModel
from mmtrain.hf.processing import VLBertImageProcessor, VLBertProcessor
from mmtrain.hf.retrieval import VLBertForImageTextRetrieval
from mmtrain.hf.tokenization import VLBertTokenizer

__all__ = [
    "VLBertConfig",
    "VLBertForImageCaptioning",
    "VLBertForImageTextRetrieval",
    "VLBertForVisualQuestionAnswering",
    "VLBertImageProcessor",
    "VLBertModel",
    "VLBertProcessor",
    "VLBertTokenizer",
]

AutoConfig.register(VLBertConfig.model_type, VLBertConfig)
AutoModel.register(VLBertConfig, VLBertModel)
AutoModelForImageTextToText.register(VLBertConfig, VLBertForImageCaptioning)
AutoModelForVisualQuestionAnswering.register(VLBertConfig, VLBertForVisualQuestionAnswering)
AutoTokenizer.register(VLBertConfig, tokenizer_class=VLBertTokenizer)
AutoImageProcessor.register(VLBertConfig, slow_image_processor_class=VLBertImageProcessor)
AutoProcessor.register(VLBertConfig, VLBertProcessor)
