"""What a trained model is worth: figures of its checkpoint, on the images that it was not trained on."""

from vaelab.evaluation.evaluate import evaluate

__all__ = ["evaluate"]
