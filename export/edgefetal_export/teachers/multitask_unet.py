"""The multi-task biometry U-Net of Qazi et al. 2023 (arXiv 2311.09607).

What the paper shows: a plain U-Net of five resolution levels with two convolutions a level and four skip connections, a
classification head on the bottleneck (fully connected, softmax over the planes), and the joint loss
`w * L_cls + (1 - w) * L_seg`. Widths, normalisation, `w` and the optimiser are not given there and are ours.
"""

from __future__ import annotations

from typing import cast

from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor, nn

from edgefetal_export.contract import Outputs


class MultitaskUnetConfig(Outputs):
    """Shape of the network.

    Args:
        features: channels of the five levels from the finest to the bottleneck, then of the last up-convolution.
        dropout: dropout before the plane head's fully connected layer.
    """

    features: tuple[int, int, int, int, int, int] = (16, 32, 64, 128, 160, 16)
    dropout: float = 0.2


class MultitaskUnet(nn.Module):
    """U-Net with a plane head on its bottleneck.

    The convolutions are MONAI's `BasicUNet` with batch normalisation and ReLU, which fold into INT8 convolutions, in
    place of its instance normalisation and leaky ReLU.
    """

    def __init__(self, config: MultitaskUnetConfig) -> None:
        """Build the network with random weights."""
        super().__init__()
        self.unet = BasicUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=len(config.structures),
            features=config.features,
            act="relu",
            norm="batch",
        )
        for up in (self.unet.upcat_1, self.unet.upcat_2, self.unet.upcat_3, self.unet.upcat_4):
            up.is_pad = False  # sides are multiples of 16, so nothing needs padding and no pad enters the ONNX graph
        self.plane_head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(config.features[4], len(config.planes)),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            image: shape (N, 1, H, W), preprocessed; H and W multiples of 16.

        Returns:
            `mask` logits, shape (N, structures, H, W), and `plane` logits, shape (N, planes).
        """
        return self.answer_and_features(image)[0]

    @property
    def feature_count(self) -> int:
        """Numbers in the frame's feature vector."""
        return cast("nn.Linear", self.plane_head[-1]).in_features

    def answer_and_features(self, image: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Run the network; return its answer and the mean of the bottleneck, shape (N, feature_count)."""
        unet = self.unet
        level_0 = unet.conv_0(image)
        level_1 = unet.down_1(level_0)
        level_2 = unet.down_2(level_1)
        level_3 = unet.down_3(level_2)
        bottleneck = unet.down_4(level_3)
        up = unet.upcat_4(bottleneck, level_3)
        up = unet.upcat_3(up, level_2)
        up = unet.upcat_2(up, level_1)
        up = unet.upcat_1(up, level_0)
        answer = cast("Tensor", unet.final_conv(up)), cast("Tensor", self.plane_head(bottleneck))
        return answer, bottleneck.mean(dim=(2, 3))


def parameter_count(module: nn.Module) -> int:
    """Count the trainable numbers of a network."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def joint_loss(segmentation: Tensor, classification: Tensor, classification_weight: float) -> Tensor:
    """Qazi's joint loss, `w * L_cls + (1 - w) * L_seg`, from its two terms."""
    loss: Tensor = classification_weight * classification + (1 - classification_weight) * segmentation
    return loss
