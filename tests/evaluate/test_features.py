"""Features load from what a user has on disk, and see the image as their network does."""

from unittest import mock

import numpy as np
import pytest
import torch

from dataengine.errors import UserError
from dataengine.evaluate.features import BATCH_SIZE, CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, load_features

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


def random_images(n=3, side=28, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8))


def pixels(images, mean, std):
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip-toy")
    config = CLIPVisionConfig(**SMALL, intermediate_size=32, projection_dim=12)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dinov2_folder(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dinov2-toy")
    Dinov2Model(Dinov2Config(**SMALL)).save_pretrained(folder)
    return folder


def test_clip_gives_its_projected_image_embeddings(clip_folder):
    from transformers import CLIPVisionModelWithProjection

    features = load_features(f"clip:{clip_folder}")
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder).eval()
    with torch.no_grad():
        expected = model(pixels(random_images(), CLIP_MEAN, CLIP_STD)).image_embeds
    assert features.kind == "clip"
    assert "CLIP" in features.name
    assert "12 numbers" in features.name
    assert features.embed(random_images()) == pytest.approx(expected.numpy(), abs=1e-5)


def test_dinov2_gives_its_class_token(dinov2_folder):
    from transformers import Dinov2Model

    features = load_features(f"dinov2:{dinov2_folder}")
    model = Dinov2Model.from_pretrained(dinov2_folder).eval()
    with torch.no_grad():
        expected = model(pixels(random_images(), IMAGENET_MEAN, IMAGENET_STD)).pooler_output
    assert features.embed(random_images()) == pytest.approx(expected.numpy(), abs=1e-5)


def test_imagenet_features_are_what_the_networks_classifier_reads():
    from dataengine.imagenet import ImageNetEmbedding

    features = load_features("lite2")
    images = random_images(2, 260)
    x = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) - 127.0) / 128.0
    network = ImageNetEmbedding("lite2").network
    read = []
    network._fc.register_forward_hook(lambda module, given, result: read.append(given[0]))
    with torch.no_grad():
        network(x)
    assert features.embed(images) == pytest.approx(read[0].numpy(), abs=1e-4)
    assert "Lite2" in features.name


def test_the_packaged_encoder_needs_nothing_else_and_its_grid_says_what_lies_where():
    (image,) = random_images(1, 64)
    image[:, :32] = 0
    whole, parts = (load_features(source).embed([image, image[:, ::-1]]) for source in ("encoder", "encoder-grid"))
    assert whole.shape == (2, 96)
    assert parts.reshape(2, 16, 96).mean(1) == pytest.approx(whole, abs=1e-4)
    assert np.abs(parts[0] - parts[1]).mean() > 2 * np.abs(whole[0] - whole[1]).mean()


@pytest.mark.parametrize("source", ["lite0", "encoder"])
def test_an_embedding_depends_on_its_image_only(source):
    features = load_features(source)
    images = random_images(BATCH_SIZE + 3, 64)
    together = features.embed(images)
    alone = np.concatenate([features.embed([image]) for image in images[-4:]])
    assert together[-4:] == pytest.approx(alone, abs=1e-3)
    assert not np.allclose(together[0], together[1], atol=1e-2)


@pytest.mark.parametrize(
    ("source", "says"),
    [("oil", "lite2"), ("clip", "FOLDER"), ("clip:nowhere", "nowhere does not exist"), ("lite9", "lite9")],
)
def test_unknown_features_are_refused_by_name(source, says):
    with pytest.raises(UserError, match=says):
        load_features(source)


def test_a_folder_of_another_model_is_refused(clip_folder, dinov2_folder, tmp_path):
    for folder in (tmp_path, dinov2_folder):
        with pytest.raises(UserError, match="CLIPVisionModelWithProjection"):
            load_features(f"clip:{folder}")
    with pytest.raises(UserError, match="Dinov2Model"):
        load_features(f"dinov2:{clip_folder}")


def test_inception_says_what_it_needs_or_loads_a_file_of_its_weights(tmp_path):
    file = tmp_path / "weights.pth"
    torch.save({"nothing": torch.zeros(1)}, file)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        with pytest.raises(UserError, match=r"pip install 'aerial-dataengine\[inception\]'"):
            load_features(f"inception:{file}")
        return
    with pytest.raises(UserError, match="no weights of FID's Inception"):
        load_features(f"inception:{file}")
    torch.manual_seed(0)
    torch.save(_fresh_state(FeatureExtractorInceptionV3), file)
    features = load_features(f"inception:{file}")
    assert features.kind == "inception"
    assert features.embed(random_images(2, 40)).shape == (2, 2048)


def _fresh_state(network):
    """State of a network with random weights; its constructor insists on loading a file."""
    with mock.patch.object(network, "load_state_dict"), mock.patch.object(torch, "load", return_value={}):
        return network("inception-v3-compat", ["2048"], feature_extractor_weights_path=__file__).state_dict()
