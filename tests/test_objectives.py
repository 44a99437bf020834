import pytest
import torch

import invrep
from invrep.errors import InvrepError
from invrep.objectives import Match, data_weight


class ObjectiveTests:
    """What holds for every objective: one number per image, which no neighbour changes."""

    def make(self, code: list[torch.Tensor]) -> torch.nn.Module:
        raise NotImplementedError

    def test_an_image_does_not_depend_on_its_neighbours(self):
        target, code = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
        code[1] = float("nan")
        value = self.make([target])([code])
        order = [2, 1, 0]
        permuted = self.make([target[order]])([code[order]])
        assert value.shape == (3,)
        assert torch.equal(value[[0, 2]], permuted[[2, 0]]) and value[[0, 2]].isfinite().all()

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
        assert Match([target], weight=20.0).error([code]).tolist() == pytest.approx(wanted, rel=1e-5)

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
        objective = Match([turned[0]], channel_axes=[axis], **options)
        torch.testing.assert_close(objective([turned[1]]), wanted)
        norm = target[:, *seen].flatten(1).square().sum(1)
        torch.testing.assert_close(objective.totals([turned[1]]), (wanted * norm, norm))

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
        torch.testing.assert_close(Match(target, weights=[3, 1])(code), 0.75 * alone[0] + 0.25 * alone[1])

    def test_a_zero_code_is_normalised_by_one(self):
        assert Match([torch.zeros(1, 3)])([torch.ones(1, 3)]).tolist() == [3.0]


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
