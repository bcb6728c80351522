"""Training on with rounded weights and activations, towards what the network answered before: it learns to be rounded.

Batch normalisation is folded into convolutions first, since the folded weights are what is rounded. What comes out is
a float network again, which is exported and quantised like any other.
"""

from __future__ import annotations

import collections
import copy
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_export.onnx import MAX_LOGIT_DIFFERENCE
from edgefetal_export.training.student.losses import taught_mask_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from edgefetal_devices.profile import Int8Recipe

    Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    Answers = tuple[Tensor, ...]
    # By module path: layers, and the smallest and largest value that went into each.
    Layers = Mapping[str, Layer]
    Ranges = Mapping[str, tuple[float, float]]

_LAYERS: Final = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
# Smallest and largest whole number of an activation, by its type and whether zero is in the middle, and the largest of
# a weight of eight bits or of seven: all as onnxruntime's quantiser takes them.
_ACTIVATION_ENDS: Final = {
    ("uint8", False): (0, 255),
    ("uint8", True): (0, 255),
    ("int8", False): (-128, 127),
    ("int8", True): (-127, 127),
}
_WEIGHT_END, _SEVEN_BIT_END = 127, 64
# What is 0 throughout has no step of its own.
_LEAST = 1e-12
# As students are taught: the edge of a mask decides a length.
_BOUNDARY = 4.0
_MASK_AXES, _PLANE = 4, 1


class TuningSettings(BaseModel):
    """How a network is tuned.

    Args:
        steps: batches in all.
        batch_size: images of a batch; one comes more than once where there are fewer.
        learning_rate: of AdamW at the first step, as a share of a channel's largest weight; falls as a cosine to 0.
        seed: decides the order of the images and which are mirrored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: PositiveInt = 200
    batch_size: PositiveInt = 8
    learning_rate: PositiveFloat = 1e-4
    seed: NonNegativeInt = 0


def tuned(
    network: nn.Module,
    images: Sequence[npt.NDArray[np.float32]],
    recipe: Int8Recipe,
    settings: TuningSettings,
    on_step: Callable[[], None] = lambda: None,
    *,
    float_modules: Collection[str] = (),
) -> nn.Module:
    """Tune a copy of a network to answer when rounded as the network does unrounded.

    Weights and biases of convolutions and linear layers are tuned, of those that stay in float too, and nothing else.

    Args:
        network: in evaluation mode. Takes (N, 1, h, w) and returns `mask` logits, shape (N, structures, h, w), `plane`
            logits, shape (N, planes), and any number of single logits, shape (N, 1); or one tensor, which is a mask if
            it has four axes. It is not changed.
        images: prepared frames of one size, each (1, 1, h, w).
        recipe: the target's recipe.
        settings: how it is tuned.
        on_step: called after every step.
        float_modules: module paths of layers that stay in float, such as the last before each answer.

    Returns:
        A network of the same class in evaluation mode, with batch normalisation folded; the same weights for the same
        arguments and number of threads.

    Raises:
        InputError: there are no images, one is not finite, or the network runs no layer of such a path.
        CheckFailedError: an activation or the loss is not finite, or batch normalisation cannot be folded.
    """
    student, layers, ranges = _observed(network, images)
    rounded = _without(layers, float_modules)
    units = _units(layers, ranges)
    shares = {name: (_parameter(student, name) / unit).requires_grad_() for name, unit in units.items()}
    # Nothing is to decay: these weights are trained, and have to move by about a step of their eight bits.
    optimizer = torch.optim.AdamW(shares.values(), lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.steps)
    # Values that were cut off would have no gradient to bring them back, and the quantiser takes the ranges anew.
    with _rounded_inputs(rounded, ranges, recipe, widen=True), torch.enable_grad():
        for step, batch in enumerate(_batches(images, settings, _device(network)), start=1):
            with torch.no_grad():
                taught = _answers(network, batch)
            weights = {name: share * units[name] for name, share in shares.items()}
            loss = _loss(_answers(student, batch, weights | _rounded_weights(weights, rounded, recipe)), taught)
            if not math.isfinite(loss.item()):
                message = (
                    f"The loss of tuning is not finite at step {step}; use a smaller learning rate than "
                    f"{settings.learning_rate:g}, or quantise without tuning."
                )
                raise CheckFailedError(message)
            optimizer.zero_grad()
            # The student's own parameters stay as they are, and get no gradients, until the end.
            torch.autograd.backward(loss, inputs=list(shares.values()))
            optimizer.step()
            schedule.step()
            on_step()
    with torch.no_grad():
        for name, share in shares.items():
            _parameter(student, name).copy_(share * units[name])
    return student


def rounded_answers(
    network: nn.Module,
    images: Sequence[npt.NDArray[np.float32]],
    recipe: Int8Recipe,
    *,
    float_modules: Collection[str] = (),
) -> list[tuple[Tensor, ...]]:
    """Answer as a network does once its weights and its layers' inputs are rounded, with the ranges of these images.

    This is what tuning sees, and near to what a quantised graph answers; sums and layers' outputs are not rounded.

    Args:
        network: as for `tuned`.
        images: likewise.
        recipe: likewise.
        float_modules: likewise.

    Returns:
        For each image the tensors that the network returns.

    Raises:
        InputError: as `tuned`.
        CheckFailedError: an activation is not finite, or batch normalisation cannot be folded.
    """
    student, layers, ranges = _observed(network, images)
    rounded = _without(layers, float_modules)
    device = _device(network)
    with torch.no_grad(), _rounded_inputs(rounded, ranges, recipe, widen=False):
        own = {name: _parameter(student, name) for name in _parameter_names(rounded)}
        weights = _rounded_weights(own, rounded, recipe)
        return [_answers(student, torch.tensor(image, device=device), weights) for image in images]


def folded(network: nn.Module, example: Tensor) -> nn.Module:
    """Copy a network, with every batch normalisation that directly follows a convolution folded into it.

    Args:
        network: in evaluation mode; it is not changed.
        example: its input, which it is run on to see what follows what.

    Returns:
        A network of the same class; module paths stay, and `nn.Identity` takes the place of what was folded.

    Raises:
        CheckFailedError: the copy answers otherwise for the example.
    """
    copied = copy.deepcopy(network)
    with torch.no_grad():
        expected = _answers(copied, example)
        for convolution_path, norm_path in _foldable(copied, example):
            convolution = cast("nn.Conv2d | nn.ConvTranspose2d", copied.get_submodule(convolution_path))
            norm = cast("nn.BatchNorm2d", copied.get_submodule(norm_path))
            fused = fuse_conv_bn_eval(convolution, norm, transpose=isinstance(convolution, nn.ConvTranspose2d))
            copied.set_submodule(convolution_path, fused)
            copied.set_submodule(norm_path, nn.Identity())
        found = _answers(copied, example)
    for wanted, answer in zip(expected, found, strict=True):
        difference = float((wanted - answer).abs().max())
        if difference > MAX_LOGIT_DIFFERENCE:
            message = (
                f"Folding batch normalisation changes a logit by {difference:.2g} (allowed {MAX_LOGIT_DIFFERENCE:g}), "
                "as where something else too uses what a normalised convolution makes; quantise without tuning."
            )
            raise CheckFailedError(message)
    return copied


def _foldable(network: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Run a network; return the module paths of each convolution and of the normalisation that its answer goes to."""
    paths = {module: path for path, module in network.named_modules()}
    calls: collections.Counter[nn.Module] = collections.Counter()
    # An answer is kept as long as it is looked for, so that no other takes its identity.
    made: dict[int, tuple[nn.Module, Tensor, int]] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def on_convolution(module: nn.Module, _: tuple[Tensor, ...], answer: Tensor) -> None:
        calls[module] += 1
        # The version tells whether something, such as an activation, was written over the answer since.
        made[id(answer)] = (module, answer, answer._version)  # noqa: SLF001 - torch has no other name for it

    def on_norm(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        calls[module] += 1
        maker, answer, version = made.get(id(inputs[0]), (None, inputs[0], -1))
        if maker is not None and answer._version == version:  # noqa: SLF001 - likewise
            pairs.append((maker, module))

    handles = [
        module.register_forward_hook(on_convolution)
        for module in paths
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    handles += [
        module.register_forward_hook(on_norm)
        for module in paths
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    ]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    # What is used twice would have to be folded in two ways.
    return [(paths[maker], paths[norm]) for maker, norm in pairs if calls[maker] == calls[norm] == 1]


def _observed(network: nn.Module, images: Sequence[npt.NDArray[np.float32]]) -> tuple[nn.Module, Layers, Ranges]:
    """Fold a network; return the copy, the layers that it runs for images, and what goes into them.

    Raises:
        InputError: there are no images, or one is not finite.
        CheckFailedError: an activation is not finite, or batch normalisation cannot be folded.
    """
    if not images:
        raise InputError("There are no images to tune on; give a dataset.")
    for number, image in enumerate(images):
        if not np.isfinite(image).all():
            raise InputError(f"Image {number} of those to tune on is not finite; leave it out.")
    device = _device(network)
    student = folded(network, torch.tensor(images[0], device=device))
    layers = {path: module for path, module in student.named_modules() if isinstance(module, _LAYERS)}
    ranges: dict[str, tuple[float, float]] = {}

    def observe(path: str, values: Tensor) -> None:
        ranges[path] = _joined(path, ranges.get(path, (0.0, 0.0)), values, "mend the network before tuning it")

    with torch.no_grad(), _on_inputs(layers, observe):
        for image in images:
            student(torch.tensor(image, device=device))
    # A layer that never runs, such as a head for training alone, has no range and nothing to learn.
    return student, {path: layer for path, layer in layers.items() if path in ranges}, ranges


def _joined(path: str, held: tuple[float, float], values: Tensor, cure: str) -> tuple[float, float]:
    """Widen a layer's range to hold values.

    Raises:
        CheckFailedError: one of them is not finite; it names the cure.
    """
    low, high = (float(end) for end in values.detach().aminmax())
    # A NaN anywhere makes both NaN.
    if not (math.isfinite(low) and math.isfinite(high)):
        raise CheckFailedError(f"What goes into the layer {path} is not finite; {cure}.")
    return min(low, held[0]), max(high, held[1])


@contextmanager
def _on_inputs(layers: Layers, function: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """While open, call a function with the path and the input of each layer that runs; what it returns goes in."""

    def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], Tensor | None]:
        return lambda _, inputs: function(path, inputs[0])

    handles = [layer.register_forward_pre_hook(hook(path)) for path, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _rounded_inputs(layers: Layers, ranges: Ranges, recipe: Int8Recipe, *, widen: bool) -> Iterator[None]:
    """While open, round what goes into layers to the whole numbers that cover its range.

    Args:
        layers: whose inputs are rounded.
        ranges: of the inputs.
        recipe: the target's recipe.
        widen: whether values beyond their range widen it, or are cut off.
    """
    least, most = _ACTIVATION_ENDS[recipe.activations, recipe.symmetric_activations]
    held = dict(ranges)

    def rounded(path: str, values: Tensor) -> Tensor:
        if widen:
            held[path] = _joined(path, held[path], values, "use a smaller learning rate, or quantise without tuning")
        low, high = held[path]
        if recipe.symmetric_activations:
            high = max(-low, high)
            low = -high
        step = max((high - low) / (most - least), _LEAST)
        return torch.fake_quantize_per_tensor_affine(values, step, round(least - low / step), least, most)

    with _on_inputs(layers, rounded):
        yield


def _rounded_weights(weights: Mapping[str, Tensor], layers: Layers, recipe: Int8Recipe) -> dict[str, Tensor]:
    """Round the weights of layers, one step for each output channel if the recipe says so; gradients pass through.

    Args:
        weights: by parameter name.
        layers: whose weights are rounded.
        recipe: the target's recipe.
    """
    end = _SEVEN_BIT_END if recipe.seven_bit_weights else _WEIGHT_END
    rounded = {}
    for path, layer in layers.items():
        name = f"{path}.weight"
        steps = _reach(weights[name], layer).flatten() / end
        if not recipe.per_channel:
            steps = steps.max().expand_as(steps)
        zeros = torch.zeros_like(steps, dtype=torch.int32)
        rounded[name] = torch.fake_quantize_per_channel_affine(
            weights[name], steps, zeros, _channel_axis(layer), -end, end
        )
    return rounded


def _units(layers: Layers, ranges: Ranges) -> dict[str, Tensor]:
    """Return in what units parameters are tuned, by their names.

    AdamW's steps are all of one size, and the channels of folded weights are not. A weight's unit is the largest of its
    channel, so that its eight bits are as fine in each; a bias's is what that weight makes of the largest input.
    """
    units = {}
    for path, layer in layers.items():
        reach = _reach(layer.weight, layer)
        units[f"{path}.weight"] = reach
        if layer.bias is not None:
            largest = max(-ranges[path][0], ranges[path][1], _LEAST)
            units[f"{path}.bias"] = largest * reach.flatten().repeat(len(layer.bias) // reach.numel())
    return units


def _reach(weight: Tensor, layer: Layer) -> Tensor:
    """Return the largest absolute weight of each output channel, with the other axes of length 1."""
    others = [axis for axis in range(weight.ndim) if axis != _channel_axis(layer)]
    return weight.detach().abs().amax(dim=others, keepdim=True).clamp(min=_LEAST)


def _channel_axis(layer: Layer) -> int:
    """Return which axis of a layer's weight counts output channels."""
    return int(isinstance(layer, nn.ConvTranspose2d))


def _without(layers: Layers, float_modules: Collection[str]) -> Layers:
    """Leave out the layers that stay in float.

    Raises:
        InputError: there is no such layer.
    """
    strangers = sorted(set(float_modules) - set(layers))
    if strangers:
        raise InputError(f"The network runs no layer {strangers[0]!r}; choose from {', '.join(layers)}.")
    return {path: layer for path, layer in layers.items() if path not in float_modules}


def _parameter_names(layers: Layers) -> list[str]:
    return [f"{path}.{name}" for path, layer in layers.items() for name, _ in layer.named_parameters(recurse=False)]


def _parameter(network: nn.Module, name: str) -> Tensor:
    return network.get_parameter(name).detach()


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _batches(
    images: Sequence[npt.NDArray[np.float32]], settings: TuningSettings, device: torch.device
) -> Iterator[Tensor]:
    """Yield as many batches as there are steps; every image comes once before any comes again, mirrored or not."""
    generator = torch.Generator().manual_seed(settings.seed)
    count = settings.steps * settings.batch_size
    rounds = [torch.randperm(len(images), generator=generator) for _ in range(math.ceil(count / len(images)))]
    mirrored = torch.rand(count, generator=generator) < 1 / 2
    drawn = list(zip(torch.cat(rounds).tolist(), mirrored.tolist(), strict=False))
    for start in range(0, count, settings.batch_size):
        batch = [
            images[place][..., ::-1] if mirror else images[place]
            for place, mirror in drawn[start : start + settings.batch_size]
        ]
        yield torch.from_numpy(np.concatenate(batch)).to(device)


def _answers(network: nn.Module, batch: Tensor, weights: Mapping[str, Tensor] | None = None) -> Answers:
    """Run a network, with other weights in place of some of its own; return a tuple where it returns one tensor."""
    answer = torch.func.functional_call(network, dict(weights or {}), (batch,))
    return (answer,) if isinstance(answer, Tensor) else tuple(answer)


def _loss(answers: Answers, taught: Answers) -> Tensor:
    """Return how far answers are from the teacher's: 0 if they are equal, each counted alike."""
    parts = []
    for place, (answer, goal) in enumerate(zip(answers, taught, strict=True)):
        if answer.ndim == _MASK_AXES:
            everywhere = torch.ones_like(answer[..., 0, 0])
            parts.append(taught_mask_loss(answer, goal.sigmoid(), everywhere, _BOUNDARY))
        elif len(answers) == 1:
            parts.append(nn.functional.mse_loss(answer, goal))
        elif place == _PLANE:
            parts.append(
                nn.functional.kl_div(
                    answer.log_softmax(dim=1), goal.log_softmax(dim=1), reduction="batchmean", log_target=True
                )
            )
        else:
            parts.append(nn.functional.mse_loss(answer.sigmoid(), goal.sigmoid()))
    return torch.stack(parts).sum()
