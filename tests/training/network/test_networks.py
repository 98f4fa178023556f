import torch
from torch.nn import functional

from taxon.training.network.networks import Airbench

PICTURES = torch.randn(200, 3, 20, 20, generator=torch.Generator().manual_seed(0)).cumsum(dim=3)


class TestAirbench:
    def test_decorrelates_the_pixels_of_neighbouring_positions(self):
        network = Airbench(10)
        network.decorrelate(PICTURES)
        maps = functional.conv2d(PICTURES, network.filters[:12]).transpose(0, 1).flatten(1)
        covariance = maps @ maps.T / maps.shape[1]
        torch.testing.assert_close(covariance, torch.eye(12), atol=0.02, rtol=0.0)

    def test_its_filters_are_part_of_the_state_and_never_train(self):
        network = Airbench(10)
        network.decorrelate(PICTURES)
        before = network.filters.clone()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        network(PICTURES[:4]).square().sum().backward()
        optimizer.step()
        assert torch.equal(network.filters, before)
        assert "filters" in network.state_dict()
        assert network.filter_bias.grad is not None

    def test_starts_each_convolution_as_the_identity_of_what_it_takes(self):
        first = Airbench(10).features[1][0].weight
        assert torch.equal(first[:64], torch.nn.init.dirac_(torch.empty(64, 64, 3, 3)))
        assert first[64:].abs().sum() > 0

    def test_mirrored_answers_a_picture_and_its_mirror_image_alike_outside_training(self):
        network = Airbench(10, mirrored=True).eval()
        plain = Airbench(10).eval()
        plain.load_state_dict(network.state_dict())
        one_way, other_way = plain(PICTURES[:4]), plain(PICTURES[:4].flip(3))
        assert not torch.allclose(one_way, other_way)
        torch.testing.assert_close(network(PICTURES[:4]), 0.5 * (one_way + other_way))
        torch.testing.assert_close(network(PICTURES[:4]), network(PICTURES[:4].flip(3)))
        torch.testing.assert_close(network.train()(PICTURES[:4]), plain.train()(PICTURES[:4]))
