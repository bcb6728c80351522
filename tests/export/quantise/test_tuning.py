from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgefetal_devices.errors import CheckFailedError, InputError
from edgefetal_devices.profile import Int8Recipe, read_int8_recipe
from edgefetal_export.onnx import exported
from edgefetal_export.quantise.tuning import TuningSettings, folded, rounded_answers, tuned
from edgefetal_export.students.student import Student, StudentConfig
from edgefetal_export.teachers.multitask_unet import MultitaskUnet, MultitaskUnetConfig

if TYPE_CHECKING:
    import numpy.typing as npt

    Images = list[npt.NDArray[np.float32]]

STRUCTURES, PLANES = ("head", "femur"), ("head", "femur", "none")
STUDENT_FLOATS = ("mask_head", "frame_head.1")
QUICK = TuningSettings(steps=2, batch_size=4, learning_rate=1e-3, seed=1)
EVERY_RECIPE = ("onnxruntime-x86", "onnxruntime-arm", "openvino", "tensorrt")


@pytest.fixture(scope="module")
def images() -> Images:
    """Blobs with noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(8, 1, 4, 6, generator=generator)
    noise = 0.2 * torch.randn(8, 1, 32, 48, generator=generator)
    return [image[None].numpy() for image in nn.functional.interpolate(coarse, size=(32, 48), mode="bilinear") + noise]


def settled(network: nn.Module, images: Images, heads: tuple[str, ...]) -> nn.Module:
    """Give random weights the statistics of the images, and logits of a few units."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.train()
        else:
            module.training = False
    with torch.no_grad():
        network(torch.from_numpy(np.concatenate(images)))
        for head in heads:
            network.get_parameter(f"{head}.weight").mul_(8)
    return network.eval()


@pytest.fixture(scope="module")
def student(images: Images) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = StudentConfig(
            structures=STRUCTURES, planes=PLANES, width=4, depths=(1, 1, 1, 1), quality=True, skill=True
        )
        return settled(Student(config), images, STUDENT_FLOATS)


@pytest.fixture(scope="module")
def unet(images: Images) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = MultitaskUnetConfig(structures=STRUCTURES, planes=PLANES, features=(8, 8, 16, 16, 24, 8))
        return settled(MultitaskUnet(config), images, ("unet.final_conv", "plane_head.3"))


@pytest.fixture(scope="module")
def recipe() -> Int8Recipe:
    return read_int8_recipe("onnxruntime-x86")


def spoilt(student: nn.Module, spread: float) -> nn.Module:
    """The same answers, but the channels of one convolution are `10 ** -spread` to `10 ** spread` times as large."""
    network = copy.deepcopy(student)
    norm, after = network.get_submodule("levels.1.0.1"), network.get_submodule("levels.1.1.0")
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(after, nn.Conv2d)
    factors = torch.logspace(-spread, spread, norm.num_features)
    with torch.no_grad():
        norm.weight *= factors
        norm.bias *= factors
        after.weight /= factors[:, None, None]
    return network


def answers_of(network: nn.Module, images: Images) -> list[tuple[torch.Tensor, ...]]:
    with torch.no_grad():
        return [network(torch.from_numpy(image)) for image in images]


def away(found: list[tuple[torch.Tensor, ...]], wanted: list[tuple[torch.Tensor, ...]]) -> float:
    """Mean squared difference of the logits, each answer counted alike."""
    return float(
        np.mean(
            [
                float(((a - b) ** 2).mean())
                for f, w in zip(found, wanted, strict=True)
                for a, b in zip(f, w, strict=True)
            ]
        )
    )


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["student", "unet"])
def test_folding_leaves_the_answers(name: str, images: Images, request: pytest.FixtureRequest) -> None:
    network = request.getfixturevalue(name)
    copied = folded(network, torch.from_numpy(images[0]))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copied.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for found, wanted in zip(answers_of(copied, images), answers_of(network, images), strict=True):
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


class Awkward(nn.Module):
    """Normalises what was written over, what is used again, or what is made twice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        with torch.no_grad():
            self.norm.weight.fill_(3.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv(image)
        if self.kind == "written over":
            made = nn.functional.relu(made, inplace=True)
        answer: torch.Tensor = self.norm(made)
        if self.kind == "used again":
            answer = answer + made
        if self.kind == "made twice":
            answer = answer + self.conv(image)
        return answer


@pytest.mark.parametrize("kind", ["written over", "made twice"])
def test_only_what_follows_a_convolution_directly_is_folded(kind: str, images: Images) -> None:
    copied = folded(Awkward(kind).eval(), torch.from_numpy(images[0]))
    assert isinstance(copied.get_submodule("norm"), nn.BatchNorm2d)


def test_a_convolution_that_is_used_beside_its_normalisation_is_refused(images: Images) -> None:
    with pytest.raises(CheckFailedError, match="Folding batch normalisation"):
        folded(Awkward("used again").eval(), torch.from_numpy(images[0]))


@pytest.mark.parametrize("spread", [0, 1])
def test_tuning_brings_rounded_answers_nearer(
    spread: float, student: nn.Module, images: Images, recipe: Int8Recipe
) -> None:
    network = spoilt(student, spread)
    wanted = answers_of(student, images)
    before = rounded_answers(network, images, recipe, float_modules=STUDENT_FLOATS)
    better = tuned(network, images, recipe, TuningSettings(steps=40), float_modules=STUDENT_FLOATS)
    after = rounded_answers(better, images, recipe, float_modules=STUDENT_FLOATS)
    assert away(after, wanted) < 0.7 * away(before, wanted)


def test_it_is_tuned_for_ranges_that_are_taken_anew(student: nn.Module, images: Images, recipe: Int8Recipe) -> None:
    """Activations that outgrow their first ranges must not do so unseen, or the next ranges are far too wide."""
    network = spoilt(student, 2)
    wanted = answers_of(student, images)
    before = rounded_answers(network, images, recipe)
    fast = tuned(network, images, recipe, TuningSettings(steps=20, learning_rate=1e-3))
    assert away(rounded_answers(fast, images, recipe), wanted) < 2 * away(before, wanted)


def test_network_and_random_state_are_left_alone(unet: nn.Module, images: Images, recipe: Int8Recipe) -> None:
    weights, state = weights_of(unet), torch.get_rng_state()
    steps: list[None] = []
    better = tuned(unet, images, recipe, QUICK, lambda: steps.append(None))
    assert same(weights, weights_of(unet))
    assert torch.equal(state, torch.get_rng_state())
    assert len(steps) == QUICK.steps
    assert not better.training
    assert all(parameter.grad is None for net in (unet, better) for parameter in net.parameters())


def test_every_layer_is_tuned(student: nn.Module, images: Images, recipe: Int8Recipe) -> None:
    before = weights_of(folded(student, torch.from_numpy(images[0])))
    after = weights_of(tuned(student, images, recipe, QUICK, float_modules=STUDENT_FLOATS))
    assert [name for name, tensor in after.items() if torch.equal(tensor, before[name])] == []


def test_a_seed_decides_the_weights(student: nn.Module, images: Images, recipe: Int8Recipe) -> None:
    first, again, other = (
        weights_of(tuned(student, images, recipe, settings))
        for settings in (QUICK, QUICK, QUICK.model_copy(update={"seed": 2}))
    )
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("name", EVERY_RECIPE)
def test_only_float_modules_are_not_rounded(name: str, student: nn.Module, images: Images) -> None:
    named = read_int8_recipe(name)
    convolutions = {path for path, module in student.named_modules() if isinstance(module, nn.Conv2d)}
    wanted = answers_of(student, images)
    everything = {*convolutions, "frame_head.1"}
    assert away(rounded_answers(student, images, named, float_modules=everything), wanted) < 1e-8
    # With the linear layer alone rounded, the mask is that of the float network and nothing else is.
    answers = rounded_answers(student, images, named, float_modules=convolutions)
    masks, others = [[answer[0]] for answer in answers], [answer[1:] for answer in answers]
    assert away(masks, [answer[:1] for answer in wanted]) < 1e-8
    assert 1e-8 < away(others, [answer[1:] for answer in wanted]) < 1e-1


@pytest.mark.parametrize(("name", "end"), [("onnxruntime-x86", 64), ("tensorrt", 127)])
def test_weights_are_rounded_to_the_recipes_bits(name: str, end: int, images: Images) -> None:
    """With inputs of 1 only weights are rounded, each channel's by a step of its own."""
    network = nn.Conv2d(1, 3, (1, 2), bias=False).eval()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 0.3], [100.0, 30.0], [0.0, 0.0]])[:, None, None])
    (answer,) = rounded_answers(network, [np.ones_like(images[0])], read_int8_recipe(name))[0]
    expected = 1 + round(0.3 * end) / end
    assert answer[0, :, 0, 0].tolist() == pytest.approx([expected, 100 * expected, 0], rel=1e-5)


@pytest.mark.parametrize("name", ["student", "unet"])
def test_exported_graph_is_plain_and_agrees(
    name: str, images: Images, recipe: Int8Recipe, request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue(name)
    better = tuned(network, images, recipe, QUICK)
    assert type(better) is type(network)
    wanted = answers_of(better, images[:2])
    names = [f"answer_{place}" for place in range(len(wanted[0]))]
    model = exported(better, torch.zeros(1, 1, 32, 48), "image", names)
    operators = {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert not [operator for operator in operators if "Quant" in operator or operator in ("Round", "Clip")]
    session: Any = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for image, answer in zip(images[:2], wanted, strict=True):
        for found, tensor in zip(session.run(names, {"image": image}), answer, strict=True):
            np.testing.assert_allclose(found, tensor.numpy(), atol=2e-3)


def test_a_network_of_one_answer_is_tuned(images: Images, recipe: Int8Recipe) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
        ).eval()
    before = weights_of(folded(network, torch.from_numpy(images[0])))
    better = tuned(network, images, recipe, QUICK)
    assert better(torch.from_numpy(images[0])).shape == (1, 5)
    assert not same(before, weights_of(better))


def test_no_images_are_refused(student: nn.Module, recipe: Int8Recipe) -> None:
    with pytest.raises(InputError, match="no images"):
        tuned(student, [], recipe, QUICK)


def test_an_image_that_is_not_finite_is_refused(student: nn.Module, images: Images, recipe: Int8Recipe) -> None:
    with pytest.raises(InputError, match=r"Image 1 .* not finite"):
        tuned(student, [images[0], np.full_like(images[0], np.nan)], recipe, QUICK)


def test_a_network_that_is_not_finite_is_refused(student: nn.Module, images: Images, recipe: Int8Recipe) -> None:
    broken = copy.deepcopy(student)
    with torch.no_grad():
        broken.get_parameter("levels.1.0.1.bias").fill_(torch.inf)
    with pytest.raises(CheckFailedError, match="not finite"):
        tuned(broken, images, recipe, QUICK)


def test_a_loss_that_is_not_finite_stops_it(student: nn.Module, images: Images, recipe: Int8Recipe) -> None:
    with pytest.raises(CheckFailedError, match="smaller learning rate"):
        tuned(student, images, recipe, QUICK.model_copy(update={"learning_rate": 1e30}))


def test_an_unknown_layer_is_refused(student: nn.Module, images: Images, recipe: Int8Recipe) -> None:
    with pytest.raises(InputError, match="no layer 'head'; choose from levels"):
        tuned(student, images, recipe, QUICK, float_modules=("head",))
