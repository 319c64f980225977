"""PyTorch modules that stand for what people bring: a depthwise CNN, ResNet-18, ShuffleNet V2.

Imported only where PyTorch is installed. ``with_statistics`` gives BatchNorm real means and variances: with the initial
ones (0 and 1) an untrained network answers the same for every input, and int8 cannot be told from noise.
"""

import torch
from torch import nn


def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, activation: type | None = nn.ReLU):
    layers = [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class DepthwiseNet(nn.Module):
    """MobileNet V1 in small: depthwise separable blocks with BatchNorm and ReLU6, (n, 3, 32, 32) to 10 logits."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.stem = conv(3, 16, 3, 2, activation=nn.ReLU6)
        widths = [(16, 24, 1), (24, 32, 2), (32, 32, 1), (32, 64, 2)]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(conv(i, i, 3, stride, i, nn.ReLU6), conv(i, o, 1, activation=nn.ReLU6))
                for i, o, stride in widths
            )
        )
        self.head = nn.Linear(64, classes)

    def forward(self, image):
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.conv2 = conv(outputs, outputs, 3, activation=None)
        is_same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if is_same else conv(inputs, outputs, 1, stride, activation=None)

    def forward(self, x):
        return torch.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 as torchvision has it, with ``width`` channels in the first stage (64 in the paper).

    Source: He et al., "Deep residual learning for image recognition", 2015, https://arxiv.org/abs/1512.03385.
    """

    def __init__(self, classes: int = 10, width: int = 64):
        super().__init__()
        self.stem = conv(3, width, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        stages, inputs = [], width
        for stage in range(4):
            outputs = width << stage
            stages += [BasicBlock(inputs, outputs, 2 if stage else 1), BasicBlock(outputs, outputs, 1)]
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, image):
        return self.fc(torch.flatten(self.average(self.stages(self.pool(self.stem(image)))), 1))


def shuffle(x, groups: int = 2):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.stride, half = stride, outputs // 2
        self.left = nn.Sequential()
        if stride == 2:
            self.left = nn.Sequential(conv(inputs, inputs, 3, 2, inputs, None), conv(inputs, half, 1))
        entering = inputs if stride == 2 else half
        self.right = nn.Sequential(
            conv(entering, half, 1), conv(half, half, 3, stride, half, None), conv(half, half, 1)
        )

    def forward(self, x):
        left, right = (x, x) if self.stride == 2 else x.chunk(2, dim=1)
        return shuffle(torch.cat([self.left(left), self.right(right)], dim=1))


class ShuffleNetV2(nn.Module):
    """ShuffleNet V2 with the stages of the paper at these widths.

    Source: Ma et al., "ShuffleNet V2: Practical guidelines for efficient CNN architecture design", 2018,
    https://arxiv.org/abs/1807.11164.
    """

    def __init__(self, classes: int = 10, widths=(24, 48, 96, 192, 1024), repeats=(4, 8, 4)):
        super().__init__()
        self.stem = conv(3, widths[0], 3, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        units, inputs = [], widths[0]
        for outputs, count in zip(widths[1:4], repeats, strict=True):
            units += [ShuffleUnit(inputs if i == 0 else outputs, outputs, 2 if i == 0 else 1) for i in range(count)]
            inputs = outputs
        self.units = nn.Sequential(*units)
        self.last = conv(inputs, widths[4], 1)
        self.fc = nn.Linear(widths[4], classes)

    def forward(self, image):
        return self.fc(self.last(self.units(self.pool(self.stem(image)))).mean((2, 3)))


def with_statistics(module: nn.Module, images: torch.Tensor, passes: int = 20) -> nn.Module:
    """Returns the module in evaluation mode, its BatchNorm statistics those of the images."""
    module.train()
    with torch.no_grad():
        for _ in range(passes):
            module(images)
    return module.eval()


def train_on_patterns(module: nn.Module, size: int, classes: int = 10, steps: int = 30):
    """Returns the module after a few steps of training on noisy patterns, one a class, and 256 pictures of them."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(classes, 3, 4, 4, generator=generator)
    patterns = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")

    def batch(count: int):
        labels = torch.randint(0, classes, (count,), generator=generator)
        return patterns[labels] + 0.5 * torch.randn(count, 3, size, size, generator=generator), labels

    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    module.train()
    for _ in range(steps):
        images, labels = batch(64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images), labels).backward()
        optimizer.step()
    images, _ = batch(256)
    return with_statistics(module, images), images
