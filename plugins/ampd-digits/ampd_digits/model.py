"""A small convolutional network, with the two parts that make a replay hard to get right.

BatchNorm keeps running statistics in buffers and dropout draws from torch's generator: an attempt that is thrown
away must leave no trace in either. Shapes: B samples, C channels, 8 x 8 images, 10 classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from ampd_digits.spec import Options

CLASSES = 10


class DigitNet(nn.Module):
    """Logits (B, 10) for images (B, 1, 8, 8)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        channels = options.channels
        self.features = nn.Sequential(
            *_convolution(1, channels),
            *_convolution(channels, 2 * channels),
            nn.MaxPool2d(2),
            *_convolution(2 * channels, 4 * channels),
            # The strongest answer anywhere: people do not centre their digits alike.
            nn.AdaptiveMaxPool2d(1),
        )
        self.classify = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(options.dropout),
            _uniform_guess(4 * channels),
        )

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.features(image))
        return logits


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    # No bias: BatchNorm takes it away again.
    return (
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _uniform_guess(inputs: int) -> nn.Linear:
    """A classifier that starts at zero: pooled maxima are large, and random weights would be confidently wrong."""
    linear = nn.Linear(inputs, CLASSES)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
