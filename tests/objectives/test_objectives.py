from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.alike import assert_alike_in_any_order
from safetensors.torch import save_file

import invrep
from invrep.api import representation
from invrep.data.code_files import save_code
from invrep.data.photo_reading import bundled, read
from invrep.errors import InvrepError, UnfitError
from invrep.objectives.activation import PHOTOS, Caricature, Maximise
from invrep.objectives.match import Match, MatchFile, data_weight
from invrep.representations.geometry import InputSize

USUAL = {"weights": None, "channel_axes": None}  # of a representation


class ObjectiveTests:
    """What holds for every objective: one number per image, which no neighbour changes."""

    def make(self, code: list[torch.Tensor]) -> torch.nn.Module:
        raise NotImplementedError

    def test_an_image_does_not_depend_on_its_neighbours(self):
        target, code = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
        assert_alike_in_any_order(lambda order: [self.make([target[order]])([code[order]])], 3)
        spoilt = code.clone()
        spoilt[1] = float("nan")
        value, beside = (self.make([target])([x]) for x in (code, spoilt))
        assert value.shape == (3,) and torch.equal(value[[0, 2]], beside[[0, 2]]) and value.isfinite().all()

    def test_of_some_of_its_images(self):
        target, code = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
        whole, rows = self.make([target]), torch.tensor([2, 0])
        some = whole.of(rows)
        torch.testing.assert_close(some([code[rows]]), whole([code])[rows])
        assert whole([code]).shape == (3,)  # as it was

    def test_gradient(self):
        objective = self.make([torch.randn(2, 3, 4, dtype=torch.float64)])
        x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda code: objective([code]), x)


class TestMatch(ObjectiveTests):
    def make(self, code: list[torch.Tensor]) -> torch.nn.Module:
        return Match(code)

    def test_is_the_relative_squared_error_of_each_image(self):
        target, code = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
        wanted = [float((code[b] - target[b]).norm() ** 2 / target[b].norm() ** 2) for b in range(2)]
        assert Match([target])([code]).tolist() == pytest.approx(wanted, rel=1e-5)
        assert (Match([target], weight=20.0)([code]) / 20).tolist() == pytest.approx(wanted, rel=1e-5)
        assert Match([target], weight=20.0).value([code]).tolist() == pytest.approx(wanted, rel=1e-5)

    @pytest.mark.parametrize(
        ("options", "seen"),
        [
            ({"channels": "group1"}, (slice(0, 3),)),
            ({"channels": "group2"}, (slice(3, 6),)),
            ({"channels": "1:3"}, (slice(1, 3),)),
            ({"channels": 4}, (slice(4, 5),)),
            ({"region": "5x5"}, (slice(None), slice(4, 9), slice(2, 7))),  # paper.md §2: from 5 and 3, counted from 1
            ({"region": "2x3@0x6"}, (slice(None), slice(0, 2), slice(6, 9))),
            ({"region": "13x1", "channels": "5"}, (slice(5, 6), slice(0, 13), slice(4, 5))),
        ],
    )
    @pytest.mark.parametrize("axis", [1, 3])
    def test_the_loss_and_its_normaliser_see_only_region_and_channels(self, options, seen, axis):
        target, code = torch.randn(2, 6, 13, 9), torch.randn(2, 6, 13, 9)
        wanted = Match([target[:, *seen]])([code[:, *seen]])
        turned = [t.movedim(1, axis) for t in (target, code)]
        phi = SimpleNamespace(weights=None, channel_axes=[axis])
        objective = Match([turned[0]], phi=phi, **options)
        torch.testing.assert_close(objective([turned[1]]), wanted)
        norm = target[:, *seen].flatten(1).square().sum(1)
        found = objective.measures([turned[1]])
        torch.testing.assert_close((found["distance"], found["code_norm"]), (wanted * norm, norm))
        torch.testing.assert_close((found["error"], found["root_error"]), (wanted, wanted.sqrt()))

    def test_channels_of_tokens_and_of_logits(self):
        for shape, seen in (((2, 7, 4), (slice(None), slice(0, 2))), ((2, 4), (slice(0, 2),))):
            target, code = torch.randn(shape), torch.randn(shape)
            wanted = Match([target[:, *seen]])([code[:, *seen]])
            torch.testing.assert_close(Match([target], channels="0:2")([code]), wanted)

    @pytest.mark.parametrize(
        ("options", "shape", "message"),
        [
            ({"region": "5"}, (1, 3, 9, 9), "expected ROWSxCOLUMNS"),
            ({"region": "5x5"}, (1, 9, 3), r"rows and columns, but this layer's has the shape \(9, 3\)"),
            ({"region": "5x11"}, (1, 3, 9, 9), "does not fit a code of 9 rows and 9 columns"),
            ({"region": "2x2@8x0"}, (1, 3, 9, 9), "does not fit"),
            ({"region": "0x2"}, (1, 3, 9, 9), "does not fit"),
            ({"channels": "2:7"}, (1, 3, 9, 9), "does not fit a code of 3 channels"),
            ({"channels": "2:2"}, (1, 3, 9, 9), "does not fit"),
            ({"channels": 1.5}, (1, 3, 9, 9), "channels=1.5 is not valid"),
            ({"channels": "group3"}, (1, 3, 9, 9), "expected FIRST:END, a number, group1 or group2"),
        ],
    )
    def test_wrong_parts(self, options, shape, message):
        with pytest.raises(InvrepError, match=message):
            Match([torch.ones(shape)], **options)

    def test_parts_are_weighted_relative_to_their_sum(self):
        target = [torch.randn(2, 3), torch.randn(2, 5)]
        code = [torch.randn(2, 3), torch.randn(2, 5)]
        alone = [Match([t])([c]) for t, c in zip(target, code, strict=True)]
        phi = SimpleNamespace(weights=(3, 1), channel_axes=None)
        torch.testing.assert_close(Match(target, phi=phi)(code), 0.75 * alone[0] + 0.25 * alone[1])

    def test_a_zero_code_is_normalised_by_one(self):
        assert Match([torch.zeros(1, 3)])([torch.ones(1, 3)]).tolist() == [3.0]

    def test_a_class_by_its_name(self):
        phi = SimpleNamespace(classes=["tench, Tinca tinca", "Tabby", "crane", "crane"], **USUAL)
        target, code = torch.randn(2, 4), torch.randn(2, 4)
        for name, number in (("tabby", 1), ("tinca tinca", 0), ("tench, tinca tinca", 0)):
            wanted = Match([target], channels=number)([code])
            torch.testing.assert_close(Match([target], phi=phi, channels=name)([code]), wanted)
        for name, code, message in (
            ("tabbi", target, "no class of this network; the nearest is tabby"),
            ("crane", target, "name of several classes; give a number, 2 or 3"),
            ("tabby", torch.ones(1, 5, 3, 3), "for the network's scores, layer=output"),
        ):
            with pytest.raises(InvrepError, match=message):
                Match([code], phi=phi, channels=name)

    def test_several_channels(self):
        target, code = torch.randn(2, 6, 3, 3), torch.randn(2, 6, 3, 3)
        wanted = Match([target[:, [1, 3, 4]]])([code[:, [1, 3, 4]]])
        torch.testing.assert_close(Match([target], channels=[1, "3:5"])([code]), wanted)


class TestMaximise(ObjectiveTests):
    def make(self, code: list[torch.Tensor]) -> torch.nn.Module:
        return Maximise(code, channels=1, weight=2.0)

    def test_is_the_mean_of_the_chosen_units(self):
        code = torch.randn(2, 6, 5, 7)
        for options, seen in (
            ({"channels": 4}, code[:, 4]),
            ({"channels": [0, 5]}, code[:, [0, 5]]),
            ({"channels": 4, "region": "1x1"}, code[:, 4, 2, 3]),
            ({"channels": "1:3", "region": "2x2@0x1"}, code[:, 1:3, 0:2, 1:3]),
        ):
            objective = Maximise([torch.zeros_like(code)], weight=3.0, **options)
            wanted = seen.reshape(2, -1).mean(1)
            torch.testing.assert_close(objective.value([code]), wanted)
            torch.testing.assert_close(objective([code]), -3 * wanted)
            assert list(objective.measures([code])) == ["activation"]

    def test_weighs_by_receptive_field_and_by_a_large_value(self):
        """paper.md §1: (10000 / rf²) / max activation; the large value by a loop over whole photos."""
        phi = representation("alexnet", layer="relu2", weights="random")
        size = InputSize(crop=(64, 80), resize=(64, 80))
        photos = [read(bundled(name), resize="squash", input_size=size) for name in PHOTOS]
        large = max(float(phi(photo[None])[0].max()) for photo in photos)
        code = phi(torch.zeros(1, 3, 64, 80))
        assert Maximise(code, phi=phi, shape=(3, 64, 80), channels=3).weight == pytest.approx(10000 / 51**2 / large)
        phi.receptive_field = None  # the whole image
        assert Maximise(code, phi=phi, shape=(3, 64, 80), channels=3).weight == pytest.approx(10000 / 355**2 / large)
        with pytest.raises(InvrepError, match="weight=auto needs the representation"):
            Maximise(code, channels=3)

    def test_an_activation_rises_over_the_noises(self):
        phi = representation("alexnet", layer="conv2", weights="random")
        found = invrep.invert((3, 64, 64), phi, objective=partial(Maximise, channels=7), restarts=2, steps=40)
        curve = [terms["activation"][0] for _, terms in found.history]
        assert found.reconstructions.shape == (1, 2, 3, 64, 64) and found.targets == []
        assert (curve[-1] > 3 * curve[0].abs() + 0.1).all(), curve
        mean = found.codes[0][0, :, 7].flatten(1).mean(1).double()
        torch.testing.assert_close(found.metrics["activation"][0], mean, rtol=1e-4, atol=1e-6)
        assert "psnr" not in found.metrics and "error" not in found.metrics


class TestCaricature(ObjectiveTests):
    def make(self, code: list[torch.Tensor]) -> torch.nn.Module:
        return Caricature(code)

    def test_is_the_product_with_the_photos_own_positive_code(self):
        photo, code = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
        w = photo.clamp(min=0)
        wanted = (w * code).flatten(1).sum(1) / w.flatten(1).square().sum(1)
        torch.testing.assert_close(Caricature([photo]).value([code]), wanted)
        torch.testing.assert_close(Caricature([photo], weight=2.0)([code]), -2 * wanted)
        torch.testing.assert_close(Caricature([photo]).value([photo.clamp(min=0)]), torch.ones(2))
        part = Caricature([photo[:, 1:2]]).value([code[:, 1:2]])
        torch.testing.assert_close(Caricature([photo], channels=1).value([code]), part)
        assert Caricature([-photo.abs()]).value([code]).tolist() == [0, 0]

    def test_starts_at_the_photo_and_raises_its_code(self, photo):
        phi = representation("alexnet", layer="relu2", weights="random")
        found = invrep.invert(photo, phi, objective="caricature", steps=30, log_every=10)
        first, last = (float(found.history[k][1]["activation"]) for k in (0, -1))
        assert first == pytest.approx(1, rel=1e-5) and last > 1.1
        (code,) = found.codes
        product = (code[0] * found.targets[0]).sum() / found.targets[0].square().sum()
        assert float(found.metrics["activation"]) == pytest.approx(float(product), rel=1e-4)
        with pytest.raises(InvrepError, match="needs images"):
            invrep.invert((3, 64, 64), phi, objective="caricature")


class TestMatchFile(ObjectiveTests):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.place = tmp_path

    def save(self, name: str, *parts: torch.Tensor) -> str:
        path = self.place / name
        save_code(path, parts, (48, 64))
        return str(path)

    def make(self, code: list[torch.Tensor]) -> torch.nn.Module:
        return MatchFile(code, path=self.save("a.safetensors", *(torch.ones_like(p[0]).cumsum(0) for p in code)))

    def test_equals_a_match_of_the_code_in_the_file(self):
        target = [torch.randn(2, 3, 4, 4), torch.randn(2, 5)]
        code = [torch.randn(2, 3, 4, 4), torch.randn(2, 5)]
        path = self.save("a.safetensors", *(part[0] for part in target))
        for options in ({}, {"region": "2x2", "weight": 3.0}):
            some = slice(0, 1) if options else slice(None)
            wanted = Match([part[[0, 0]] for part in target[some]], **options)(code[some])
            path = self.save("a.safetensors", *(part[0] for part in target[some]))
            torch.testing.assert_close(MatchFile(code[some], path=path, **options)(code[some]), wanted)

    def test_several_are_averaged_and_channels_are_zeroed(self):
        a, b, code = torch.randn(6, 4, 4), torch.randn(6, 4, 4), torch.randn(1, 6, 4, 4)
        paths = [self.save("a.safetensors", a), self.save("b.safetensors", b)]
        mean = (a + b)[None] / 2
        torch.testing.assert_close(MatchFile([code], path=paths).target[0], mean)
        zeroed = mean.clone()
        zeroed[:, [1, 4, 5]] = 0
        objective = MatchFile([code], path=paths, zero_channels=[1, "4:6"])
        torch.testing.assert_close(objective.target[0], zeroed)
        torch.testing.assert_close(objective([code]), Match([zeroed])([code]))

    def test_wrong_files(self):
        code = [torch.zeros(1, 3, 4, 4)]
        path = self.save("a.safetensors", torch.zeros(3, 6, 8))
        with pytest.raises(UnfitError, match=r"shape 3×6×8, but .* has 3×4×4; its image had the size \[48,64\]"):
            MatchFile(code, path=path)
        path = self.save("a.safetensors", torch.zeros(3, 4, 4))
        for wrong, message in (
            ({"path": str(self.place / "none")}, "There is no code file"),
            ({"path": []}, "objective.path is empty"),
            ({"path": path, "zero_channels": 3}, "objective.zero_channels=3 does not fit a code of 3 channels"),
        ):
            with pytest.raises(InvrepError, match=message):
                MatchFile(code, **wrong)
        (self.place / "text").write_text("no code")
        with pytest.raises(InvrepError, match="cannot be read"):
            MatchFile(code, path=self.place / "text")
        save_file({"weight": torch.zeros(2)}, self.place / "weights")
        with pytest.raises(InvrepError, match="holds weight; expected the tensors part0"):
            MatchFile(code, path=self.place / "weights")


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        ("caffenet", {"relu1": 300, "norm2": 300, "relu3": 300, "conv4": 100, "relu4": 100, "relu5": 20, "pool5": 1}),
        ("vgg_m", {"relu3": 300, "relu4": 100, "relu5": 20, "pool5": 1, "fc8": 1}),
        (
            "vgg_vd_16",
            {"relu4_3": 300, "pool4": 100, "relu5_1": 100, "conv5_2": 20, "relu5_3": 20, "pool5": 1, "fc6": 1},
        ),
    ],
)
def test_the_ijcv_weight_of_the_data_follows_the_depth(network, layers):
    for layer, weight in layers.items():
        phi = invrep.representation(network, layer=layer, weights="random")
        assert data_weight(phi.receptive_field, phi.stride) == weight, layer
