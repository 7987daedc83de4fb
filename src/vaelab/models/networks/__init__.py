"""Encoder and decoder networks, one file per architecture family.

An encoder is built as ``Encoder(image_shape=(C, H, W), ...)``, maps images (B, C, H, W) to features
(B, ``out_features``), and says how many there are. A decoder is built as ``Decoder(in_features=D,
image_shape=(C, H, W), ...)`` and maps latents (B, D) to outputs (B, C, H, W). Both work for every image size and
every number of features; neither knows what its outputs mean: the posterior and the likelihood do.
"""
