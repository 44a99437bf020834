import pytest
import torch

from invrep.objectives import Match


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

    def test_a_mask_hides_the_rest_from_loss_and_normaliser(self):
        target, code = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
        mask = torch.zeros(4, 1, 1)
        mask[:2] = 1
        torch.testing.assert_close(Match([target], masks=[mask])([code]), Match([target[:, :2]])([code[:, :2]]))

    def test_parts_are_weighted_relative_to_their_sum(self):
        target = [torch.randn(2, 3), torch.randn(2, 5)]
        code = [torch.randn(2, 3), torch.randn(2, 5)]
        alone = [Match([t])([c]) for t, c in zip(target, code, strict=True)]
        torch.testing.assert_close(Match(target, weights=[3, 1])(code), 0.75 * alone[0] + 0.25 * alone[1])

    def test_a_zero_code_is_normalised_by_one(self):
        assert Match([torch.zeros(1, 3)])([torch.ones(1, 3)]).tolist() == [3.0]
